//! What happens to a replica and what it wants done.

use super::observe::Look;
use super::observe::SeenIn;
use super::observe::Sighting;
use super::state::ClientWrite;
use crate::model::Attrs;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Name;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::Place;
use crate::model::Record;
use crate::model::Seq;
use crate::model::Verdict;
use crate::wire::Welcome;

/// What happens to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What is in the directory now. `full`: the start-up scan of everything.
    Observed {
        sightings: Vec<Sighting>,
        complete: Vec<SeenIn>,
        full: bool,
    },
    /// What [`Action::Look`] asked for has been observed.
    Looked {
        node: NodeId,
    },
    Connected {
        welcome: Box<Welcome>,
    },
    Disconnected,
    /// Committed records in order.
    Records {
        records: Vec<Record>,
        chain: Hash,
    },
    /// A part of the hub's listing.
    Listing {
        nodes: Vec<(NodeId, Node)>,
        upto: Seq,
        chain: Hash,
        last: bool,
    },
    Verdicts {
        batch: u64,
        verdicts: Vec<Vec<Verdict>>,
    },
    /// These contents are staged here and durable.
    Fetched {
        hashes: Vec<Hash>,
    },
    /// The content could not be had.
    FetchFailed {
        hash: Hash,
        what: String,
    },
    /// The content is durable on the hub.
    Uploaded {
        hash: Hash,
    },
    UploadFailed {
        hash: Hash,
        what: String,
    },
    /// The outcome of one [`Action::Place`]: what is at the node's place now, `None` after a removal.
    Placed {
        node: NodeId,
        outcome: Result<Option<Look>, PlaceFailure>,
    },
    /// The outcome of one [`Action::Merge`]; a merged content is staged and durable.
    Merged {
        node: NodeId,
        base: Option<Content>,
        ours: Content,
        theirs: Content,
        outcome: MergeOutcome,
    },
    /// A person's choice for a conflict.
    Resolve {
        node: NodeId,
        how: Resolution,
    },
    /// A person means the removals that were held.
    ConfirmRemovals,
    /// The writes of the ticket, and everything placed before them, are durable.
    Persisted {
        ticket: u64,
    },
    /// Time went on: what failed is tried again.
    Tick,
}

/// Why something could not be placed; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceFailure {
    /// The directory is not as the replica knew it: look again.
    Changed,
    /// Somebody has the file open for writing.
    Busy,
    /// The directory holds something that is not synchronized.
    OnlyIgnored,
    /// The staged content is not there (any more).
    NotStaged,
    NoSpace,
    /// Another error of the file system, for people.
    Other(String),
}

/// What a three-way merge gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    /// The merged content, staged under its hash.
    Clean(Content),
    Conflict,
}

/// A person's choice for one conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// What this device has.
    Ours,
    /// What the hub has.
    Theirs,
    /// Another content, staged under its hash.
    Content(Content),
}

/// What a replica wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make these writes durable in one transaction, then say [`Event::Persisted`]. Tickets ascend.
    Persist {
        ticket: u64,
        writes: Vec<ClientWrite>,
    },
    Propose {
        batch: u64,
        groups: Vec<Vec<Op>>,
    },
    Ack {
        cursor: Seq,
        held: Vec<Seq>,
    },
    /// Get a content from the hub and stage it; `have` are contents here that a delta may apply to.
    Fetch {
        node: NodeId,
        hash: Hash,
        len: u64,
        have: Vec<Hash>,
    },
    /// Bring the content of a file here to the hub; `base` is a content that the hub has and that is like it.
    Upload {
        node: NodeId,
        hash: Hash,
        len: u64,
        base: Option<Hash>,
    },
    /// Change the directory by one step; everything persisted before comes first where `after_persist`.
    Place {
        node: NodeId,
        step: Step,
        after_persist: bool,
    },
    /// Merge two versions of a file; theirs is staged, ours is in the file.
    Merge {
        node: NodeId,
        base: Option<Content>,
        ours: Content,
        theirs: Content,
    },
    /// Observe the places again (all of a directory where the name is `None`), then say [`Event::Looked`].
    Look {
        node: NodeId,
        places: Vec<(NodeId, Option<Name>)>,
    },
    /// A conflict blocks the node, or does not any more.
    Blocked {
        node: NodeId,
        blocked: bool,
    },
}

/// One atomic change of the directory. What a node is before the step is what [`super::Replica::local`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Create {
        place: Place,
        content: Content,
        attrs: Attrs,
    },
    Remove,
    Move {
        place: Place,
    },
    /// Out of the way, into the staging directory, under [`super::limbo_name`].
    Limbo,
    /// Another content in the same file, and its attributes.
    Content {
        content: Content,
        attrs: Attrs,
    },
    Attrs {
        attrs: Attrs,
    },
}
