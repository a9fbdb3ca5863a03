use super::*;
use crate::model::Refusal;

const MALFORMED: Verdict = Verdict::Refused(Refusal::Malformed);

/// `d` (1), `d/f` (2), `e` (3), `g` (4): records 1 to 4.
fn tree() -> World {
    let mut world = World::new([1]);
    world.first_start(1);
    let group = vec![
        create(1, 1, place(0, "d"), Content::Dir),
        create(2, 2, place(1, "f"), Content::file(b"f")),
        create(3, 3, place(0, "e"), Content::Dir),
        create(4, 4, place(0, "g"), Content::file(b"g")),
    ];
    let verdicts = world.propose(1, vec![group]);
    assert_eq!(verdicts, [(1..=4).map(Verdict::Committed).collect::<Vec<_>>()]);
    world
}

/// Each register is compared with its own expectation, and a committed change raises only the registers it writes.
#[test]
fn registers_are_compared_one_by_one() {
    let mut world = tree();
    assert_eq!(world.one(edit(10, 2, 2, "F")), Verdict::Committed(5));
    assert_eq!(world.one(put(11, 2, 2, place(3, "f"))), Verdict::Committed(6));
    assert_eq!(world.one(chmod(12, 2, 0o600)), Verdict::Committed(7));
    let node = world.hub.node(id(2)).unwrap().clone();
    assert_eq!((node.place.seq, node.content.seq, node.attrs.seq), (6, 5, 7));
    assert_eq!(world.one(edit(13, 2, 2, "x")), Verdict::Stale(Some(node.clone())));
    assert_eq!(world.one(put(14, 2, 2, None)), Verdict::Stale(Some(node.clone())));
    assert_eq!(world.one(create(15, 2, place(0, "n"), Content::file(b"f"))), Verdict::Stale(Some(node)));
    assert_eq!(world.one(edit(16, 99, 2, "x")), Verdict::Stale(None));
    assert_eq!(world.hub.seq(), 7);
}

/// A removal that names the content it removes does not remove a newer one.
#[test]
fn content_outranks_deletion() {
    let mut world = tree();
    world.one(edit(10, 2, 2, "newer"));
    let removal = |n, expect_content| op(n, 2, 2, expect_content, Change { place: Some(None), ..Change::default() });
    assert!(matches!(world.one(removal(11, 2)), Verdict::Stale(Some(_))));
    assert_eq!(world.one(removal(12, 5)), Verdict::Committed(6));
}

/// A removed node takes no content and no bits unless it is placed again.
#[test]
fn a_removed_node_is_only_changed_by_placing_it() {
    let mut world = tree();
    world.one(put(10, 2, 2, None));
    assert!(matches!(world.one(edit(11, 2, 2, "x")), Verdict::Stale(Some(_))));
    assert!(matches!(world.one(chmod(12, 2, 0o600)), Verdict::Stale(Some(_))));
    let revive = Change { place: Some(place(1, "f")), content: Some(Content::file(b"x")), ..Change::default() };
    assert_eq!(world.one(op(13, 2, 5, 2, revive)), Verdict::Committed(6));
}

/// Everything that would leave no tree is refused with its own verdict.
#[test]
fn a_tree_stays_a_tree() {
    let mut world = tree();
    assert_eq!(world.one(put(10, 4, 4, place(9, "g"))), Verdict::NoParent, "unknown parent");
    assert_eq!(world.one(put(11, 1, 1, place(4, "d"))), Verdict::NoParent, "a file as parent");
    let limbo = Place { parent: NodeId::LIMBO, name: Name::new(b"x").unwrap() };
    assert_eq!(world.one(put(12, 4, 4, Some(limbo))), Verdict::NoParent, "a reserved parent");
    assert_eq!(world.one(put(13, 4, 4, place(0, "e"))), Verdict::NameTaken(id(3)));
    assert_eq!(world.one(create(14, 5, place(1, "f"), Content::Dir)), Verdict::NameTaken(id(2)));
    assert_eq!(world.one(put(15, 1, 1, None)), Verdict::NotEmpty);
    assert_eq!(world.one(put(16, 1, 1, place(1, "d"))), Verdict::WouldCycle);
    assert_eq!(world.one(put(17, 3, 3, place(1, "e"))), Verdict::Committed(5));
    assert_eq!(world.one(put(18, 1, 1, place(3, "d"))), Verdict::WouldCycle);
    assert_eq!(world.one(put(19, 3, 5, None)), Verdict::Committed(6));
    assert_eq!(world.one(put(20, 4, 4, place(3, "g"))), Verdict::NoParent, "a removed parent");
    assert_eq!(world.one(put(21, 4, 4, place(0, "e"))), Verdict::Committed(7), "the removed node's name is free");
}

/// Malformed ops are refused one by one, whatever else is right about them.
#[test]
fn malformed_ops_are_refused() {
    let mut world = tree();
    let symlink = |n, target: Vec<u8>| create(n, 8, place(0, "l"), Content::Symlink { target });
    let change = |change| op(30, 4, 4, 4, change);
    let reserved = |node| Op { node, ..create(31, 8, place(0, "l"), Content::Dir) };
    let bad = [
        reserved(NodeId::ROOT),
        reserved(NodeId::LIMBO),
        change(Change::default()),
        change(Change { content: Some(Content::Dir), ..Change::default() }),
        change(Change { content: Some(Content::Symlink { target: b"x".to_vec() }), ..Change::default() }),
        change(Change { content: Some(Content::file(b"x")), parents: vec![Hash([0; 32]); 3], ..Change::default() }),
        change(Change { content: Some(Content::File { hash: Hash([1; 32]), len: 0 }), ..Change::default() }),
        change(Change { attrs: Some(Attrs { mode: 0o4755, ..ATTRS }), ..Change::default() }),
        change(Change { attrs: Some(Attrs { mtime: Mtime { secs: 0, nanos: 1_000_000_000 }, ..ATTRS }), ..Change::default() }),
        symlink(32, Vec::new()),
        symlink(33, vec![b'x'; 4096]),
        symlink(34, b"a\0b".to_vec()),
    ];
    for op in bad {
        assert_eq!(world.one(op.clone()), MALFORMED, "{op:?}");
    }
    let twice = vec![chmod(40, 4, 0o600), chmod(40, 4, 0o644)];
    assert_eq!(world.propose(1, vec![twice]), [[Verdict::GroupFailed, MALFORMED]]);
    assert_eq!(world.one(symlink(41, vec![b'x'; 4095])), Verdict::Committed(5));
}

/// Content before name: what is not durable is asked for, an empty file needs nothing.
#[test]
fn a_content_must_be_there() {
    let mut world = tree();
    let absent = BTreeSet::from([Hash::of(b"new"), Hash::of(b"")]);
    let verdicts = world.propose_without(
        1,
        vec![
            vec![edit(10, 2, 2, "new")],
            vec![create(11, 5, place(0, "n"), Content::file(b"new"))],
            vec![edit(12, 4, 4, "")],
            vec![edit(13, 2, 1, "new")],
        ],
        absent,
    );
    assert_eq!(verdicts[..3], [[Verdict::NoContent], [Verdict::NoContent], [Verdict::Committed(5)]]);
    assert!(matches!(verdicts[3][0], Verdict::Stale(_)), "an upload would be in vain");
}

/// Swapped names, a directory turned inside out, and a name freed and taken: fine as groups, not as single ops.
#[test]
fn a_group_is_judged_by_what_it_leaves() {
    let mut world = tree();
    let swap = vec![put(10, 3, 3, place(0, "g")), put(11, 4, 4, place(0, "e"))];
    assert_eq!(world.propose(1, vec![swap]), [[Verdict::Committed(5), Verdict::Committed(6)]]);
    world.one(create(12, 5, place(1, "sub"), Content::Dir));
    let inside_out = vec![put(13, 1, 1, place(5, "d")), put(14, 5, 7, place(0, "sub"))];
    assert_eq!(world.propose(1, vec![inside_out]), [[Verdict::Committed(8), Verdict::Committed(9)]]);
    let replace = vec![create(15, 6, place(1, "f"), Content::file(b"new")), put(16, 2, 2, None)];
    assert_eq!(world.propose(1, vec![replace]), [[Verdict::Committed(10), Verdict::Committed(11)]]);
    let remove_all = vec![put(17, 5, 9, None), put(18, 1, 8, None), put(19, 6, 10, None)];
    assert_eq!(world.propose(1, vec![remove_all])[0].len(), 3);
    assert_eq!(world.hub.node(id(5)).unwrap().place.value, None);
}

/// Where one op of a group fails nothing of it is left, later groups go on, and the numbers stay dense.
#[test]
fn a_group_fails_whole() {
    let mut world = tree();
    let before = world.disk.clone();
    let hash = world.hub.root_hash();
    let circle = vec![put(10, 1, 1, place(3, "d")), put(11, 3, 3, place(1, "e")), chmod(12, 4, 0o600)];
    assert_eq!(world.propose(1, vec![circle]), [[Verdict::WouldCycle, Verdict::WouldCycle, Verdict::GroupFailed]]);
    let clash = vec![put(13, 4, 4, place(3, "x")), put(14, 2, 2, place(3, "x"))];
    assert_eq!(world.propose(1, vec![clash]), [[Verdict::NameTaken(id(2)), Verdict::NameTaken(id(4))]]);
    let below_removed = vec![put(15, 3, 3, None), put(16, 4, 4, place(3, "g"))];
    assert_eq!(world.propose(1, vec![below_removed]), [[Verdict::NotEmpty, Verdict::NoParent]]);
    assert_eq!((world.disk.clone(), world.hub.root_hash()), (before, hash));
    let mixed = vec![vec![chmod(17, 4, 0o600), edit(18, 2, 9, "x")], vec![], vec![chmod(19, 4, 0o600)]];
    let verdicts = world.propose(1, mixed);
    assert_eq!(verdicts[0], [Verdict::GroupFailed, Verdict::Stale(world.hub.node(id(2)).cloned())]);
    assert_eq!(verdicts[1..], [vec![], vec![Verdict::Committed(5)]]);
}

/// A repeated op gets its old answer, alone or within a group, also from a restarted hub; another device's op is another op.
#[test]
fn an_op_is_committed_once() {
    let mut world = tree();
    let group = vec![create(2, 2, place(1, "f"), Content::file(b"f")), chmod(50, 4, 0o600)];
    assert_eq!(world.propose(1, vec![group.clone()]), [[Verdict::Committed(2), Verdict::Committed(5)]]);
    world.restart();
    world.first_start(1);
    assert_eq!(world.propose(1, vec![group]), [[Verdict::Committed(2), Verdict::Committed(5)]]);
    world.devices([1, 2]);
    world.first_start(2);
    assert_eq!(world.propose(2, vec![vec![chmod(50, 4, 0o600)]]), [[Verdict::Committed(6)]]);
}

/// An op is remembered after its record has left the log: at least the newest 4096 of a device.
#[test]
fn ops_outlive_their_records_in_memory() {
    let mut world = tree();
    for n in 0..4100u64 {
        world.propose(1, vec![vec![chmod(100 + n, 4, 0o600 + (n % 2) as u16)]]);
        world.ack(1, 5 + n, &[]);
    }
    assert_eq!(world.hub.log_len(), 0);
    assert_eq!(world.one(chmod(100 + 4099, 4, 0)), Verdict::Committed(5 + 4099));
    assert_eq!(world.one(chmod(100 + 4, 4, 0)), Verdict::Committed(5 + 4));
    assert_eq!(world.one(chmod(100 + 3, 4, 0)), Verdict::Committed(4105), "older ones are forgotten");
}

/// A device that may only read gets records and no commit.
#[test]
fn readers_write_nothing() {
    let mut world = tree();
    world.devices([1, 2]);
    world.say(Event::Joined { session: 2, device: 2, name: "r".into(), read_only: true, hello: hello(2) });
    assert!(world.welcomes[&2].read_only);
    assert_eq!(world.got(2), [1, 2, 3, 4]);
    assert_eq!(world.propose(2, vec![vec![chmod(10, 4, 0)]]), [[Verdict::Refused(Refusal::ReadOnly)]]);
}

/// A proposal of a revoked device changes nothing, and verdicts that waited for it go nowhere.
#[test]
fn the_revoked_commit_nothing() {
    let mut world = tree();
    world.devices([1, 2]);
    world.first_start(2);
    world.prompt = false;
    world.propose(2, vec![vec![chmod(10, 4, 0)]]);
    world.devices([1]);
    world.propose(2, vec![vec![chmod(11, 4, 0)]]);
    world.prompt = true;
    world.persist(usize::MAX);
    assert_eq!(world.closed[&2], Closed::NotRegistered);
    assert_eq!(world.verdicts(2), Vec::<Vec<Verdict>>::new());
    assert_eq!(world.hub.seq(), 5);
    assert_eq!(world.disk.acked.keys().collect::<Vec<_>>(), [&1]);
}

/// A batch whose verdicts would not fit into a message is answered by one that does.
#[test]
fn verdicts_fit_into_their_message() {
    let mut world = tree();
    world.one(create(10, 5, place(0, "l"), Content::Symlink { target: vec![b'x'; 4095] }));
    let stale = |n| vec![put(n, 5, 1, None), put(n + 5000, 5, 1, None), put(n + 10000, 5, 1, None)];
    let verdicts = world.propose(1, (1000..2000).map(stale).collect());
    let frame = crate::wire::frame(&ToClient::Verdicts { batch: 1, verdicts: verdicts.clone() });
    assert!(frame.len() < <ToClient as crate::wire::Wire>::MAX);
    assert!(matches!(verdicts[0][0], Verdict::Stale(Some(_))));
    assert_eq!(verdicts[999][2], Verdict::GroupFailed);
}
