//! From the hub: welcome, records, listings and verdicts.

use super::Base;
use super::ClientWrite;
use super::Position;
use super::Replica;
use super::Session;
use super::Work;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::OpId;
use crate::model::Record;
use crate::model::Refusal;
use crate::model::Seq;
use crate::model::Verdict;
use crate::wire::CatchUp;
use crate::wire::Welcome;
use std::collections::BTreeMap;

/// How long to wait before a change that the hub refused is looked at again, in milliseconds.
const RETRY_REFUSED: u64 = 60_000;
/// The same for one that met another change: its record is on the way.
const RETRY_STALE: u64 = 300;

impl Replica {
    pub(super) fn connected(&mut self, welcome: &Welcome) {
        self.device_name = welcome.name.clone();
        let restored = welcome.catch_up == CatchUp::Restored;
        let last_sync = self.position.as_ref().map_or(0, |position| position.last_sync);
        let (cursor, chain) = match &self.position {
            Some(position) if !restored => (position.cursor, position.chain),
            _ => (0, Hash([0; 32])),
        };
        let caught_up = welcome.catch_up == CatchUp::Log && cursor >= welcome.head;
        let position =
            Position { volume: welcome.volume, epoch: welcome.epoch, device: welcome.device, cursor, chain, last_sync };
        if restored {
            // Its numbers mean something else: until its listing is here nothing is stored or acknowledged under its epoch.
            self.tickets.clear();
            self.durable = None;
        } else if self.position.as_ref() != Some(&position) {
            self.writes.push(ClientWrite::Position(position.clone()));
            self.position = Some(position.clone());
        }
        self.session = Some(Session {
            read_only: welcome.read_only,
            target: welcome.head,
            caught_up: false,
            restored,
            position,
            listing: BTreeMap::new(),
            batches: BTreeMap::new(),
        });
        self.acked = None;
        if caught_up {
            self.catch_up_done();
        }
        self.send_ack();
        let waiting: Vec<NodeId> = self.open.iter().copied().collect();
        self.touched.extend(waiting);
    }

    pub(super) fn disconnected(&mut self) {
        self.session = None;
        self.acked = None;
        self.at_hub.clear();
        self.upload_queue.clear();
        let fetching = std::mem::take(&mut self.fetching);
        let uploading = std::mem::take(&mut self.uploading);
        self.touched.extend(fetching.into_values().chain(uploading.into_values()).flatten());
        self.touched.extend(self.open.iter().copied());
        let waiters = self.waiting.remove(&NodeId::LIMBO).unwrap_or_default();
        self.touched.extend(waiters);
    }

    /// The hub has told everything up to now: a proposal that is in no record is made anew. It is still known as ours until its
    /// node is settled: the old one may have been on its way all the same.
    fn catch_up_done(&mut self) {
        if let Some(session) = &mut self.session {
            session.caught_up = true;
        }
        let settled: Vec<NodeId> = self.proposed_for.keys().copied().filter(|id| !self.open.contains(id)).collect();
        self.touched.extend(settled);
        let proposing: Vec<NodeId> = self.work.iter().filter(|(_, work)| **work == Work::Proposing).map(|(id, _)| *id).collect();
        for id in proposing {
            self.work.remove(&id);
        }
        let open: Vec<NodeId> = self.open.iter().copied().collect();
        self.touched.extend(open);
    }

    pub(super) fn records(&mut self, records: Vec<Record>, chain: Hash) {
        let Some(mut cursor) = self.position.as_ref().map(|position| position.cursor) else { return };
        let known = cursor;
        for record in records {
            if record.seq <= known {
                continue;
            }
            cursor = cursor.max(record.seq);
            self.record(record);
        }
        if cursor == known {
            return;
        }
        if let Some(position) = &mut self.position {
            position.cursor = cursor;
            position.chain = chain;
            self.writes.push(ClientWrite::Position(position.clone()));
        }
        if self.session.as_ref().is_some_and(|session| !session.caught_up && !session.restored && cursor >= session.target) {
            self.catch_up_done();
        }
    }

    fn record(&mut self, record: Record) {
        let id = record.node;
        self.touch_around(id);
        let Some(node) = record.change.apply(self.head.get(id), record.seq) else {
            // A change of a node that is not there: nothing can be made of it, and nothing depends on it.
            return;
        };
        if let Some(place) = &node.place.value {
            let taken = self.head.names().get(place).filter(|other| *other != id);
            if let Some(other) = taken {
                self.touch_around(other);
            }
        }
        if let Some(before) = self.head.get(id).cloned() {
            let passed = self.passed.entry(id).or_default();
            passed.push(before);
            if passed.len() > super::PASSED {
                passed.remove(0);
            }
        }
        self.head.set(id, node.clone());
        self.open.insert(id);
        self.failures.remove(&id);
        let mine = self.proposed.remove(&record.op).is_some();
        if mine {
            self.writes.push(ClientWrite::Proposed(record.op, None));
            if self.work.get(&id) == Some(&Work::Proposing) {
                self.work.remove(&id);
            }
            self.took(id, &node, &record);
        }
        self.unsave(id);
        self.touch_around(id);
    }

    /// The hub committed a change of ours: what it wrote is base, whatever the directory holds by now.
    fn took(&mut self, id: NodeId, node: &Node, record: &Record) {
        let local = self.local.get(id);
        let seen = local.filter(|local| local.content.as_ref() == Some(&node.content.value)).map(|local| local.fingerprint);
        match self.base.get_mut(&id) {
            Some(base) => {
                if record.change.place.is_some() {
                    base.node.place = node.place.clone();
                }
                if record.change.content.is_some() {
                    base.node.content = node.content.clone();
                    base.seen = seen;
                }
                if record.change.attrs.is_some() {
                    base.node.attrs = node.attrs.clone();
                }
            }
            None if record.change.content.is_some() && record.change.place.is_some() => {
                self.base.insert(id, Base { node: node.clone(), seen });
            }
            None => {}
        }
    }

    pub(super) fn listing(&mut self, nodes: Vec<(NodeId, Node)>, upto: Seq, chain: Hash, last: bool) {
        let Some(session) = &mut self.session else { return };
        session.listing.extend(nodes);
        if !last {
            return;
        }
        let listing = std::mem::take(&mut session.listing);
        let restored = session.restored;
        if restored {
            self.rebase(&listing);
        }
        for (id, node) in listing {
            self.touch_around(id);
            let is_known = self.base.contains_key(&id) || self.head.get(id).is_some() || self.local.get(id).is_some();
            if node.place.value.is_none() && !is_known {
                continue;
            }
            self.head.set(id, node.clone());
            self.open.insert(id);
            self.recognise(id, &node);
            self.unsave(id);
            self.touch_around(id);
        }
        let position =
            if restored { self.session.as_ref().map(|session| session.position.clone()) } else { self.position.clone() };
        if let Some(mut position) = position {
            position.cursor = upto;
            position.chain = chain;
            self.position = Some(position.clone());
            self.writes.push(ClientWrite::Position(position));
        }
        self.catch_up_done();
    }

    /// A listing has no operation ids: a register that holds what was proposed holds our change.
    fn recognise(&mut self, id: NodeId, node: &Node) {
        let changes: Vec<_> = self.proposed.values().filter(|proposed| proposed.node == id).cloned().collect();
        for proposed in changes {
            let Some(base) = self.base.get_mut(&id) else {
                let all = (Some(&node.place.value), Some(&node.content.value));
                if (proposed.change.place.as_ref(), proposed.change.content.as_ref()) == all && node.place.value.is_some() {
                    self.base.insert(id, Base { node: node.clone(), seen: None });
                }
                continue;
            };
            if proposed.change.place.as_ref() == Some(&node.place.value) {
                base.node.place = node.place.clone();
            }
            if proposed.change.content.as_ref() == Some(&node.content.value) {
                base.node.content = node.content.clone();
                base.seen = None;
            }
        }
    }

    /// The hub went back in time: what it lacks is offered again, nobody deletes (POLICY row 30).
    fn rebase(&mut self, listing: &BTreeMap<NodeId, Node>) {
        let known: Vec<NodeId> = self.base.keys().copied().chain(self.head.iter().map(|(id, _)| id)).collect();
        for id in known {
            self.touch_around(id);
            self.open.insert(id);
            let theirs = listing.get(&id);
            match (theirs, self.base.get_mut(&id)) {
                (None, _) => {
                    self.base.remove(&id);
                    self.head.remove(id);
                }
                (Some(theirs), Some(base)) => {
                    // An older register is an ancestor of ours: as base it lets ours be offered again.
                    let older = |seq: Seq, base: Seq| seq < base;
                    let removed_here = self.local.get(id).is_none();
                    let place = theirs.place.value == base.node.place.value || older(theirs.place.seq, base.node.place.seq);
                    let content =
                        theirs.content.value == base.node.content.value || older(theirs.content.seq, base.node.content.seq);
                    if place && content && !removed_here {
                        base.node = theirs.clone();
                        base.seen = None;
                    } else {
                        self.base.remove(&id);
                    }
                }
                (Some(_), None) => {}
            }
            self.unsave(id);
        }
        self.writes.extend(std::mem::take(&mut self.proposed).into_keys().map(|op| ClientWrite::Proposed(op, None)));
        self.notice(NodeId::ROOT, "the hub went back in time (a restored backup?): offering again what it lacks".into());
    }

    pub(super) fn verdicts(&mut self, batch: u64, verdicts: Vec<Vec<Verdict>>) {
        let Some(ids) = self.session.as_mut().and_then(|session| session.batches.remove(&batch)) else { return };
        for (op, verdict) in ids.into_iter().flatten().zip(verdicts.into_iter().flatten()) {
            self.verdict(op, verdict);
        }
    }

    fn verdict(&mut self, op: OpId, verdict: Verdict) {
        // Already gone: its record was here before the verdict.
        let Some(proposed) = self.proposed.get(&op).cloned() else { return };
        if let Verdict::Committed(_) = verdict {
            // The record comes in its order and brings the base with it.
            return;
        }
        let id = proposed.node;
        self.proposed.remove(&op);
        self.writes.push(ClientWrite::Proposed(op, None));
        if self.work.get(&id) == Some(&Work::Proposing) {
            self.work.remove(&id);
        }
        self.touch_around(id);
        match verdict {
            Verdict::Committed(_) => {}
            Verdict::NoContent => {
                if let Some(hash) = proposed.change.content.as_ref().and_then(|content| content.blob()) {
                    // The head may name it and the hub still not hold it: then it has to be sent all the same.
                    self.at_hub.remove(&hash);
                    self.must_upload.insert(hash);
                }
            }
            Verdict::Refused(Refusal::ReadOnly) => {
                self.fail(id, "this device may only read: the change stays here", RETRY_REFUSED, true);
            }
            Verdict::Refused(Refusal::NotRegistered) => {
                self.fail(id, "this device is not registered any more", RETRY_REFUSED, true);
            }
            Verdict::Refused(Refusal::Malformed) => {
                self.fail(id, "the hub cannot accept this change", RETRY_REFUSED, true);
            }
            // A node that was removed and forgotten here, and is made again under its old identity: the hub still knows it.
            Verdict::Stale(Some(node)) if self.head.get(id).is_none() => {
                self.head.set(id, node);
                self.unsave(id);
                self.touch_around(id);
            }
            // The record that says why is on its way, or already here; without it nothing would be different.
            Verdict::Stale(_)
            | Verdict::NameTaken(_)
            | Verdict::WouldCycle
            | Verdict::NotEmpty
            | Verdict::NoParent
            | Verdict::GroupFailed => self.fail(id, "met another change at the hub", RETRY_STALE, false),
        }
    }
}
