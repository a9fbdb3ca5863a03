//! The engine's one queue, and how others put something into it.

use super::ClientError;
use super::control::Reply;
use super::control::Request;
use super::link::Session;
use super::link::Trouble;
use super::status::ClientStatus;
use crate::fs::mount::Note;
use crate::fs::mount::What;
use crate::fs::watch::Noticed;
use crate::model::Hash;
use crate::model::NodeId;
use crate::wire::Hello;
use crate::wire::ToClient;
use crate::wire::Welcome;
use std::fmt;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

/// What the engine is told.
pub(super) enum Input {
    Noticed(Noticed),
    /// Asks for the greeting of the next connection.
    Hello(oneshot::Sender<Hello>),
    Welcomed {
        session: Session,
        welcome: Box<Welcome>,
    },
    /// The permit makes the hub wait while much is queued.
    Message {
        session: u64,
        message: Box<ToClient>,
        _permit: OwnedSemaphorePermit,
    },
    Lost {
        session: u64,
        trouble: Option<Trouble>,
    },
    /// There is no connection to the hub.
    Unconnected(Trouble),
    Fetched {
        session: u64,
        hash: Hash,
        result: Result<(), FetchFailure>,
    },
    Uploaded {
        session: u64,
        node: NodeId,
        hash: Hash,
        result: Result<(), UploadFailure>,
    },
    Request(Request, Sender<Reply>),
    Status(Sender<ClientStatus>),
    /// End, and say when it is done.
    Stop(Sender<Result<(), ClientError>>),
}

/// Why a content did not come from the hub.
pub(super) enum FetchFailure {
    /// The hub says that it does not have it.
    Absent,
    /// A sentence for people.
    Other(String),
}

impl From<String> for FetchFailure {
    fn from(what: String) -> Self {
        Self::Other(what)
    }
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "the hub does not hold this content at the moment",
            Self::Other(what) => what,
        })
    }
}

/// Why a content did not get to the hub.
pub(super) enum UploadFailure {
    /// The file does not hold it any more.
    Changed,
    Other(String),
}

/// Puts something into the engine's queue.
#[derive(Clone)]
pub(super) struct Inputs {
    inputs: Sender<Input>,
    bell: Sender<Note>,
}

/// The engine's end of the queue. The engine waits for notes only; whoever puts in something else rings with a note of no directory.
/// So whatever was noted before a request was made is known before it is answered.
pub(super) struct Queue {
    pub inputs: Receiver<Input>,
    pub notes: Receiver<Note>,
}

impl Inputs {
    /// The two ends, and the one for the mount's notes.
    pub fn new() -> (Self, Queue, Sender<Note>) {
        let (inputs, input_queue) = channel();
        let (bell, notes) = channel();
        (Self { inputs, bell: bell.clone() }, Queue { inputs: input_queue, notes }, bell)
    }

    /// Whether the engine still listens.
    pub fn send(&self, input: Input) -> bool {
        let sent = self.inputs.send(input).is_ok();
        sent && self.bell.send(Note { dir_ino: 0, name: Vec::new(), what: What::Attr, at: Instant::now() }).is_ok()
    }
}
