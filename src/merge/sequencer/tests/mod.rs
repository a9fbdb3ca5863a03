//! A sequencer with a disk that a test makes durable when it likes, and clients that only listen.

mod catch_up;
mod log;
mod random;
mod verdicts;

use super::Action;
use super::Closed;
use super::Event;
use super::HubState;
use super::HubWrite;
use super::Sequencer;
use super::SessionId;
use crate::model::Attrs;
use crate::model::Change;
use crate::model::Content;
use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Mtime;
use crate::model::Name;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::OpId;
use crate::model::Place;
use crate::model::Seq;
use crate::model::Verdict;
use crate::model::VolumeId;
use crate::wire::Hello;
use crate::wire::PROTOCOL;
use crate::wire::ToClient;
use crate::wire::Welcome;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

const VOLUME: VolumeId = VolumeId([7; 16]);
const EPOCH: Epoch = Epoch([8; 16]);
const LAPSE: u64 = 1000;

struct World {
    hub: Sequencer,
    disk: HubState,
    /// Tickets that are not durable yet.
    pending: VecDeque<(u64, Vec<HubWrite>)>,
    /// Whether every ticket becomes durable at once.
    prompt: bool,
    now: u64,
    welcomes: BTreeMap<SessionId, Welcome>,
    inbox: BTreeMap<SessionId, Vec<ToClient>>,
    closed: BTreeMap<SessionId, Closed>,
}

impl World {
    fn new(devices: impl IntoIterator<Item = DeviceNo>) -> Self {
        let disk = HubState::new(VOLUME, EPOCH);
        let mut world = Self {
            hub: Sequencer::new(disk.clone(), LAPSE),
            disk,
            pending: VecDeque::new(),
            prompt: true,
            now: 1,
            welcomes: BTreeMap::new(),
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
        };
        world.devices(devices);
        world
    }

    fn devices(&mut self, devices: impl IntoIterator<Item = DeviceNo>) {
        self.say(Event::Devices { active: devices.into_iter().collect() });
    }

    fn say(&mut self, event: Event) {
        let actions = self.hub.handle(event, self.now);
        let tickets = actions.iter().filter(|action| matches!(action, Action::Persist { .. })).count();
        assert!(tickets <= 1, "one event, one transaction");
        for action in actions {
            match action {
                Action::Persist { ticket, writes } => {
                    let deletions = writes.iter().filter(|write| matches!(write, HubWrite::Unlog(_))).count();
                    assert!(deletions <= super::SWEEP_SLICE);
                    self.pending.push_back((ticket, writes));
                }
                Action::Welcome { session, welcome } => {
                    self.welcomes.insert(session, *welcome);
                }
                Action::Send { session, message } => self.inbox.entry(session).or_default().push(message),
                Action::Close { session, why } => {
                    self.closed.insert(session, why);
                }
            }
        }
        if self.prompt {
            self.persist(usize::MAX);
        }
    }

    /// Makes at most `count` tickets durable, in one transaction.
    fn persist(&mut self, count: usize) {
        while let Some(last) = self.pending.len().min(count).checked_sub(1) {
            let ticket = self.pending[last].0;
            let batch: Vec<_> = self.pending.drain(..=last).collect();
            for (_, writes) in batch {
                for write in &writes {
                    if let HubWrite::Unlog(seq) = write {
                        self.ack_rule(*seq);
                    }
                    self.disk.apply(write);
                }
            }
            self.say(Event::Persisted { ticket });
            if count != usize::MAX {
                return;
            }
        }
    }

    /// The ack rule, on what is durable: a record goes only when nobody who counts still needs it.
    fn ack_rule(&self, seq: Seq) {
        let mut counted = self.disk.acked.iter().filter(|(_, row)| !row.lapsed).peekable();
        assert!(counted.peek().is_some(), "record {seq} deleted while nobody counts");
        for (device, row) in counted {
            assert!(row.cursor >= seq, "record {seq} deleted before device {device} had it");
            assert!(!row.held.contains(&seq), "record {seq} deleted while device {device} holds it");
        }
    }

    /// The hub ends without a word and starts again from its disk.
    fn restart(&mut self) {
        let devices: Vec<DeviceNo> = self.disk.acked.keys().copied().collect();
        self.hub = Sequencer::new(self.disk.clone(), LAPSE);
        self.pending.clear();
        self.inbox.clear();
        self.welcomes.clear();
        self.devices(devices);
    }

    fn join(&mut self, session: SessionId, device: DeviceNo, hello: Hello) {
        self.say(Event::Joined { session, device, name: format!("d{device}"), read_only: false, hello });
    }

    /// A first start of `device` as session number `device`.
    fn first_start(&mut self, device: DeviceNo) {
        self.join(u64::from(device), device, hello(device));
    }

    fn propose(&mut self, session: SessionId, groups: Vec<Vec<Op>>) -> Vec<Vec<Verdict>> {
        self.propose_without(session, groups, BTreeSet::new())
    }

    fn propose_without(&mut self, session: SessionId, groups: Vec<Vec<Op>>, absent: BTreeSet<Hash>) -> Vec<Vec<Verdict>> {
        self.say(Event::Propose { session, batch: 1, groups, absent });
        self.verdicts(session)
    }

    /// The verdicts in the session's newest answer.
    fn verdicts(&self, session: SessionId) -> Vec<Vec<Verdict>> {
        let verdicts = |message: &ToClient| match message {
            ToClient::Verdicts { verdicts, .. } => Some(verdicts.clone()),
            _ => None,
        };
        self.inbox.get(&session).and_then(|inbox| inbox.iter().rev().find_map(verdicts)).unwrap_or_default()
    }

    /// The verdict on a single op.
    fn one(&mut self, op: Op) -> Verdict {
        self.propose(1, vec![vec![op]]).remove(0).remove(0)
    }

    fn ack(&mut self, session: SessionId, cursor: Seq, held: &[Seq]) {
        self.say(Event::Ack { session, cursor, held: held.to_vec() });
    }

    /// The numbers of the records that a session got, in order of arrival.
    fn got(&self, session: SessionId) -> Vec<Seq> {
        let records = |message: &ToClient| match message {
            ToClient::Records { records, .. } => records.iter().map(|sent| sent.record.seq).collect(),
            _ => Vec::new(),
        };
        self.inbox.get(&session).into_iter().flatten().flat_map(records).collect()
    }
}

fn hello(device: DeviceNo) -> Hello {
    Hello {
        protocol: PROTOCOL,
        volume: None,
        epoch: None,
        instance: [device as u8; 16],
        boot: 1,
        cursor: 0,
        chain: Hash([0; 32]),
        held: Vec::new(),
    }
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn op_id(n: u64) -> OpId {
    OpId(std::array::from_fn(|i| n.to_le_bytes().get(i).copied().unwrap_or(0)))
}

fn place(parent: u8, name: &str) -> Option<Place> {
    let parent = if parent == 0 { NodeId::ROOT } else { id(parent) };
    Some(Place { parent, name: Name::new(name.as_bytes()).unwrap() })
}

const ATTRS: Attrs = Attrs { mode: 0o644, mtime: Mtime { secs: 0, nanos: 0 } };

fn op(n: u64, node: u8, expect_place: Seq, expect_content: Seq, change: Change) -> Op {
    Op { id: op_id(n), node: id(node), expect_place, expect_content, change }
}

fn create(n: u64, node: u8, at: Option<Place>, content: Content) -> Op {
    op(n, node, 0, 0, Change { place: Some(at), content: Some(content), attrs: Some(ATTRS), parents: Vec::new() })
}

fn put(n: u64, node: u8, expect: Seq, to: Option<Place>) -> Op {
    op(n, node, expect, 0, Change { place: Some(to), ..Change::default() })
}

fn edit(n: u64, node: u8, expect: Seq, text: &str) -> Op {
    op(n, node, 0, expect, Change { content: Some(Content::file(text.as_bytes())), ..Change::default() })
}

fn chmod(n: u64, node: u8, mode: u16) -> Op {
    op(n, node, 0, 0, Change { attrs: Some(Attrs { mode, ..ATTRS }), ..Change::default() })
}
