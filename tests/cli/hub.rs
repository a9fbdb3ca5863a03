//! Hubs, keys and admins: no mount is needed.

use super::world::World;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// A hub is made once, says its key whenever asked, serves until SIGTERM, and ends well.
#[test]
fn a_hub_is_made_and_serves() {
    let world = World::new();
    world.run("hub key --data hub").fails(5, "no hub in hub", "syncfs hub init");
    world.run("hub serve --data hub --listen 127.0.0.1:0").fails(5, "no hub in hub", "syncfs hub init");
    let key = world.line("hub init --data hub");
    assert!(key.starts_with("syncfs1"), "{key}");
    assert_eq!(world.line("hub key --data hub"), key);
    world.run("hub init --data hub").fails(3, "a hub in hub already", "hub serve");
    let mut hub = world.start("hub", "hub serve --data hub --listen 127.0.0.1:0");
    let address = hub.says("listening on ");
    assert_eq!(hub.out(), format!("listening on {address}\n"));
    world.run("hub serve --data hub --listen 127.0.0.1:0").fails(5, "", "");
    world.run("hub init --data other").code(0);
    world.run(&format!("hub serve --data other --listen {address}")).fails(5, &address, "--listen");
    hub.stop();
}

/// Devices are let in and shut out, whether the hub runs or not, and the lists say so to people and to scripts.
#[test]
fn devices_are_registered_and_revoked() {
    let world = World::new();
    let (hub, _) = world.hub();
    let mut hub = Some(hub);
    for name in ["desk", "laptop"] {
        let key = world.line(&format!("key show --state {name}.state"));
        let said = world.run(&format!("admin register {key} --name {name} --data hub")).code(0);
        assert!(said.out.starts_with(name), "{said:?}");
        world.run(&format!("admin register {key} --name {name} --data hub")).fails(3, "registered already", "admin list");
        hub.take().into_iter().for_each(super::world::Process::stop);
    }
    world.run("admin revoke laptop --data hub").code(0);
    world.run("admin revoke nobody --data hub").fails(3, "nobody", "admin list");
    let list: Value = serde_json::from_str(&world.run("admin list --json --data hub").code(0).out).unwrap();
    let states: Vec<&Value> = list.as_array().unwrap().iter().map(|device| &device["state"]).collect();
    assert_eq!(states, ["active", "revoked"]);
    let text = world.run("admin list --data hub").code(0).out;
    assert!(text.contains("desk") && text.contains("revoked"), "{text}");
    let status: Value = serde_json::from_str(&world.run("admin status --json --data hub").code(0).out).unwrap();
    assert_eq!(status, serde_json::from_str::<Value>(&world.run("status --hub --json --data hub").code(0).out).unwrap());
    assert_eq!((&status["seq"], &status["clients"][0]["name"]), (&0.into(), &"desk".into()));
}

/// A mistyped key is wrong usage, and is told before a hub is asked.
#[test]
fn a_mistyped_key() {
    let world = World::new();
    let mut key = world.line("key show");
    key.pop();
    world.run(&format!("admin register {key} --name x --data nowhere")).fails(2, "letters", "syncfs key show");
}

/// A device has one key, which lies in the user's state directory, for the owner only; --state is another one.
#[test]
fn the_key_of_a_device() {
    let world = World::new();
    let key = world.line("key show");
    assert_eq!(world.line("key show"), key);
    let file = world.path("home/.local/state/syncfs/device.key");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(world.line("key show --state s"), key);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    world.run("key show").fails(5, "other users can read", "--state");
}

/// Questions about a directory that is none of ours, and about one that nobody serves.
#[test]
fn questions_nobody_answers() {
    let world = World::new();
    std::fs::create_dir_all(world.path("plain")).unwrap();
    std::fs::create_dir_all(world.path("ours/.syncfs")).unwrap();
    for command in ["status plain", "conflicts plain", "confirm plain", "status plain --json"] {
        world.run(command).fails(2, "not in a synchronized directory", "syncfs mount");
    }
    for command in ["status ours", "conflicts ours", "confirm ours", "unmount ours", "unmount ours --wait"] {
        world.run(command).fails(4, "not mounted", "syncfs mount");
    }
    world.run("status nowhere").fails(5, "nowhere", "");
    world.run("sync plain").fails(2, "not connected to a hub", "--hub");
    world.run("sync nowhere").fails(5, "nowhere", "");
}

/// merge-file is git's: the result into OURS, exit codes that count conflicts, and wrong usage is none of those.
#[test]
fn merge_file() {
    let world = World::new();
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).unwrap();
    write("base", "hello world\n");
    write("ours", "hello to the world\n");
    write("theirs", "say hello world\n");
    assert_eq!(world.run("merge-file -p ours base theirs").code(0).out, "say hello to the world\n");
    world.run("merge-file ours base theirs").code(0);
    assert_eq!(std::fs::read_to_string(world.path("ours")).unwrap(), "say hello to the world\n");
    write("ours", "goodbye world\n");
    write("theirs", "farewell world\n");
    world.run("merge-file -p ours base theirs").code(1);
    assert_eq!(world.run("merge-file ours base").code, 129);
    assert_eq!(world.run("merge-file ours base nowhere").code, 255);
}
