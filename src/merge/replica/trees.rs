//! The trees of observations, indexed by identity, by name and by inode.

use crate::model::Attrs;
use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Kind;
use crate::model::Name;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Place;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Names below directories.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<NodeId, BTreeMap<Name, NodeId>>);

impl Names {
    pub fn get(&self, place: &Place) -> Option<NodeId> {
        self.0.get(&place.parent)?.get(&place.name).copied()
    }

    pub fn below(&self, parent: NodeId) -> impl Iterator<Item = (&Name, NodeId)> {
        self.0.get(&parent).into_iter().flatten().map(|(name, id)| (name, *id))
    }

    fn insert(&mut self, place: &Place, id: NodeId) {
        self.0.entry(place.parent).or_default().insert(place.name.clone(), id);
    }

    fn remove(&mut self, place: &Place, id: NodeId) {
        if let Some(names) = self.0.get_mut(&place.parent) {
            if names.get(&place.name) == Some(&id) {
                names.remove(&place.name);
            }
            if names.is_empty() {
                self.0.remove(&place.parent);
            }
        }
    }
}

/// A node as the directory here holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Its directory and name; the parent is [`NodeId::LIMBO`] while it is between two places.
    pub place: Place,
    pub kind: Kind,
    /// `None`: somebody is writing it, what it holds is not known yet.
    pub content: Option<Content>,
    pub attrs: Attrs,
    pub fingerprint: Fingerprint,
}

/// What the directory here holds.
#[derive(Debug, Default)]
pub(super) struct LocalTree {
    nodes: BTreeMap<NodeId, LocalNode>,
    names: Names,
    inodes: BTreeMap<(u64, u64), BTreeSet<NodeId>>,
}

impl LocalTree {
    pub fn get(&self, id: NodeId) -> Option<&LocalNode> {
        self.nodes.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &LocalNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn by_inode(&self, dev: u64, ino: u64) -> impl Iterator<Item = NodeId> {
        self.inodes.get(&(dev, ino)).into_iter().flatten().copied()
    }

    pub fn set(&mut self, id: NodeId, node: LocalNode) {
        self.remove(id);
        self.names.insert(&node.place, id);
        self.inodes.entry((node.fingerprint.dev, node.fingerprint.ino)).or_default().insert(id);
        self.nodes.insert(id, node);
    }

    pub fn remove(&mut self, id: NodeId) -> Option<LocalNode> {
        let node = self.nodes.remove(&id)?;
        self.names.remove(&node.place, id);
        let key = (node.fingerprint.dev, node.fingerprint.ino);
        if let Some(ids) = self.inodes.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.inodes.remove(&key);
            }
        }
        Some(node)
    }

    /// Gives a node another identity; what is below it goes with it. Returns the children.
    pub fn rekey(&mut self, from: NodeId, to: NodeId) -> Vec<NodeId> {
        let Some(node) = self.remove(from) else { return Vec::new() };
        self.set(to, node);
        let children: Vec<NodeId> = self.names.below(from).map(|(_, id)| id).collect();
        for &child in &children {
            if let Some(mut node) = self.remove(child) {
                node.place.parent = to;
                self.set(child, node);
            }
        }
        children
    }

    /// The names from the root to `id`; `None` when it is not below the root (gone, or in limbo).
    pub fn path(&self, id: NodeId) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let place = &self.nodes.get(&at)?.place;
            if names.len() > self.nodes.len() {
                return None;
            }
            names.push(place.name.clone());
            at = place.parent;
        }
        names.reverse();
        Some(names)
    }
}

/// The hub's newest version of every node this client knows of, removed ones until that is agreed.
#[derive(Debug, Default)]
pub(super) struct HeadTree {
    nodes: BTreeMap<NodeId, Node>,
    names: Names,
}

impl HeadTree {
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// The names of living nodes.
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn set(&mut self, id: NodeId, node: Node) {
        self.remove(id);
        if let Some(place) = &node.place.value {
            self.names.insert(place, id);
        }
        self.nodes.insert(id, node);
    }

    pub fn remove(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove(&id)
            && let Some(place) = &node.place.value
        {
            self.names.remove(place, id);
        }
    }

    /// Whether `id` is a directory that lives.
    pub fn is_living_dir(&self, id: NodeId) -> bool {
        id == NodeId::ROOT || self.nodes.get(&id).is_some_and(|node| node.kind() == Kind::Dir && node.place.value.is_some())
    }
}
