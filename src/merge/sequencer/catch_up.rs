//! How a client that joins is brought to the present.

use super::Acked;
use super::Action;
use super::Closed;
use super::HubWrite;
use super::Logged;
use super::SessionId;
use super::decide::Outcome;
use super::decide::Sequencer;
use super::decide::weight;
use super::decide::well_held;
use super::session::Session;
use crate::model::DeviceNo;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Seq;
use crate::wire::CatchUp;
use crate::wire::Hello;
use crate::wire::MAX_RECORDS;
use crate::wire::PROTOCOL;
use crate::wire::Sent;
use crate::wire::ToClient;
use crate::wire::Welcome;
use std::collections::BTreeMap;

/// The most nodes in one part of a listing, and their bytes.
const LISTING_NODES: usize = 5000;
const LISTING_BYTES: usize = 4 << 20;

impl Sequencer {
    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn joined(
        &mut self,
        id: SessionId,
        device: DeviceNo,
        name: String,
        read_only: bool,
        hello: Hello,
        now: u64,
        outcome: &mut Outcome,
    ) {
        if let Some(why) = self.unwelcome(device, &hello) {
            return self.close(id, why, outcome);
        }
        if let Some(older) = self.session_of(device) {
            self.close(older, Closed::Elsewhere, outcome);
        }
        let catch_up = self.catch_up(&hello);
        let head = self.counters.seq;
        let (cursor, held) = match catch_up {
            CatchUp::Restored => (0, Vec::new()),
            CatchUp::Log | CatchUp::Listing => (hello.cursor, hello.held),
        };
        let start = if catch_up == CatchUp::Log { cursor } else { head };
        let row = Acked { cursor, held, last_seen: now, lapsed: false };
        self.rows.insert(device, row.clone());
        outcome.writes.push(HubWrite::Acked(device, Some(row)));
        let welcome =
            Welcome { protocol: PROTOCOL, volume: self.volume, epoch: self.epoch, device, name, read_only, head, catch_up };
        outcome.then.push(Action::Welcome { session: id, welcome: Box::new(welcome) });
        if catch_up != CatchUp::Log {
            self.list(id, cursor, &mut outcome.then);
        }
        let session = Session {
            device,
            read_only,
            instance: hello.instance,
            boot: hello.boot,
            welcomed: false,
            sent: start,
            start,
            acked: cursor,
        };
        self.sessions.insert(id, session);
        self.sweep(&mut outcome.writes);
    }

    fn unwelcome(&self, device: DeviceNo, hello: &Hello) -> Option<Closed> {
        if hello.protocol != PROTOCOL {
            return Some(Closed::Version);
        }
        if hello.volume.is_some_and(|volume| volume != self.volume) {
            return Some(Closed::OtherVolume);
        }
        if !self.rows.contains_key(&device) {
            return Some(Closed::NotRegistered);
        }
        if !well_held(&hello.held, hello.cursor) {
            return Some(Closed::Protocol);
        }
        let live = self.session_of(device).and_then(|id| self.sessions.get(&id))?;
        // The process with the lower boot number has ended before the other began, unless its state was copied.
        let same = live.instance == hello.instance && hello.boot >= live.boot;
        (!same).then_some(Closed::Elsewhere)
    }

    fn catch_up(&self, hello: &Hello) -> CatchUp {
        let first_start = hello.epoch.is_none() && hello.cursor == 0;
        let ours = first_start || hello.epoch == Some(self.epoch);
        let forked = || hello.cursor > 0 && self.chain_at(hello.cursor).is_some_and(|chain| chain != hello.chain);
        if !ours || hello.cursor > self.counters.seq || forked() {
            CatchUp::Restored
        } else if hello.cursor < self.counters.floor {
            CatchUp::Listing
        } else {
            CatchUp::Log
        }
    }

    /// The chain hash after a record, where it is still known.
    fn chain_at(&self, seq: Seq) -> Option<Hash> {
        if seq == self.counters.floor {
            return Some(self.counters.floor_chain);
        }
        self.log.get(&seq).map(|logged| logged.chain)
    }

    /// The nodes that changed after `cursor`, in parts.
    fn list(&self, session: SessionId, cursor: Seq, actions: &mut Vec<Action>) {
        let mut part: Vec<(NodeId, Node)> = Vec::new();
        let mut bytes = 0;
        let mut send = |nodes, last| {
            let message = ToClient::Listing { nodes, upto: self.counters.seq, chain: self.counters.chain, last };
            actions.push(Action::Send { session, message });
        };
        for (id, node) in self.tree.nodes().filter(|(_, node)| node.newest() > cursor) {
            if part.len() >= LISTING_NODES || bytes >= LISTING_BYTES {
                send(std::mem::take(&mut part), false);
                bytes = 0;
            }
            bytes += weight(node);
            part.push((*id, node.clone()));
        }
        send(part, true);
    }
}

/// The next records of the log after `sent` up to `until` as one message, and the number of the last of them.
pub(super) fn records(log: &BTreeMap<Seq, Logged>, sent: Seq, until: Seq) -> Option<(ToClient, Seq)> {
    let batch: Vec<&Logged> = log.range(sent + 1..=until).take(MAX_RECORDS).map(|(_, logged)| logged).collect();
    let last = *batch.last()?;
    let records = batch.iter().map(|logged| Sent { record: logged.record.clone(), delta: None }).collect();
    Some((ToClient::Records { records, chain: last.chain }, last.record.seq))
}
