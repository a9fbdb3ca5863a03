//! Joining a hub: who may, and what is said to who may not.

use super::world::World;
use std::fs;

/// A device that is not registered works locally, and reads on both sides of the door what to run where.
#[test]
fn unregistered() {
    let world = World::new();
    let (hub, address) = world.hub();
    let (key, hub_key) = (world.line("key show --state s"), world.line("hub key --data hub"));
    let join = format!("notes --hub {address} --hub-key {hub_key} --state s");
    let mut mount = world.start("mount", &format!("mount -f {join}"));
    let rest = mount.says("not registered");
    assert!(!rest.is_empty());
    mount.says(&format!("syncfs admin register {key} --name"));
    assert!(world.is_mounted("notes"));
    fs::write(world.path("notes/a.txt"), "a").unwrap();
    let said = world.run("status notes --state s").code(1);
    assert!(said.out.starts_with(world.path("notes").to_str().unwrap()), "{said:?}");
    // Let in while it runs, it goes on by itself.
    world.run(&format!("admin register {key} --name late --data hub")).code(0);
    world.settles("notes --state s");
    mount.stop();
    hub.stop();
}

/// `sync` of a device that is not registered says the same and exits with 3; so does one with the wrong key of the hub.
#[test]
fn sync_is_refused() {
    let world = World::new();
    let (_hub, address) = world.hub();
    fs::create_dir(world.path("notes")).unwrap();
    let hub_key = world.line("hub key --data hub");
    world.run(&format!("sync notes --hub {address} --hub-key {hub_key} --state s")).fails(3, "not registered", "admin register");
    let wrong = world.line("key show --state other");
    world.run(&format!("sync notes --hub {address} --hub-key {wrong} --state t")).fails(3, "not the one", &hub_key);
    world.run(&format!("sync notes --hub {address} --hub-key {wrong}x --state u")).fails(
        2,
        "hub's key is wrong",
        "syncfs hub key",
    );
}

/// Without a terminal nobody can vouch for a hub, so its key has to be given.
#[test]
fn an_unknown_hub_is_not_trusted() {
    let world = World::new();
    let (_hub, address) = world.hub();
    let hub_key = world.line("hub key --data hub");
    let hint = format!("--hub-key {hub_key}");
    world.run(&format!("mount notes --hub {address} --state s")).fails(3, "nobody has confirmed", &hint);
    assert!(!world.is_mounted("notes"));
    assert!(!world.path("s/config.json").exists(), "nothing is remembered");
}

/// A hub that does not answer: a mount works all the same, a pass without one gives up with 4.
#[test]
fn unreachable() {
    let world = World::new();
    let (hub, address) = world.hub();
    let join = world.register("c1", &address);
    hub.stop();
    let mount = world.run(&format!("mount notes {join}")).code(0);
    assert_eq!(mount.err, "", "{mount:?}");
    fs::write(world.path("notes/a.txt"), "a").unwrap();
    assert!(world.run("status notes --state c1.state").code(1).out.contains("not connected to the hub"));
    world.run("unmount notes --state c1.state").code(0);
    world.run("sync notes --state c1.state").fails(4, "reached", "");
}

/// `sync` carries files both ways without a mount, and what was said once is remembered.
#[test]
fn passes_without_a_mount() {
    let world = World::new();
    let (_hub, address) = world.hub();
    for name in ["c1", "c2"] {
        let join = world.register(name, &address);
        fs::create_dir(world.path(name)).unwrap();
        fs::write(world.path(&format!("{name}/{name}.txt")), name).unwrap();
        let said = world.run(&format!("sync {name} {join}")).code(0);
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    }
    world.run("sync c1 --state c1.state").code(0);
    for client in ["c1", "c2"] {
        for name in ["c1", "c2"] {
            assert_eq!(fs::read_to_string(world.path(&format!("{client}/{name}.txt"))).unwrap(), name);
        }
    }
}

/// Edits of the same words: exit code 1 wherever it is asked about, one command decides, and both sides agree.
#[test]
fn a_conflict_is_an_answer() {
    let world = World::new();
    let (_hub, address) = world.hub();
    let joins = ["c1", "c2"].map(|name| world.register(name, &address));
    fs::create_dir(world.path("c1")).unwrap();
    fs::create_dir(world.path("c2")).unwrap();
    fs::write(world.path("c1/a.txt"), "hello world\n").unwrap();
    world.run(&format!("sync c1 {}", joins[0])).code(0);
    world.run(&format!("sync c2 {}", joins[1])).code(0);
    fs::write(world.path("c1/a.txt"), "goodbye world\n").unwrap();
    fs::write(world.path("c2/a.txt"), "farewell world\n").unwrap();
    world.run("sync c1 --state c1.state").code(0);
    let said = world.run("sync c2 --state c2.state").code(1);
    assert!(said.err.contains("conflict: a.txt"), "{said:?}");

    let mut mount = world.start("c2", "mount c2 -f -v --state c2.state");
    mount.says("");
    let status = world.settles("c2 --state c2.state");
    assert_eq!(status["conflicts"][0]["path"], "a.txt");
    world.run("status c2 --state c2.state").code(1);
    let said = world.run("conflicts c2 --state c2.state").code(1);
    assert!(said.out.starts_with("a.txt ("), "{said:?}");
    assert!(world.run("conflicts c2 --state c2.state --json").code(1).out.starts_with('['));
    world.run("resolve c2/b.txt --ours --state c2.state").fails(2, "in no conflict", "syncfs conflicts");
    fs::write(world.path("c2/a.txt"), "x").unwrap_err();
    world.run("resolve c2/a.txt --ours --state c2.state").code(0);
    world.run("conflicts c2 --state c2.state").code(0);
    world.settles("c2 --state c2.state");
    world.run("sync c1 --state c1.state").code(0);
    assert_eq!(fs::read_to_string(world.path("c1/a.txt")).unwrap(), "farewell world\n");
    mount.stop();
}
