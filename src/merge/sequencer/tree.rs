//! The hub's tree of heads, and whether a group of ops may change it.

use crate::model::Attrs;
use crate::model::Change;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::Name;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::Place;
use crate::model::Refusal;
use crate::model::Seq;
use crate::model::TreeEntry;
use crate::model::Verdict;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The longest symlink target in bytes.
const TARGET_MAX: usize = 4095;
/// The most versions a content may name as its parents.
const PARENTS_MAX: usize = 2;

/// Every node, living or removed, and the living ones by directory and name.
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    children: BTreeMap<NodeId, BTreeSet<(Name, NodeId)>>,
}

impl Tree {
    pub fn new(heads: BTreeMap<NodeId, Node>) -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), children: BTreeMap::new() };
        for (id, node) in heads {
            tree.put(id, Some(node));
        }
        tree
    }

    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Every node, living or removed.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter()
    }

    /// The living nodes as the tree hash sees them.
    pub fn entries(&self) -> impl Iterator<Item = TreeEntry> {
        self.nodes.iter().filter_map(|(id, node)| {
            let place = node.place.value.as_ref()?;
            Some(TreeEntry {
                id: *id,
                parent: place.parent,
                name: place.name.clone(),
                content: node.content.value.clone(),
                mode: node.attrs.value.mode,
            })
        })
    }

    /// Commits the group as `first`, `first + 1`, ... and tells for each op the content it replaced, or changes nothing and tells
    /// every op's verdict. The group is judged by the tree it leaves behind, so that names may be swapped within it.
    pub fn commit(&mut self, group: &[&Op], first: Seq, absent: &BTreeSet<Hash>) -> Result<Vec<Option<Hash>>, Vec<Verdict>> {
        let mut undo = Vec::with_capacity(group.len());
        let mut bad: BTreeMap<usize, Verdict> = BTreeMap::new();
        let mut replaced = Vec::with_capacity(group.len());
        let mut seen = BTreeSet::new();
        for (index, op) in group.iter().enumerate() {
            let verdict = if seen.insert(op.id) { self.admissible(op, absent) } else { Some(MALFORMED) };
            if let Some(verdict) = verdict {
                bad.insert(index, verdict);
                continue;
            }
            let node = op.change.apply(self.get(op.node), first + index as Seq);
            let before = self.put(op.node, node);
            let now = op.change.content.as_ref().and_then(Content::blob);
            replaced.push(
                before.as_ref().and_then(|node| node.content.value.blob()).filter(|old| now.is_some_and(|new| new != *old)),
            );
            undo.push((op.node, before));
        }
        if bad.is_empty() {
            bad.extend(self.misfits(group));
        }
        if bad.is_empty() {
            return Ok(replaced);
        }
        for (id, before) in undo.into_iter().rev() {
            self.put(id, before);
        }
        // Verdicts show the tree as it is, not as the failed group would have made it.
        for (index, verdict) in &mut bad {
            if let Verdict::Stale(present) = verdict {
                *present = self.get(group[*index].node).cloned();
            }
        }
        Err((0..group.len()).map(|index| bad.remove(&index).unwrap_or(Verdict::GroupFailed)).collect())
    }

    /// Why an op may not be applied at all, looking at its own node only.
    fn admissible(&self, op: &Op, absent: &BTreeSet<Hash>) -> Option<Verdict> {
        let change = &op.change;
        let present = self.get(op.node);
        if !well_formed(op) {
            return Some(MALFORMED);
        }
        let creation = op.expect_place == 0 && op.expect_content == 0 && creates(change);
        match present {
            None if !creation => return Some(Verdict::Stale(None)),
            Some(node) => {
                let removal = change.place == Some(None);
                let place_stale = change.place.is_some() && node.place.seq != op.expect_place;
                // A removal may say which content it removes: content outranks deletion.
                let content_stale =
                    (change.content.is_some() || removal && op.expect_content != 0) && node.content.seq != op.expect_content;
                if creation || place_stale || content_stale {
                    return Some(Verdict::Stale(Some(node.clone())));
                }
                if node.place.value.is_none() && change.place.is_none() {
                    return Some(Verdict::Stale(Some(node.clone())));
                }
                if change.content.as_ref().is_some_and(|content| content.kind() != node.kind()) {
                    return Some(MALFORMED);
                }
            }
            None => {}
        }
        let blob = change.content.as_ref().and_then(Content::blob);
        blob.filter(|hash| absent.contains(hash)).map(|_| Verdict::NoContent)
    }

    /// The ops that leave the tree no tree, with their verdicts.
    fn misfits(&self, group: &[&Op]) -> BTreeMap<usize, Verdict> {
        let placed: BTreeMap<NodeId, usize> =
            group.iter().enumerate().filter(|(_, op)| op.change.place.is_some()).map(|(index, op)| (op.node, index)).collect();
        let misfit = |id: NodeId| {
            let node = self.get(id)?;
            match &node.place.value {
                Some(place) => self.misplaced(id, node.kind(), place),
                None => self.children.contains_key(&id).then_some(Verdict::NotEmpty),
            }
        };
        placed.into_iter().filter_map(|(id, index)| Some((index, misfit(id)?))).collect()
    }

    fn misplaced(&self, id: NodeId, kind: Kind, place: &Place) -> Option<Verdict> {
        if place.parent != NodeId::ROOT {
            let parent = self.get(place.parent);
            if !parent.is_some_and(|parent| parent.place.value.is_some() && parent.kind() == Kind::Dir) {
                return Some(Verdict::NoParent);
            }
        }
        let namesakes = (place.name.clone(), NodeId([0; 16]))..=(place.name.clone(), NodeId([0xff; 16]));
        let siblings = self.children.get(&place.parent)?;
        if let Some((_, other)) = siblings.range(namesakes).find(|(_, other)| *other != id) {
            return Some(Verdict::NameTaken(*other));
        }
        (kind == Kind::Dir && self.below_itself(id)).then_some(Verdict::WouldCycle)
    }

    /// Whether the way up from `id` leads into a circle instead of to the root.
    fn below_itself(&self, id: NodeId) -> bool {
        let mut way = BTreeSet::from([id]);
        let mut at = id;
        while let Some(place) = self.get(at).and_then(|node| node.place.value.as_ref()) {
            if !way.insert(place.parent) {
                return true;
            }
            at = place.parent;
        }
        false
    }

    /// Sets a node and gives the one before.
    fn put(&mut self, id: NodeId, node: Option<Node>) -> Option<Node> {
        if let Some(place) = node.as_ref().and_then(|node| node.place.value.clone()) {
            self.children.entry(place.parent).or_default().insert((place.name, id));
        }
        let place = node.as_ref().and_then(|node| node.place.value.clone());
        let before = match node {
            Some(node) => self.nodes.insert(id, node),
            None => self.nodes.remove(&id),
        };
        if let Some(old) = before.as_ref().and_then(|node| node.place.value.clone()).filter(|old| Some(old) != place.as_ref())
            && let Some(siblings) = self.children.get_mut(&old.parent)
        {
            siblings.remove(&(old.name, id));
            if siblings.is_empty() {
                self.children.remove(&old.parent);
            }
        }
        before
    }
}

const MALFORMED: Verdict = Verdict::Refused(Refusal::Malformed);

/// Whether a change makes a living node out of nothing.
fn creates(change: &Change) -> bool {
    matches!(change.place, Some(Some(_))) && change.content.is_some() && change.attrs.is_some()
}

fn well_formed(op: &Op) -> bool {
    let change = &op.change;
    let writes = change.place.is_some() || change.content.is_some() || change.attrs.is_some();
    let content = match &change.content {
        Some(Content::Symlink { target }) => (1..=TARGET_MAX).contains(&target.len()) && !target.contains(&0),
        Some(Content::File { hash, len: 0 }) => *hash == Hash::of(b""),
        _ => true,
    };
    let attrs = change.attrs.is_none_or(|attrs| attrs.mode & !Attrs::MODE_MASK == 0 && attrs.mtime.nanos < 1_000_000_000);
    op.node.is_ordinary() && writes && content && attrs && change.parents.len() <= PARENTS_MAX
}
