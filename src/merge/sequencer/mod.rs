//! Floor 2: the hub's decisions.

mod catch_up;
mod decide;
mod session;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod tree;

pub use decide::SWEEP_SLICE;
pub use decide::Sequencer;
pub use decide::chain_after;
pub use state::Acked;
pub use state::Counters;
pub use state::HubState;
pub use state::HubWrite;
pub use state::Logged;
pub use status::DeviceStatus;

use crate::model::DeviceNo;
use crate::model::Hash;
use crate::model::Op;
use crate::model::Seq;
use crate::wire::Hello;
use crate::wire::ToClient;
use crate::wire::Welcome;
use std::collections::BTreeSet;

/// One connection of a client; never reused while a hub runs.
pub type SessionId = u64;

/// What happens to a sequencer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An admitted device has said hello on a new connection.
    Joined {
        session: SessionId,
        device: DeviceNo,
        name: String,
        read_only: bool,
        hello: Hello,
    },
    /// The connection is gone.
    Left {
        session: SessionId,
    },
    /// `absent` are the contents named in the groups that are not durable in the hub's content store.
    Propose {
        session: SessionId,
        batch: u64,
        groups: Vec<Vec<Op>>,
        absent: BTreeSet<Hash>,
    },
    Ack {
        session: SessionId,
        cursor: Seq,
        held: Vec<Seq>,
    },
    /// The devices that count, from the registry: at start and whenever it changes.
    Devices {
        active: BTreeSet<DeviceNo>,
    },
    /// The writes of that ticket are durable.
    Persisted {
        ticket: u64,
    },
    /// Time went on: lapses are decided, at most once an hour is enough.
    Tick,
}

/// What a sequencer wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make these writes durable in one transaction, then say [`Event::Persisted`]. Tickets ascend.
    Persist {
        ticket: u64,
        writes: Vec<HubWrite>,
    },
    Welcome {
        session: SessionId,
        welcome: Box<Welcome>,
    },
    Send {
        session: SessionId,
        message: ToClient,
    },
    /// Close the connection.
    Close {
        session: SessionId,
        why: Closed,
    },
}

/// Why a sequencer closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client broke the protocol.
    Protocol,
    /// The client belongs to another volume.
    OtherVolume,
    /// No common protocol version.
    Version,
    /// The device's key is in use on another live connection.
    Elsewhere,
    /// The device does not count any more.
    NotRegistered,
}
