//! What must hold: at every step, and when the world has come to rest.

use crate::people::lines;
use crate::world::World;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use syncfs::model::Kind;
use syncfs::model::Record;

/// A record leaves the log only when every registered client's *durable* state has applied it.
pub fn ack_rule(world: &World, seq: u64) {
    for client in world.clients.iter().filter(|client| world.registered.contains(&client.device)) {
        let cursor = client.state.position.as_ref().map_or(0, |position| position.cursor);
        assert!(cursor >= seq, "record {seq} deleted, c{} has only {cursor} on disk", client.device);
        for (id, head) in &client.state.head {
            let base = client.state.base.get(id).map(|base| &base.node);
            let pairs = [
                (head.place.seq, base.map(|node| node.place.seq)),
                (head.content.seq, base.map(|node| node.content.seq)),
                (head.attrs.seq, base.map(|node| node.attrs.seq)),
            ];
            let held = pairs.iter().any(|(head, base)| *head == seq && *base != Some(seq));
            assert!(!held, "record {seq} deleted, c{} has not applied it to {id:?}", client.device);
        }
    }
}

/// A record that names a content is committed only when the hub holds that content.
pub fn content_before_name(world: &World, record: &Record) {
    if let Some(hash) = record.change.content.as_ref().and_then(|content| content.blob()) {
        assert!(world.contents.contains_key(&hash), "record {} names a content the hub does not hold", record.seq);
    }
}

type Tree = BTreeMap<Vec<u8>, (Kind, Vec<u8>, u16)>;

fn shown(entry: Option<&(Kind, Vec<u8>, u16)>) -> Option<String> {
    entry.map(|(kind, bytes, mode)| format!("{kind:?} {mode:o} {}", bytes.escape_ascii()))
}

fn tree(world: &World, at: usize) -> Tree {
    let disk = &world.clients[at].disk;
    let entry = |(path, ino): (Vec<syncfs::model::Name>, u64)| {
        let node = &disk.inodes[&ino];
        let path = path.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
        (path, (node.kind, node.bytes.clone(), node.attrs.mode))
    };
    disk.walk().into_iter().map(entry).collect()
}

/// At rest without conflicts: trees equal, nothing lost, nothing back.
pub fn at_rest(world: &mut World) {
    for client in &world.clients {
        let replica = &client.running.as_ref().expect("all are up").replica;
        for (path, ino) in client.disk.walk() {
            let (name, parents) = path.split_last().expect("not the root");
            let id = parents.iter().chain([name]).try_fold(syncfs::model::NodeId::ROOT, |at, name| replica.child(at, name));
            let known = id.and_then(|id| replica.local(id)).map(|node| node.fingerprint);
            assert_eq!(known, client.disk.fingerprint(ino), "c{} does not know its own {path:?}", client.device);
        }
    }
    for client in &world.clients {
        let replica = &client.running.as_ref().expect("all are up").replica;
        let mut dirs = vec![syncfs::model::NodeId::ROOT];
        while let Some(dir) = dirs.pop() {
            for (name, id) in replica.children(dir) {
                let path = replica.path(id).expect("it is below the root");
                assert!(
                    client.disk.at(&path).is_some(),
                    "c{} believes in {name:?} ({id:?}), {path:?}: {:?}",
                    client.device,
                    replica.local(id)
                );
                dirs.push(id);
            }
        }
    }
    let trees: Vec<Tree> = (0..world.clients.len()).map(|at| tree(world, at)).collect();
    for (at, other) in trees.iter().enumerate().skip(1) {
        let differences: Vec<String> = trees[0]
            .keys()
            .chain(other.keys())
            .filter(|path| trees[0].get(*path) != other.get(*path))
            .map(|path| format!("{}: {:?} {:?}", path.escape_ascii(), shown(trees[0].get(path)), shown(other.get(path))))
            .collect();
        let conflicts: Vec<usize> = world.clients.iter().map(|client| client.blocked.len()).collect();
        assert!(differences.is_empty(), "c1 and c{} differ, conflicts {conflicts:?}: {differences:#?}", at + 1);
    }
    let hub = world.sequencer.as_ref().expect("the hub is up").root_hash();
    for client in &world.clients {
        let replica = &client.running.as_ref().expect("all are up").replica;
        assert_eq!(replica.root_hash(), hub, "c{} and the hub differ", client.device);
    }
    let seen: BTreeSet<String> =
        trees[0].values().filter(|(kind, ..)| *kind == Kind::File).flat_map(|(_, bytes, _)| lines(bytes)).collect();
    for line in &world.people.written {
        assert!(seen.contains(line) || world.people.removed.contains(line), "lost: {line:?}");
    }
    for line in &world.people.buried {
        assert!(!seen.contains(line), "back from the dead: {line:?}");
    }
    let gone: Vec<String> = world.people.removed.iter().filter(|line| !seen.contains(*line)).cloned().collect();
    world.people.buried.extend(gone);
    world.people.removed.retain(|line| !seen.contains(line));
    let removed = world.people.buried.clone();
    world.people.removed.extend(removed);
    assert!(world.clients.iter().all(|client| client.disk.inodes[&crate::disk::LIMBO].entries.is_empty()), "left in limbo");
    assert!(
        world.hub.log.is_empty(),
        "everybody has everything and the log still holds {:?}",
        world.hub.log.keys().collect::<Vec<_>>()
    );
}

/// Restarting everybody without any change does nothing: no record, no byte, no time, no inode.
pub fn restart_is_silent(world: &mut World) {
    let seq = world.hub.counters.seq;
    let before: Vec<String> = world.clients.iter().map(|client| format!("{:?}", client.disk.inodes)).collect();
    for at in 0..world.clients.len() {
        world.client_crashes(at);
    }
    world.crash_hub();
    world.start_hub();
    world.rest();
    assert_eq!(world.hub.counters.seq, seq, "a restart made records");
    let after: Vec<String> = world.clients.iter().map(|client| format!("{:?}", client.disk.inodes)).collect();
    assert_eq!(before, after, "a restart changed a directory");
}
