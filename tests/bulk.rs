//! Much at once, with a real hub, two real mounts and QUIC between them: a tree of a thousand files of every kind, and a large directory
//! that is renamed.

mod common;

use common::World;
use common::tree;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::utimensat;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

/// How long much work may take. No statement about speed.
const LONG: Duration = Duration::from_secs(300);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The sizes that come once, around every limit there may be: the first and last byte of a page, of a chunk, of what travels whole.
const SIZES: [usize; 22] = [
    100 * MIB,
    17 * MIB + 1,
    8 * MIB + 1,
    8 * MIB,
    5 * MIB - 3,
    3 * MIB,
    MIB + 1,
    MIB,
    MIB - 1,
    700_001,
    512 * KIB,
    256 * KIB + 1,
    256 * KIB,
    256 * KIB - 1,
    128 * KIB,
    64 * KIB + 1,
    64 * KIB,
    16 * KIB,
    4_097,
    4_096,
    4_095,
    1,
];
const FILES: usize = 1_000;
const MODES: [u32; 8] = [0o644, 0o600, 0o755, 0o700, 0o444, 0o664, 0o777, 0o511];

/// A small generator of numbers with a fixed start: every run writes the same tree.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// Bytes that do not compress.
    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.roll().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Lines of words, in more than ASCII.
    fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["one", "zwei", "größer", "三", "quatre ", "\n", "\r\n", "🦀\t"];
        let mut text = String::with_capacity(len + 8);
        while text.len() < len {
            text.push_str(WORDS[self.below(WORDS.len())]);
            text.push(' ');
        }
        // A word may be cut: then it is not UTF-8, which is a case as well.
        text.into_bytes()[..len].to_vec()
    }

    fn mtime(&mut self, at: usize) -> SystemTime {
        let nanos = Duration::from_nanos(self.roll() % 1_000_000_000);
        match at % 8 {
            // Before 1970, at its first second, and beyond 32 bits.
            0 => SystemTime::UNIX_EPOCH - Duration::from_secs(self.roll() % 1_000_000_000) + nanos,
            1 => SystemTime::UNIX_EPOCH,
            2 => SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000) + nanos,
            3 => SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 999_999_999),
            4 => SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 1),
            _ => SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.roll() % 700_000_000) + nanos,
        }
    }
}

/// A name that is free because of its number.
fn name(at: usize) -> OsString {
    let bytes = match at % 10 {
        0 => format!("with some  blanks {at} ").into_bytes(),
        1 => format!("new\nline {at}\n").into_bytes(),
        2 => [b"not utf-8 \xff\xfe\x80 ", at.to_string().as_bytes()].concat(),
        3 => format!("{at:x<255}").into_bytes(),
        4 => format!("größe-三-🦀-{at}.md").into_bytes(),
        5 => format!("-{at}\\\"'$*?%41~").into_bytes(),
        6 => [at.to_string().as_bytes(), &[0x01, 0x7f, 0xc3]].concat(),
        7 => format!(".hidden {at}").into_bytes(),
        8 => format!("{at}.TXT").into_bytes(),
        _ => format!("{at}.bin").into_bytes(),
    };
    OsString::from_vec(bytes)
}

/// Directories to put files into: flat, deep, odd, and with bits of their own.
fn dirs(root: &Path) -> Vec<PathBuf> {
    let deep: PathBuf = (0..40).map(|level| format!("level {level}")).collect();
    let odd = Path::new(OsStr::from_bytes(b"odd \n\xf0\x28 dir")).join(OsStr::new(&"d".repeat(255)));
    let dirs = [PathBuf::new(), "docs".into(), "docs/a b".into(), deep.iter().take(20).collect(), deep, odd, "shut".into()];
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| root.join(dir)).collect();
    for dir in &dirs {
        fs::create_dir_all(dir).expect("new directories");
    }
    fs::create_dir_all(root.join("empty/inside empty")).expect("new directories");
    fs::set_permissions(root.join("shut"), Permissions::from_mode(0o700)).expect("chmod");
    fs::set_permissions(root.join("docs"), Permissions::from_mode(0o775)).expect("chmod");
    dirs
}

/// Writes a thousand files and what else a tree may hold.
fn write_all(root: &Path) {
    let mut dice = Dice(0x5eed_0000_0001);
    let dirs = dirs(root);
    for at in 0..FILES {
        let len = match (SIZES.get(at), at % 5) {
            (Some(len), _) => *len,
            (None, 0) => 0,
            (None, 1) => dice.below(64 * KIB),
            (None, 2) => dice.below(300),
            (None, _) => dice.below(8 * KIB),
        };
        let bytes = if at % 3 == 1 { dice.text(len) } else { dice.noise(len) };
        let path = dirs[at % dirs.len()].join(name(at));
        let mut file = File::create_new(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for part in bytes.chunks(MIB) {
            file.write_all(part).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        }
        file.set_permissions(Permissions::from_mode(MODES[at % MODES.len()])).expect("chmod");
        file.set_modified(dice.mtime(at)).expect("utimens");
    }
    let links: [(&str, &[u8]); 6] = [
        ("docs/to a file", b"../8.TXT"),
        ("docs/to a directory", b"a b"),
        ("docs/dangling", b"not/there/at all"),
        ("docs/absolute", b"/etc/hostname"),
        ("docs/absolute and dangling", b"/nowhere/\xff/at all"),
        ("docs/itself", b"itself"),
    ];
    for (link, target) in links {
        symlink(OsStr::from_bytes(target), root.join(link)).unwrap_or_else(|error| panic!("{link}: {error}"));
        let time = Timespec { tv_sec: 1_111_111_111, tv_nsec: target.len() as i64 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, root.join(link), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap_or_else(|error| panic!("{link}: {error}"));
    }
}

/// A thousand files of every size and name, deep directories and symlinks written through one mount arrive through the other one, bit for
/// bit, with modes and times to the nanosecond; hub and clients have one root hash.
#[test]
fn a_thousand_files_arrive_bit_for_bit() {
    let mut world = World::new();
    write_all(&world.c1.dir);
    let written = tree::read(&world.c1.dir);
    let files = written.values().filter(|entry| matches!(entry, tree::Entry::File { .. })).count();
    assert_eq!(files, FILES);
    world.settle_within(LONG);

    let arrived = tree::read(&world.c2.dir);
    let differs: Vec<_> = written.keys().chain(arrived.keys()).filter(|path| written.get(*path) != arrived.get(*path)).collect();
    assert!(differs.is_empty(), "not as written: {differs:?}");
    let links = |dir: &Path| -> Vec<(PathBuf, i64, i64)> {
        let prints = tree::prints(dir).into_iter();
        let links = prints.filter(|(path, _)| matches!(written.get(path), Some(tree::Entry::Symlink { .. })));
        links.map(|(path, (_, seconds, nanos))| (path, seconds, nanos)).collect()
    };
    let times = links(&world.c2.dir);
    assert_eq!(times.len(), 6);
    assert!(times.iter().all(|(_, seconds, nanos)| *seconds == 1_111_111_111 && *nanos > 0), "times of symlinks: {times:?}");
    assert_eq!(times, links(&world.c1.dir));
    let after = tree::read(&world.c1.dir);
    assert!(after == written, "the tree changed where it was written");
}

/// A directory with five thousand files below it that gets another name and another parent is one record on the hub; on the other side
/// every file keeps its inode and its times, and so does the directory.
#[test]
fn a_renamed_directory_is_one_record() {
    let mut world = World::new();
    let [from, to] = [&world.c1, &world.c2].map(|client| client.dir.clone());
    fs::create_dir_all(from.join("before/below/deeper")).expect("new directories");
    fs::create_dir(from.join("elsewhere")).expect("a new directory");
    for at in 0..5_000 {
        let dir = ["before", "before/below", "before/below/deeper"][at % 3];
        fs::write(from.join(dir).join(format!("file {at}")), at.to_string()).expect("a write through the mount");
    }
    world.settle_within(LONG);
    let seq = world.hub.seq();
    let all = |dir: PathBuf| (tree::prints(&dir), fs::symlink_metadata(&dir).expect("it is there").ino());
    let before = [&from, &to].map(|root| all(root.join("before")));
    assert_eq!(before[1].0.len(), 5_002);

    fs::rename(from.join("before"), from.join("elsewhere/after")).expect("a rename through the mount");
    world.settle_within(LONG);

    assert_eq!(world.hub.seq(), seq + 1, "records of the rename");
    for (root, (prints, ino)) in [&from, &to].into_iter().zip(before) {
        assert!(!root.join("before").exists(), "{}", root.display());
        let (prints_after, ino_after) = all(root.join("elsewhere/after"));
        assert_eq!(ino_after, ino, "the directory is another one");
        assert!(prints_after == prints, "inodes or modification times changed in {}", root.display());
    }
}
