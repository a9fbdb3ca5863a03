use super::*;

/// Three devices of which two are connected, and five records.
fn five() -> World {
    let mut world = World::new([1, 2, 3]);
    world.first_start(1);
    world.first_start(2);
    for n in 1..=5u8 {
        world.one(create(u64::from(n), n, place(0, &format!("f{n}")), Content::file(&[n])));
    }
    world
}

fn kept(world: &World) -> Vec<Seq> {
    world.disk.log.keys().copied().collect()
}

/// A record stays until every registered device has applied it, also one that has never connected, also one held in a conflict.
#[test]
fn everybody_must_have_it() {
    let mut world = five();
    world.ack(1, 5, &[]);
    world.ack(2, 5, &[2]);
    assert_eq!(kept(&world), [1, 2, 3, 4, 5], "device 3 was never here");
    assert_eq!(world.hub.devices().iter().map(|status| status.holds_back).collect::<Vec<_>>(), [false, false, true]);
    world.first_start(3);
    world.ack(3, 4, &[]);
    assert_eq!(kept(&world), [2, 5]);
    assert_eq!(world.disk.counters.floor, 4);
    assert_eq!(world.hub.devices().iter().map(|status| status.holds_back).collect::<Vec<_>>(), [false, true, false]);
    world.ack(2, 5, &[]);
    assert_eq!(kept(&world), [5]);
    world.devices([1, 2]);
    assert_eq!(kept(&world), Vec::<Seq>::new(), "a revoked device holds nothing");
    assert_eq!(world.disk.counters.floor, 5);
}

/// Without a device that counts nothing is deleted.
#[test]
fn nobody_is_not_everybody() {
    let mut world = five();
    world.devices([]);
    assert_eq!(kept(&world).len(), 5);
}

/// Acknowledgements that go back, run ahead or are no list end the connection and change nothing.
#[test]
fn acknowledgements_are_checked() {
    for (cursor, held) in [(2, vec![]), (6, vec![]), (4, vec![5]), (4, vec![3, 3]), (4, vec![2, 1]), (5, (1..2000).collect())] {
        let mut world = five();
        world.ack(1, 3, &[]);
        world.ack(1, cursor, &held);
        assert_eq!(world.closed.get(&1), Some(&Closed::Protocol), "{cursor} {held:?}");
        assert_eq!(world.disk.acked[&1].cursor, 3);
    }
}

/// A silent device lapses, stops holding the log, and comes back by a listing; a connected one never lapses.
#[test]
fn the_silent_lapse() {
    let mut world = five();
    world.ack(1, 5, &[]);
    world.ack(2, 5, &[]);
    world.now += LAPSE;
    world.say(Event::Tick);
    assert_eq!(kept(&world).len(), 5);
    world.now += 1;
    world.say(Event::Tick);
    assert_eq!(kept(&world), Vec::<Seq>::new());
    assert!(world.hub.devices()[2].lapsed && !world.hub.devices()[0].lapsed);
    world.first_start(3);
    assert_eq!(world.welcomes[&3].catch_up, crate::wire::CatchUp::Listing);
    world.one(chmod(10, 1, 0));
    world.ack(1, 6, &[]);
    world.ack(2, 6, &[]);
    assert_eq!(kept(&world), [6], "it counts again");
}

/// A hello acknowledges what an ack lost on the way would have, and a client that lost state is believed as well.
#[test]
fn a_hello_acknowledges() {
    let mut world = five();
    let chain = |seq| world.disk.log[&seq].chain;
    let at = |cursor| Hello { epoch: Some(EPOCH), cursor, chain: chain(cursor), held: vec![1], ..hello(3) };
    let (four, two) = (at(4), at(2));
    world.join(30, 3, four);
    assert_eq!((world.disk.acked[&3].cursor, &world.disk.acked[&3].held), (4, &vec![1]));
    world.join(31, 3, Hello { boot: 2, ..two });
    assert_eq!(world.disk.acked[&3].cursor, 2);
    assert_eq!(world.got(31), [3, 4, 5]);
    world.ack(31, 3, &[]);
    assert_eq!(world.disk.acked[&3].cursor, 3);
}

/// Many records go in slices, one transaction each, until all are gone.
#[test]
fn deletion_comes_in_slices() {
    let mut world = World::new([1, 2]);
    world.first_start(1);
    for n in 0..25u64 {
        let groups = (0..1000).map(|m| {
            let op = create(n * 1000 + m, 0, place(0, &format!("{n}-{m}")), Content::file(b""));
            vec![Op { node: NodeId(op_id(n * 1000 + m + 1).0), ..op }]
        });
        world.propose(1, groups.collect());
        world.ack(1, world.disk.counters.seq, &[]);
    }
    world.ack(1, 25_000, &[]);
    world.prompt = false;
    world.devices([1]);
    let mut left = Vec::new();
    while !world.pending.is_empty() {
        world.persist(1);
        left.push(world.disk.log.len());
    }
    assert_eq!(left, [15_000, 5000, 0]);
    assert_eq!(world.disk.counters.floor, 25_000);
}

/// The chain hash is what anybody computes from the records.
#[test]
fn the_chain_binds_the_records() {
    let world = five();
    let mut chain = Hash::of(&EPOCH.0);
    for logged in world.disk.log.values() {
        let bytes = [&chain.0[..], &crate::model::codec::encode(&logged.record)].concat();
        chain = Hash::of(&bytes);
        assert_eq!(logged.chain, chain);
    }
    assert_eq!(world.disk.counters.chain, chain);
}

/// The log tells which content a record's content replaced.
#[test]
fn the_replaced_content_is_noted() {
    let mut world = five();
    world.one(edit(10, 1, 1, "new"));
    world.one(chmod(11, 1, 0));
    let replaced: Vec<Option<Hash>> = world.disk.log.values().map(|logged| logged.replaced).skip(4).collect();
    assert_eq!(replaced, [None, Some(Hash::of(&[1])), None]);
}
