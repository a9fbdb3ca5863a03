//! Floor 4: the client process. One thread owns the replica, its store and the hands in the directory; the mount, the watch, the
//! connection to the hub and the control socket are threads and tasks around it that talk to it through one queue.

mod act;
mod conflicts;
mod control;
mod core;
mod engine;
mod fetch;
mod hands;
mod inputs;
mod link;
mod look;
mod notes;
mod persist;
mod place;
mod report;
mod running;
pub mod status;
mod texts;
mod upload;

pub use control::Choice;
pub use control::Reply;
pub use control::Request;
pub use control::control_socket;
pub use control::request;
pub use running::Client;
pub use running::ClientSettings;
pub use running::Refusal;

use std::fmt;

/// What kind of failure a [`ClientError`] is; an exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asked for something that cannot be meant.
    Usage,
    /// Not allowed, or not safe without a person's word.
    Refused,
    /// Nobody answers.
    Unreachable,
    Failed,
}

/// Why a client does not run, or has ended: one sentence on what is wrong and one on what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    kind: Kind,
    sentence: String,
    hint: String,
}

impl ClientError {
    pub(crate) fn new(kind: Kind, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into(), hint: hint.into() }
    }

    fn failed(sentence: impl fmt::Display, hint: &str) -> Self {
        Self::new(Kind::Failed, sentence.to_string(), hint)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for ClientError {}
