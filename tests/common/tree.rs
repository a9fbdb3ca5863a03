//! Directory trees as the tests write and compare them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

/// What must be equal on all replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Dir {
        mode: u32,
    },
    /// `mtime` in seconds and nanoseconds.
    File {
        mode: u32,
        mtime: (i64, i64),
        bytes: Vec<u8>,
    },
    Symlink {
        target: PathBuf,
    },
}

/// A tree by relative paths.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// What must stay when nothing happens: inode and modification time of every entry.
pub type Prints = BTreeMap<PathBuf, (u64, i64, i64)>;

/// The tree below `root`, without the client's own state directory.
#[track_caller]
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut |path, meta| {
        let mode = meta.mode() & 0o777;
        let entry = if meta.is_dir() {
            Entry::Dir { mode }
        } else if meta.is_symlink() {
            Entry::Symlink {
                target: fs::read_link(root.join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            }
        } else {
            let bytes = fs::read(root.join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Entry::File { mode, mtime: (meta.mtime(), meta.mtime_nsec()), bytes }
        };
        tree.insert(path.to_owned(), entry);
    });
    tree
}

/// The inodes and modification times below `root`.
#[track_caller]
pub fn prints(root: &Path) -> Prints {
    let mut prints = Prints::new();
    walk(root, root, &mut |path, meta| {
        prints.insert(path.to_owned(), (meta.ino(), meta.mtime(), meta.mtime_nsec()));
    });
    prints
}

/// The names directly in `root`, in order, without the client's own state directory.
#[track_caller]
pub fn tops(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let names = entries.map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", root.display())).file_name());
    let mut names: Vec<String> = names.map(|name| name.display().to_string()).filter(|name| name != ".syncfs").collect();
    names.sort();
    names
}

fn walk(root: &Path, folder: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        let relative = path.strip_prefix(root).expect("below the root");
        if relative == Path::new(".syncfs") {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        visit(relative, &meta);
        if meta.is_dir() {
            walk(root, &path, visit);
        }
    }
}

/// A directory `tag` with one of everything: text, nothing, binary of several chunks, a deep file, a program, symlinks, and odd names.
pub fn add(root: &Path, tag: &str) {
    let top = root.join(tag);
    let deep = top.join("deep/er/and deeper");
    fs::create_dir_all(&deep).expect("new directories");
    let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    write(top.join("text.txt"), format!("hello from {tag}\nand a second line\n").as_bytes());
    write(top.join("empty"), b"");
    write(top.join("binary"), &noise(tag, 700_000));
    write(deep.join("note.md"), format!("# {tag}\n").as_bytes());
    write(top.join("run.sh"), b"#!/bin/sh\nexit 0\n");
    fs::set_permissions(top.join("run.sh"), Permissions::from_mode(0o755)).expect("chmod");
    write(top.join(OsStr::from_bytes(b"odd \n \xff\xfe name")), tag.as_bytes());
    symlink("text.txt", top.join("link")).expect("a symlink");
    symlink("/nowhere/at/all", top.join("dangling")).expect("a symlink");
}

/// Takes away what [`add`] made.
pub fn remove(root: &Path, tag: &str) {
    fs::remove_dir_all(root.join(tag)).unwrap_or_else(|error| panic!("{tag}: {error}"));
}

/// Bytes that do not compress, the same for the same `tag`.
fn noise(tag: &str, len: usize) -> Vec<u8> {
    let mut state =
        tag.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}
