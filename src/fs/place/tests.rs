use super::*;
use crate::fs::observe::LookKind;
use crate::fs::observe::Reading;
use crate::model::Hash;
use crate::model::Name;
use crate::model::NodeId;
use rustix::fs::XattrFlags;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

const ATTRS: Attrs = Attrs { mode: 0o640, mtime: Mtime { secs: 1_000_000_000, nanos: 123_456_789 } };

/// A root in a temporary directory, with its stage and placer.
struct World {
    at: PathBuf,
    root: Arc<Root>,
    stage: Arc<Stage>,
    placer: Placer,
}

impl World {
    fn at(at: &Path) -> Self {
        let root = Arc::new(Root::open(at).unwrap());
        let stage = Arc::new(Stage::open(&root).unwrap());
        Self { at: at.to_path_buf(), placer: Placer::new(root.clone(), stage.clone()), root, stage }
    }

    fn stage(&self, bytes: &[u8]) -> Hash {
        let mut writer = self.stage.writer(Hash::of(bytes), bytes.len() as u64).unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
        self.stage.sync(&[Hash::of(bytes)]).unwrap();
        Hash::of(bytes)
    }

    fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        self.at.join(path)
    }

    fn look(&self, at: &str) -> Look {
        self.root.look(&path(at)).unwrap().unwrap()
    }

    fn create(&mut self, at: &str, bytes: &[u8]) -> Result<Placed, PlaceError> {
        let hash = self.stage(bytes);
        self.placer.place(&Placement::CreateFile { path: path(at), hash, attrs: ATTRS, more: false })
    }

    fn replace(&mut self, at: &str, expected: Fingerprint, bytes: &[u8]) -> Result<Placed, PlaceError> {
        let hash = self.stage(bytes);
        self.placer.place(&Placement::ReplaceFile { path: path(at), expected, hash, attrs: ATTRS, more: false })
    }

    fn staged(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(".syncfs/stage")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn path(at: &str) -> RelPath {
    RelPath::from_bytes(at.as_bytes()).unwrap()
}

fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path());
    (dir, world)
}

/// A mount that ends with the test; `None` where the test may not mount.
struct Mounted(PathBuf);

impl Mounted {
    fn new(source: &Path, at: &Path, kind: &str, flags: MountFlags, data: &std::ffi::CStr) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        rustix::mount::mount(source, at, kind, flags, data).unwrap();
        Some(Self(at.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A created file has its bytes, bits and time at once, was consumed from the stage, and what is reported is what a look sees.
#[test]
fn a_file_is_created() {
    let (_dir, mut world) = world();
    world.placer.place(&Placement::CreateDir { path: path("d"), mode: 0o6750 }).unwrap();
    let placed = world.create("d/f", b"hello").unwrap();
    assert_eq!(std::fs::read(world.file("d/f")).unwrap(), b"hello");
    assert_eq!((placed.before, placed.now.unwrap()), (None, world.look("d/f")));
    assert_eq!(world.look("d/f").attrs, ATTRS);
    assert_eq!(std::fs::metadata(world.file("d")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(world.staged(), Vec::<String>::new());
    world.placer.sync_dirs().unwrap();
}

/// A set-id bit from another machine does not arrive.
#[test]
fn no_set_id_bits() {
    let (_dir, mut world) = world();
    let hash = world.stage(b"x");
    let attrs = Attrs { mode: 0o6755, ..ATTRS };
    world.placer.place(&Placement::CreateFile { path: path("f"), hash, attrs, more: false }).unwrap();
    assert_eq!(std::fs::metadata(world.file("f")).unwrap().mode() & 0o7777, 0o755);
}

/// A directory that its owner may not write in is made as such.
#[test]
fn a_read_only_directory_is_created() {
    let (_dir, mut world) = world();
    world.placer.place(&Placement::CreateDir { path: path("d"), mode: 0o555 }).unwrap();
    assert_eq!(world.look("d").attrs.mode, 0o555);
}

/// A name that is taken stays whose it is, for every kind of thing created, and the stage keeps the content.
#[test]
fn a_taken_name_is_not_touched() {
    let (_dir, mut world) = world();
    std::fs::write(world.file("f"), "mine").unwrap();
    let before = world.look("f");
    assert!(matches!(world.create("f", b"theirs"), Err(PlaceError::Exists)));
    let dir = Placement::CreateDir { path: path("f"), mode: 0o755 };
    assert!(matches!(world.placer.place(&dir), Err(PlaceError::Exists)));
    let link = Placement::CreateSymlink { path: path("f"), target: b"t".to_vec(), attrs: ATTRS };
    assert!(matches!(world.placer.place(&link), Err(PlaceError::Exists)));
    assert_eq!(world.look("f"), before);
    assert_eq!(world.staged(), [Hash::of(b"theirs").to_string()]);
    assert_eq!(std::fs::metadata(world.file(".syncfs/stage").join(&world.staged()[0])).unwrap().mode() & 0o777, 0o600);
}

/// One content at three places: all have it, each its own inode, and the stage is empty after the last.
#[test]
fn one_content_at_many_places() {
    let (_dir, mut world) = world();
    let hash = world.stage(b"same");
    for (at, more) in [("a", true), ("b", true), ("c", false)] {
        world.placer.place(&Placement::CreateFile { path: path(at), hash, attrs: ATTRS, more }).unwrap();
    }
    let inodes: BTreeSet<u64> = ["a", "b", "c"].iter().map(|at| world.look(at).fingerprint.ino).collect();
    assert_eq!(inodes.len(), 3);
    assert!(["a", "b", "c"].iter().all(|at| std::fs::read(world.file(at)).unwrap() == b"same"));
    assert_eq!(world.staged(), Vec::<String>::new());
    let again = Placement::CreateFile { path: path("d"), hash, attrs: ATTRS, more: false };
    assert!(matches!(world.placer.place(&again), Err(PlaceError::NotStaged)));
}

/// A replaced file has the new bytes and time, and keeps the user's attributes.
#[test]
fn a_file_is_replaced() {
    let (_dir, mut world) = world();
    let file = world.file("f");
    std::fs::write(&file, "old").unwrap();
    let kept = rustix::fs::setxattr(&file, "user.colour", b"red", XattrFlags::empty());
    let expected = world.look("f").fingerprint;
    let placed = world.replace("f", expected, b"new").unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert_eq!(placed.before.unwrap().fingerprint, expected);
    assert_eq!(placed.now.unwrap(), world.look("f"));
    if kept.is_ok() {
        let mut value = [0; 8];
        let len = rustix::fs::getxattr(&file, "user.colour", &mut value[..]).unwrap();
        assert_eq!(&value[..len], b"red");
    }
}

/// As root the owner of a replaced file, and of the directory a file comes into, stays the owner.
#[test]
fn the_owner_stays() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("f"), "old").unwrap();
    for at in ["d", "f"] {
        std::os::unix::fs::chown(world.file(at), Some(1234), Some(1235)).unwrap();
    }
    world.create("d/new", b"1").unwrap();
    world.placer.place(&Placement::CreateDir { path: path("d/dir"), mode: 0o755 }).unwrap();
    let link = Placement::CreateSymlink { path: path("d/link"), target: b"t".to_vec(), attrs: ATTRS };
    world.placer.place(&link).unwrap();
    world.replace("f", world.look("f").fingerprint, b"2").unwrap();
    for at in ["d/new", "d/dir", "d/link", "f"] {
        let meta = std::fs::symlink_metadata(world.file(at)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 1235), "{at}");
    }
}

/// A file that was changed since it was seen is neither replaced nor removed; not even when size and time were put back.
#[test]
fn an_unexpected_file_is_left_alone() {
    let (_dir, mut world) = world();
    let file = world.file("f");
    std::fs::write(&file, "old").unwrap();
    let seen = world.look("f");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let edit = || {
        std::fs::write(&file, "new").unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    };
    edit();
    while world.look("f").fingerprint.ctime == seen.fingerprint.ctime {
        edit();
    }
    let now = world.look("f");
    let expected = seen.fingerprint;
    assert!(matches!(world.replace("f", expected, b"theirs"), Err(PlaceError::Changed)));
    assert!(matches!(world.placer.place(&Placement::RemoveFile { path: path("f"), expected }), Err(PlaceError::Changed)));
    let hash = world.root.hash(&path("f"), &expected).unwrap();
    assert_eq!((hash, world.look("f")), (Reading::Changed, now));
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
}

/// Another inode than the expected one is not moved, set aside, removed or given attributes.
#[test]
fn an_unexpected_inode_is_left_alone() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    let (before, ino) = (world.look("d"), world.look("").fingerprint.ino);
    let node = NodeId([1; 16]);
    for placement in [
        Placement::Rename { from: path("d"), ino, to: path("e") },
        Placement::ToLimbo { from: path("d"), ino, node },
        Placement::RemoveDir { path: path("d"), ino },
        Placement::SetAttrs { path: path("d"), ino, attrs: Attrs { mode: 0o700, mtime: Mtime::default() } },
    ] {
        assert!(matches!(world.placer.place(&placement), Err(PlaceError::Changed)), "{placement:?}");
    }
    assert_eq!(world.look("d"), before);
}

/// A symbolic link is made and replaced as such, whatever it points to, with its time.
#[test]
fn symlinks_are_placed_and_never_followed() {
    let (_dir, mut world) = world();
    std::fs::write(world.file("f"), "untouched").unwrap();
    let file = world.look("f");
    let make = Placement::CreateSymlink { path: path("l"), target: b"f".to_vec(), attrs: ATTRS };
    world.placer.place(&make).unwrap();
    let expected = world.look("l").fingerprint;
    let wrong = Placement::ReplaceFile { path: path("l"), expected, hash: world.stage(b"x"), attrs: ATTRS, more: false };
    assert!(matches!(world.placer.place(&wrong), Err(PlaceError::Changed)));
    let replace = Placement::ReplaceSymlink { path: path("l"), expected, target: b"\xff/..".to_vec(), attrs: ATTRS };
    world.placer.place(&replace).unwrap();
    let ino = world.look("l").fingerprint.ino;
    let attrs = Attrs { mode: 0o777, mtime: Mtime { secs: 5, nanos: 6 } };
    world.placer.place(&Placement::SetAttrs { path: path("l"), ino, attrs }).unwrap();
    let look = world.look("l");
    assert_eq!((look.kind, look.attrs), (LookKind::Symlink { target: b"\xff/..".to_vec() }, attrs));
    assert_eq!(world.look("f"), file);
}

/// A parent directory that was swapped for a link out of the root leads nowhere: nothing is seen, read, made or removed there.
#[test]
fn a_swapped_parent_does_not_redirect() {
    let (_dir, mut world) = world();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), "secret").unwrap();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/f"), "mine").unwrap();
    let expected = world.look("d/f").fingerprint;
    std::fs::rename(world.file("d"), world.file("e")).unwrap();
    std::os::unix::fs::symlink(outside.path(), world.file("d")).unwrap();
    assert_eq!(world.root.look(&path("d/f")).unwrap(), None);
    assert_eq!(world.root.list(&path("d")).unwrap(), None);
    assert!(world.root.open_read(&path("d/f")).unwrap().is_none());
    assert!(matches!(world.create("d/new", b"x"), Err(PlaceError::Gone)));
    assert!(matches!(world.replace("d/f", expected, b"x"), Err(PlaceError::Gone)));
    assert!(matches!(world.placer.place(&Placement::RemoveFile { path: path("d/f"), expected }), Err(PlaceError::Gone)));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(outside.path().join("f")).unwrap(), b"secret");
}

/// A node in limbo is out of the tree with all that is below it, is found again by its id, and comes back where it is wanted.
#[test]
fn limbo_and_back() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/f"), "x").unwrap();
    let (ino, node) = (world.look("d").fingerprint.ino, NodeId([0xab; 16]));
    world.placer.place(&Placement::ToLimbo { from: path("d"), ino, node }).unwrap();
    assert_eq!(world.root.look(&path("d")).unwrap(), None);
    world.stage.sweep(&BTreeSet::new()).unwrap();
    let limbo = world.stage.limbo().unwrap();
    assert_eq!(limbo.iter().map(|(node, look)| (*node, look.fingerprint.ino)).collect::<Vec<_>>(), [(node, ino)]);
    std::fs::write(world.file("taken"), "").unwrap();
    let taken = Placement::FromLimbo { node, to: path("taken") };
    assert!(matches!(world.placer.place(&taken), Err(PlaceError::Exists)));
    world.placer.place(&Placement::FromLimbo { node, to: path("e") }).unwrap();
    assert_eq!(std::fs::read(world.file("e/f")).unwrap(), b"x");
    let missing = Placement::FromLimbo { node, to: path("g") };
    assert!(matches!(world.placer.place(&missing), Err(PlaceError::NotStaged)));
    world.placer.sync_dirs().unwrap();
}

/// A node in limbo that nobody wants is removed, unless it is a directory that still holds something.
#[test]
fn limbo_is_emptied() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/f"), "x").unwrap();
    std::fs::write(world.file("f"), "x").unwrap();
    for (at, id) in [("d", 1), ("f", 2)] {
        let ino = world.look(at).fingerprint.ino;
        world.placer.place(&Placement::ToLimbo { from: path(at), ino, node: NodeId([id; 16]) }).unwrap();
    }
    let limbo = world.stage.limbo().unwrap();
    let remove = |at: usize| Placement::RemoveLimbo { node: limbo[at].0, expected: limbo[at].1.fingerprint };
    assert!(matches!(world.placer.place(&remove(0)), Err(PlaceError::NotEmpty)));
    world.placer.place(&remove(1)).unwrap();
    assert_eq!(world.stage.limbo().unwrap(), limbo[..1]);
}

/// A rename keeps the inode and never takes a name; what is below a renamed directory goes with it.
#[test]
fn renames() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/f"), "x").unwrap();
    std::fs::write(world.file("g"), "y").unwrap();
    let ino = world.look("d/f").fingerprint.ino;
    let onto = Placement::Rename { from: path("d/f"), ino, to: path("g") };
    assert!(matches!(world.placer.place(&onto), Err(PlaceError::Exists)));
    let moved = world.placer.place(&Placement::Rename { from: path("d/f"), ino, to: path("h") }).unwrap();
    assert_eq!(moved.now.unwrap(), world.look("h"));
    assert_eq!(world.look("h").fingerprint.ino, ino);
    let nowhere = Placement::Rename { from: path("d/f"), ino, to: path("i") };
    assert!(matches!(world.placer.place(&nowhere), Err(PlaceError::Gone)));
}

/// A directory is removed when it is empty; an ignored file keeps it.
#[test]
fn only_empty_directories_are_removed() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/.f.swp"), "x").unwrap();
    let ino = world.look("d").fingerprint.ino;
    let remove = Placement::RemoveDir { path: path("d"), ino };
    assert!(matches!(world.placer.place(&remove), Err(PlaceError::NotEmpty)));
    std::fs::remove_file(world.file("d/.f.swp")).unwrap();
    world.placer.place(&remove).unwrap();
    assert!(matches!(world.placer.place(&remove), Err(PlaceError::Gone)));
}

/// Attributes change without touching the content, and a directory keeps its own set-group-id bit.
#[test]
fn attributes_are_set() {
    let (_dir, mut world) = world();
    std::fs::write(world.file("f"), "x").unwrap();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::set_permissions(world.file("d"), std::fs::Permissions::from_mode(0o2755)).unwrap();
    let placed = world.placer.place(&Placement::SetAttrs { path: path("f"), ino: world.look("f").fingerprint.ino, attrs: ATTRS });
    assert_eq!(placed.unwrap().now.unwrap(), world.look("f"));
    assert_eq!(world.look("f").attrs, ATTRS);
    let attrs = Attrs { mode: 0o700, mtime: Mtime::default() };
    let ino = world.look("d").fingerprint.ino;
    world.placer.place(&Placement::SetAttrs { path: path("d"), ino, attrs }).unwrap();
    assert_eq!(std::fs::metadata(world.file("d")).unwrap().mode() & 0o7777, 0o2700);
}

/// Names that are no text and names of 255 bytes go in and come out as they are; paths longer than the kernel takes work too.
#[test]
fn every_name_works() {
    let (_dir, mut world) = world();
    let names = [b"\xff\xfe\n".to_vec(), vec![b'x'; 255]];
    for name in &names {
        let at = RelPath::from(vec![Name::new(name).unwrap()]);
        let hash = world.stage(name);
        world.placer.place(&Placement::CreateFile { path: at, hash, attrs: ATTRS, more: false }).unwrap();
        assert_eq!(&std::fs::read(world.file(std::ffi::OsStr::from_bytes(name))).unwrap(), name);
    }
    let listed = world.root.list(&RelPath::ROOT).unwrap().unwrap().entries;
    assert_eq!(listed.iter().map(|(name, _)| name.as_bytes().to_vec()).collect::<Vec<_>>(), [names[1].clone(), names[0].clone()]);
    let mut deep = RelPath::ROOT;
    for _ in 0..40 {
        deep = deep.join(&Name::new(&[b'd'; 200]).unwrap());
        world.placer.place(&Placement::CreateDir { path: deep.clone(), mode: 0o755 }).unwrap();
    }
    assert!(deep.to_bytes().len() > 4096);
    assert_eq!(world.root.look(&deep).unwrap().unwrap().kind, LookKind::Dir);
    world.placer.sync_dirs().unwrap();
}

/// A disk that fills up while a content is staged or copied leaves the old file whole and no part of the new one.
#[test]
fn a_full_disk_keeps_the_old_content() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(Path::new("tmpfs"), dir.path(), "tmpfs", MountFlags::empty(), c"size=256k") else { return };
    let mut world = World::at(dir.path());
    std::fs::write(world.file("f"), "old").unwrap();
    let expected = world.look("f").fingerprint;
    let big = vec![7; 1 << 20];
    let mut writer = world.stage.writer(Hash::of(&big), big.len() as u64).unwrap();
    assert!(matches!(writer.write(&big), Err(StageError::NoSpace)));
    drop(writer);
    assert_eq!(world.staged(), Vec::<String>::new());
    let hash = world.stage(&big[..160 << 10]);
    let replace = Placement::ReplaceFile { path: path("f"), expected, hash, attrs: ATTRS, more: true };
    assert!(matches!(world.placer.place(&replace), Err(PlaceError::NoSpace)));
    assert_eq!(std::fs::read(world.file("f")).unwrap(), b"old");
    assert_eq!(world.look("f").fingerprint, expected);
    assert_eq!(world.staged(), [hash.to_string()]);
}

/// A directory that may not be read or written is an error, never "nothing there".
#[test]
fn forbidden_is_not_absent() {
    let (_dir, mut world) = world();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("d/f"), "x").unwrap();
    std::fs::set_permissions(world.file("d"), std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(world.file("d")).is_ok() {
        return;
    }
    let denied = io::ErrorKind::PermissionDenied;
    assert_eq!(world.root.look(&path("d/f")).unwrap_err().kind(), denied);
    assert_eq!(world.root.list(&path("d")).unwrap_err().kind(), denied);
    assert!(matches!(world.create("d/g", b"x"), Err(PlaceError::Io(error)) if error.kind() == denied));
    std::fs::set_permissions(world.file("d"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// With a second way to the directory every change is made on that way, and staged things are reached on it too.
#[test]
fn changes_go_through_the_mount() {
    let (dir, mut world) = world();
    let over = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(dir.path(), over.path(), "", MountFlags::BIND, c"") else { return };
    world.root.through(Some(over.path())).unwrap();
    world.placer.place(&Placement::CreateDir { path: path("d"), mode: 0o755 }).unwrap();
    world.create("d/f", b"1").unwrap();
    world.replace("d/f", world.look("d/f").fingerprint, b"2").unwrap();
    let ino = world.look("d/f").fingerprint.ino;
    world.placer.place(&Placement::SetAttrs { path: path("d/f"), ino, attrs: Attrs { mode: 0o600, ..ATTRS } }).unwrap();
    world.placer.place(&Placement::ToLimbo { from: path("d/f"), ino, node: NodeId([1; 16]) }).unwrap();
    world.placer.place(&Placement::FromLimbo { node: NodeId([1; 16]), to: path("g") }).unwrap();
    assert_eq!(std::fs::read(over.path().join("g")).unwrap(), b"2");
    // A way that may not be written on refuses, though the directory underneath could be.
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(over.path(), flags, "").unwrap();
    let expected = world.look("g").fingerprint;
    let remove = Placement::RemoveFile { path: path("g"), expected };
    assert!(
        matches!(world.placer.place(&remove), Err(PlaceError::Io(error)) if error.kind() == io::ErrorKind::ReadOnlyFilesystem)
    );
    world.root.through(None).unwrap();
    world.placer.place(&remove).unwrap();
}

/// A file that was written again while it was being placed gets a fingerprint that fits nothing; a quiet one gets its own.
#[test]
fn a_write_during_the_act_is_not_hidden() {
    let (_dir, world) = world();
    std::fs::write(world.file("f"), "placed").unwrap();
    let (held, before) = look_at(world.root.dir(), b"f").unwrap().unwrap();
    assert_eq!(settled(&before, before.fingerprint.mtime, held.as_fd()), before);
    std::fs::write(world.file("f"), "edited at once").unwrap();
    let now = settled(&before, before.fingerprint.mtime, held.as_fd());
    assert_ne!(now.fingerprint, before.fingerprint);
    assert_ne!(now.fingerprint, world.look("f").fingerprint);
}

/// What is to be made durable is remembered once for each thing, then all at once when it gets much, and forgotten afterwards.
#[test]
fn durability_is_collected() {
    let (_dir, mut world) = world();
    for n in 0..3 {
        world.create(&format!("f{n}"), b"x").unwrap();
    }
    assert_eq!((world.placer.touched.len(), world.placer.whole), (1, false));
    let ino = world.look("f0").fingerprint.ino;
    let attrs = Attrs { mode: 0o400, ..ATTRS };
    world.placer.place(&Placement::SetAttrs { path: path("f0"), ino, attrs }).unwrap();
    assert!(world.placer.touched.contains_key(&ino));
    for n in 0..SYNC_EACH {
        world.placer.place(&Placement::CreateDir { path: path(&format!("d{n}")), mode: 0o755 }).unwrap();
        world.create(&format!("d{n}/f"), b"x").unwrap();
    }
    assert_eq!((world.placer.touched.len(), world.placer.whole), (0, true));
    world.placer.sync_dirs().unwrap();
    assert!(!world.placer.whole);
}

/// Without the kernel's help against replacing, files, links and directories still move to free names only.
#[test]
fn unflagged_renames_take_no_name() {
    let (_dir, world) = world();
    std::fs::write(world.file("f"), "f").unwrap();
    std::os::unix::fs::symlink("nowhere", world.file("l")).unwrap();
    std::fs::create_dir(world.file("d")).unwrap();
    std::fs::write(world.file("taken"), "mine").unwrap();
    for at in ["f", "l", "d"] {
        let spot = |at: &str| world.placer.spot(&path(at)).unwrap();
        let ino = world.look(at).fingerprint.ino;
        assert_eq!(rename_unflagged(&spot(at), &spot("taken")), Err(Errno::EXIST), "{at}");
        assert_eq!(world.look(at).fingerprint.ino, ino);
        rename_unflagged(&spot(at), &spot(&format!("{at}2"))).unwrap();
        assert_eq!((world.look(&format!("{at}2")).fingerprint.ino, world.root.look(&path(at)).unwrap()), (ino, None));
    }
    assert_eq!(std::fs::read(world.file("taken")).unwrap(), b"mine");
}
