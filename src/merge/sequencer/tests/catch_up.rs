use super::*;
use crate::wire::CatchUp;
use crate::wire::MAX_RECORDS;

fn known(device: DeviceNo, cursor: Seq, chain: Hash) -> Hello {
    Hello { volume: Some(VOLUME), epoch: Some(EPOCH), cursor, chain, ..hello(device) }
}

/// Devices 1 and 2; files 11 to 20 as records 1 to 10; all applied by both up to `floor`, so that only later records are kept.
fn ten(floor: Seq) -> (World, Vec<Hash>) {
    let mut world = World::new([1, 2]);
    world.first_start(1);
    world.first_start(2);
    let mut chains = vec![Hash::of(&EPOCH.0)];
    for n in 1..=10u8 {
        world.one(create(u64::from(n), n + 10, place(0, &format!("f{n}")), Content::file(&[n])));
        chains.push(world.disk.counters.chain);
    }
    world.ack(1, floor, &[]);
    world.ack(2, floor, &[]);
    world.say(Event::Left { session: 1 });
    world.say(Event::Left { session: 2 });
    assert_eq!(world.disk.counters.floor, floor);
    (world, chains)
}

/// The decision, as a table: what the client says, where the log begins, how it is brought to the present.
#[test]
fn log_listing_or_restored() {
    let other = Hash([9; 32]);
    type Row = (Seq, Option<Epoch>, Seq, Option<Hash>, CatchUp, &'static str);
    let table: &[Row] = &[
        (0, None, 0, Some(other), CatchUp::Log, "first start, whole log"),
        (4, None, 0, Some(other), CatchUp::Listing, "first start, log begins later"),
        (4, None, 5, None, CatchUp::Restored, "a cursor without a history"),
        (4, Some(EPOCH), 10, None, CatchUp::Log, "up to date"),
        (10, Some(EPOCH), 10, None, CatchUp::Log, "up to date, empty log"),
        (4, Some(EPOCH), 4, None, CatchUp::Log, "just at the floor"),
        (4, Some(EPOCH), 3, None, CatchUp::Listing, "below the floor"),
        (4, Some(EPOCH), 0, None, CatchUp::Listing, "nothing received yet"),
        (0, Some(EPOCH), 0, Some(other), CatchUp::Log, "nothing received, so nothing to compare"),
        (4, Some(EPOCH), 7, Some(other), CatchUp::Restored, "another record 7"),
        (4, Some(EPOCH), 4, Some(other), CatchUp::Restored, "another record at the floor"),
        (4, Some(EPOCH), 11, Some(other), CatchUp::Restored, "more than there is"),
        (4, Some(Epoch([1; 16])), 7, None, CatchUp::Restored, "another history"),
        (0, Some(Epoch([1; 16])), 0, None, CatchUp::Restored, "another history's beginning"),
    ];
    for (floor, epoch, cursor, chain, expected, what) in table {
        let (mut world, chains) = ten(*floor);
        let chain = chain.unwrap_or(chains.get(*cursor as usize).copied().unwrap_or(other));
        world.join(9, 2, Hello { epoch: *epoch, ..known(2, *cursor, chain) });
        assert_eq!(world.welcomes[&9].catch_up, *expected, "{what}");
        assert_eq!(world.welcomes[&9].head, 10);
        let listed: Vec<NodeId> = world.inbox.get(&9).into_iter().flatten().flat_map(listed).collect();
        match expected {
            CatchUp::Log => assert_eq!(world.got(9), (cursor + 1..=10).collect::<Vec<_>>(), "{what}"),
            CatchUp::Listing => assert_eq!(listed, (cursor + 1..=10).map(|n| id(n as u8 + 10)).collect::<Vec<_>>(), "{what}"),
            CatchUp::Restored => assert_eq!(listed.len(), 10, "{what}"),
        }
    }
}

fn listed(message: &ToClient) -> Vec<NodeId> {
    match message {
        ToClient::Listing { nodes, .. } => nodes.iter().map(|(id, _)| *id).collect(),
        _ => Vec::new(),
    }
}

/// Removed nodes are in a listing with the number of their removal, so that nobody brings them back.
#[test]
fn a_listing_tells_removals() {
    let (mut world, chains) = ten(4);
    world.first_start(1);
    world.one(put(100, 11, 1, None));
    world.join(9, 2, known(2, 2, chains[2]));
    let Some(ToClient::Listing { nodes, upto: 11, last: true, .. }) = world.inbox[&9].first() else { panic!() };
    assert_eq!(nodes[0].0, id(11));
    assert_eq!((nodes[0].1.place.seq, &nodes[0].1.place.value), (11, &None));
}

/// A large tree is listed in parts that fit into their messages, and only the last part says so.
#[test]
fn a_listing_comes_in_parts() {
    let mut world = World::new([1, 2]);
    world.first_start(1);
    let target = vec![b'x'; 4095];
    for n in 0..3u64 {
        let link = |m: u64| {
            let k = n * 1000 + m;
            let op = create(k, 0, place(0, &format!("l{k}")), Content::Symlink { target: target.clone() });
            vec![Op { node: NodeId(op_id(k + 1).0), ..op }]
        };
        world.propose(1, (0..1000).map(link).collect());
    }
    world.join(9, 2, Hello { epoch: Some(Epoch([1; 16])), ..known(2, 0, Hash([0; 32])) });
    let parts = &world.inbox[&9];
    assert!(parts.len() >= 3);
    assert_eq!(parts.iter().flat_map(listed).collect::<BTreeSet<_>>().len(), 3000);
    for (index, part) in parts.iter().enumerate() {
        assert!(crate::wire::frame(part).len() <= <ToClient as crate::wire::Wire>::MAX);
        assert!(matches!(part, ToClient::Listing { last, upto: 3000, .. } if *last == (index + 1 == parts.len())));
    }
}

/// Whoever may not join is told why, and nobody else is disturbed.
#[test]
fn who_may_join() {
    let (mut world, _) = ten(0);
    world.first_start(1);
    world.join(20, 2, Hello { protocol: 9, ..hello(2) });
    world.join(21, 2, Hello { volume: Some(VolumeId([1; 16])), ..hello(2) });
    world.join(22, 3, hello(3));
    world.join(23, 2, Hello { held: vec![3, 2], ..hello(2) });
    world.join(24, 1, Hello { instance: [77; 16], ..hello(1) });
    world.join(25, 1, Hello { boot: 0, ..hello(1) });
    let why =
        [Closed::Version, Closed::OtherVolume, Closed::NotRegistered, Closed::Protocol, Closed::Elsewhere, Closed::Elsewhere];
    assert_eq!((20..26).map(|session| world.closed[&session]).collect::<Vec<_>>(), why);
    assert_eq!(world.closed.get(&1), None);
    world.join(26, 1, hello(1));
    assert_eq!(world.closed[&1], Closed::Elsewhere, "the lost connection of the same instance gives way");
    assert!(world.welcomes.contains_key(&26));
}

/// Nothing is sent before it is durable: no welcome, no verdict, no record, in one transaction or in several.
#[test]
fn durable_then_tell() {
    let mut world = World::new([1, 2]);
    world.first_start(1);
    world.prompt = false;
    world.propose(1, vec![vec![create(1, 1, place(0, "a"), Content::Dir)]]);
    world.join(2, 2, hello(2));
    world.propose(1, vec![vec![create(2, 2, place(0, "b"), Content::Dir)]]);
    assert!(world.inbox.is_empty() && !world.welcomes.contains_key(&2));
    world.persist(1);
    assert_eq!((world.got(1), world.verdicts(1)), (vec![1], vec![vec![Verdict::Committed(1)]]));
    assert!(!world.welcomes.contains_key(&2));
    world.persist(1);
    assert_eq!((world.welcomes[&2].head, world.got(2)), (1, vec![1]));
    world.propose(1, vec![vec![create(1, 1, place(0, "a"), Content::Dir)]]);
    assert_eq!(world.verdicts(1), [[Verdict::Committed(1)]], "a repeated answer waits as well");
    assert_eq!(world.inbox[&1].len(), 2);
    world.persist(1);
    assert_eq!((world.got(1), world.got(2)), (vec![1, 2], vec![1, 2]));
}

/// A replay runs a window ahead of the acknowledgements and not further.
#[test]
fn a_slow_client_is_not_flooded() {
    let window = 4 * MAX_RECORDS as Seq;
    let mut world = World::new([1, 2]);
    world.first_start(1);
    let total = window + 1200;
    for n in 0..total {
        let op = create(n, 0, place(0, &format!("f{n}")), Content::file(b""));
        world.propose(1, vec![vec![Op { node: NodeId(op_id(n + 1).0), ..op }]]);
        world.ack(1, n + 1, &[]);
    }
    assert_eq!(world.got(1).len() as Seq, total);
    world.first_start(2);
    assert_eq!(world.got(2), (1..=window).collect::<Vec<_>>());
    world.ack(2, 600, &[]);
    assert_eq!(world.got(2).len() as Seq, window + 600);
    world.ack(2, window + 600, &[]);
    assert_eq!(world.got(2), (1..=total).collect::<Vec<_>>());
    let longest =
        world.inbox[&2].iter().map(|message| if let ToClient::Records { records, .. } = message { records.len() } else { 0 });
    assert_eq!(longest.max(), Some(MAX_RECORDS));
}
