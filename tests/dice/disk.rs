//! A directory tree in memory with inodes, times and a staging place: what a client's hands work on.

use std::collections::BTreeMap;
use syncfs::merge::replica::Look;
use syncfs::model::Attrs;
use syncfs::model::Content;
use syncfs::model::Fingerprint;
use syncfs::model::Kind;
use syncfs::model::Mtime;
use syncfs::model::Name;

pub const ROOT: u64 = 1;
pub const LIMBO: u64 = 2;

#[derive(Debug, Clone)]
pub struct Inode {
    pub kind: Kind,
    pub bytes: Vec<u8>,
    pub attrs: Attrs,
    pub ctime: u64,
    pub entries: BTreeMap<Name, u64>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub inodes: BTreeMap<u64, Inode>,
    clock: u64,
    next: u64,
    free: Vec<u64>,
}

impl Disk {
    pub fn new() -> Self {
        let dir = Inode {
            kind: Kind::Dir,
            bytes: Vec::new(),
            attrs: Attrs { mode: 0o755, mtime: Mtime::default() },
            ctime: 0,
            entries: BTreeMap::new(),
        };
        Self { inodes: BTreeMap::from([(ROOT, dir.clone()), (LIMBO, dir)]), clock: 1, next: 10, free: Vec::new() }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub fn child(&self, dir: u64, name: &Name) -> Option<u64> {
        self.inodes.get(&dir)?.entries.get(name).copied()
    }

    /// The inode at a path from the root.
    pub fn at(&self, path: &[Name]) -> Option<u64> {
        path.iter().try_fold(ROOT, |dir, name| self.child(dir, name))
    }

    pub fn make(&mut self, dir: u64, name: &Name, kind: Kind, bytes: Vec<u8>, attrs: Option<Attrs>) -> u64 {
        // Inode numbers are used again, as on a real disk.
        let ino = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let now = self.tick();
        let mtime = Mtime { secs: now as i64, nanos: 0 };
        let mode = if kind == Kind::Dir { 0o755 } else { 0o644 };
        let attrs = attrs.unwrap_or(Attrs::of(kind, mode, mtime));
        self.inodes.insert(ino, Inode { kind, bytes, attrs, ctime: now, entries: BTreeMap::new() });
        self.link(dir, name, ino);
        ino
    }

    fn link(&mut self, dir: u64, name: &Name, ino: u64) {
        if let Some(node) = self.inodes.get_mut(&dir) {
            node.entries.insert(name.clone(), ino);
        }
    }

    pub fn write(&mut self, ino: u64, bytes: Vec<u8>) {
        let now = self.tick();
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.bytes = bytes;
            node.attrs.mtime = Mtime { secs: now as i64, nanos: 0 };
            node.ctime = now;
        }
    }

    pub fn set_attrs(&mut self, ino: u64, attrs: Attrs) {
        let now = self.tick();
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.attrs = attrs;
            node.ctime = now;
        }
    }

    /// Takes a whole subtree away.
    pub fn remove(&mut self, dir: u64, name: &Name) {
        let Some(ino) = self.inodes.get_mut(&dir).and_then(|node| node.entries.remove(name)) else { return };
        self.drop_inode(ino);
    }

    fn drop_inode(&mut self, ino: u64) {
        if let Some(node) = self.inodes.remove(&ino) {
            self.free.push(ino);
            for child in node.entries.into_values() {
                self.drop_inode(child);
            }
        }
    }

    /// Renames over whatever is there.
    pub fn rename(&mut self, from: u64, name: &Name, to: u64, new: &Name) {
        let Some(ino) = self.child(from, name) else { return };
        if (from, name) == (to, new) {
            return;
        }
        self.remove(to, new);
        if let Some(node) = self.inodes.get_mut(&from) {
            node.entries.remove(name);
        }
        self.link(to, new, ino);
        let now = self.tick();
        if let Some(node) = self.inodes.get_mut(&ino) {
            node.ctime = now;
        }
    }

    pub fn look(&self, ino: u64) -> Option<Look> {
        let node = self.inodes.get(&ino)?;
        let content = match node.kind {
            Kind::Dir => Content::Dir,
            Kind::File => Content::file(&node.bytes),
            Kind::Symlink => Content::Symlink { target: node.bytes.clone() },
        };
        Some(Look { kind: node.kind, content: Some(content), attrs: node.attrs, fingerprint: self.fingerprint(ino)? })
    }

    pub fn fingerprint(&self, ino: u64) -> Option<Fingerprint> {
        let node = self.inodes.get(&ino)?;
        let ctime = Mtime { secs: node.ctime as i64, nanos: 0 };
        Some(Fingerprint { dev: 1, ino, size: node.bytes.len() as u64, mtime: node.attrs.mtime, ctime })
    }

    /// Every path below the root, directories before what is in them.
    pub fn walk(&self) -> Vec<(Vec<Name>, u64)> {
        let mut out = Vec::new();
        let mut stack = vec![(Vec::new(), ROOT)];
        while let Some((path, ino)) = stack.pop() {
            for (name, child) in &self.inodes[&ino].entries {
                let path: Vec<Name> = path.iter().cloned().chain([name.clone()]).collect();
                stack.push((path.clone(), *child));
                out.push((path, *child));
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    pub fn is_below(&self, dir: u64, of: u64) -> bool {
        dir == of || self.inodes.get(&of).is_some_and(|node| node.entries.values().any(|child| self.is_below(dir, *child)))
    }
}
