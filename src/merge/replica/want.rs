//! What a node shall become: the one rule of DESIGN section 2 on each register, then what keeps a tree a tree (POLICY).
//!
//! "If one side is unchanged the other wins; if both agree, done; else the table's third column." Content outranks name, name outranks
//! deletion.

use super::Replica;
use super::Work;
use crate::model::Attrs;
use crate::model::Content;
use crate::model::Kind;
use crate::model::NodeId;
use crate::model::Place;
use crate::model::Register;

/// What a node shall become, here and at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub place: Option<Place>,
    pub content: Goal,
    pub attrs: Attrs,
}

/// What a node's content shall become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    Is(Content),
    /// Both sides changed it: `base`, ours, theirs.
    Both(Option<Content>, Content, Content),
}

/// The rule for one register: the value that both sides shall get, `None` where both changed it differently.
pub(super) fn three_way<T: PartialEq + Clone>(base: Option<&T>, ours: &T, theirs: &T) -> Option<T> {
    if ours == theirs {
        Some(ours.clone())
    } else if base == Some(ours) {
        Some(theirs.clone())
    } else if base == Some(theirs) {
        Some(ours.clone())
    } else {
        None
    }
}

impl Replica {
    pub(super) fn kind(&self, id: NodeId) -> Option<Kind> {
        self.local.get(id).map(|node| node.kind).or_else(|| self.head.get(id).map(|node| node.kind()))
    }

    pub(super) fn head_place(&self, id: NodeId) -> Option<&Place> {
        self.head.get(id)?.place.value.as_ref()
    }

    fn local_content_changed(&self, id: NodeId) -> bool {
        let local = self.local.get(id).and_then(|node| node.content.as_ref());
        let base = self.base.get(&id).map(|base| &base.node.content.value);
        local.is_some() && local != base
    }

    fn head_content_changed(&self, id: NodeId) -> bool {
        let head = self.head.get(id).map(|node| &node.content.value);
        head != self.base.get(&id).map(|base| &base.node.content.value)
    }

    /// The local place as a side of the rule: limbo is no place of its own, it stands for "unchanged".
    pub(super) fn our_place(&self, id: NodeId) -> Option<Place> {
        match self.local.get(id) {
            Some(node) if node.place.parent == NodeId::LIMBO => {
                let base = self.base.get(&id).and_then(|base| base.node.place.value.clone());
                base.or_else(|| self.head_place(id).cloned())
            }
            Some(node) => Some(node.place.clone()),
            None => None,
        }
    }

    /// The place by the rule alone, before the tree's own demands.
    fn ruled_place(&self, id: NodeId) -> Option<Place> {
        let ours = self.our_place(id);
        let Some(head) = self.head.get(id) else { return ours };
        let theirs = head.place.value.clone();
        let Some(base) = self.base.get(&id) else { return theirs.or(ours) };
        let base = &base.node.place.value;
        match three_way(Some(base), &ours, &theirs) {
            None => theirs.or(ours),
            Some(None) if ours.is_none() && theirs.is_some() && self.head_content_changed(id) => theirs,
            Some(None) if theirs.is_none() && ours.is_some() && self.local_content_changed(id) => ours,
            Some(place) => place,
        }
    }

    /// The place by the rule, for a directory that must stay because of what is in it, and for one that would get below itself: then
    /// the hub's move stands and ours is undone (POLICY row 21).
    pub(super) fn simple_place(&self, id: NodeId) -> Option<Place> {
        let place = self.kept_place(id)?;
        let theirs = self.head_place(id);
        if theirs != Some(&place) && self.kind(id) == Some(Kind::Dir) && self.is_below_itself(id, &place) {
            return theirs.cloned().or(Some(place));
        }
        Some(place)
    }

    /// The place by the rule, and for a directory that must stay because of what is in it.
    fn kept_place(&self, id: NodeId) -> Option<Place> {
        let ruled = self.ruled_place(id);
        if ruled.is_some() || !self.kept.contains(&id) {
            return ruled;
        }
        let base = || self.base.get(&id).and_then(|base| base.node.place.value.clone());
        self.our_place(id).or_else(|| self.head_place(id).cloned()).or_else(base)
    }

    /// Decides whether a directory that the rule removes stays because something in it stays (POLICY row 9).
    pub(super) fn review_kept(&mut self, id: NodeId) {
        let was = self.kept.contains(&id);
        let is = self.kind(id) == Some(Kind::Dir) && self.ruled_place(id).is_none() && self.has_staying_child(id);
        if is == was {
            return;
        }
        self.wake_waiters(id);
        if is {
            self.kept.insert(id);
        } else {
            self.kept.remove(&id);
        }
        // Only the next level up can be concerned; it is looked at in turn.
        let ours = self.our_place(id).map(|place| place.parent);
        let theirs = self.head_place(id).map(|place| place.parent);
        let base = self.base.get(&id).and_then(|base| base.node.place.value.as_ref()).map(|place| place.parent);
        for parent in [ours, theirs, base].into_iter().flatten() {
            self.touch(parent);
        }
    }

    fn has_staying_child(&self, id: NodeId) -> bool {
        let here = self.local.names().below(id);
        let there = self.head.names().below(id);
        here.chain(there).any(|(_, child)| self.simple_place(child).is_some_and(|place| place.parent == id))
    }

    /// Whether `place` would put the directory `id` below itself in the tree that is to be.
    fn is_below_itself(&self, id: NodeId, place: &Place) -> bool {
        let mut at = place.parent;
        for _ in 0..=self.local.len() + 1_000_000 {
            if at == NodeId::ROOT || at == NodeId::LIMBO {
                return false;
            }
            if at == id {
                return true;
            }
            match self.kept_place(at) {
                Some(place) => at = place.parent,
                None => return false,
            }
        }
        true
    }

    /// Another node that is to have the same name in the same directory.
    fn rival(&self, id: NodeId, place: &Place) -> Option<NodeId> {
        let there = self.head.names().get(place);
        let here = self.local.names().get(place);
        [there, here].into_iter().flatten().find(|rival| *rival != id && self.simple_place(*rival).as_ref() == Some(place))
    }

    /// Whether `id` must leave `place` to `rival`: a directory keeps a name before a file, then who is at the hub under it.
    fn gives_way(&self, id: NodeId, rival: NodeId, place: &Place) -> bool {
        let is_rooted = |id| self.head_place(id) == Some(place) && self.our_place(id).as_ref() == Some(place);
        if is_rooted(id) != is_rooted(rival) {
            return !is_rooted(id);
        }
        let is_dir = |id| self.kind(id) == Some(Kind::Dir);
        if is_dir(id) != is_dir(rival) {
            return !is_dir(id);
        }
        let holds = |id| self.head_place(id) == Some(place);
        if holds(id) != holds(rival) {
            return !holds(id);
        }
        id > rival
    }

    pub(super) fn free_name_beside(&self, id: NodeId, place: &Place) -> Place {
        let mut n = 1;
        loop {
            let beside = Place { parent: place.parent, name: place.name.beside(&self.device_name, n) };
            let here = self.local.names().get(&beside).is_none_or(|other| other == id);
            let there = self.head.names().get(&beside).is_none_or(|other| other == id);
            if here && there {
                return beside;
            }
            n += 1;
        }
    }

    /// A node at the hub that `id`, added here under the same name, really is (POLICY rows 7, 8, 33): same kind, not here yet.
    pub(super) fn same_as(&self, id: NodeId) -> Option<NodeId> {
        if self.head.get(id).is_some() || self.base.contains_key(&id) {
            return None;
        }
        let node = self.local.get(id)?;
        let other = self.head.names().get(&node.place)?;
        let free = other != id
            && self.local.get(other).is_none()
            && self.kind(other) == Some(node.kind)
            && !self.work.contains_key(&other)
            && self.simple_place(other).as_ref() == Some(&node.place);
        free.then_some(other)
    }

    /// What `id` shall become; `None`: nothing can be said yet. Says so when a person should know why.
    pub(super) fn target(&mut self, id: NodeId) -> Option<Target> {
        let local = self.local.get(id).cloned();
        let head = self.head.get(id).cloned();
        if self.held_removals.contains(&id) && local.is_none() {
            return None;
        }
        if local.as_ref().is_some_and(|node| node.content.is_none()) {
            return None;
        }
        self.review_kept(id);
        let mut place = self.simple_place(id);
        if let Some(wanted) = place.clone()
            && let Some(rival) = self.rival(id, &wanted)
        {
            self.wait_for(id, rival);
            if self.gives_way(id, rival, &wanted) {
                if matches!(self.work.get(&rival), Some(Work::Proposing)) {
                    return None;
                }
                place = Some(self.free_name_beside(id, &wanted));
            } else {
                self.touch_if_open(rival);
            }
        }
        if self.places.get(&id) != Some(&place) {
            self.places.insert(id, place.clone());
            self.wake_waiters(id);
        }
        let content = self.content_goal(id)?;
        let base = self.base.get(&id).map(|base| base.node.attrs.value);
        let attrs = match (&local, &head) {
            (Some(local), Some(head)) => {
                let (ours, theirs) = (local.attrs, head.attrs.value);
                let mode = three_way(base.map(|attrs| attrs.mode).as_ref(), &ours.mode, &theirs.mode).unwrap_or(ours.mode);
                let pulled =
                    content == Goal::Is(head.content.value.clone()) && local.content.as_ref() != Some(&head.content.value);
                let mtime = three_way(base.map(|attrs| attrs.mtime).as_ref(), &ours.mtime, &theirs.mtime);
                Attrs { mode, mtime: mtime.unwrap_or(if pulled { theirs.mtime } else { ours.mtime }) }
            }
            (Some(local), None) => local.attrs,
            (None, Some(head)) => head.attrs.value,
            (None, None) => return None,
        };
        Some(Target { place, content, attrs })
    }

    /// The target of a node that is not being evaluated just now; if it is another than at its evaluation, it is evaluated again.
    pub(super) fn look_ahead(&mut self, id: NodeId) -> Option<Target> {
        let before = self.places.get(&id).cloned();
        let target = self.target(id);
        if self.places.get(&id) != before.as_ref() {
            self.touch(id);
        }
        target
    }

    fn touch_if_open(&mut self, id: NodeId) {
        // A rival that has to give way may have been settled until now.
        if self.open.insert(id) {
            self.touch(id);
        }
    }

    fn content_goal(&self, id: NodeId) -> Option<Goal> {
        let base = self.base.get(&id).map(|base| &base.node.content.value);
        let local = self.local.get(id).and_then(|node| node.content.as_ref());
        let head: Option<&Register<Content>> = self.head.get(id).map(|node| &node.content);
        let is_removed = self.head.get(id).is_some_and(|node| node.place.value.is_none());
        match (local, head) {
            // Who removed it knew what was there; only what is here can come back.
            (Some(ours), Some(_)) if is_removed => Some(Goal::Is(ours.clone())),
            (Some(ours), Some(theirs)) => Some(match three_way(base, ours, &theirs.value) {
                Some(content) => Goal::Is(content),
                None => Goal::Both(base.cloned(), ours.clone(), theirs.value.clone()),
            }),
            (Some(ours), None) => Some(Goal::Is(ours.clone())),
            (None, Some(theirs)) => Some(Goal::Is(theirs.value.clone())),
            (None, None) => None,
        }
    }
}
