//! The sequencer: what it does with each event.

use super::Acked;
use super::Action;
use super::Closed;
use super::Counters;
use super::Event;
use super::HubState;
use super::HubWrite;
use super::Logged;
use super::SessionId;
use super::session::Done;
use super::session::Session;
use super::tree::Tree;
use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::Record;
use crate::model::Refusal;
use crate::model::Seq;
use crate::model::Verdict;
use crate::model::VolumeId;
use crate::model::codec::encode;
use crate::wire::MAX_GROUPS;
use crate::wire::MAX_HELD;
use crate::wire::ToClient;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

/// The most records deleted from the log in one transaction.
pub const SWEEP_SLICE: usize = 10_000;
/// How old a connected device's durable `last_seen` may grow, in milliseconds.
const SEEN_STEP: u64 = 24 * 60 * 60 * 1000;
/// The bytes of nodes that the verdicts of one batch may carry; the message's limit is a little more.
const VERDICTS_ROOM: usize = 6 << 20;

/// The hub's decisions about one volume: which proposals are committed and as what, who is sent what, when a record is forgotten.
///
/// It does no input and output, has no clock and makes no random numbers: the same events give the same actions. The caller
///
/// - loads a [`HubState`] and gives it to [`Sequencer::new`]; then says [`Event::Devices`] with what the registry holds,
/// - calls [`Sequencer::handle`] with each event, in the order in which they happened, and carries out the actions in their order,
/// - makes the writes of every [`Action::Persist`] durable, in ascending order of tickets, each ticket in one transaction (several
///   tickets may share one), and only then says [`Event::Persisted`] with the newest of them,
/// - after a write that failed, drops the sequencer and makes a new one from what the store holds then; nothing that was not durable
///   has been told to anybody,
/// - says [`Event::Joined`] once for each connection and [`Event::Left`] when it is gone. After [`Action::Close`] the session is
///   forgotten here; further events of it change nothing,
/// - says [`Event::Tick`] about once an hour.
///
/// An event that changes anything gives exactly one `Persist`, before the actions that are already allowed. What depends on it
/// (verdicts, welcomes, records) comes out of the `Persisted` of its ticket. Between a session's `Welcome` and its end, the messages
/// to it are: the parts of a listing if the welcome announced one, then every durable record after it once and in order, its own
/// included, as far as the session acknowledges; and its verdicts in between.
pub struct Sequencer {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) lapse_after: u64,
    pub(super) counters: Counters,
    pub(super) tree: Tree,
    pub(super) log: BTreeMap<Seq, Logged>,
    /// One row for each device that is registered.
    pub(super) rows: BTreeMap<DeviceNo, Acked>,
    pub(super) done: BTreeMap<DeviceNo, Done>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    ticket: u64,
    waiting: VecDeque<Waiting>,
    /// The newest record that is known to be durable.
    durable: Seq,
    /// More records may be deleted than fitted into the last slice.
    sweep_again: bool,
}

/// What may go out when a ticket is durable.
struct Waiting {
    ticket: u64,
    seq: Seq,
    then: Vec<Action>,
}

/// What one event brings about.
#[derive(Default)]
pub(super) struct Outcome {
    /// Done at once.
    pub now: Vec<Action>,
    pub writes: Vec<HubWrite>,
    /// Done when everything up to here is durable.
    pub then: Vec<Action>,
}

impl Sequencer {
    /// A sequencer that goes on from `state`. A device is marked lapsed when it has been silent for `lapse_after_ms` milliseconds.
    pub fn new(state: HubState, lapse_after_ms: u64) -> Self {
        let mut done: BTreeMap<DeviceNo, Done> = BTreeMap::new();
        for logged in state.log.values() {
            let record = &logged.record;
            done.entry(record.author).or_default().committed(record.op, record.seq, |_| true);
        }
        Self {
            volume: state.volume,
            epoch: state.epoch,
            lapse_after: lapse_after_ms,
            counters: state.counters,
            tree: Tree::new(state.heads),
            log: state.log,
            rows: state.acked,
            done,
            sessions: BTreeMap::new(),
            ticket: 0,
            waiting: VecDeque::new(),
            durable: state.counters.seq,
            sweep_again: true,
        }
    }

    /// What `event` brings about. `now` is in milliseconds since 1970: it is shown to people and decides lapses, nothing else.
    pub fn handle(&mut self, event: Event, now: u64) -> Vec<Action> {
        let mut outcome = Outcome::default();
        match event {
            Event::Joined { session, device, name, read_only, hello } => {
                self.joined(session, device, name, read_only, hello, now, &mut outcome);
            }
            Event::Left { session } => self.left(session, now, &mut outcome),
            Event::Propose { session, batch, groups, absent } => {
                self.propose(session, batch, &groups, &absent, now, &mut outcome);
            }
            Event::Ack { session, cursor, held } => self.ack(session, cursor, held, now, &mut outcome),
            Event::Devices { active } => self.registered(&active, now, &mut outcome),
            Event::Persisted { ticket } => {
                while self.waiting.front().is_some_and(|waiting| waiting.ticket <= ticket) {
                    let Some(waiting) = self.waiting.pop_front() else { break };
                    self.durable = waiting.seq;
                    self.release(waiting.then, &mut outcome.now);
                }
                if self.sweep_again {
                    self.sweep(&mut outcome.writes);
                }
            }
            Event::Tick => self.tick(now, &mut outcome),
        }
        self.finish(outcome)
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Action> {
        let Outcome { now: mut actions, writes, then } = outcome;
        if !writes.is_empty() {
            self.ticket += 1;
            actions.insert(0, Action::Persist { ticket: self.ticket, writes });
            self.waiting.push_back(Waiting { ticket: self.ticket, seq: self.counters.seq, then });
        } else if let Some(last) = self.waiting.back_mut() {
            last.then.extend(then);
        } else {
            self.release(then, &mut actions);
        }
        self.pump(&mut actions);
        actions
    }

    /// Lets out what has waited, as far as its sessions are still there.
    fn release(&mut self, then: Vec<Action>, actions: &mut Vec<Action>) {
        for action in then {
            let session = match &action {
                Action::Welcome { session, .. } | Action::Send { session, .. } => self.sessions.get_mut(session),
                Action::Persist { .. } | Action::Close { .. } => continue,
            };
            if let Some(session) = session {
                session.welcomed |= matches!(action, Action::Welcome { .. });
                actions.push(action);
            }
        }
    }

    /// Sends every session the durable records that it may have by now.
    fn pump(&mut self, actions: &mut Vec<Action>) {
        for (id, session) in &mut self.sessions {
            let until = self.durable.min(session.window());
            while session.welcomed && session.sent < until {
                let records = super::catch_up::records(&self.log, session.sent, until);
                let Some((message, last)) = records else { break };
                session.sent = last;
                actions.push(Action::Send { session: *id, message });
            }
        }
    }

    pub(super) fn close(&mut self, session: SessionId, why: Closed, outcome: &mut Outcome) {
        self.sessions.remove(&session);
        outcome.now.push(Action::Close { session, why });
    }

    pub(super) fn session_of(&self, device: DeviceNo) -> Option<SessionId> {
        self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, _)| *id)
    }

    fn left(&mut self, session: SessionId, now: u64, outcome: &mut Outcome) {
        if let Some(session) = self.sessions.remove(&session)
            && let Some(row) = self.rows.get_mut(&session.device)
        {
            row.last_seen = now;
            outcome.writes.push(HubWrite::Acked(session.device, Some(row.clone())));
        }
    }

    fn propose(
        &mut self,
        id: SessionId,
        batch: u64,
        groups: &[Vec<Op>],
        absent: &BTreeSet<Hash>,
        now: u64,
        outcome: &mut Outcome,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        if groups.len() > MAX_GROUPS || !session.welcomed {
            return self.close(id, Closed::Protocol, outcome);
        }
        let (device, read_only) = (session.device, session.read_only);
        let mut touched = BTreeSet::new();
        let mut room = VERDICTS_ROOM;
        let mut verdicts = Vec::with_capacity(groups.len());
        for group in groups {
            let mut answers = if read_only {
                vec![Verdict::Refused(Refusal::ReadOnly); group.len()]
            } else {
                self.commit(device, group, absent, now, &mut touched, &mut outcome.writes)
            };
            answers.iter_mut().for_each(|verdict| fit(verdict, &mut room));
            verdicts.push(answers);
        }
        if !touched.is_empty() {
            let heads = touched.into_iter().filter_map(|id| Some(HubWrite::Head(id, self.tree.get(id)?.clone())));
            outcome.writes.extend(heads.collect::<Vec<_>>());
            outcome.writes.push(HubWrite::Counters(self.counters));
        }
        outcome.then.push(Action::Send { session: id, message: ToClient::Verdicts { batch, verdicts } });
    }

    /// Commits one group or nothing of it.
    fn commit(
        &mut self,
        author: DeviceNo,
        group: &[Op],
        absent: &BTreeSet<Hash>,
        now: u64,
        touched: &mut BTreeSet<NodeId>,
        writes: &mut Vec<HubWrite>,
    ) -> Vec<Verdict> {
        let done = self.done.entry(author).or_default();
        let old: Vec<Option<Seq>> = group.iter().map(|op| done.get(op.id)).collect();
        let fresh: Vec<&Op> = group.iter().zip(&old).filter(|(_, old)| old.is_none()).map(|(op, _)| op).collect();
        let first = self.counters.seq + 1;
        let mut fresh_verdicts = match self.tree.commit(&fresh, first, absent) {
            Err(verdicts) => verdicts,
            Ok(replaced) => {
                for ((op, replaced), seq) in fresh.iter().zip(replaced).zip(first..) {
                    let record = Record { seq, node: op.node, change: op.change.clone(), author, op: op.id, at: now };
                    let chain = chain_after(&self.counters.chain, &record);
                    self.counters = Counters { seq, chain, ..self.counters };
                    let logged = Logged { record, chain, replaced };
                    writes.push(HubWrite::Log(logged.clone()));
                    self.log.insert(seq, logged);
                    touched.insert(op.node);
                    done.committed(op.id, seq, |seq| self.log.contains_key(&seq));
                }
                (first..).take(fresh.len()).map(Verdict::Committed).collect()
            }
        }
        .into_iter();
        let verdict = |old: Option<Seq>| old.map(Verdict::Committed).or_else(|| fresh_verdicts.next());
        old.into_iter().filter_map(verdict).collect()
    }

    fn ack(&mut self, id: SessionId, cursor: Seq, held: Vec<Seq>, now: u64, outcome: &mut Outcome) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.welcomed || cursor < session.acked || cursor > session.sent || !well_held(&held, cursor) {
            return self.close(id, Closed::Protocol, outcome);
        }
        session.acked = cursor;
        let Some(row) = self.rows.get_mut(&session.device) else { return };
        if (row.cursor, &row.held) == (cursor, &held) {
            return;
        }
        *row = Acked { cursor, held, last_seen: now, lapsed: false };
        outcome.writes.push(HubWrite::Acked(session.device, Some(row.clone())));
        self.sweep(&mut outcome.writes);
    }

    fn registered(&mut self, active: &BTreeSet<DeviceNo>, now: u64, outcome: &mut Outcome) {
        let gone: Vec<DeviceNo> = self.rows.keys().filter(|device| !active.contains(device)).copied().collect();
        for device in gone {
            self.rows.remove(&device);
            self.done.remove(&device);
            outcome.writes.push(HubWrite::Acked(device, None));
            while let Some(session) = self.session_of(device) {
                self.close(session, Closed::NotRegistered, outcome);
            }
        }
        for device in active {
            if !self.rows.contains_key(device) {
                let row = Acked { last_seen: now, ..Acked::default() };
                outcome.writes.push(HubWrite::Acked(*device, Some(row.clone())));
                self.rows.insert(*device, row);
            }
        }
        self.sweep(&mut outcome.writes);
    }

    fn tick(&mut self, now: u64, outcome: &mut Outcome) {
        let connected: BTreeSet<DeviceNo> = self.sessions.values().map(|session| session.device).collect();
        for (device, row) in &mut self.rows {
            let silent = now.saturating_sub(row.last_seen);
            if connected.contains(device) && silent > SEEN_STEP {
                row.last_seen = now;
            } else if !connected.contains(device) && silent > self.lapse_after && !row.lapsed {
                row.lapsed = true;
            } else {
                continue;
            }
            outcome.writes.push(HubWrite::Acked(*device, Some(row.clone())));
        }
        self.sweep(&mut outcome.writes);
    }

    /// Deletes from the log what every device that counts has applied, at most one slice of it.
    pub(super) fn sweep(&mut self, writes: &mut Vec<HubWrite>) {
        self.sweep_again = false;
        let counted = || self.rows.values().filter(|row| !row.lapsed);
        let Some(applied) = counted().map(|row| row.cursor).min() else { return };
        let held: BTreeSet<Seq> = counted().flat_map(|row| row.held.iter().copied()).collect();
        let mut free = self.log.range(..=applied).map(|(seq, _)| *seq).filter(|seq| !held.contains(seq));
        let slice: Vec<Seq> = free.by_ref().take(SWEEP_SLICE).collect();
        self.sweep_again = free.next().is_some();
        let Some(newest) = slice.last().copied() else { return };
        for seq in slice {
            if let Some(logged) = self.log.remove(&seq) {
                if let Some(done) = self.done.get_mut(&logged.record.author) {
                    done.unlogged(logged.record.op, seq);
                }
                if seq == newest && seq > self.counters.floor {
                    self.counters = Counters { floor: seq, floor_chain: logged.chain, ..self.counters };
                }
                writes.push(HubWrite::Unlog(seq));
            }
        }
        writes.push(HubWrite::Counters(self.counters));
    }
}

/// The chain hash after `record`.
pub fn chain_after(before: &Hash, record: &Record) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0).update(&encode(record));
    Hash(*hasher.finalize().as_bytes())
}

/// Whether a list of held records is one: ascending, each at most `cursor`, not too many.
pub(super) fn well_held(held: &[Seq], cursor: Seq) -> bool {
    held.len() <= MAX_HELD && held.is_sorted_by(|a, b| a < b) && held.last().is_none_or(|last| *last <= cursor)
}

/// About how many bytes a node takes in a message.
pub(super) fn weight(node: &Node) -> usize {
    let name = node.place.value.as_ref().map_or(0, |place| place.name.as_bytes().len());
    let target = match &node.content.value {
        crate::model::Content::Symlink { target } => target.len(),
        _ => 0,
    };
    160 + name + target
}

/// Leaves a node out of a verdict when the message is full; the client learns of it by the record that wrote the node.
fn fit(verdict: &mut Verdict, room: &mut usize) {
    let need = match verdict {
        Verdict::Stale(Some(node)) => weight(node),
        _ => 20,
    };
    match room.checked_sub(need) {
        Some(rest) => *room = rest,
        None if matches!(verdict, Verdict::Stale(Some(_))) => *verdict = Verdict::GroupFailed,
        None => {}
    }
}
