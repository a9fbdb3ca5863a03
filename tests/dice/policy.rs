//! What happens when two people change the same thing: every pair of a set of operations, and the rows of the policy with their
//! outcomes, in both orders, with everybody up and with either side restarted in between.

use crate::dice::Dice;
use crate::disk::Disk;
use crate::disk::ROOT;
use crate::monitor;
use crate::people;
use crate::people::fresh;
use crate::people::text;
use crate::world::World;
use crate::world::remember;
use std::collections::BTreeMap;
use syncfs::model::Attrs;
use syncfs::model::Kind;
use syncfs::model::Name;

fn path(text: &str) -> Vec<Name> {
    text.split('/').map(|name| Name::new(name.as_bytes()).expect("a name")).collect()
}

fn spot(disk: &Disk, at: &str) -> (u64, Name) {
    let path = path(at);
    let (name, parents) = path.split_last().expect("a path");
    (disk.at(parents).expect("the directory is there"), name.clone())
}

/// One thing a person does.
#[derive(Debug, Clone, Copy)]
enum Does {
    Nothing,
    /// A new line at the end.
    Edit(&'static str),
    /// The whole text, in place.
    Write(&'static str, &'static str),
    Delete(&'static str),
    Move(&'static str, &'static str),
    Swap(&'static str, &'static str),
    Mkdir(&'static str),
    Create(&'static str, &'static str),
    Link(&'static str, &'static str),
    Chmod(&'static str, u16),
    /// A directory with a file in it, where a file was.
    ReplaceByDir(&'static str),
}

fn does(world: &mut World, at: usize, what: Does) {
    let touch = |world: &mut World, path: &str| {
        let (dir, name) = spot(&world.clients[at].disk, path);
        world.clients[at].touched(dir, &name);
    };
    let ino = |world: &World, at: usize, p: &str| world.clients[at].disk.at(&path(p)).expect("it is there");
    match what {
        Does::Nothing => {}
        Does::Edit(file) => {
            let line = fresh(world);
            let ino = ino(world, at, file);
            let mut lines = people::lines(&world.clients[at].disk.inodes[&ino].bytes);
            lines.push(line);
            remember(&text(&lines));
            world.clients[at].disk.write(ino, text(&lines));
            touch(world, file);
        }
        Does::Write(file, bytes) => {
            let ino = ino(world, at, file);
            let old = people::lines(&world.clients[at].disk.inodes[&ino].bytes);
            let new = people::lines(bytes.as_bytes());
            world.people.removed.extend(old.into_iter().filter(|line| !new.contains(line)));
            world.people.written.extend(new);
            remember(bytes.as_bytes());
            world.clients[at].disk.write(ino, bytes.into());
            touch(world, file);
        }
        Does::Delete(gone) => {
            let ino = ino(world, at, gone);
            let lines = people::all_lines(world, at, ino);
            world.people.removed.extend(lines);
            let (dir, name) = spot(&world.clients[at].disk, gone);
            world.clients[at].disk.remove(dir, &name);
            touch(world, gone);
        }
        Does::Move(from, to) => {
            let (dir, name) = spot(&world.clients[at].disk, from);
            let (new_dir, new_name) = spot(&world.clients[at].disk, to);
            world.clients[at].disk.rename(dir, &name, new_dir, &new_name);
            world.clients[at].touched(dir, &name);
            world.clients[at].touched(new_dir, &new_name);
        }
        Does::Swap(a, b) => {
            let (dir_a, name_a) = spot(&world.clients[at].disk, a);
            let (dir_b, name_b) = spot(&world.clients[at].disk, b);
            let temp = Name::new(b"swap.tmp").expect("a name");
            let disk = &mut world.clients[at].disk;
            disk.rename(dir_a, &name_a, dir_a, &temp);
            disk.rename(dir_b, &name_b, dir_a, &name_a);
            disk.rename(dir_a, &temp, dir_b, &name_b);
            world.clients[at].touched(dir_a, &temp);
            world.clients[at].touched(dir_a, &name_a);
            world.clients[at].touched(dir_b, &name_b);
        }
        Does::Mkdir(new) => make(world, at, new, Kind::Dir, b""),
        Does::Create(new, bytes) => {
            world.people.written.extend(people::lines(bytes.as_bytes()));
            make(world, at, new, Kind::File, bytes.as_bytes());
        }
        Does::Link(new, target) => make(world, at, new, Kind::Symlink, target.as_bytes()),
        Does::Chmod(file, mode) => {
            let ino = ino(world, at, file);
            let attrs = world.clients[at].disk.inodes[&ino].attrs;
            world.clients[at].disk.set_attrs(ino, Attrs { mode, ..attrs });
            touch(world, file);
        }
        Does::ReplaceByDir(file) => {
            does(world, at, Does::Delete(file));
            make(world, at, file, Kind::Dir, b"");
            let line = fresh(world);
            let inside = world.clients[at].disk.at(&path(file)).expect("it was made");
            people::create(world, at, inside, &Name::new(b"inside").expect("a name"), Kind::File, text(&[line]));
        }
    }
}

fn make(world: &mut World, at: usize, new: &str, kind: Kind, bytes: &[u8]) {
    let (dir, name) = spot(&world.clients[at].disk, new);
    people::create(world, at, dir, &name, kind, bytes.to_vec());
}

/// Who is restarted between the changes and their meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Nobody,
    First,
    Second,
    Hub,
}

/// Two clients with the same tree; what `first` does reaches the hub before what `second` does.
fn meet(base: &[Does], first: &[Does], second: &[Does], swap: bool, restart: Restart) -> World {
    let mut world = World::with(Dice::new(7), 2);
    for what in base {
        does(&mut world, 0, *what);
    }
    world.rest();
    for at in 0..2 {
        if let Some(session) = world.clients[at].running.as_ref().and_then(|running| running.session) {
            world.cut(session);
        }
    }
    let (one, two) = if swap { (1, 0) } else { (0, 1) };
    for (at, what, down) in [(one, first, Restart::First), (two, second, Restart::Second)] {
        if restart == down {
            world.client_crashes(at);
        }
        for what in what {
            does(&mut world, at, *what);
        }
        if restart == down {
            world.start_client(at);
        }
    }
    world.rest_of(&[one]);
    if restart == Restart::Hub {
        world.crash_hub();
    }
    world.rest();
    world
}

const RESTARTS: [Restart; 4] = [Restart::Nobody, Restart::First, Restart::Second, Restart::Hub];

/// A small universe of concurrent changes, all pairs of it: replicas converge, nothing is lost, nothing comes back.
#[test]
fn every_pair_of_changes() {
    let base = [
        Does::Mkdir("d"),
        Does::Create("d/f", "f one\nf two\n"),
        Does::Create("g", "g one\n"),
        Does::Mkdir("e"),
        Does::Link("l", "d/f"),
    ];
    let changes: Vec<Vec<Does>> = vec![
        vec![Does::Nothing],
        vec![Does::Edit("d/f")],
        vec![Does::Edit("g")],
        vec![Does::Delete("d/f")],
        vec![Does::Delete("d")],
        vec![Does::Delete("g")],
        vec![Does::Move("d/f", "d/h")],
        vec![Does::Move("d/f", "e/f")],
        vec![Does::Move("d", "k")],
        vec![Does::Move("d", "e/d")],
        vec![Does::Move("e", "d/e")],
        vec![Does::Move("g", "d/g")],
        vec![Does::Move("g", "k")],
        vec![Does::Create("d/n", "n one\n")],
        vec![Does::Create("k", "k one\n")],
        vec![Does::Mkdir("k"), Does::Create("k/x", "x one\n")],
        vec![Does::Link("k", "elsewhere")],
        vec![Does::Chmod("d/f", 0o600)],
        vec![Does::Chmod("d", 0o700)],
        vec![Does::Swap("d/f", "g")],
        vec![Does::Swap("d", "e")],
        vec![Does::ReplaceByDir("g")],
        vec![Does::Delete("d"), Does::Create("d", "d is a file\n")],
        vec![Does::Delete("l"), Does::Link("l", "other")],
        vec![Does::Edit("g"), Does::Move("g", "e/g")],
    ];
    for (i, first) in changes.iter().enumerate() {
        for (j, second) in changes.iter().enumerate() {
            for restart in RESTARTS {
                let result = std::panic::catch_unwind(|| {
                    let mut world = meet(&base, first, second, false, restart);
                    people::resolve_all(&mut world);
                    monitor::at_rest(&mut world);
                    monitor::restart_is_silent(&mut world);
                });
                assert!(result.is_ok(), "{first:?} ({i}) against {second:?} ({j}), restart {restart:?}");
            }
        }
    }
}

/// What a client holds: path, and content with a mark for kinds other than files.
fn tree(world: &World, at: usize) -> BTreeMap<String, String> {
    let disk = &world.clients[at].disk;
    let entry = |(path, ino): (Vec<Name>, u64)| {
        let path = path.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect::<Vec<_>>().join("/");
        let node = &disk.inodes[&ino];
        let bytes = String::from_utf8_lossy(&node.bytes).into_owned();
        let shown = match node.kind {
            Kind::Dir => "/".to_owned(),
            Kind::File => bytes,
            Kind::Symlink => format!("-> {bytes}"),
        };
        (path, shown)
    };
    disk.walk().into_iter().map(entry).collect()
}

struct Row {
    row: u8,
    base: Vec<Does>,
    first: Vec<Does>,
    second: Vec<Does>,
    /// What both hold afterwards; `DEVICE` stands for the name of the device that came second.
    both: Vec<(&'static str, &'static str)>,
    /// The file that is blocked on the second device, and what it holds there instead.
    blocked: Option<(&'static str, &'static str)>,
}

fn row(row: u8, base: &[Does], first: &[Does], second: &[Does], both: &[(&'static str, &'static str)]) -> Row {
    Row { row, base: base.into(), first: first.into(), second: second.into(), both: both.into(), blocked: None }
}

fn rows() -> Vec<Row> {
    use Does::*;
    let f = [Create("f", "the quick brown fox\n")];
    let d = [Mkdir("d"), Create("d/f", "one\n"), Create("d/g", "two\n")];
    let conflict = |row: Row, path, ours| Row { blocked: Some((path, ours)), ..row };
    vec![
        row(
            1,
            &f,
            &[Write("f", "the very quick brown fox\n")],
            &[Write("f", "the quick brown fox jumps\n")],
            &[("f", "the very quick brown fox jumps\n")],
        ),
        conflict(
            row(
                2,
                &f,
                &[Write("f", "the quick red fox\n")],
                &[Write("f", "the quick blue fox\n")],
                &[("f", "the quick red fox\n")],
            ),
            "f",
            "the quick blue fox\n",
        ),
        conflict(
            row(3, &[Create("b", "\0one")], &[Write("b", "\0two")], &[Write("b", "\0three")], &[("b", "\0two")]),
            "b",
            "\0three",
        ),
        row(4, &f, &[Write("f", "edited fox\n")], &[Delete("f")], &[("f", "edited fox\n")]),
        row(4, &f, &[Delete("f")], &[Write("f", "edited fox\n")], &[("f", "edited fox\n")]),
        row(5, &f, &[Move("f", "g")], &[Write("f", "edited fox\n")], &[("g", "edited fox\n")]),
        row(5, &f, &[Write("f", "edited fox\n")], &[Move("f", "g")], &[("g", "edited fox\n")]),
        row(6, &f, &[Move("f", "g")], &[Move("f", "h")], &[("g", "the quick brown fox\n")]),
        row(7, &[], &[Create("n", "same\n")], &[Create("n", "same\n")], &[("n", "same\n")]),
        row(8, &[], &[Create("n", "one\n")], &[Create("n", "one\ntwo\n")], &[("n", "one\ntwo\n")]),
        conflict(row(8, &[], &[Create("n", "apples\n")], &[Create("n", "pears\n")], &[("n", "apples\n")]), "n", "pears\n"),
        row(9, &d, &[Delete("d")], &[Create("d/new", "three\n")], &[("d", "/"), ("d/new", "three\n")]),
        row(9, &d, &[Create("d/new", "three\n")], &[Delete("d")], &[("d", "/"), ("d/new", "three\n")]),
        row(9, &d, &[Delete("d")], &[Write("d/f", "one more\n")], &[("d", "/"), ("d/f", "one more\n")]),
        row(10, &[], &[Create("x.md", "file\n")], &[Mkdir("x.md")], &[("x.md", "/"), ("x (DEVICE).md", "file\n")]),
        row(10, &[], &[Mkdir("x.md")], &[Create("x.md", "file\n")], &[("x.md", "/"), ("x (DEVICE).md", "file\n")]),
        row(11, &f, &[Delete("f"), Mkdir("f")], &[Write("f", "edited fox\n")], &[("f", "/"), ("f (DEVICE)", "edited fox\n")]),
        conflict(
            row(14, &[Link("l", "a")], &[Delete("l"), Link("l", "b")], &[Delete("l"), Link("l", "c")], &[("l", "-> b")]),
            "l",
            "-> c",
        ),
        row(15, &f, &[Move("f", "F")], &[Write("f", "edited fox\n")], &[("F", "edited fox\n")]),
        row(
            16,
            &[Create("a", "one\n"), Create("b", "two\n")],
            &[Swap("a", "b")],
            &[Write("a", "one and more\n")],
            &[("a", "two\n"), ("b", "one and more\n")],
        ),
        row(
            17,
            &d,
            &[Move("d", "k")],
            &[Create("d/new", "three\n")],
            &[("k", "/"), ("k/f", "one\n"), ("k/g", "two\n"), ("k/new", "three\n")],
        ),
        row(18, &d, &[Move("d", "k")], &[Move("d", "m")], &[("k", "/"), ("k/f", "one\n"), ("k/g", "two\n")]),
        row(19, &f, &[Move("f", "g")], &[Delete("f")], &[("g", "the quick brown fox\n")]),
        row(19, &f, &[Delete("f")], &[Move("f", "g")], &[("g", "the quick brown fox\n")]),
        row(20, &f, &[Delete("f")], &[Delete("f")], &[]),
        row(20, &f, &[Move("f", "g")], &[Move("f", "g")], &[("g", "the quick brown fox\n")]),
        row(20, &f, &[Write("f", "edited fox\n")], &[Write("f", "edited fox\n")], &[("f", "edited fox\n")]),
        row(21, &[Mkdir("a"), Mkdir("b")], &[Move("a", "b/a")], &[Move("b", "a/b")], &[("b", "/"), ("b/a", "/")]),
    ]
}

/// Each row of the policy that two replicas can show, with its outcome, in both orders and with restarts in between.
#[test]
fn the_rows_of_the_policy() {
    for row in rows() {
        for swap in [false, true] {
            for restart in RESTARTS {
                let what = format!("row {} (swap {swap}, restart {restart:?}): {:?} then {:?}", row.row, row.first, row.second);
                let world = meet(&row.base, &row.first, &row.second, swap, restart);
                let (one, two) = if swap { (1, 0) } else { (0, 1) };
                let device = format!("c{}", world.clients[two].device);
                let expected: BTreeMap<String, String> =
                    row.both.iter().map(|(path, bytes)| (path.replace("DEVICE", &device), (*bytes).to_owned())).collect();
                assert_eq!(tree(&world, one), expected, "{what}");
                let mut here = expected.clone();
                if let Some((path, ours)) = row.blocked {
                    here.insert(path.into(), ours.into());
                }
                assert_eq!(tree(&world, two), here, "{what}");
                let blocked: Vec<usize> = world.clients.iter().map(|client| client.blocked.len()).collect();
                assert_eq!(blocked[two], usize::from(row.blocked.is_some()), "{what}");
                assert_eq!(blocked[one], 0, "{what}");
            }
        }
    }
}

/// Mode and content, mode and mode (rows 12 and 13): both changes stand, the later mode in hub order wins.
#[test]
fn modes() {
    for restart in RESTARTS {
        let base = [Does::Create("f", "one\n")];
        let world = meet(&base, &[Does::Chmod("f", 0o600)], &[Does::Edit("f")], false, restart);
        for at in 0..2 {
            let disk = &world.clients[at].disk;
            let node = &disk.inodes[&disk.at(&path("f")).expect("it is there")];
            assert_eq!((node.attrs.mode, people::lines(&node.bytes).len()), (0o600, 2), "restart {restart:?}");
        }
        let world = meet(&base, &[Does::Chmod("f", 0o600)], &[Does::Chmod("f", 0o640)], false, restart);
        for at in 0..2 {
            let disk = &world.clients[at].disk;
            let ino = disk.at(&path("f")).expect("it is there");
            assert_eq!(disk.inodes[&ino].attrs.mode, 0o640, "restart {restart:?}");
        }
    }
}

/// A directory of 200 files renamed is one record at the hub and touches no file on the other side.
#[test]
fn a_renamed_directory_is_one_record() {
    let mut world = World::with(Dice::new(1), 2);
    does(&mut world, 0, Does::Mkdir("d"));
    let dir = world.clients[0].disk.at(&path("d")).expect("it was made");
    for n in 0..200 {
        let name = Name::new(format!("f{n}").as_bytes()).expect("a name");
        people::create(&mut world, 0, dir, &name, Kind::File, n.to_string().into_bytes());
    }
    world.rest();
    let seq = world.hub.counters.seq;
    let inodes = |world: &World, at: &str| {
        let disk = &world.clients[1].disk;
        disk.inodes[&disk.at(&path(at)).expect("it is there")].entries.clone()
    };
    let before = inodes(&world, "d");
    does(&mut world, 0, Does::Move("d", "k"));
    world.rest();
    assert_eq!(world.hub.counters.seq, seq + 1);
    assert_eq!(inodes(&world, "k"), before);
    assert!(world.clients[1].disk.child(ROOT, &path("d")[0]).is_none());
}

/// A client that is killed after a new version is in place and before that is recorded has not edited it: the version after that is
/// simply taken, also when it rewrites the same words.
#[test]
fn killed_between_rename_and_commit() {
    let mut world = World::with(Dice::new(3), 2);
    does(&mut world, 0, Does::Create("f", "the quick brown fox\n"));
    world.rest();
    does(&mut world, 0, Does::Write("f", "the quick red fox\n"));
    let on_disk = |world: &World| {
        let disk = &world.clients[1].disk;
        disk.at(&path("f")).map(|ino| disk.inodes[&ino].bytes.clone())
    };
    for _ in 0..60_000 {
        if on_disk(&world).as_deref() == Some(b"the quick red fox\n") {
            break;
        }
        world.progress();
    }
    world.client_crashes(1);
    does(&mut world, 0, Does::Write("f", "the quick blue fox\n"));
    world.rest_of(&[0]);
    world.rest();
    assert!(world.clients[1].blocked.is_empty(), "a version of the hub was taken for an edit");
    assert_eq!(on_disk(&world).as_deref(), Some(&b"the quick blue fox\n"[..]));
}

/// The same for a place: a file that was put under its new name and then removed elsewhere is not a file that was renamed here.
#[test]
fn killed_between_a_rename_and_its_record() {
    let mut world = World::with(Dice::new(3), 2);
    does(&mut world, 0, Does::Create("f", "the quick brown fox\n"));
    world.rest();
    does(&mut world, 0, Does::Move("f", "g"));
    for _ in 0..60_000 {
        if world.clients[1].disk.at(&path("g")).is_some() {
            break;
        }
        world.progress();
    }
    world.client_crashes(1);
    does(&mut world, 0, Does::Delete("g"));
    world.rest_of(&[0]);
    world.rest();
    assert_eq!(tree(&world, 0), BTreeMap::new(), "back from the dead");
    assert_eq!(tree(&world, 1), BTreeMap::new());
}
