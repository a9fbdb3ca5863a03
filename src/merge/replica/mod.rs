//! Floor 2: a client's decisions.

mod agree;
mod durable;
mod events;
mod from_hub;
mod observe;
mod pull;
mod push;
mod report;
mod settle;
mod state;
mod trees;
mod want;

pub use events::Action;
pub use events::Event;
pub use events::MergeOutcome;
pub use events::PlaceFailure;
pub use events::Resolution;
pub use events::Step;
pub use observe::Look;
pub use observe::SeenIn;
pub use observe::Sighting;
pub use observe::limbo_name;
pub use report::Problem;
pub use report::Report;
pub use settle::Settle;
pub use state::Base;
pub use state::ClientState;
pub use state::ClientWrite;
pub use state::Conflict;
pub use state::Intent;
pub use state::MAX_NOTICES;
pub use state::Notice;
pub use state::Position;
pub use state::Proposed;
pub use trees::LocalNode;

use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::Name;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::OpId;
use crate::model::Place;
use crate::model::Seq;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use trees::HeadTree;
use trees::LocalTree;

/// How often one event may lead to another look at what it changed.
const ROUNDS: usize = 1_000;

/// How many passed versions of a node are remembered.
const PASSED: usize = 64;

/// What a replica is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Random bytes, fresh at every start: node and operation ids are derived from them.
    pub seed: [u8; 32],
    /// The largest file that is merged as text, in bytes.
    pub merge_limit: u64,
    /// A start-up scan that misses more nodes than this is held for confirmation (POLICY row 32).
    pub brake_nodes: usize,
    /// So is one that misses more than half of the tree, if it misses at least this many.
    pub brake_half: usize,
}

impl Config {
    /// The defaults of DESIGN section 6 and POLICY row 32.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, merge_limit: 8 << 20, brake_nodes: 1000, brake_half: 50 }
    }
}

/// What a node is busy with; a node does one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    /// Its change is on its way to the hub, or committed and the record not yet here.
    Proposing,
    /// The hands are changing it in the directory.
    Placing(Step),
    /// The hands compute a three-way merge of its content.
    Merging,
    /// The hands look at it again.
    Looking,
}

#[derive(Debug, Clone)]
struct Failure {
    what: String,
    at: u64,
    retry_at: u64,
    /// Whether a person should see it.
    shown: bool,
}

#[derive(Debug)]
struct Session {
    read_only: bool,
    /// The record that completes the catch-up.
    target: Seq,
    caught_up: bool,
    restored: bool,
    /// Where the client will stand once a restored hub's listing is here.
    position: Position,
    listing: BTreeMap<NodeId, Node>,
    batches: BTreeMap<u64, Vec<Vec<OpId>>>,
}

/// A client's decisions: three trees of observations (base, local, head) and what follows from their differences.
///
/// The contract, in the manner of a sans-I/O protocol: [`Replica::handle`] takes what happened and the time and returns what to do, in
/// order. It does no I/O, reads no clock and holds no randomness but the seed it was given. Whoever drives it
/// - carries out [`Action`]s in order, one at a time, and reports what it must ([`Event::Placed`], [`Event::Persisted`], ...);
/// - asks [`Replica::is_current`] right before it places: what was observed since the step was decided has made it wrong;
/// - may merge several [`Action::Persist`] into one transaction, but commits them before an [`Action::Place`] that says so, and says
///   [`Event::Persisted`] only after the commit and after everything placed before it is durable;
/// - may forget everything at any moment: a replica made from the stored [`ClientState`], a fresh scan and a new connection
///   goes on where the old one stood. There is no list of pending work: what is pending is what differs;
/// - reports observations as states ("this is what is there now"), never as operations.
///
/// Nothing is decided before the first complete observation of the root, and nothing is proposed before the hub's catch-up is complete.
pub struct Replica {
    config: Config,
    minted: u64,
    now: u64,
    base: BTreeMap<NodeId, Base>,
    local: LocalTree,
    head: HeadTree,
    /// What the hub has had since the base, newest last: who holds one of these places or contents has merely not got further.
    passed: BTreeMap<NodeId, Vec<Node>>,
    proposed: BTreeMap<OpId, Proposed>,
    proposed_for: BTreeMap<NodeId, BTreeSet<OpId>>,
    intents: BTreeMap<NodeId, Intent>,
    conflicts: BTreeMap<NodeId, Conflict>,
    merged: BTreeMap<NodeId, (Option<Content>, Content, Content, MergeOutcome)>,
    position: Option<Position>,
    notices: Vec<Notice>,
    scanned: bool,
    session: Option<Session>,
    device_name: String,
    next_batch: u64,
    work: BTreeMap<NodeId, Work>,
    /// Nodes that were observed anew after a step for them was decided.
    outdated: BTreeSet<NodeId>,
    open: BTreeSet<NodeId>,
    touched: BTreeSet<NodeId>,
    waiting: BTreeMap<NodeId, BTreeSet<NodeId>>,
    kept: BTreeSet<NodeId>,
    /// Where each unsettled node was last seen to belong; who waits for it is woken when that changes.
    places: BTreeMap<NodeId, Option<Place>>,
    push_ready: BTreeSet<NodeId>,
    pull_ready: BTreeSet<NodeId>,
    held_removals: BTreeSet<NodeId>,
    failures: BTreeMap<NodeId, Failure>,
    staged: BTreeSet<Hash>,
    fetching: BTreeMap<Hash, BTreeSet<NodeId>>,
    at_hub: BTreeSet<Hash>,
    uploading: BTreeMap<Hash, BTreeSet<NodeId>>,
    upload_queue: BTreeSet<NodeId>,
    must_upload: BTreeSet<Hash>,
    unapplied: BTreeMap<Seq, NodeId>,
    unapplied_of: BTreeMap<NodeId, BTreeSet<Seq>>,
    unsaved: BTreeSet<NodeId>,
    writes: Vec<ClientWrite>,
    next_ticket: u64,
    tickets: VecDeque<(u64, Seq, Vec<Seq>)>,
    durable: Option<(Seq, Vec<Seq>)>,
    acked: Option<(Seq, Vec<Seq>)>,
    actions: Vec<Action>,
}

impl Replica {
    /// A replica with what was stored. The contents already staged are told by [`Event::Fetched`].
    pub fn new(config: Config, state: ClientState) -> Self {
        // What was here when it was last seen: by it the first scan tells moves from removals.
        let mut local = LocalTree::default();
        for (id, Base { node, seen }) in &state.base {
            if let (Some(place), Some(fingerprint)) = (node.place.value.clone(), *seen) {
                let (content, attrs) = (Some(node.content.value.clone()), node.attrs.value);
                // Two were agreed on under one name, one after the other: the scan says which of them is there.
                let is_taken = local.names().get(&place).is_some();
                let place = if is_taken { Place { parent: NodeId::LIMBO, name: limbo_name(*id) } } else { place };
                local.set(*id, LocalNode { place, kind: node.kind(), content, attrs, fingerprint });
            }
        }
        let lost: Vec<NodeId> = local.iter().filter(|(id, _)| local.path(*id).is_none()).map(|(id, _)| id).collect();
        for id in lost {
            if let Some(mut node) = local.remove(id) {
                node.place = Place { parent: NodeId::LIMBO, name: limbo_name(id) };
                local.set(id, node);
            }
        }
        let mut head = HeadTree::default();
        for (id, base) in &state.base {
            head.set(*id, base.node.clone());
        }
        for (id, node) in &state.head {
            head.set(*id, node.clone());
        }
        let mut proposed_for: BTreeMap<NodeId, BTreeSet<OpId>> = BTreeMap::new();
        for (op, proposed) in &state.proposed {
            proposed_for.entry(proposed.node).or_default().insert(*op);
        }
        let mut replica = Self {
            config,
            minted: 0,
            now: 0,
            base: state.base,
            local,
            head,
            passed: BTreeMap::new(),
            proposed_for,
            proposed: state.proposed,
            intents: state.intents,
            conflicts: state.conflicts,
            merged: BTreeMap::new(),
            position: state.position,
            notices: state.notices,
            scanned: false,
            session: None,
            device_name: "other".into(),
            next_batch: 1,
            work: BTreeMap::new(),
            outdated: BTreeSet::new(),
            open: BTreeSet::new(),
            touched: BTreeSet::new(),
            waiting: BTreeMap::new(),
            kept: BTreeSet::new(),
            places: BTreeMap::new(),
            push_ready: BTreeSet::new(),
            pull_ready: BTreeSet::new(),
            held_removals: BTreeSet::new(),
            failures: BTreeMap::new(),
            staged: BTreeSet::new(),
            fetching: BTreeMap::new(),
            at_hub: BTreeSet::new(),
            uploading: BTreeMap::new(),
            upload_queue: BTreeSet::new(),
            must_upload: BTreeSet::new(),
            unapplied: BTreeMap::new(),
            unapplied_of: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            writes: Vec::new(),
            next_ticket: 1,
            tickets: VecDeque::new(),
            durable: None,
            acked: None,
            actions: Vec::new(),
        };
        let ids: Vec<NodeId> = replica.head.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| replica.note_unapplied(id));
        replica.durable = Some(replica.ack_now()).filter(|_| replica.position.is_some());
        replica
    }

    /// Takes one event; `now` is in milliseconds since 1970, is shown to people and spaces retries, and decides nothing else.
    pub fn handle(&mut self, event: Event, now: u64) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Observed { sightings, complete, full } => self.observed(&sightings, &complete, full),
            Event::Looked { node } => {
                if self.work.get(&node) == Some(&Work::Looking) {
                    self.work.remove(&node);
                }
                self.touch(node);
            }
            Event::Connected { welcome } => self.connected(&welcome),
            Event::Disconnected => self.disconnected(),
            Event::Records { records, chain } => self.records(records, chain),
            Event::Listing { nodes, upto, chain, last } => self.listing(nodes, upto, chain, last),
            Event::Verdicts { batch, verdicts } => self.verdicts(batch, verdicts),
            Event::Fetched { hashes } => self.fetched(&hashes),
            Event::FetchFailed { hash, what } => self.fetch_failed(hash, &what),
            Event::Uploaded { hash } => self.uploaded(hash),
            Event::UploadFailed { hash, what } => self.upload_failed(hash, &what),
            Event::Placed { node, outcome } => self.placed(node, outcome),
            Event::Merged { node, base, ours, theirs, outcome } => self.merge_done(node, (base, ours, theirs, outcome)),
            Event::Resolve { node, how } => self.resolve(node, how),
            Event::ConfirmRemovals => {
                let held = std::mem::take(&mut self.held_removals);
                held.into_iter().for_each(|id| self.touch_around(id));
            }
            Event::Persisted { ticket } => self.persisted(ticket),
            Event::Tick => {
                let due: Vec<NodeId> = self.failures.iter().filter(|(_, f)| f.retry_at <= now).map(|(id, _)| *id).collect();
                due.into_iter().for_each(|id| self.touch(id));
            }
        }
        self.plan();
        self.save();
        std::mem::take(&mut self.actions)
    }

    /// The names from the root to a node as it is in the directory now; `None` when it is not there or between two places.
    pub fn path(&self, node: NodeId) -> Option<Vec<Name>> {
        self.local.path(node)
    }

    /// A node as the directory holds it.
    pub fn local(&self, node: NodeId) -> Option<&LocalNode> {
        self.local.get(node)
    }

    /// Whether an [`Action::Place`] for the node still answers to what is known of it; if not it must not be carried out but be
    /// reported as [`PlaceFailure::Changed`].
    pub fn is_current(&self, node: NodeId) -> bool {
        !self.outdated.contains(&node)
    }

    /// The node at a name in a directory here.
    pub fn child(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        self.local.names().get(&Place { parent, name: name.clone() })
    }

    /// The children of a directory here.
    pub fn children(&self, parent: NodeId) -> Vec<(Name, NodeId)> {
        self.local.names().below(parent).map(|(name, id)| (name.clone(), id)).collect()
    }

    /// The nodes here that are this inode (several for hard links).
    pub fn by_inode(&self, dev: u64, ino: u64) -> Vec<NodeId> {
        self.local.by_inode(dev, ino).collect()
    }

    /// The content of the file with this fingerprint, if it was seen before exactly so: it need not be read again.
    pub fn content_of(&self, fingerprint: &Fingerprint) -> Option<Content> {
        let nodes = self.local.by_inode(fingerprint.dev, fingerprint.ino).filter_map(|id| self.local.get(id));
        nodes.filter(|node| node.fingerprint == *fingerprint).find_map(|node| node.content.clone())
    }

    /// Every fingerprint stored with a base and the content it stood for; for the start-up scan.
    pub fn known_contents(&self) -> impl Iterator<Item = (Fingerprint, &Content)> {
        self.base.values().filter_map(|base| Some((base.seen?, &base.node.content.value)))
    }

    /// The last agreed content of a node.
    pub fn base_content(&self, node: NodeId) -> Option<&Content> {
        self.base.get(&node).map(|base| &base.node.content.value)
    }

    /// What the hub has for a node, as far as is known.
    pub fn head_content(&self, node: NodeId) -> Option<&Content> {
        self.head.get(node).map(|head| &head.content.value)
    }

    /// The open conflicts.
    pub fn conflicts(&self) -> &BTreeMap<NodeId, Conflict> {
        &self.conflicts
    }

    /// Where in the hub's history this client stands.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Records at or below the cursor that are recorded and not applied, for `Hello`.
    pub fn held(&self) -> Vec<Seq> {
        self.ack_now().1
    }

    fn mint(&mut self) -> [u8; 16] {
        self.minted += 1;
        let hash = blake3::keyed_hash(&self.config.seed, &self.minted.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        id
    }

    fn touch(&mut self, id: NodeId) {
        self.touched.insert(id);
    }

    /// Looks again at a node whose state changed and at all that may depend on it.
    fn touch_around(&mut self, id: NodeId) {
        self.touch(id);
        self.wake_waiters(id);
        let local = self.local.get(id).map(|node| node.place.parent);
        let head = self.head.get(id).and_then(|node| node.place.value.as_ref()).map(|place| place.parent);
        for parent in [local, head].into_iter().flatten() {
            if self.open.contains(&parent) {
                self.touch(parent);
            }
        }
    }

    fn wake_waiters(&mut self, id: NodeId) {
        let waiters = self.waiting.remove(&id).unwrap_or_default();
        self.touched.extend(waiters);
    }

    fn wait_for(&mut self, id: NodeId, blocker: NodeId) {
        self.waiting.entry(blocker).or_default().insert(id);
    }

    fn fail(&mut self, id: NodeId, what: &str, after: u64, shown: bool) {
        let at = self.failures.get(&id).map_or(self.now, |failure| failure.at);
        self.failures.insert(id, Failure { what: what.into(), at, retry_at: self.now + after, shown });
        self.open.insert(id);
    }

    fn notice(&mut self, id: NodeId, what: String) {
        let path = self.path_for_people(id);
        let notice = Notice { path, what, at: self.now };
        self.writes.push(ClientWrite::Notice(notice.clone()));
        self.notices.push(notice);
        if self.notices.len() > MAX_NOTICES {
            self.notices.remove(0);
        }
    }

    fn plan(&mut self) {
        if !self.scanned {
            return;
        }
        // Each round can only follow from what the one before decided; a bound keeps a mistake from hanging the process.
        for _ in 0..ROUNDS {
            while let Some(id) = self.touched.pop_first() {
                self.evaluate(id);
            }
            self.emit_pulls();
            self.emit_pushes();
            if self.touched.is_empty() {
                break;
            }
        }
    }
}
