//! What is to be durable, and what may be acknowledged once it is.

use super::ClientWrite;
use super::Replica;
use super::events::Action;
use crate::model::NodeId;
use crate::model::Seq;
use std::collections::BTreeSet;

impl Replica {
    pub(super) fn save(&mut self) {
        let idle = self.is_settled();
        if let (true, Some(position)) = (idle, &mut self.position)
            && (!self.unsaved.is_empty() || !self.writes.is_empty() || position.last_sync + 60_000 < self.now)
        {
            position.last_sync = self.now;
            self.writes.push(ClientWrite::Position(position.clone()));
        }
        for id in std::mem::take(&mut self.unsaved) {
            let base = self.base.get(&id);
            let head = self.head.get(id).filter(|head| base.is_none_or(|base| base.node != **head));
            self.writes.push(ClientWrite::Base(id, base.cloned()));
            self.writes.push(ClientWrite::Head(id, head.cloned()));
        }
        if self.writes.is_empty() {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (cursor, held) = self.ack_now();
        self.tickets.push_back((ticket, cursor, held));
        let writes = std::mem::take(&mut self.writes);
        self.actions.push(Action::Persist { ticket, writes });
    }

    pub(super) fn persisted(&mut self, ticket: u64) {
        while self.tickets.front().is_some_and(|(first, ..)| *first <= ticket) {
            self.durable = self.tickets.pop_front().map(|(_, cursor, held)| (cursor, held));
        }
        self.send_ack();
    }

    pub(super) fn send_ack(&mut self) {
        let Some((cursor, held)) = self.durable.clone() else { return };
        let behind = self.acked.as_ref().is_some_and(|(acked, _)| *acked > cursor);
        if self.session.is_some() && self.position.is_some() && !behind && self.acked.as_ref() != Some(&(cursor, held.clone())) {
            self.acked = Some((cursor, held.clone()));
            self.actions.push(Action::Ack { cursor, held });
        }
    }

    /// What an acknowledgement may say once the present state is durable.
    pub(super) fn ack_now(&self) -> (Seq, Vec<Seq>) {
        let cursor = self.position.as_ref().map_or(0, |position| position.cursor);
        let mut held: Vec<Seq> = self.unapplied.keys().copied().take(crate::wire::MAX_HELD + 1).collect();
        if held.len() <= crate::wire::MAX_HELD {
            return (cursor, held);
        }
        let beyond = held.pop().unwrap_or(cursor);
        (beyond.saturating_sub(1).min(cursor), held)
    }

    pub(super) fn note_unapplied(&mut self, id: NodeId) {
        for seq in self.unapplied_of.remove(&id).unwrap_or_default() {
            self.unapplied.remove(&seq);
        }
        let Some(head) = self.head.get(id) else { return };
        let base = self.base.get(&id).map(|base| &base.node);
        let pairs = [
            (head.place.seq, base.map(|node| node.place.seq)),
            (head.content.seq, base.map(|node| node.content.seq)),
            (head.attrs.seq, base.map(|node| node.attrs.seq)),
        ];
        let seqs: BTreeSet<Seq> = pairs.iter().filter(|(head, base)| Some(*head) != *base).map(|(head, _)| *head).collect();
        if !seqs.is_empty() {
            self.unapplied.extend(seqs.iter().map(|seq| (*seq, id)));
            self.unapplied_of.insert(id, seqs);
        }
    }

    /// The durable rows of a node are to be written again.
    pub(super) fn unsave(&mut self, id: NodeId) {
        self.unsaved.insert(id);
        self.note_unapplied(id);
    }
}
