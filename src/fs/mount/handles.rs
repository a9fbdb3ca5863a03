//! Open files: the kernel's handle number to the descriptor underneath.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open file. Its descriptor is closed when the last request that uses it has ended.
#[derive(Debug)]
pub struct Handle {
    /// The file underneath.
    pub fd: OwnedFd,
    /// Its inode number.
    pub ino: u64,
    /// Counted as a writer at the gate.
    pub writes: bool,
}

/// The table.
#[derive(Debug, Default)]
pub struct Handles {
    open: HashMap<u64, Arc<Handle>>,
    of_inode: HashMap<u64, Vec<u64>>,
    last: u64,
}

impl Handles {
    /// Keeps a handle under a new number.
    pub fn insert(&mut self, handle: Handle) -> u64 {
        self.last += 1;
        self.of_inode.entry(handle.ino).or_default().push(self.last);
        self.open.insert(self.last, Arc::new(handle));
        self.last
    }

    /// The handle of a number.
    pub fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.get(&number).cloned()
    }

    /// Some handle open on an inode: what still reaches a file without a name.
    pub fn any_on(&self, ino: u64) -> Option<Arc<Handle>> {
        self.get(*self.of_inode.get(&ino)?.last()?)
    }

    /// Gives a handle up.
    pub fn remove(&mut self, number: u64) -> Option<Arc<Handle>> {
        let handle = self.open.remove(&number)?;
        if let Some(numbers) = self.of_inode.get_mut(&handle.ino) {
            numbers.retain(|&known| known != number);
            if numbers.is_empty() {
                self.of_inode.remove(&handle.ino);
            }
        }
        Some(handle)
    }
}
