//! Without its hub a mount works as ever; a device that no hub knows is told what to run where, and gets nothing.

mod common;

use common::Client;
use common::Stop;
use common::World;
use common::tree;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long one call may take on a busy machine. A call that waited for a hub that does not answer would wait longer: the handshake
/// alone is given five seconds, and tried again and again.
const CALL: Duration = Duration::from_secs(4);

/// Does `call` in a thread of its own and fails when it is not back in time; the thread is left where it hangs.
#[track_caller]
fn in_time<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, answer) = mpsc::channel();
    std::thread::spawn(move || done.send(call()));
    answer.recv_timeout(CALL).unwrap_or_else(|error| panic!("{what} did not come back in {CALL:?}: {error}"))
}

/// Everything a person does with files in `dir`, each call with a deadline.
fn a_day_of_work(dir: &Path) {
    let at = |name: &str| dir.join(name);
    let path = at("new folder");
    in_time("mkdir", move || fs::create_dir(path)).expect("mkdir");
    let path = at("new folder/note.txt");
    in_time("create", move || fs::write(path, "first\n")).expect("create");
    let path = at("new folder/note.txt");
    let appended = in_time("append", move || {
        let mut file = File::options().append(true).open(path)?;
        file.write_all(b"second\n")?;
        file.sync_all()
    });
    appended.expect("append and fsync");
    let path = at("new folder/note.txt");
    assert_eq!(in_time("read", move || fs::read_to_string(path)).expect("read"), "first\nsecond\n");
    let (from, to) = (at("old.txt"), at("new folder/renamed.txt"));
    in_time("rename", move || fs::rename(from, to)).expect("rename");
    let path = at("gone.txt");
    in_time("unlink", move || fs::remove_file(path)).expect("unlink");
    let path = at("kept.txt");
    in_time("truncate and write", move || fs::write(path, "edited\n")).expect("edit");
    let path = dir.to_owned();
    let names = in_time("list", move || tree::tops(&path));
    assert_eq!(names, ["kept.txt", "new folder"]);
    let path = dir.to_owned();
    in_time("statfs", move || rustix::fs::statvfs(path)).expect("statfs");
}

/// The status says that there is no hub, for how long, and that it is not idle.
fn says_so(client: &Client) {
    common::wait_for("status knows that the hub is away", || {
        let status = client.status()?;
        if status["connected"] == false { Ok(()) } else { Err(status.to_string()) }
    });
    let status = client.status().expect("a status");
    assert_eq!((&status["idle"], &status["ready"]), (&false.into(), &true.into()), "{status}");
    let since = status["since"].as_str().unwrap_or_else(|| panic!("since when is it away? {status}"));
    assert!(humantime::parse_rfc3339(since).is_ok(), "{since}");
    let (code, text) = client.status_text();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not connected to the hub for "), "a person reads for how long: {text}");
    assert!(text.contains("changes are sent later"), "{text}");
}

/// The hub dies in the middle of the day: work goes on, and all of it arrives when the hub is back.
#[test]
fn the_hub_dies() {
    let mut world = World::new();
    for name in ["old.txt", "gone.txt", "kept.txt"] {
        fs::write(world.c1.dir.join(name), format!("{name}\n")).expect("a write through the mount");
    }
    world.settle();
    world.hub.stop(Stop::Kill);
    a_day_of_work(&world.c1.dir);
    says_so(&world.c1);
    let path = world.c2.dir.clone();
    in_time("the other side's write", move || fs::write(path.join("from c2"), "2")).expect("a write");
    assert_eq!(tree::tops(&world.c2.dir), ["from c2", "gone.txt", "kept.txt", "old.txt"]);

    world.hub.start();
    world.settle();
    let tree = tree::read(&world.c1.dir);
    assert!(tree == tree::read(&world.c2.dir), "c1 and c2 differ");
    let names: Vec<_> = tree.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["from c2", "kept.txt", "new folder", "new folder/note.txt", "new folder/renamed.txt"]);
    for client in [&world.c1, &world.c2] {
        assert_eq!(client.status_text().0, Some(0), "{}", client.status_text().1);
    }
}

/// A client that starts while there is no hub mounts, works, restarts, and brings everything when the hub comes.
#[test]
fn the_hub_is_not_there_yet() {
    let mut world = World::cold();
    world.hub.stop(Stop::Clean);
    for name in ["old.txt", "gone.txt", "kept.txt"] {
        fs::write(world.c1.dir.join(name), format!("{name}\n")).expect("a write into the plain directory");
    }
    world.c1.start(&world.hub);
    a_day_of_work(&world.c1.dir);
    says_so(&world.c1);
    world.c1.stop(Stop::Clean);
    world.c1.start(&world.hub);
    says_so(&world.c1);
    world.hub.start();
    world.c2.start(&world.hub);
    world.settle();
    assert!(tree::read(&world.c1.dir) == tree::read(&world.c2.dir), "c1 and c2 differ");
    assert_eq!(tree::tops(&world.c2.dir), ["kept.txt", "new folder"]);
}

/// An address that swallows everything, as a firewall does, is no reason to wait either.
#[test]
fn a_hub_behind_a_wall() {
    let mut world = World::cold();
    let wall = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = wall.local_addr().expect("its address").to_string();
    for name in ["old.txt", "gone.txt", "kept.txt"] {
        fs::write(world.c1.dir.join(name), format!("{name}\n")).expect("a write into the plain directory");
    }
    world.c1.start_with(&address, &world.hub.key);
    a_day_of_work(&world.c1.dir);
    says_so(&world.c1);
    world.c1.stop(Stop::Clean);
    assert_eq!(tree::tops(&world.c1.dir), ["kept.txt", "new folder"]);
}

/// A device that is not registered reads what to run and where, in the mount's own words and in `status`; nothing of the tree reaches
/// it, it works locally, and once it is registered at the running hub it goes on by itself.
#[test]
fn a_stranger() {
    let mut world = World::new();
    tree::add(&world.c1.dir, "secret");
    world.settle();
    let mut stranger = world.stranger("stranger");
    stranger.start(&world.hub);
    let command = format!("syncfs admin register {} --name ", stranger.key);
    common::wait_for("the mount says what to run", || {
        let said = stranger.said();
        let told =
            said.contains("not registered") && said.contains(&command) && said.contains("whoever runs the hub to run there");
        if told { Ok(()) } else { Err(said) }
    });
    fs::write(stranger.dir.join("mine.txt"), "mine\n").expect("a write through the mount");
    let (code, text) = stranger.status_text();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not registered") && text.contains(&command), "status says what to run: {text}");
    let status = stranger.status().expect("a status");
    assert_eq!((&status["connected"], &status["cursor"]), (&false.into(), &0.into()), "{status}");

    // A witness between the others shows that time has passed.
    fs::write(world.c2.dir.join("witness"), "1").expect("a write through the mount");
    world.settle();
    assert_eq!(tree::tops(&stranger.dir), ["mine.txt"]);
    assert!(!tree::read(&world.c1.dir).contains_key(Path::new("mine.txt")), "a stranger's file came in");
    assert_eq!(stranger.said().matches(&command).count(), 1, "it is told once: {}", stranger.said());

    world.hub.register(&stranger.key, "stranger");
    common::wait_for("the stranger is one of us", || {
        let (hub, status) = (world.hub.status()?, stranger.status()?);
        let agrees = status["root_hash"] == hub["root_hash"] && status["idle"] == true && status["connected"] == true;
        if agrees { Ok(()) } else { Err(format!("{status}\nhub: {hub}")) }
    });
    world.settle();
    let tree = tree::read(&world.c1.dir);
    assert!(tree == tree::read(&stranger.dir), "the stranger has another tree");
    assert!(tree.contains_key(Path::new("mine.txt")) && tree.contains_key(Path::new("secret/text.txt")));
    assert_eq!(stranger.status_text().0, Some(0), "{}", stranger.status_text().1);
    stranger.stop(Stop::Clean);
}
