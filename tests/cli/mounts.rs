//! How a mount begins and ends.

use super::world::World;
use rustix::process::Signal;
use std::fs;
use std::process::Command;

/// A directory is mounted once; whoever asks again is told what it is.
#[test]
fn mounted_already() {
    let world = World::new();
    world.run("mount notes --listen 127.0.0.1:0").code(0);
    world.run("mount notes").fails(5, "is mounted already", "syncfs status");
    world.run("mount notes -f").fails(5, "is mounted already", "syncfs status");
    world.run("mount notes --state elsewhere").fails(3, "is mounted already", "--state");
    world.run("unmount notes").code(0);
    world.run("unmount notes").fails(4, "is not mounted", "syncfs mount");
}

/// After SIGKILL the next mount cleans up by itself, also in the background, and everything is there.
#[test]
fn killed() {
    let world = World::new();
    let mut mount = world.start("mount", "mount notes -f --listen 127.0.0.1:0");
    mount.says("--hub-key ");
    fs::write(world.path("notes/a.txt"), "a").unwrap();
    mount.signal(Signal::KILL);
    assert_eq!(mount.end(), None);
    assert!(fs::read(world.path("notes/a.txt")).is_err(), "the mount is dead");
    world.run("status notes").fails(4, "not mounted", "syncfs mount");
    let said = world.run("mount notes").code(0);
    assert!(said.err.contains("taken away"), "{said:?}");
    assert_eq!(fs::read_to_string(world.path("notes/a.txt")).unwrap(), "a");
    world.settles("notes");
    world.run("unmount notes").code(0);
    assert_eq!(fs::read_to_string(world.path("notes/a.txt")).unwrap(), "a");
}

/// `syncfs unmount` takes a dead mount away as well.
#[test]
fn a_dead_mount_is_unmounted() {
    let world = World::new();
    let mut mount = world.start("mount", "mount notes -f --listen 127.0.0.1:0");
    mount.says("--hub-key ");
    mount.signal(Signal::KILL);
    assert_eq!(mount.end(), None);
    world.run("unmount notes").code(0);
    assert!(!world.is_mounted("notes"));
}

/// Ended by the signals a terminal or a service sends, and by the mount being taken away: well, and with a plain directory.
#[test]
fn every_way_to_end_is_clean() {
    let world = World::new();
    let ways = [Ok(Signal::TERM), Ok(Signal::INT), Ok(Signal::HUP), Err("-u"), Err("-uz")];
    for (turn, how) in ways.into_iter().enumerate() {
        let listen = if turn == 0 { " --listen 127.0.0.1:0" } else { "" };
        let mut mount = world.start(&format!("mount{turn}"), &format!("mount notes -f{listen}"));
        super::world::wait_for("it is mounted", || if world.is_mounted("notes") { Ok(()) } else { Err(mount.err()) });
        world.settles("notes");
        let name = format!("notes/{turn}.txt");
        fs::write(world.path(&name), "text").unwrap();
        match how {
            Ok(signal) => mount.signal(signal),
            Err(option) => {
                let done = Command::new("fusermount3").arg(option).arg(world.path("notes")).status().unwrap();
                assert!(done.success());
            }
        }
        assert_eq!(mount.end(), Some(0), "{how:?}: {}", mount.err());
        assert!(!world.is_mounted("notes"));
        assert_eq!(fs::read_to_string(world.path(&name)).unwrap(), "text");
    }
}

/// What was unmounted can be mounted at once: with the mount its hub has ended too.
#[test]
fn mounted_again_at_once() {
    let world = World::new();
    world.run("mount notes --listen 127.0.0.1:0").code(0);
    for _ in 0..3 {
        world.run("unmount notes").code(0);
        world.run("mount notes").code(0);
    }
    let done = Command::new("fusermount3").arg("-u").arg(world.path("notes")).status().unwrap();
    assert!(done.success());
    world.run("mount notes").code(0);
    world.run("unmount notes").code(0);
}

/// What is asked from inside the directory needs no name of it.
#[test]
fn asked_from_inside() {
    let world = World::new();
    world.run("mount notes --listen 127.0.0.1:0").code(0);
    fs::create_dir(world.path("notes/deep")).unwrap();
    world.settles("notes");
    let said = world.run("status notes/deep").code(0);
    assert!(said.out.contains("in sync"), "{said:?}");
    world.run("conflicts notes/deep").code(0);
    world.run("sync notes").code(0);
    assert!(world.is_mounted("notes"));
    world.run("unmount notes").code(0);
}

/// Mount options reach the mount: nothing can be written to a read-only one.
#[test]
fn options_reach_the_mount() {
    let world = World::new();
    world.run("mount notes --listen 127.0.0.1:0 -o ro").code(0);
    assert!(fs::write(world.path("notes/a.txt"), "a").is_err());
    world.run("unmount notes").code(0);
}

/// What is no directory is not mounted.
#[test]
fn not_a_directory() {
    let world = World::new();
    fs::write(world.path("file"), "x").unwrap();
    world.run("mount file").fails(2, "not a directory", "");
    world.run("mount file/below").code(5);
}
