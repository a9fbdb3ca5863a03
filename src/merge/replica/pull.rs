//! Towards the directory: contents are fetched, then steps are made in an order that keeps the directory a tree at every moment.

use super::Replica;
use super::Work;
use super::events::Action;
use super::events::PlaceFailure;
use super::events::Step;
use super::observe::Look;
use super::observe::limbo_name;
use super::trees::LocalNode;
use super::want::Goal;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::NodeId;
use crate::model::Place;

/// How many contents are fetched at the same time.
const FETCHES: usize = 64;
/// How many steps are handed out at once.
const STEPS: usize = 500;
/// How long to wait before something that failed is tried again, in milliseconds.
const RETRY_BUSY: u64 = 1_000;
const RETRY_FAILED: u64 = 5_000;

impl Replica {
    pub(super) fn make_ready_to_place(&mut self, id: NodeId, step: &Step) {
        let content = match step {
            Step::Create { content, .. } | Step::Content { content, .. } => Some(content.clone()),
            _ => None,
        };
        if let Some(content) = content
            && let Some(hash) = content.blob()
            && !self.staged.contains(&hash)
        {
            self.fetch(id, hash, &content);
            return;
        }
        self.pull_ready.insert(id);
    }

    pub(super) fn fetch(&mut self, id: NodeId, hash: Hash, content: &Content) {
        let Some(session) = &self.session else { return };
        if session.restored && !session.caught_up {
            return;
        }
        if let Some(nodes) = self.fetching.get_mut(&hash) {
            nodes.insert(id);
            return;
        }
        if self.fetching.len() >= FETCHES {
            // Looked at again when a fetch ends.
            self.wait_for(id, NodeId::LIMBO);
            return;
        }
        self.fetching.entry(hash).or_default().insert(id);
        let len = match content {
            Content::File { len, .. } => *len,
            _ => 0,
        };
        let local = self.local.get(id).and_then(|node| node.content.as_ref()).and_then(Content::blob);
        let base = self.base.get(&id).and_then(|base| base.node.content.value.blob());
        let mut have: Vec<Hash> = local.into_iter().chain(base).collect();
        have.dedup();
        self.actions.push(Action::Fetch { node: id, hash, len, have });
    }

    fn fetch_ended(&mut self, hash: Hash) -> Vec<NodeId> {
        let nodes = self.fetching.remove(&hash).unwrap_or_default();
        let waiters = self.waiting.remove(&NodeId::LIMBO).unwrap_or_default();
        self.touched.extend(waiters);
        nodes.into_iter().collect()
    }

    pub(super) fn fetched(&mut self, hashes: &[Hash]) {
        for hash in hashes {
            self.staged.insert(*hash);
            for id in self.fetch_ended(*hash) {
                self.touch(id);
            }
        }
    }

    pub(super) fn fetch_failed(&mut self, hash: Hash, what: &str) {
        for id in self.fetch_ended(hash) {
            self.fail(id, what, RETRY_FAILED, true);
        }
    }

    /// What has to leave or come before `id` can make its next step here.
    fn blocker_here(&self, id: NodeId, step: &Step) -> Option<NodeId> {
        // What is below a directory that is between two places cannot be reached until that has arrived.
        if let Some(between) = self.limbo_above(id).filter(|between| *between != id) {
            return Some(between);
        }
        let place = match step {
            Step::Create { place, .. } | Step::Move { place } => place,
            Step::Remove => return self.first_child_here(id),
            Step::Content { .. } | Step::Attrs { .. } | Step::Limbo => return None,
        };
        let parent = place.parent;
        if let Some(between) = self.limbo_above(parent) {
            return Some(between);
        }
        if parent != NodeId::ROOT && self.local.get(parent).is_none_or(|node| node.kind != Kind::Dir) {
            return Some(parent);
        }
        if let Some(occupant) = self.local.names().get(place).filter(|occupant| *occupant != id) {
            return Some(occupant);
        }
        if matches!(step, Step::Move { .. }) && self.kind(id) == Some(Kind::Dir) {
            let mut at = parent;
            for _ in 0..=self.local.len() {
                let Some(node) = self.local.get(at) else { break };
                if at == id {
                    return Some(parent);
                }
                if node.place.parent == id {
                    return Some(at);
                }
                at = node.place.parent;
            }
        }
        None
    }

    /// Whether something failed for the node so lately that it is not tried again yet.
    pub(super) fn has_to_wait(&self, id: NodeId) -> bool {
        self.failures.get(&id).is_some_and(|failure| failure.retry_at > self.now)
    }

    fn next_step(&mut self, id: NodeId) -> Option<Step> {
        let target = self.look_ahead(id)?;
        if let Goal::Both(..) = target.content
            && self.local.get(id).is_none()
        {
            return None;
        }
        self.step(id, &target)
    }

    pub(super) fn emit_pulls(&mut self) {
        let mut emitted = self.work.values().filter(|work| matches!(work, Work::Placing(_))).count();
        if emitted > STEPS / 4 {
            return;
        }
        let ready: Vec<NodeId> = self.pull_ready.iter().copied().take(2 * STEPS).collect();
        for id in ready {
            if emitted >= STEPS {
                return;
            }
            if self.work.contains_key(&id) || !self.pull_ready.contains(&id) {
                continue;
            }
            let Some(step) = self.next_step(id) else {
                self.pull_ready.remove(&id);
                self.touch(id);
                continue;
            };
            match self.blocker_here(id, &step) {
                None => {
                    self.emit_step(id, step);
                    emitted += 1;
                }
                Some(blocker) => {
                    self.wait_for(id, blocker);
                    if let Some(to_limbo) = self.ring_here(id) {
                        self.emit_step(to_limbo, Step::Limbo);
                        emitted += 1;
                    } else {
                        // It comes back when what it waits for has changed.
                        self.pull_ready.remove(&id);
                        if self.open.insert(blocker) {
                            self.touch(blocker);
                        }
                    }
                }
            }
        }
    }

    fn emit_step(&mut self, id: NodeId, step: Step) {
        self.pull_ready.remove(&id);
        self.work.insert(id, Work::Placing(step.clone()));
        self.actions.push(Action::Place { node: id, step, after_persist: false });
    }

    /// Steps that wait for each other in a ring: one node of it, which is here and can step aside.
    fn ring_here(&mut self, start: NodeId) -> Option<NodeId> {
        let mut seen = Vec::new();
        let mut at = start;
        loop {
            if let Some(i) = seen.iter().position(|id| *id == at) {
                return self.steps_aside(&seen[i..]);
            }
            seen.push(at);
            if self.work.contains_key(&at) || self.has_to_wait(at) {
                return None;
            }
            let step = self.next_step(at)?;
            at = self.blocker_here(at, &step)?;
        }
    }

    /// Who of a ring steps aside: somebody with a place to go to, and with nobody else of the ring below it.
    fn steps_aside(&mut self, ring: &[NodeId]) -> Option<NodeId> {
        let is_free = |id: &NodeId| !self.work.contains_key(id) && self.local.path(*id).is_some();
        let free: Vec<NodeId> = ring.iter().copied().filter(is_free).collect();
        let moves: Vec<NodeId> =
            free.iter().copied().filter(|id| matches!(self.next_step(*id), Some(Step::Move { .. }))).collect();
        let has_none_below = |id: &NodeId| !free.iter().any(|other| other != id && self.is_here_below(*other, *id));
        moves.into_iter().find(has_none_below)
    }

    fn is_here_below(&self, id: NodeId, dir: NodeId) -> bool {
        let mut at = id;
        for _ in 0..=self.local.len() {
            if at == dir {
                return true;
            }
            match self.local.get(at) {
                Some(node) => at = node.place.parent,
                None => return false,
            }
        }
        false
    }

    /// The node in the staging directory that `id` is or is below of.
    fn limbo_above(&self, id: NodeId) -> Option<NodeId> {
        let mut at = id;
        for _ in 0..=self.local.len() {
            let parent = self.local.get(at)?.place.parent;
            if parent == NodeId::LIMBO {
                return Some(at);
            }
            at = parent;
        }
        None
    }

    pub(super) fn placed(&mut self, id: NodeId, outcome: Result<Option<Look>, PlaceFailure>) {
        let Some(Work::Placing(step)) = self.work.remove(&id) else { return };
        self.outdated.remove(&id);
        self.touch_around(id);
        match outcome {
            Ok(look) => {
                self.failures.remove(&id);
                self.place_done(id, &step, look);
            }
            Err(failure) => self.place_failed(id, &step, failure),
        }
        self.touch_around(id);
    }

    fn place_done(&mut self, id: NodeId, step: &Step, look: Option<Look>) {
        let before = self.local.get(id).cloned();
        let place = match (step, &before) {
            (Step::Create { place, .. } | Step::Move { place }, _) => Some(place.clone()),
            (Step::Limbo, _) => Some(Place { parent: NodeId::LIMBO, name: limbo_name(id) }),
            (Step::Remove, _) => None,
            (_, Some(node)) => Some(node.place.clone()),
            (_, None) => None,
        };
        if let Step::Create { content, .. } | Step::Content { content, .. } = step
            && let Some(hash) = content.blob()
        {
            self.staged.remove(&hash);
        }
        match (place, look) {
            (Some(place), Some(look)) => {
                let node =
                    LocalNode { place, kind: look.kind, content: look.content, attrs: look.attrs, fingerprint: look.fingerprint };
                self.local.set(id, node);
            }
            _ => {
                self.local.remove(id);
            }
        }
        if let (Step::Move { place }, Some(before)) = (step, &before)
            && self.head_place(id) != Some(place)
            && before.place.parent != NodeId::LIMBO
        {
            let from = String::from_utf8_lossy(before.place.name.as_bytes()).into_owned();
            self.notice(id, format!("\"{from}\" was already in use by another change: kept under this name"));
        }
        self.open.insert(id);
    }

    fn place_failed(&mut self, id: NodeId, step: &Step, failure: PlaceFailure) {
        self.open.insert(id);
        match failure {
            PlaceFailure::Busy => self.fail(id, "open for writing here: waits until it is closed", RETRY_BUSY, false),
            PlaceFailure::NoSpace => self.fail(id, "no space left on the device (ENOSPC): tried again", RETRY_FAILED, true),
            PlaceFailure::Other(what) => self.fail(id, &what, RETRY_FAILED, true),
            PlaceFailure::NotStaged => {
                if let Step::Create { content, .. } | Step::Content { content, .. } = step
                    && let Some(hash) = content.blob()
                {
                    self.staged.remove(&hash);
                }
            }
            PlaceFailure::OnlyIgnored => {
                // What is left in it is never synchronized: the directory stays here and is none of the volume's any more.
                self.local.remove(id);
                self.notice(id, "removed elsewhere: stays here because of ignored files in it".into());
            }
            PlaceFailure::Changed => {
                let mut places: Vec<(NodeId, Option<crate::model::Name>)> = Vec::new();
                if let Some(node) = self.local.get(id) {
                    places.push((node.place.parent, Some(node.place.name.clone())));
                    if *step == Step::Remove && node.kind == Kind::Dir {
                        places.push((id, None));
                    }
                }
                if let Step::Create { place, .. } | Step::Move { place } = step {
                    places.push((place.parent, Some(place.name.clone())));
                }
                self.work.insert(id, Work::Looking);
                self.actions.push(Action::Look { node: id, places });
            }
        }
    }
}
