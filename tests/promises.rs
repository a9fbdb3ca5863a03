//! The ten scenarios this program exists for, with a real hub, two real mounts and QUIC between them. Each runs twice: processes stop
//! cleanly, or are killed.

mod common;

use common::Stop;
use common::World;
use common::tree;
use common::tree::Prints;
use common::tree::Tree;
use std::fs;
use std::path::Path;

/// Both directories hold the same, which is returned.
#[track_caller]
fn equal(world: &mut World) -> Tree {
    world.settle();
    let (one, two) = (tree::read(&world.c1.dir), tree::read(&world.c2.dir));
    let differs: Vec<_> = one.keys().chain(two.keys()).filter(|path| one.get(*path) != two.get(*path)).collect();
    assert!(differs.is_empty(), "c1 and c2 differ in {differs:?}");
    one
}

/// Both directories hold these tops, and nothing else.
#[track_caller]
fn both_hold(world: &mut World, tops: &[&str]) {
    for client in [&world.c1, &world.c2] {
        common::wait_for(&format!("{} holds {tops:?}", client.dir.display()), || {
            let found = tree::tops(&client.dir);
            if found == tops { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
    equal(world);
    for top in tops {
        // One of everything.
        let below = tree::read(&world.c1.dir.join(top));
        assert_eq!(below.len(), 11, "{top}: {:?}", below.keys());
    }
}

/// What must not change when nothing happens.
struct Still {
    prints: [Prints; 2],
    trees: Tree,
    seq: u64,
}

#[track_caller]
fn still(world: &mut World) -> Still {
    let trees = equal(world);
    Still { prints: [tree::prints(&world.c1.dir), tree::prints(&world.c2.dir)], trees, seq: world.hub.seq() }
}

/// Nothing happened since `before`: same inodes, times and bytes on both sides, and no new record on the hub. Then a witness is sent
/// through, so that whatever was still on its way would have arrived, and only the witness has.
#[track_caller]
fn nothing_happened(world: &mut World, before: &Still) {
    let now = still(world);
    assert_eq!(now.seq, before.seq, "the hub has new records");
    assert_eq!(now.prints, before.prints, "inodes or modification times changed");
    assert!(now.trees == before.trees, "contents changed");

    fs::write(world.c1.dir.join("witness 1"), "1").expect("a write through the mount");
    fs::write(world.c2.dir.join("witness 2"), "2").expect("a write through the mount");
    let mut later = still(world);
    for prints in &mut later.prints {
        for witness in ["witness 1", "witness 2"] {
            assert!(prints.remove(Path::new(witness)).is_some(), "{witness} did not arrive");
        }
    }
    assert_eq!(later.prints, before.prints, "inodes or modification times changed late");
    fs::remove_file(world.c1.dir.join("witness 1")).expect("an unlink through the mount");
    fs::remove_file(world.c2.dir.join("witness 2")).expect("an unlink through the mount");
    world.settle();
}

/// A restart of everything changes nothing, and the directories are plain in between.
#[track_caller]
fn restart_changes_nothing(world: &mut World, how: Stop) {
    let before = still(world);
    world.c1.stop(how);
    world.c2.stop(how);
    world.hub.stop(how);
    assert!(tree::read(&world.c1.dir) == before.trees, "the plain directory of c1 is not what the mount showed");
    assert!(tree::read(&world.c2.dir) == before.trees, "the plain directory of c2 is not what the mount showed");
    world.hub.start();
    world.c1.start(&world.hub);
    world.c2.start(&world.hub);
    nothing_happened(world, &before);
}

/// 1. C1 adds data: C2 has it.
fn one_adds(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    both_hold(&mut world, &["a"]);
    restart_changes_nothing(&mut world, how);
}

/// 2. C1 deletes data: C2 deletes it.
fn one_deletes(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    tree::add(&world.c1.dir, "b");
    both_hold(&mut world, &["a", "b"]);
    tree::remove(&world.c1.dir, "a");
    both_hold(&mut world, &["b"]);
    restart_changes_nothing(&mut world, how);
}

/// 3. Both add data: both end up equal.
fn both_add(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    tree::add(&world.c2.dir, "b");
    both_hold(&mut world, &["a", "b"]);
    restart_changes_nothing(&mut world, how);
}

/// 4. Both add data, C2 removes what C1 added: it is gone on C1.
fn the_other_deletes(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    tree::add(&world.c2.dir, "b");
    both_hold(&mut world, &["a", "b"]);
    tree::remove(&world.c2.dir, "a");
    both_hold(&mut world, &["b"]);
    restart_changes_nothing(&mut world, how);
}

/// 5. C1 adds data, C2 has it, C1 restarts: nothing happens.
fn the_author_restarts(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    both_hold(&mut world, &["a"]);
    let before = still(&mut world);
    world.c1.stop(how);
    world.c1.start(&world.hub);
    nothing_happened(&mut world, &before);
    both_hold(&mut world, &["a"]);
}

/// 6. C1 adds data, C2 has it, C2 restarts: nothing happens.
fn the_reader_restarts(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    both_hold(&mut world, &["a"]);
    let before = still(&mut world);
    world.c2.stop(how);
    world.c2.start(&world.hub);
    nothing_happened(&mut world, &before);
    both_hold(&mut world, &["a"]);
}

/// 7. C2 is down, C1 adds data, C2 starts: C2 has it.
fn added_while_the_other_is_down(how: Stop) {
    let mut world = World::new();
    world.c2.stop(how);
    tree::add(&world.c1.dir, "a");
    world.c2.start(&world.hub);
    both_hold(&mut world, &["a"]);
}

/// 8. C2 is down, C1 deletes data, C2 starts: C2 deletes it.
fn deleted_while_the_other_is_down(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    tree::add(&world.c1.dir, "b");
    both_hold(&mut world, &["a", "b"]);
    world.c2.stop(how);
    tree::remove(&world.c1.dir, "a");
    world.c2.start(&world.hub);
    both_hold(&mut world, &["b"]);
}

/// 9. Both are down, C1's plain directory gains data, both start: both have it.
fn added_offline(how: Stop) {
    let mut world = World::new();
    tree::add(&world.c1.dir, "a");
    both_hold(&mut world, &["a"]);
    world.c1.stop(how);
    world.c2.stop(how);
    tree::add(&world.c1.dir, "b");
    world.c1.start(&world.hub);
    world.c2.start(&world.hub);
    both_hold(&mut world, &["a", "b"]);
}

/// 10. Both are down, C1's plain directory loses data, both start: it is gone on both.
fn deleted_offline(how: Stop) {
    let mut world = World::new();
    // Enough stays that the loss is no reason to ask first.
    for tag in ["a", "b", "c"] {
        tree::add(&world.c1.dir, tag);
    }
    both_hold(&mut world, &["a", "b", "c"]);
    world.c1.stop(how);
    world.c2.stop(how);
    tree::remove(&world.c1.dir, "a");
    world.c1.start(&world.hub);
    world.c2.start(&world.hub);
    both_hold(&mut world, &["b", "c"]);
}

macro_rules! promises {
    ($($scenario:ident)*) => {
        mod clean_stop {
            $(#[test] fn $scenario() { super::$scenario(super::Stop::Clean) })*
        }
        mod killed {
            $(#[test] fn $scenario() { super::$scenario(super::Stop::Kill) })*
        }
    };
}

promises! {
    one_adds
    one_deletes
    both_add
    the_other_deletes
    the_author_restarts
    the_reader_restarts
    added_while_the_other_is_down
    deleted_while_the_other_is_down
    added_offline
    deleted_offline
}
