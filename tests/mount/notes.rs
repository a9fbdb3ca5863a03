//! What the sync engine is told, and what the applier may do through the mount.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use syncfs::fs::mount::What;

use crate::world::World;
use crate::world::errno;
use crate::world::wait_for;

fn noted(world: &World) -> Vec<(String, What)> {
    world.noted()
}

fn closed(name: &str) -> (String, What) {
    (name.to_owned(), What::Closed)
}

/// A file open in two handles is reported once, when the last is closed, by the name it has by then.
#[test]
fn the_last_close_is_noted_once_by_the_present_name() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("d")).unwrap();
    let mut one = File::create_new(world.path("f")).unwrap();
    let two = File::options().write(true).open(world.path("f")).unwrap();
    let reader = File::open(world.path("f")).unwrap();
    one.write_all(b"x").unwrap();
    drop(one);
    let ino = world.ino("f");
    wait_for("one handle is left", || world.gate.writers(ino) == 1);
    fs::rename(world.path("f"), world.path("d/g")).unwrap();
    assert!(!noted(&world).iter().any(|(_, what)| *what == What::Closed), "somebody is still writing");
    drop(two);
    wait_for("no handle is left", || world.gate.writers(ino) == 0);
    let mut notes = noted(&world);
    drop(reader);
    notes.extend(noted(&world));
    assert_eq!(notes, [closed("g")]);
}

/// Opening to write without writing is reported too; opening to read is not; a truncation by path is a save.
#[test]
fn every_writer_is_noted_and_no_reader() {
    let Some(world) = World::new() else { return };
    world.write("f", "text");
    noted(&world);
    world.read("f");
    assert_eq!(noted(&world), []);
    drop(File::options().write(true).open(world.path("f")).unwrap());
    wait_for("it is closed", || world.gate.writers(world.ino("f")) == 0);
    assert_eq!(noted(&world), [closed("f")]);
    let path = std::ffi::CString::new(world.path("f").into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a valid C string.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), 2) }, 0);
    assert_eq!(noted(&world), [closed("f")]);
}

/// A save of a file with several names is reported under each; one of a file without a name under none.
#[test]
fn a_save_is_noted_under_every_name() {
    let Some(world) = World::new() else { return };
    world.write("a", "");
    fs::hard_link(world.path("a"), world.path("b")).unwrap();
    noted(&world);
    let ino = world.ino("a");
    world.write("b", "x");
    wait_for("it is closed", || world.gate.writers(ino) == 0);
    let mut notes = noted(&world);
    notes.sort_by_key(|note| note.0.clone());
    assert_eq!(notes, [closed("a"), closed("b")]);
    let file = File::options().write(true).open(world.path("a")).unwrap();
    fs::remove_file(world.path("a")).unwrap();
    fs::remove_file(world.path("b")).unwrap();
    drop(file);
    wait_for("it is closed", || world.gate.writers(ino) == 0);
    assert!(!noted(&world).iter().any(|(_, what)| *what == What::Closed));
}

/// Names that come and go and bits that are set are reported with what happened; the state directory is not.
#[test]
fn names_and_attributes_are_noted() {
    use What::Appeared;
    use What::Attr;
    use What::Vanished;
    let Some(world) = World::new() else { return };
    fs::create_dir(world.under(".syncfs")).unwrap();
    fs::create_dir(world.path("d")).unwrap();
    std::os::unix::fs::symlink("x", world.path("s")).unwrap();
    fs::hard_link(world.path("s"), world.path("l")).unwrap();
    fs::set_permissions(world.path("d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(world.path("s"), world.path("t")).unwrap();
    fs::remove_file(world.path("t")).unwrap();
    fs::remove_dir(world.path("d")).unwrap();
    world.write(".syncfs/private", "x");
    let expected = [
        ("d", Appeared),
        ("s", Appeared),
        ("l", Appeared),
        ("d", Attr),
        ("s", Vanished),
        ("t", Appeared),
        ("t", Vanished),
        ("d", Vanished),
    ];
    assert_eq!(noted(&world), expected.map(|(name, what)| (name.to_owned(), what)));
}

/// The applier works through the mount: it passes a block, its work is seen at once, and nothing of it is noted.
#[test]
fn the_applier_passes_blocks_and_is_not_noted() {
    let Some(world) = World::new() else { return };
    world.write("f", "mine");
    world.block("f");
    noted(&world);
    let old = world.ino("f");
    world.as_applier(|| {
        world.write("staged", "theirs");
        fs::set_permissions(world.path("staged"), fs::Permissions::from_mode(0o600)).unwrap();
        wait_for("it is closed", || world.gate.writers(world.ino("staged")) == 0);
        fs::rename(world.path("staged"), world.path("f")).unwrap();
        fs::create_dir(world.path("d")).unwrap();
        world.write("d/x", "");
        wait_for("it is closed", || world.gate.writers(world.ino("d/x")) == 0);
        fs::remove_file(world.path("d/x")).unwrap();
        fs::remove_dir(world.path("d")).unwrap();
    });
    assert_eq!(world.read("f"), "theirs");
    assert_ne!(world.ino("f"), old);
    assert!(!world.gate.is_blocked(old), "the block is gone with the file; its number may be used again");
    assert_eq!(noted(&world), []);
}

/// What was staged underneath, beside the mount, is placed by one rename through it: also over a file somebody reads.
#[test]
fn the_applier_places_what_was_staged_underneath() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.under(".syncfs/stage")).unwrap();
    world.write("f", "mine");
    let mut reader = File::open(world.path("f")).unwrap();
    noted(&world);
    for round in 0..20 {
        let staged = format!(".syncfs/stage/{round}");
        fs::write(world.under(&staged), format!("theirs {round}")).unwrap();
        wait_for("the user has closed it", || world.gate.writers(world.ino("f")) == 0);
        world.as_applier(|| fs::rename(world.path(&staged), world.path("f")).unwrap());
        assert_eq!(world.read("f"), format!("theirs {round}"));
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
    assert_eq!(noted(&world), []);
}

/// While somebody has a file open for writing, the applier can neither replace, remove nor truncate it; afterwards it can.
#[test]
fn the_applier_does_not_overtake_a_writer() {
    let Some(world) = World::new() else { return };
    world.write("staged", "theirs");
    wait_for("it is closed", || world.gate.writers(world.ino("staged")) == 0);
    let mut file = File::create_new(world.path("f")).unwrap();
    file.write_all(b"mine").unwrap();
    let ino = world.ino("f");
    world.as_applier(|| {
        assert_eq!(errno(fs::rename(world.path("staged"), world.path("f"))), libc::EBUSY);
        assert_eq!(errno(fs::remove_file(world.path("f"))), libc::EBUSY);
        assert_eq!(errno(File::create(world.path("f"))), libc::EBUSY);
    });
    assert_eq!((world.read_under("f"), world.read_under("staged")), ("mine".into(), "theirs".into()));
    drop(file);
    wait_for("it is closed", || world.gate.writers(ino) == 0);
    world.as_applier(|| fs::rename(world.path("staged"), world.path("f")).unwrap());
    assert_eq!(world.read("f"), "theirs");
}

/// A save that comes and goes between the applier's last look and its act is not overtaken, however it saves; nor is a removal undone.
#[test]
fn the_applier_does_not_overtake_a_save_it_did_not_see() {
    let Some(world) = World::new() else { return };
    type Save = fn(&World);
    let saves: [(&str, Save); 3] = [
        ("in place", |world| world.write("f", "saved")),
        ("by renaming", |world| {
            world.write("new", "saved");
            fs::rename(world.path("new"), world.path("f")).unwrap();
        }),
        ("removed", |world| fs::remove_file(world.path("f")).unwrap()),
    ];
    for (how, save) in saves {
        world.write("staged", "theirs");
        world.write("f", "seen");
        let ino = world.ino("f");
        wait_for("it is closed", || world.gate.writers(ino) == 0 && world.gate.writers(world.ino("staged")) == 0);
        let placing = world.gate.placing(ino);
        save(&world);
        wait_for("it is closed", || world.gate.written().is_empty());
        world.as_applier(|| {
            let replaced = fs::rename(world.path("staged"), world.path("f"));
            assert_eq!(errno(replaced), libc::EBUSY, "{how}");
            assert!(fs::remove_file(world.path("f")).is_err(), "{how}");
        });
        drop(placing);
        if how != "removed" {
            assert_eq!(world.read_under("f"), "saved", "{how}");
        }
    }
    world.as_applier(|| fs::rename(world.path("staged"), world.path("f")).unwrap());
    assert_eq!(world.read("f"), "theirs");
}

/// The applier and users that replace, write and list in one directory get on with each other.
#[test]
fn the_applier_and_users_work_side_by_side() {
    let Some(world) = World::new() else { return };
    let world = &world;
    fs::create_dir(world.path("in")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _applier = world.gate.register_applier();
            for round in 0..200 {
                let staged = world.path(format!("in/staged{round}"));
                fs::write(&staged, "theirs").unwrap();
                let target = world.path(format!("f{}", round % 4));
                while let Err(error) = fs::rename(&staged, &target) {
                    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
                }
            }
        });
        for user in 0..3 {
            scope.spawn(move || {
                for round in 0..200 {
                    fs::write(world.path(format!("f{}", (round + user) % 4)), "mine").unwrap();
                    assert!(fs::read_dir(world.path("")).unwrap().count() >= 1);
                }
            });
        }
    });
    for name in ["f0", "f1", "f2", "f3"] {
        assert!(["mine", "theirs"].contains(&world.read(name).as_str()));
        assert_eq!(world.read(name), world.read_under(name));
    }
}
