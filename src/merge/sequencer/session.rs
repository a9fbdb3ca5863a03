//! What a sequencer knows of one connection, and what of a device's finished ops.

use crate::model::DeviceNo;
use crate::model::OpId;
use crate::model::Seq;
use crate::wire::MAX_RECORDS;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// How far records may run ahead of a session's acknowledgement.
const WINDOW: Seq = 4 * MAX_RECORDS as Seq;
/// How many finished ops of a device are remembered even when their records have left the log.
const REMEMBERED: usize = 4096;

/// One connection that has been accepted.
pub(super) struct Session {
    pub device: DeviceNo,
    pub read_only: bool,
    pub instance: [u8; 16],
    pub boot: u64,
    /// The welcome has gone out; before it nothing else may.
    pub welcomed: bool,
    /// The last record sent, or the number that the listing leads to.
    pub sent: Seq,
    /// Where the records of this connection begin.
    pub start: Seq,
    /// The last acknowledged cursor.
    pub acked: Seq,
}

impl Session {
    /// The last record that may be sent now.
    pub fn window(&self) -> Seq {
        self.start.max(self.acked) + WINDOW
    }
}

/// The ops of one device whose fate is remembered.
#[derive(Default)]
pub(super) struct Done {
    by_op: BTreeMap<OpId, Seq>,
    /// The newest [`REMEMBERED`], oldest first.
    newest: VecDeque<(Seq, OpId)>,
}

impl Done {
    pub fn get(&self, op: OpId) -> Option<Seq> {
        self.by_op.get(&op).copied()
    }

    /// Remembers a committed op; `in_log` tells whether a record is still in the log.
    pub fn committed(&mut self, op: OpId, seq: Seq, in_log: impl Fn(Seq) -> bool) {
        self.by_op.insert(op, seq);
        self.newest.push_back((seq, op));
        while self.newest.len() > REMEMBERED {
            if let Some((seq, op)) = self.newest.pop_front()
                && !in_log(seq)
            {
                self.by_op.remove(&op);
            }
        }
    }

    /// The op's record has left the log.
    pub fn unlogged(&mut self, op: OpId, seq: Seq) {
        if self.newest.front().is_none_or(|(oldest, _)| seq < *oldest) {
            self.by_op.remove(&op);
        }
    }
}
