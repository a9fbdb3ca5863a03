//! `syncfs mount DIR` with nothing configured is all that the first machine needs, and it says all that the second needs.

use super::world::World;
use std::fs;

/// The first start makes everything and prints what to run on the next machine; run there as printed, it joins, and a save travels.
#[test]
fn the_first_start_leads_to_the_second_machine() {
    let world = World::new();
    let said = world.run("mount notes --listen 127.0.0.1:0").code(0);
    assert!(world.is_mounted("notes"), "{said:?}");
    let [mounted, _, show, register, join] = said.out.lines().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
    let log = mounted.split_once("log: ").map(|(_, log)| log).unwrap();
    assert!(fs::metadata(log).unwrap().is_file());
    fs::write(world.path("notes/a.txt"), "a").unwrap();
    world.settles("notes");

    // The other machine is another home.
    let there = World::new();
    assert_eq!(show.trim(), "there:  syncfs key show");
    let key = there.line("key show");
    let register = register.trim().strip_prefix("here:   syncfs ").unwrap();
    world.run(&register.replace("KEY", &key).replace("NAME", "laptop")).code(0);
    let join = join.trim().strip_prefix("there:  syncfs ").unwrap();
    let dir = there.path("notes");
    let said = there.run(&join.replace(world.path("notes").to_str().unwrap(), dir.to_str().unwrap())).code(0);
    assert_eq!(said.out.lines().count(), 1, "nothing to print but the log: {said:?}");
    there.arrives("notes/a.txt", "a");
    fs::write(there.path("notes/b.txt"), "b").unwrap();
    world.arrives("notes/b.txt", "b");
    there.run("unmount notes --wait").code(0);
    world.run("unmount notes --wait").code(0);
    assert!(!world.is_mounted("notes") && !there.is_mounted("notes"));
    world.arrives("notes/b.txt", "b");
}

/// The second start needs no option, is the same hub at the same place, and explains nothing again.
#[test]
fn the_second_start_knows_everything() {
    let world = World::new();
    let mut first = world.start("first", "mount notes -f --listen 127.0.0.1:0 --state state");
    first.says("--hub-key ");
    fs::write(world.path("notes/a.txt"), "a").unwrap();
    world.settles("notes --state state");
    let hub_key = world.line("hub key --data state/hub");
    let config = fs::read_to_string(world.path("state/config.json")).unwrap();
    first.stop();
    assert!(!world.is_mounted("notes"));
    assert_eq!(fs::read_to_string(world.path("notes/a.txt")).unwrap(), "a");
    let said = world.run("mount notes --state state").code(0);
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    let status = world.settles("notes --state state");
    assert!(status["cursor"].as_u64() > Some(0), "{status}");
    assert_eq!(world.line("hub key --data state/hub"), hub_key);
    assert_eq!(fs::read_to_string(world.path("state/config.json")).unwrap(), config);
    world.run("unmount notes --state state").code(0);
    assert!(!world.is_mounted("notes"));
}

/// A hub that has lost its directory is not replaced by an empty one.
#[test]
fn a_lost_hub_is_not_made_anew() {
    let world = World::new();
    let mut first = world.start("first", "mount notes -f --listen 127.0.0.1:0 --state state");
    first.says("--hub-key ");
    first.stop();
    fs::remove_dir_all(world.path("state/hub")).unwrap();
    world.run("mount notes --state state").fails(5, "is gone", "backup");
    world.run("mount notes -f --state state").fails(5, "is gone", "backup");
    assert!(!world.is_mounted("notes"));
}

/// State that would be synchronized itself is refused before anything is made.
#[test]
fn state_inside_the_directory() {
    let world = World::new();
    world.run("mount notes --state notes/state").fails(2, "would be synchronized itself", "--state");
    assert!(!world.path("notes/state").exists());
}
