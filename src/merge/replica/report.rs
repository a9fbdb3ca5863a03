//! What a person or a script can be told about a replica.

use super::Replica;
use super::Work;
use super::events::MergeOutcome;
use super::state::Notice;
use crate::model::Content;
use crate::model::Hash;
use crate::model::NodeId;
use crate::model::Place;
use crate::model::TreeEntry;
use crate::model::tree_hash;

/// Something that does not work at the moment and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path as bytes, relative to the root.
    pub path: Vec<u8>,
    pub what: String,
    /// Since when, milliseconds since 1970.
    pub at: u64,
}

/// How a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every local change is durable on the hub and everything on the hub durably applied here, or is an open conflict.
    pub idle: bool,
    /// Whether the hub's catch-up is complete on a live connection.
    pub connected: bool,
    /// Nodes whose change here is not on the hub yet.
    pub pending_up: usize,
    /// Nodes whose change on the hub is not here yet.
    pub pending_down: usize,
    /// Milliseconds since 1970, 0: never.
    pub last_sync: u64,
    pub cursor: u64,
    /// Nodes that vanished in numbers while nobody watched; they wait for a confirmation.
    pub held_removals: usize,
    pub notices: Vec<Notice>,
    pub problems: Vec<Problem>,
}

impl Replica {
    /// Whether nothing is left to do but what waits for a person.
    pub fn is_settled(&self) -> bool {
        let parked = |id: &NodeId| {
            let is_decided = matches!(self.merged.get(id), Some((.., MergeOutcome::Clean(_))));
            let is_fetching = self.fetching.values().any(|nodes| nodes.contains(id));
            let is_ready = self.push_ready.contains(id) || self.pull_ready.contains(id);
            self.conflicts.contains_key(id) && !is_decided && !is_fetching && !is_ready && !self.failures.contains_key(id)
        };
        self.scanned
            && self.touched.is_empty()
            && self.work.is_empty()
            && self.session.as_ref().is_some_and(|session| session.caught_up)
            && self.open.iter().all(parked)
    }

    /// How things stand; costs a walk over what is unsettled.
    pub fn report(&self) -> Report {
        let mut pending = (0, 0);
        for id in self.open.iter().filter(|id| !self.conflicts.contains_key(id)) {
            let base = self.base.get(id).map(|base| &base.node);
            let head_moved = self.head.get(*id) != base;
            let is_proposing = self.work.get(id) == Some(&Work::Proposing);
            if head_moved && !is_proposing {
                pending.1 += 1;
            } else {
                pending.0 += 1;
            }
        }
        let problems = self
            .failures
            .iter()
            .filter(|(_, failure)| failure.shown)
            .map(|(id, failure)| Problem { path: self.path_for_people(*id), what: failure.what.clone(), at: failure.at })
            .collect();
        Report {
            idle: self.is_settled() && self.tickets.is_empty() && self.writes.is_empty(),
            connected: self.session.as_ref().is_some_and(|session| session.caught_up),
            pending_up: pending.0,
            pending_down: pending.1,
            last_sync: self.position.as_ref().map_or(0, |position| position.last_sync),
            cursor: self.position.as_ref().map_or(0, |position| position.cursor),
            held_removals: self.held_removals.len(),
            notices: self.notices.clone(),
            problems,
        }
    }

    /// The story of every node that is not settled, one line each, for the log of a developer.
    pub fn unsettled(&self) -> Vec<String> {
        let tell = |id: &NodeId| {
            let sets =
                [(&self.push_ready, "push"), (&self.pull_ready, "pull"), (&self.held_removals, "held"), (&self.kept, "kept")];
            let sets: Vec<&str> = sets.iter().filter(|(set, _)| set.contains(id)).map(|(_, name)| *name).collect();
            let waits: Vec<&NodeId> = self.waiting.iter().filter(|(_, who)| who.contains(id)).map(|(on, _)| on).collect();
            format!(
                "{id:?} {sets:?} work {:?} failure {:?} waits for {waits:?} belongs at {:?}\n   base {:?}\n   local {:?}\n   head {:?}",
                self.work.get(id),
                self.failures.get(id).map(|failure| &failure.what),
                self.places.get(id),
                self.base.get(id).map(|base| &base.node),
                self.local.get(*id),
                self.head.get(*id),
            )
        };
        self.open.iter().map(tell).collect()
    }

    /// One hash over what the directory holds; equal to the hub's when they agree.
    pub fn root_hash(&self) -> Hash {
        let empty = Content::file(b"");
        tree_hash(self.local.iter().filter(|(_, node)| node.place.parent != NodeId::LIMBO).map(|(id, node)| {
            let base = || self.base.get(&id).map_or(&empty, |base| &base.node.content.value);
            TreeEntry {
                id,
                parent: node.place.parent,
                name: node.place.name.clone(),
                content: node.content.as_ref().unwrap_or_else(base).clone(),
                mode: node.attrs.mode,
            }
        }))
    }

    /// The path of a node here, or else at the hub, as bytes, for people.
    pub fn path_for_people(&self, id: NodeId) -> Vec<u8> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT && names.len() < 4096 {
            let here = self.local.get(at).map(|node| &node.place).filter(|place| place.parent != NodeId::LIMBO);
            let base = || self.base.get(&at).and_then(|base| base.node.place.value.as_ref());
            let Some(Place { parent, name }) = here.or_else(|| self.head_place(at)).or_else(base) else { break };
            names.push(name.as_bytes().to_vec());
            at = *parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}
