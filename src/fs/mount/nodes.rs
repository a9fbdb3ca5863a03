//! What the kernel knows by number: inode to the names it was seen under.
//!
//! A node id is the inode number underneath (the root is 1), so that `st_ino` survives a remount. Paths are put together at
//! use, from the names; a name that no longer leads to its inode is found out by whoever opens it, who answers `ESTALE`, and
//! the kernel looks up again. The kernel's generation number tells a reused inode number from the file that had it before.

use crate::fs::ignore::never_synced;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::attrs::Birth;

/// The node id of the root.
pub const ROOT: u64 = 1;

/// More components than any path the kernel would walk; ends a walk through names gone stale in a circle.
const DEEPEST: usize = 2500;

/// A directory entry: inode number of the directory underneath, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Inode number underneath of the directory.
    pub dir: u64,
    /// The name.
    pub name: Vec<u8>,
}

#[derive(Debug)]
struct Node {
    generation: u64,
    birth: Birth,
    directory: bool,
    names: Vec<Entry>,
    /// References the kernel holds.
    lookups: u64,
    /// Open handles; their number keeps the inode from being reused, and a save's name from being forgotten.
    pins: u64,
    /// The last link was removed: whoever has this number next is another file.
    gone: bool,
    /// What was removed while the kernel knows it, by a descriptor that only names it.
    removed: Option<OwnedFd>,
    /// Change time at the last opening, when pages may have been cached.
    opened: Option<(i64, u32)>,
}

/// The table. Inode numbers in it are those underneath, never node ids.
#[derive(Debug)]
pub struct Nodes {
    root: u64,
    known: HashMap<u64, Node>,
    generation: u64,
}

/// The node id of an inode number where the root's is `root`, and the other way round.
pub fn id_of(root: u64, ino: u64) -> u64 {
    if ino == root {
        ROOT
    } else if ino == ROOT {
        root
    } else {
        ino
    }
}

impl Nodes {
    /// A table that knows only the root, by its inode number underneath.
    pub fn new(root: u64) -> Self {
        Self { root, known: HashMap::new(), generation: 0 }
    }

    /// The node id of an inode number. One-to-one: should a file underneath have the number 1, it gets the root's.
    pub fn id_of(&self, ino: u64) -> u64 {
        id_of(self.root, ino)
    }

    /// The inode number of a node id.
    pub fn ino_of(&self, id: u64) -> u64 {
        id_of(self.root, id)
    }

    /// The kernel is told of an inode under a name. Returns the generation to tell it.
    pub fn learned(&mut self, ino: u64, birth: Birth, directory: bool, at: Entry) -> u64 {
        if ino == self.root {
            return 0;
        }
        self.generation += 1;
        let fresh = self.generation;
        let node = self.known.entry(ino).or_insert_with(|| Node {
            generation: fresh,
            birth,
            directory,
            names: Vec::new(),
            lookups: 0,
            pins: 0,
            gone: false,
            removed: None,
            opened: None,
        });
        let reused = node.gone || node.birth != birth || node.directory != directory;
        if reused && node.pins == 0 {
            node.generation = fresh;
            node.names.clear();
            node.removed = None;
            node.opened = None;
        }
        node.gone = false;
        node.birth = birth;
        node.directory = directory;
        node.lookups += 1;
        add_name(node, at);
        node.generation
    }

    /// The kernel drops references. Gives back what was kept and is not needed any more, to be closed while nothing is held.
    #[must_use]
    pub fn forget(&mut self, ino: u64, count: u64) -> Option<OwnedFd> {
        let node = self.known.get_mut(&ino)?;
        node.lookups = node.lookups.saturating_sub(count);
        self.drop_if_unused(ino)
    }

    /// A handle is open on the inode.
    pub fn pin(&mut self, ino: u64) {
        if let Some(node) = self.known.get_mut(&ino) {
            node.pins += 1;
        }
    }

    /// A handle was closed. Gives back as [`Nodes::forget`] does.
    #[must_use]
    pub fn unpin(&mut self, ino: u64) -> Option<OwnedFd> {
        let node = self.known.get_mut(&ino)?;
        node.pins = node.pins.saturating_sub(1);
        self.drop_if_unused(ino)
    }

    /// Remembers the change time of a file that is opened. Whether it is the one of the opening before, so that what the
    /// kernel cached still stands.
    pub fn unchanged_since_open(&mut self, ino: u64, changed: Option<(i64, u32)>) -> bool {
        let Some(node) = self.known.get_mut(&ino) else { return false };
        changed.is_some() && std::mem::replace(&mut node.opened, changed) == changed
    }

    fn drop_if_unused(&mut self, ino: u64) -> Option<OwnedFd> {
        if self.known.get(&ino).is_some_and(|node| node.lookups == 0 && node.pins == 0) {
            return self.known.remove(&ino)?.removed;
        }
        None
    }

    /// The inode has one name more.
    pub fn named(&mut self, ino: u64, at: Entry) {
        if let Some(node) = self.known.get_mut(&ino) {
            add_name(node, at);
        }
    }

    /// The inode lost a name, and with `last` its last one.
    pub fn unnamed(&mut self, ino: u64, at: &Entry, last: bool) {
        if let Some(node) = self.known.get_mut(&ino) {
            node.names.retain(|known| known != at);
            node.gone |= last;
        }
    }

    /// Forgets everything and closes what it held.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// Keeps what was removed for as long as the kernel knows it: a directory is still in use by whoever is in it, and the number of a
    /// file must not go to another one while an opening of it may be under way, which would reach that other file. Gives back
    /// what is not kept: closing a file's last descriptor may take long, and is not to be done while anything is held.
    pub fn keep_removed(&mut self, ino: u64, removed: OwnedFd) -> Option<OwnedFd> {
        match self.known.get_mut(&ino).filter(|node| node.directory || node.gone) {
            Some(node) => node.removed.replace(removed),
            None => Some(removed),
        }
    }

    /// A directory that was removed and is still in use.
    pub fn removed(&self, ino: u64) -> Option<&OwnedFd> {
        self.known.get(&ino).filter(|node| node.directory)?.removed.as_ref()
    }

    /// The names an inode is known under, newest last.
    pub fn names(&self, ino: u64) -> &[Entry] {
        self.known.get(&ino).map_or(&[], |node| &node.names)
    }

    /// Whether what is written to an inode may have to travel: not if it has no name any more, or only names that stay here.
    pub fn may_travel(&self, ino: u64) -> bool {
        let stays = |node: &Node| node.gone || !node.names.is_empty() && node.names.iter().all(|at| never_synced(&at.name));
        !self.known.get(&ino).is_some_and(stays)
    }

    /// The names of the directories that lead from the root to a directory, outermost first.
    pub fn chain(&self, dir: u64) -> Option<Vec<&[u8]>> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != self.root {
            let entry = self.known.get(&at)?.names.last()?;
            names.push(entry.name.as_slice());
            at = entry.dir;
            if names.len() > DEEPEST {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }
}

/// A directory has one name, a file as many as links were seen.
fn add_name(node: &mut Node, at: Entry) {
    if node.directory {
        node.names.clear();
    } else {
        node.names.retain(|known| *known != at);
    }
    node.names.push(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(dir: u64, name: &str) -> Entry {
        Entry { dir, name: name.into() }
    }

    /// A reused number gets a new generation, unless an open handle proves that it is the same file.
    #[test]
    fn a_reused_number_is_another_file() {
        let mut nodes = Nodes::new(2);
        let first = nodes.learned(9, Some((1, 0)), false, at(2, "a"));
        assert_eq!(nodes.learned(9, Some((1, 0)), false, at(2, "b")), first);
        assert_ne!(nodes.learned(9, Some((5, 0)), false, at(2, "c")), first);
        assert_eq!(nodes.names(9), [at(2, "c")]);

        let now = nodes.learned(9, Some((5, 0)), false, at(2, "c"));
        nodes.unnamed(9, &at(2, "c"), true);
        assert_ne!(nodes.learned(9, Some((5, 0)), false, at(2, "d")), now);

        let now = nodes.learned(9, Some((5, 0)), false, at(2, "d"));
        nodes.pin(9);
        nodes.unnamed(9, &at(2, "d"), true);
        assert_eq!(nodes.learned(9, Some((5, 0)), false, at(2, "e")), now);
    }

    /// What the kernel forgot is dropped, but not while a handle is open: its save must keep its name.
    #[test]
    fn an_open_file_keeps_its_name() {
        let mut nodes = Nodes::new(2);
        nodes.learned(9, None, false, at(2, "a"));
        nodes.pin(9);
        assert!(nodes.forget(9, 1).is_none());
        assert_eq!(nodes.names(9), [at(2, "a")]);
        assert!(nodes.unpin(9).is_none());
        assert!(nodes.names(9).is_empty());
    }

    /// An editor keeps its swap file open, a program what it has deleted: neither will ever be sent.
    #[test]
    fn what_stays_here_does_not_travel() {
        let mut nodes = Nodes::new(2);
        for (ino, name) in [(7, ".f.txt.swp"), (8, "f.txt"), (9, "deleted")] {
            nodes.learned(ino, None, false, at(2, name));
        }
        nodes.unnamed(9, &at(2, "deleted"), true);
        assert_eq!([7, 8, 9, 99].map(|ino| nodes.may_travel(ino)), [false, true, false, true]);
        nodes.named(7, at(2, "g.txt"));
        assert!(nodes.may_travel(7));
    }

    /// Directories lead to the root by their newest name; a circle of stale names ends.
    #[test]
    fn chains_end() {
        let mut nodes = Nodes::new(2);
        nodes.learned(3, None, true, at(2, "old"));
        nodes.learned(3, None, true, at(2, "d"));
        nodes.learned(4, None, true, at(3, "e"));
        assert_eq!(nodes.chain(4), Some(vec![&b"d"[..], b"e"]));
        assert_eq!(nodes.chain(2), Some(Vec::new()));
        assert_eq!(nodes.chain(77), None);
        nodes.named(3, at(4, "loop"));
        assert_eq!(nodes.chain(4), None);
    }

    /// The root's number and 1 change places.
    #[test]
    fn the_root_is_one() {
        let nodes = Nodes::new(77);
        assert_eq!([nodes.id_of(77), nodes.id_of(1), nodes.id_of(5)], [1, 77, 5]);
        assert_eq!([nodes.ino_of(1), nodes.ino_of(77), nodes.ino_of(5)], [77, 1, 5]);
    }
}
