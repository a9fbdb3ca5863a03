//! What a power cut leaves: a file system of its own whose blocks are looked at behind its back.

use crate::site::Site;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

fn run(program: &str, args: &[&Path]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

/// A file system in a file, mounted until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        run("mount", &[Path::new("-oloop"), image, &at]).then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(run("umount", &[&self.0]), "{} stays mounted", self.0.display());
    }
}

/// What the hub has from here is on the disk here. Without it a new file that nobody synced is empty after a power cut, its name and
/// the client's state being durable: an edit that would empty it everywhere.
#[test]
fn what_was_sent_survives_a_power_cut() {
    let dir = TempDir::new().unwrap();
    let (image, lost) = (dir.path().join("image"), dir.path().join("lost"));
    fs::File::create_new(&image).unwrap().set_len(64 << 20).unwrap();
    let made = run("mkfs.ext4", &[Path::new("-qF"), &image]).then(|| Mounted::new(&image, dir.path().join("disk"))).flatten();
    let (Some(disk), true) = (made, Path::new("/dev/fuse").exists()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no loop mount or no FUSE: the power cut cannot be tested");
        eprintln!("\n!!! NOT TESTED: no loop mount (root only) or no /dev/fuse, so the power cut was not tested !!!\n");
        return;
    };
    let root = disk.0.join("notes");
    fs::create_dir(&root).unwrap();
    let site = Site::new();
    let mut a = site.device_at("a", root, None);
    a.start(true);
    a.wait_idle();
    a.write("new", "words");
    a.write("d/deep", "more words");
    a.wait_idle();
    fs::copy(&image, &lost).unwrap();
    a.stop();
    let after = Mounted::new(&lost, dir.path().join("after")).unwrap();
    assert_eq!(fs::read_to_string(after.0.join("notes/new")).unwrap(), "words");
    assert_eq!(fs::read_to_string(after.0.join("notes/d/deep")).unwrap(), "more words");
}
