//! Evaluating one node: what is agreed becomes base, what is not becomes ready to be placed here or proposed to the hub.

use super::Base;
use super::ClientWrite;
use super::Proposed;
use super::Replica;
use super::Work;
use super::events::Action;
use super::events::MergeOutcome;
use super::events::Resolution;
use super::events::Step;
use super::observe::SeenIn;
use super::observe::Sighting;
use super::observe::integrate;
use super::state::Conflict;
use super::state::Intent;
use super::want::Goal;
use super::want::Target;
use crate::model::Content;
use crate::model::Kind;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Place;
use crate::model::Register;
use std::collections::BTreeMap;

/// The base, ours and theirs of a merge, and what came out.
pub(super) type MergeDone = (Option<Content>, Content, Content, MergeOutcome);

impl Replica {
    pub(super) fn observed(&mut self, sightings: &[Sighting], complete: &[SeenIn], full: bool) {
        let (local, head) = (std::mem::take(&mut self.local), std::mem::take(&mut self.head));
        let creations = self.proposed_creations();
        let seen = integrate(&local, &head, &creations, sightings, complete, &mut || NodeId(self.mint()));
        (self.local, self.head) = (local, head);
        for id in &seen.removed {
            self.touch_around(*id);
            self.outdate(*id);
            self.local.remove(*id);
            self.open.insert(*id);
        }
        for (id, node) in seen.set {
            if id == NodeId::ROOT {
                continue;
            }
            self.touch_around(id);
            self.failures.remove(&id);
            self.held_removals.remove(&id);
            if self.local.get(id) != Some(&node) {
                self.outdate(id);
                self.local.set(id, node);
                self.open.insert(id);
                self.touch_around(id);
            }
        }
        if full {
            self.scanned = true;
            self.after_scan();
        }
    }

    /// What was made here before the last start and may be at the hub by now, by its place: found again it is the same node.
    fn proposed_creations(&self) -> BTreeMap<Place, (NodeId, Kind)> {
        let creation = |proposed: &Proposed| {
            let place = proposed.change.place.clone()??;
            let kind = proposed.change.content.as_ref()?.kind();
            (!self.base.contains_key(&proposed.node)).then_some((place, (proposed.node, kind)))
        };
        self.proposed.values().filter_map(creation).collect()
    }

    fn outdate(&mut self, id: NodeId) {
        if matches!(self.work.get(&id), Some(Work::Placing(_))) {
            self.outdated.insert(id);
        }
    }

    /// The start-up scan has told everything: what is missing was removed while nobody watched, unless it is too much to believe.
    fn after_scan(&mut self) {
        let missing: Vec<NodeId> = self.base.keys().copied().filter(|id| self.local.get(*id).is_none()).collect();
        let too_many = missing.len() > self.config.brake_nodes
            || (missing.len() >= self.config.brake_half && missing.len() * 2 > self.base.len());
        if too_many {
            self.held_removals.extend(&missing);
        }
        let all: Vec<NodeId> = self.base.keys().copied().chain(self.head.iter().map(|(id, _)| id)).collect();
        for id in all.into_iter().chain(self.local.iter().map(|(id, _)| id).collect::<Vec<_>>()) {
            self.open.insert(id);
            self.touch(id);
        }
    }

    /// Makes base what both sides agree on. Returns whether the node is settled.
    fn agree(&mut self, id: NodeId) -> bool {
        let local = self.local.get(id).cloned();
        let head = self.head.get(id).cloned();
        let Some(head) = head else {
            if local.is_none() {
                self.forget(id);
                return true;
            }
            return false;
        };
        let Some(local) = local else {
            if head.place.value.is_none() {
                self.forget(id);
                return true;
            }
            return false;
        };
        let in_limbo = local.place.parent == NodeId::LIMBO;
        let same_place = !in_limbo && head.place.value.as_ref() == Some(&local.place);
        let same_content = local.content.as_ref() == Some(&head.content.value);
        let before = self.base.get(&id).cloned();
        let passed = local.content.as_ref().and_then(|ours| self.passed(id, ours, |node| &node.content));
        let passed_place = self.passed(id, &Some(local.place.clone()), |node| &node.place);
        let mut base = match (&before, same_place && (same_content || passed.is_some())) {
            (Some(base), _) => base.clone(),
            (None, true) => Base { node: head.clone(), seen: None },
            (None, false) => return false,
        };
        if same_place {
            base.node.place = head.place.clone();
        } else if let Some(passed) = passed_place {
            base.node.place = passed;
        }
        if same_content {
            base.node.content = head.content.clone();
        } else if let Some(passed) = passed {
            base.node.content = passed;
        }
        if local.attrs == head.attrs.value {
            base.node.attrs = head.attrs.clone();
        }
        base.seen = (local.content.as_ref() == Some(&base.node.content.value)).then_some(local.fingerprint);
        let settled = base.node == head && same_place && same_content && local.attrs == head.attrs.value;
        if before.as_ref() != Some(&base) {
            self.base.insert(id, base);
            self.unsave(id);
        }
        settled
    }

    /// Forgets what was proposed for a node that is settled. Before the hub has told everything its record may still come.
    fn forget_proposed(&mut self, id: NodeId) {
        if !self.session.as_ref().is_some_and(|session| session.caught_up) {
            return;
        }
        for op in self.proposed_for.remove(&id).unwrap_or_default() {
            if self.proposed.remove(&op).is_some() {
                self.writes.push(ClientWrite::Proposed(op, None));
            }
        }
    }

    /// The register of a version that the hub had after the base and that is what is here: it was put here, and the crash came before
    /// that was recorded.
    fn passed<T: Clone + PartialEq>(
        &self,
        id: NodeId,
        ours: &T,
        register: impl Fn(&Node) -> &Register<T>,
    ) -> Option<Register<T>> {
        let agreed = self.base.get(&id).map_or(0, |base| register(&base.node).seq);
        let mut passed = self.passed.get(&id)?.iter().rev().map(register);
        passed.find(|passed| passed.value == *ours && passed.seq > agreed).cloned()
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        let known = self.base.remove(&id).is_some() | self.head.get(id).is_some();
        self.head.remove(id);
        self.passed.remove(&id);
        self.kept.remove(&id);
        if known {
            self.unsave(id);
        }
        self.clear_conflict(id);
        self.clear_intent(id);
    }

    /// A merged content that is in place makes the hub's version the base: it is merged, and merging it again would double it.
    fn adopt_intent(&mut self, id: NodeId) {
        let Some(intent) = self.intents.get(&id).cloned() else { return };
        let content = self.local.get(id).and_then(|node| node.content.as_ref());
        if content != Some(&intent.after) {
            if content.is_some_and(|content| *content != intent.before) && self.is_adopted(id, &intent) {
                // Edited again after the merge: the merge is the base's past now.
                self.clear_intent(id);
            }
            return;
        }
        if self.is_adopted(id, &intent) {
            return;
        }
        if let Some(base) = self.base.get_mut(&id) {
            base.node.content = intent.base.clone();
            base.seen = None;
        } else if let Some(head) = self.head.get(id) {
            let mut node = head.clone();
            node.content = intent.base.clone();
            self.base.insert(id, Base { node, seen: None });
        }
        self.unsave(id);
    }

    fn is_adopted(&self, id: NodeId, intent: &Intent) -> bool {
        self.base.get(&id).is_some_and(|base| base.node.content.seq >= intent.base.seq)
    }

    pub(super) fn clear_intent(&mut self, id: NodeId) {
        if self.intents.remove(&id).is_some() {
            self.writes.push(ClientWrite::Intent(id, None));
        }
    }

    fn clear_conflict(&mut self, id: NodeId) {
        self.merged.remove(&id);
        if self.conflicts.remove(&id).is_some() {
            self.writes.push(ClientWrite::Conflict(id, None));
            self.actions.push(Action::Blocked { node: id, blocked: false });
        }
    }

    pub(super) fn evaluate(&mut self, id: NodeId) {
        if id == NodeId::ROOT || self.work.contains_key(&id) {
            return;
        }
        self.push_ready.remove(&id);
        self.pull_ready.remove(&id);
        if self.has_to_wait(id) {
            return;
        }
        self.failures.remove(&id);
        if let Some(other) = self.same_as(id) {
            self.become_other(id, other);
            return;
        }
        self.adopt_intent(id);
        if self.agree(id) {
            self.open.remove(&id);
            self.failures.remove(&id);
            self.places.remove(&id);
            self.passed.remove(&id);
            self.forget_proposed(id);
            self.clear_conflict(id);
            self.clear_intent(id);
            self.wake_waiters(id);
            return;
        }
        self.open.insert(id);
        let Some(target) = self.target(id) else { return };
        if let Goal::Both(base, ours, theirs) = &target.content {
            if !self.decide_content(id, base.clone(), ours.clone(), theirs.clone()) {
                return;
            }
        } else {
            self.clear_conflict(id);
        }
        match self.step(id, &target) {
            Some(step) => self.make_ready_to_place(id, &step),
            None if self.differs_from_hub(id, &target) => self.make_ready_to_push(id, &target),
            None => {}
        }
    }

    /// Both sides changed the content. Returns whether the other registers may go on meanwhile.
    fn decide_content(&mut self, id: NodeId, base: Option<Content>, ours: Content, theirs: Content) -> bool {
        if let Some(hash) = theirs.blob()
            && !self.staged.contains(&hash)
        {
            self.fetch(id, hash, &theirs);
            return true;
        }
        let outcome = match self.merged.get(&id) {
            Some((b, o, t, outcome)) if (b, o, t) == (&base, &ours, &theirs) => Some(outcome.clone()),
            _ if self.is_mergeable(&base, &ours, &theirs) => None,
            _ => Some(MergeOutcome::Conflict),
        };
        match outcome {
            None => {
                self.work.insert(id, Work::Merging);
                self.actions.push(Action::Merge { node: id, base, ours, theirs });
                false
            }
            Some(MergeOutcome::Clean(after)) => {
                self.place_merged(id, ours, after);
                false
            }
            Some(MergeOutcome::Conflict) => {
                let since = self.conflicts.get(&id).map_or(self.now, |conflict| conflict.since);
                let conflict = Conflict { base, ours, theirs, since };
                if self.conflicts.get(&id) != Some(&conflict) {
                    let is_new = self.conflicts.insert(id, conflict.clone()).is_none();
                    self.writes.push(ClientWrite::Conflict(id, Some(conflict)));
                    self.actions.push(Action::Blocked { node: id, blocked: true });
                    if is_new {
                        self.notice(id, "both sides changed the same words: choose with `syncfs resolve`".into());
                    }
                }
                true
            }
        }
    }

    fn is_mergeable(&self, base: &Option<Content>, ours: &Content, theirs: &Content) -> bool {
        let small = |content: &Content| matches!(content, Content::File { len, .. } if *len <= self.config.merge_limit);
        small(ours) && small(theirs) && base.as_ref().is_none_or(small)
    }

    /// Records the intent and puts `after` in the place of `ours`; the hub's present version is merged in it.
    fn place_merged(&mut self, id: NodeId, ours: Content, after: Content) {
        let Some(head) = self.head.get(id) else { return };
        let theirs: Register<Content> = head.content.clone();
        let parents = ours.blob().into_iter().chain(theirs.value.blob()).collect();
        let intent = Intent { before: ours.clone(), after: after.clone(), base: theirs, parents };
        self.intents.insert(id, intent.clone());
        self.writes.push(ClientWrite::Intent(id, Some(intent)));
        if after == ours {
            self.adopt_intent(id);
            self.touch(id);
            return;
        }
        let attrs = match (self.local.get(id), self.head.get(id)) {
            (Some(local), Some(head)) => {
                crate::model::Attrs { mode: local.attrs.mode, mtime: local.attrs.mtime.max(head.attrs.value.mtime) }
            }
            _ => return,
        };
        self.save();
        let step = Step::Content { content: after, attrs };
        self.work.insert(id, Work::Placing(step.clone()));
        self.actions.push(Action::Place { node: id, step, after_persist: true });
    }

    pub(super) fn merge_done(&mut self, id: NodeId, done: MergeDone) {
        if self.work.get(&id) == Some(&Work::Merging) {
            self.work.remove(&id);
        }
        if let MergeOutcome::Clean(content) = &done.3
            && let Some(hash) = content.blob()
        {
            self.staged.insert(hash);
        }
        self.merged.insert(id, done);
        self.touch(id);
    }

    pub(super) fn resolve(&mut self, id: NodeId, how: Resolution) {
        let (Some(conflict), Some(head)) = (self.conflicts.get(&id).cloned(), self.head.get(id).cloned()) else { return };
        match how {
            // Ours stands: the hub's version is its past now.
            Resolution::Ours => {
                let outcome = MergeOutcome::Clean(conflict.ours.clone());
                self.merged.insert(id, (conflict.base, conflict.ours, conflict.theirs, outcome));
            }
            Resolution::Theirs => {
                let outcome = MergeOutcome::Clean(head.content.value.clone());
                self.merged.insert(id, (conflict.base, conflict.ours, conflict.theirs, outcome));
            }
            Resolution::Content(content) => {
                if let Some(hash) = content.blob() {
                    self.staged.insert(hash);
                }
                self.merged.insert(id, (conflict.base, conflict.ours, conflict.theirs, MergeOutcome::Clean(content)));
            }
        }
        self.touch(id);
    }

    /// `id` was added here and turns out to be what the hub has as `other`.
    fn become_other(&mut self, id: NodeId, other: NodeId) {
        let children = self.local.rekey(id, other);
        self.open.remove(&id);
        self.failures.remove(&id);
        self.kept.remove(&id);
        self.open.insert(other);
        self.touch_around(other);
        self.places.remove(&id);
        self.wake_waiters(id);
        for child in children {
            self.open.insert(child);
            self.touch(child);
        }
    }

    pub(super) fn differs_from_hub(&self, id: NodeId, target: &Target) -> bool {
        let Some(head) = self.head.get(id) else { return target.place.is_some() };
        if head.place.value != target.place {
            return true;
        }
        // While the content is in conflict its time is too.
        let Goal::Is(content) = &target.content else { return false };
        target.place.is_some() && (*content != head.content.value || head.attrs.value != target.attrs)
    }

    /// The next step that brings the directory nearer to the target.
    pub(super) fn step(&self, id: NodeId, target: &Target) -> Option<Step> {
        let local = self.local.get(id);
        match (local, &target.place) {
            (None, None) => None,
            (Some(local), None) if local.place.parent == NodeId::LIMBO && self.first_child_here(id).is_some() => {
                // Out of the staging directory first: what is in it can only be reached below the root.
                let known = self.our_place(id).map(|place| place.name);
                let name = known.unwrap_or_else(|| local.place.name.clone());
                Some(Step::Move { place: self.free_name_beside(id, &Place { parent: NodeId::ROOT, name }) })
            }
            (Some(_), None) => Some(Step::Remove),
            (None, Some(place)) => match &target.content {
                Goal::Is(content) => Some(Step::Create { place: place.clone(), content: content.clone(), attrs: target.attrs }),
                Goal::Both(..) => None,
            },
            (Some(local), Some(place)) => {
                if local.place != *place {
                    return Some(Step::Move { place: place.clone() });
                }
                match &target.content {
                    Goal::Is(content) if local.content.as_ref() != Some(content) => {
                        Some(Step::Content { content: content.clone(), attrs: target.attrs })
                    }
                    Goal::Is(_) if local.attrs != target.attrs => Some(Step::Attrs { attrs: target.attrs }),
                    _ => None,
                }
            }
        }
    }

    /// Whether a directory here has nothing in it that this replica knows of.
    pub(super) fn first_child_here(&self, id: NodeId) -> Option<NodeId> {
        (self.kind(id) == Some(Kind::Dir)).then(|| self.local.names().below(id).map(|(_, child)| child).next())?
    }
}
