use super::super::Counters;
use super::*;
use crate::wire::CatchUp;
use proptest::prelude::*;

/// A client that believes the hub and applies everything at once.
#[derive(Default, Clone)]
struct Listener {
    session: Option<SessionId>,
    boot: u64,
    read: usize,
    cursor: Seq,
    chain: Option<Hash>,
    started: bool,
    nodes: BTreeMap<NodeId, crate::model::Node>,
}

impl Listener {
    /// Reads what has arrived; panics when anything is missed, twice or out of order.
    fn listen(&mut self, world: &World) {
        let Some(session) = self.session else { return };
        let Some(welcome) = world.welcomes.get(&session) else { return };
        self.started = true;
        let inbox = world.inbox.get(&session).map_or(&[][..], |inbox| inbox);
        for message in &inbox[self.read..] {
            match message {
                ToClient::Records { records, chain } => {
                    for sent in records {
                        assert_eq!(sent.record.seq, self.cursor + 1, "in order, once, without a gap");
                        self.cursor += 1;
                        let record = &sent.record;
                        let before = self.chain.unwrap_or(Hash::of(&EPOCH.0));
                        self.chain = Some(crate::merge::sequencer::chain_after(&before, record));
                        let node = record.change.apply(self.nodes.get(&record.node), record.seq).expect("an applicable record");
                        self.nodes.insert(record.node, node);
                    }
                    assert_eq!(self.chain, Some(*chain));
                }
                ToClient::Listing { nodes, upto, chain, last } => {
                    assert_eq!(welcome.catch_up, CatchUp::Listing, "nobody lost a history");
                    self.nodes.extend(nodes.iter().cloned());
                    if *last {
                        (self.cursor, self.chain) = (*upto, Some(*chain));
                    }
                }
                ToClient::Verdicts { .. } => {}
            }
        }
        self.read = inbox.len();
        assert!(self.cursor <= world.disk.counters.seq, "nothing is told before it is durable");
    }

    fn hello(&self, device: DeviceNo) -> Hello {
        Hello {
            epoch: self.started.then_some(EPOCH),
            boot: self.boot,
            cursor: self.cursor,
            chain: self.chain.unwrap_or(Hash([0; 32])),
            ..hello(device)
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join(DeviceNo),
    Leave(DeviceNo),
    Ack(DeviceNo, bool),
    Propose(DeviceNo, u8, u8, u8, u8),
    Persist(usize),
    Register(DeviceNo),
    Revoke(DeviceNo),
    Silence(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 1..5u32;
    prop_oneof![
        6 => device.clone().prop_map(Step::Join),
        2 => device.clone().prop_map(Step::Leave),
        8 => (device.clone(), any::<bool>()).prop_map(|(device, hold)| Step::Ack(device, hold)),
        12 => (device.clone(), 1..6u8, 0..6u8, 0..4u8, 0..7u8).prop_map(|(d, a, b, c, e)| Step::Propose(d, a, b, c, e)),
        10 => (1..4usize).prop_map(Step::Persist),
        1 => device.clone().prop_map(Step::Register),
        1 => device.prop_map(Step::Revoke),
        1 => (0..600u64).prop_map(Step::Silence),
        1 => Just(Step::Restart),
    ]
}

/// An op that is sometimes right and sometimes not, from the tree as it is.
fn some_op(world: &World, n: u64, node: u8, parent: u8, name: u8, what: u8) -> Op {
    let to = place(parent, &format!("n{name}"));
    let Some(present) = world.hub.node(id(node)) else {
        return create(n, node, to, if node < 4 { Content::Dir } else { Content::file(&[name]) });
    };
    let (p, c) = (present.place.seq, present.content.seq);
    match what {
        0 => put(n, node, p, None),
        1 | 2 => put(n, node, p, to),
        3 => edit(n, node, c, &format!("{n}")),
        4 => edit(n, node, c.saturating_sub(1), "stale"),
        5 => put(n, node, p.saturating_sub(1), to),
        _ => chmod(n, node, u16::from(name)),
    }
}

struct Run {
    world: World,
    listeners: BTreeMap<DeviceNo, Listener>,
    next: u64,
}

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Join(device) if self.world.disk.acked.contains_key(&device) => {
                self.next += 1;
                let listener = self.listeners.entry(device).or_default();
                listener.boot += 1;
                (listener.session, listener.read) = (Some(self.next), 0);
                let hello = listener.hello(device);
                self.world.join(self.next, device, hello);
            }
            Step::Leave(device) => {
                if let Some(session) = self.listeners.entry(device).or_default().session.take() {
                    self.world.say(Event::Left { session });
                }
            }
            Step::Ack(device, hold) => {
                let listener = self.listeners.entry(device).or_default().clone();
                if let Some(session) = listener.session.filter(|session| self.world.welcomes.contains_key(session)) {
                    let held = if hold && listener.cursor > 0 { vec![listener.cursor] } else { vec![] };
                    self.world.ack(session, listener.cursor, &held);
                }
            }
            Step::Propose(device, node, parent, name, what) => {
                let session = self.listeners.entry(device).or_default().session;
                if let Some(session) = session.filter(|session| self.world.welcomes.contains_key(session)) {
                    self.next += 2;
                    let first = some_op(&self.world, self.next, node, parent, name, what);
                    let second = some_op(&self.world, self.next + 1, parent.max(1), node, what, name);
                    let groups = if what % 2 == 0 { vec![vec![first], vec![second]] } else { vec![vec![first, second]] };
                    self.world.propose(session, groups);
                }
            }
            Step::Persist(count) => self.world.persist(count),
            Step::Register(device) => {
                let active = self.world.disk.acked.keys().copied().chain([device]).collect::<BTreeSet<_>>();
                self.world.devices(active);
                self.world.prompt = false;
            }
            Step::Revoke(device) => {
                let active = self.world.disk.acked.keys().copied().filter(|other| *other != device || device == 1);
                let active: BTreeSet<DeviceNo> = active.collect();
                self.world.devices(active);
            }
            Step::Silence(ms) => {
                self.world.now += ms;
                self.world.say(Event::Tick);
            }
            Step::Restart => {
                self.world.restart();
                self.listeners.values_mut().for_each(|listener| listener.session = None);
            }
            Step::Join(_) => {}
        }
        self.check();
    }

    fn check(&mut self) {
        for listener in self.listeners.values_mut() {
            let closed = listener.session.is_some_and(|session| self.world.closed.contains_key(&session));
            if closed {
                let why = listener.session.and_then(|session| self.world.closed.get(&session));
                assert_ne!(why, Some(&Closed::Protocol), "an honest client keeps the protocol");
                listener.session = None;
            }
            listener.listen(&self.world);
        }
        let Counters { seq, floor, .. } = self.world.disk.counters;
        assert!((floor + 1..=seq).all(|seq| self.world.disk.log.contains_key(&seq)), "no gap above the floor");
        assert!(is_tree(&self.world.disk));
    }
}

/// Whether every living node hangs below the root under a name of its own.
fn is_tree(disk: &HubState) -> bool {
    let mut names = BTreeSet::new();
    disk.heads.values().filter_map(|node| node.place.value.as_ref()).all(|place| {
        let mut at = place;
        let mut steps = 0;
        while at.parent != NodeId::ROOT {
            let Some(parent) = disk.heads.get(&at.parent).filter(|node| node.content.value == Content::Dir) else { return false };
            let Some(up) = &parent.place.value else { return false };
            (at, steps) = (up, steps + 1);
            if steps > disk.heads.len() {
                return false;
            }
        }
        names.insert(place.clone())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: the tree stays a tree, nothing is told before it is durable, every client gets every
    /// record once and in order, the log keeps what somebody needs, and in the end all have the hub's heads.
    #[test]
    fn any_history(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new([1, 2]);
        world.prompt = false;
        world.persist(usize::MAX);
        let mut run = Run { world, listeners: BTreeMap::new(), next: 100 };
        for step in steps {
            run.take(step);
        }
        run.world.persist(usize::MAX);
        run.check();
        let devices: Vec<DeviceNo> = run.world.disk.acked.keys().copied().collect();
        run.world.prompt = true;
        for device in devices {
            run.take(Step::Join(device));
            let heads = &run.world.disk.heads;
            prop_assert_eq!(&run.listeners[&device].nodes, heads);
            run.take(Step::Ack(device, false));
        }
        // All have everything: what is left in the log is nothing.
        prop_assert_eq!(run.world.disk.log.len(), 0);
    }

    /// A hub that starts again from its disk gives the same answers as one that went on.
    #[test]
    fn a_restart_changes_no_answer(steps in proptest::collection::vec((1..6u8, 0..6u8, 0..4u8, 0..7u8), 1..60)) {
        let mut steady = World::new([1]);
        let mut restarted = World::new([1]);
        for (n, (node, parent, name, what)) in steps.into_iter().enumerate() {
            let op = some_op(&steady, n as u64, node, parent, name, what);
            restarted.restart();
            for world in [&mut steady, &mut restarted] {
                world.first_start(1);
                world.propose(1, vec![vec![op.clone()]]);
                world.say(Event::Left { session: 1 });
            }
            prop_assert_eq!(steady.verdicts(1), restarted.verdicts(1));
            prop_assert_eq!(&steady.disk, &restarted.disk);
            prop_assert_eq!(steady.hub.root_hash(), restarted.hub.root_hash());
        }
    }
}
