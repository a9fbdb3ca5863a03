//! Towards the hub: contents first, then changes in an order that the hub can accept, rings of changes as one group.

use super::ClientWrite;
use super::Replica;
use super::Work;
use super::events::Action;
use super::state::Proposed;
use super::want::Goal;
use super::want::Target;
use crate::merge::order::components;
use crate::model::Change;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::OpId;
use crate::wire::MAX_GROUPS;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// How many contents are sent at the same time.
const UPLOADS: usize = 64;
/// How many batches may be under way.
const BATCHES: usize = 4;
/// How long to wait before an upload is tried again, in milliseconds.
const RETRY_UPLOAD: u64 = 2_000;

impl Replica {
    fn may_push(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.caught_up && !session.read_only)
    }

    pub(super) fn make_ready_to_push(&mut self, id: NodeId, target: &Target) {
        if self.upload_for(id, target) || !self.may_push() {
            self.push_ready.insert(id);
        }
    }

    /// Starts the upload that a node's change needs. Returns whether its content is at the hub.
    fn upload_for(&mut self, id: NodeId, target: &Target) -> bool {
        let Goal::Is(content) = &target.content else { return true };
        let Some(hash) = content.blob() else { return true };
        let head = self.head.get(id).map(|node| &node.content.value);
        let known = head == Some(content) && !self.must_upload.contains(&hash);
        if target.place.is_none() || known || self.at_hub.contains(&hash) {
            return true;
        }
        if !self.may_push() {
            return false;
        }
        if let Some(nodes) = self.uploading.get_mut(&hash) {
            nodes.insert(id);
            return false;
        }
        if self.uploading.len() < UPLOADS {
            let len = match content {
                Content::File { len, .. } => *len,
                _ => 0,
            };
            let base = head.and_then(Content::blob);
            self.uploading.entry(hash).or_default().insert(id);
            self.actions.push(Action::Upload { node: id, hash, len, base });
        } else {
            self.upload_queue.insert(id);
        }
        false
    }

    fn upload_ended(&mut self, hash: Hash) -> BTreeSet<NodeId> {
        let nodes = self.uploading.remove(&hash).unwrap_or_default();
        for _ in self.uploading.len()..UPLOADS {
            let Some(next) = self.upload_queue.pop_first() else { break };
            self.touch(next);
        }
        nodes
    }

    pub(super) fn uploaded(&mut self, hash: Hash) {
        self.at_hub.insert(hash);
        self.must_upload.remove(&hash);
        for id in self.upload_ended(hash) {
            self.touch(id);
        }
    }

    pub(super) fn upload_failed(&mut self, hash: Hash, what: &str) {
        for id in self.upload_ended(hash) {
            let holds_it = self.local.get(id).and_then(|node| node.content.as_ref()).and_then(Content::blob) == Some(hash);
            if holds_it {
                self.fail(id, what, RETRY_UPLOAD, true);
            } else {
                // It has other bytes by now: nothing to wait for.
                self.touch(id);
            }
        }
    }

    /// The changes at the hub that have to come before `id` can get its target there.
    fn blockers_there(&self, id: NodeId, target: &Target) -> Vec<NodeId> {
        let mut blockers = Vec::new();
        let Some(place) = &target.place else {
            if self.kind(id) == Some(Kind::Dir) {
                blockers.extend(self.head.names().below(id).map(|(_, child)| child));
            }
            return blockers;
        };
        if self.head_place(id) == Some(place) {
            return blockers;
        }
        if !self.head.is_living_dir(place.parent) {
            blockers.push(place.parent);
        }
        blockers.extend(self.head.names().get(place).filter(|holder| *holder != id));
        if self.kind(id) == Some(Kind::Dir) && self.head.get(id).is_some() {
            let mut chain = Vec::new();
            let mut at = place.parent;
            for _ in 0..=self.local.len() + 1_000_000 {
                if at == id {
                    // Below itself as the hub has it: whoever leaves that chain has to go first, or together.
                    blockers.extend(chain.into_iter().filter(|other| self.open.contains(other)));
                    break;
                }
                let Some(up) = self.head_place(at) else { break };
                chain.push(at);
                at = up.parent;
            }
        }
        blockers
    }

    pub(super) fn emit_pushes(&mut self) {
        if !self.may_push() || self.session.as_ref().is_some_and(|session| session.batches.len() >= BATCHES) {
            return;
        }
        let ready: Vec<NodeId> = self.push_ready.iter().copied().collect();
        let mut candidates: BTreeMap<NodeId, (Target, Vec<NodeId>)> = BTreeMap::new();
        for id in ready {
            if candidates.len() >= MAX_GROUPS {
                break;
            }
            if self.work.contains_key(&id) {
                continue;
            }
            let Some(target) = self.pushable(id) else {
                self.push_ready.remove(&id);
                self.touch(id);
                continue;
            };
            candidates.insert(id, (target, Vec::new()));
        }
        self.add_blockers(&mut candidates);
        self.drop_unready(&mut candidates);
        if candidates.is_empty() {
            return;
        }
        let ids: Vec<NodeId> = candidates.keys().copied().collect();
        let groups: Vec<Vec<NodeId>> = components(&ids, |id| candidates.get(&id).map_or(Vec::new(), |(_, needs)| needs.clone()));
        self.propose(&groups, &candidates);
    }

    /// Finds what each candidate needs first, and takes in what is ready but lay beyond the window.
    fn add_blockers(&mut self, candidates: &mut BTreeMap<NodeId, (Target, Vec<NodeId>)>) {
        let mut queue: Vec<NodeId> = candidates.keys().copied().collect();
        while let Some(id) = queue.pop() {
            let Some((target, _)) = candidates.get(&id) else { continue };
            let needs = self.blockers_there(id, target);
            for need in &needs {
                if !candidates.contains_key(need)
                    && let Some(target) = self.pushable(*need)
                {
                    candidates.insert(*need, (target, Vec::new()));
                    queue.push(*need);
                }
            }
            if let Some(candidate) = candidates.get_mut(&id) {
                candidate.1 = needs;
            }
        }
    }

    /// The target of a node that can be proposed now, though it may have been waiting for another.
    fn pushable(&mut self, id: NodeId) -> Option<Target> {
        if !self.open.contains(&id) || self.work.contains_key(&id) || self.has_to_wait(id) {
            return None;
        }
        let target = self.look_ahead(id)?;
        let is_next = self.step(id, &target).is_none() && self.differs_from_hub(id, &target);
        (is_next && self.upload_for(id, &target)).then_some(target)
    }

    /// Leaves out whoever needs something that is not in this batch, and whoever needs those.
    fn drop_unready(&mut self, candidates: &mut BTreeMap<NodeId, (Target, Vec<NodeId>)>) {
        let mut needed_by: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let mut dropped: Vec<NodeId> = Vec::new();
        for (id, (_, needs)) in candidates.iter() {
            for need in needs {
                needed_by.entry(*need).or_default().push(*id);
            }
            if needs.iter().any(|need| !candidates.contains_key(need)) {
                dropped.push(*id);
            }
        }
        let missing: BTreeSet<NodeId> = needed_by.keys().copied().filter(|need| !candidates.contains_key(need)).collect();
        for need in missing {
            for id in needed_by.get(&need).cloned().unwrap_or_default() {
                self.wait_for(id, need);
                self.push_ready.remove(&id);
            }
        }
        while let Some(id) = dropped.pop() {
            if candidates.remove(&id).is_some() {
                for dependent in needed_by.get(&id).cloned().unwrap_or_default() {
                    if candidates.contains_key(&dependent) {
                        self.wait_for(dependent, id);
                        self.push_ready.remove(&dependent);
                        dropped.push(dependent);
                    }
                }
            }
        }
    }

    fn propose(&mut self, groups: &[Vec<NodeId>], candidates: &BTreeMap<NodeId, (Target, Vec<NodeId>)>) {
        let mut sent = Vec::new();
        for group in groups {
            let ops: Vec<Op> = group
                .iter()
                .filter_map(|id| {
                    let (target, _) = candidates.get(id)?;
                    self.op(*id, target)
                })
                .collect();
            if ops.len() == group.len() {
                sent.push(ops);
            }
        }
        if sent.is_empty() {
            return;
        }
        for op in sent.iter().flatten() {
            let proposed = Proposed { node: op.node, change: op.change.clone() };
            self.proposed.insert(op.id, proposed.clone());
            self.proposed_for.entry(op.node).or_default().insert(op.id);
            self.writes.push(ClientWrite::Proposed(op.id, Some(proposed)));
            self.work.insert(op.node, Work::Proposing);
            self.push_ready.remove(&op.node);
        }
        // What is proposed is on record first: after a crash the hub's record of it is known to be ours.
        self.save();
        let batch = self.next_batch;
        self.next_batch += 1;
        let ids = sent.iter().map(|group| group.iter().map(|op| op.id).collect()).collect();
        if let Some(session) = &mut self.session {
            session.batches.insert(batch, ids);
        }
        self.actions.push(Action::Propose { batch, groups: sent });
    }

    fn op(&mut self, id: NodeId, target: &Target) -> Option<Op> {
        let head = self.head.get(id).cloned();
        let content = match &target.content {
            Goal::Is(content) => content.clone(),
            Goal::Both(_, ours, _) => ours.clone(),
        };
        let mut change = Change::default();
        let (mut expect_place, mut expect_content) = (0, 0);
        match &head {
            None => {
                change.place = Some(target.place.clone());
                change.content = Some(content.clone());
                change.attrs = Some(target.attrs);
            }
            Some(head) => {
                (expect_place, expect_content) = (head.place.seq, head.content.seq);
                // A removed node that comes back brings everything: others may have forgotten it.
                let back = head.place.value.is_none() && target.place.is_some();
                if head.place.value != target.place {
                    change.place = Some(target.place.clone());
                }
                if target.place.is_some() {
                    let is_decided = matches!(target.content, Goal::Is(_));
                    if back || (is_decided && head.content.value != content) {
                        change.content = Some(content.clone());
                    }
                    if back || (is_decided && head.attrs.value != target.attrs) {
                        change.attrs = Some(target.attrs);
                    }
                }
            }
        }
        if change == Change::default() {
            return None;
        }
        if change.content.is_some()
            && let Some(intent) = self.intents.get(&id)
            && intent.after == content
        {
            change.parents = intent.parents.clone();
        }
        Some(Op { id: OpId(self.mint()), node: id, expect_place, expect_content, change })
    }
}
