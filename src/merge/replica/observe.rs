//! From what the hands saw to which node it is: *the same path with new bytes is the same node; only a node whose path vanished and
//! whose inode turned up elsewhere has moved* (DESIGN section 2).

use super::trees::HeadTree;
use super::trees::LocalNode;
use super::trees::LocalTree;
use crate::model::Attrs;
use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Kind;
use crate::model::Name;
use crate::model::NodeId;
use crate::model::Place;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

/// One name in a directory, as the hands saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub dir: SeenIn,
    pub name: Name,
    /// `None`: there is nothing of that name.
    pub look: Option<Look>,
}

/// The directory of a [`Sighting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeenIn {
    /// A directory that the replica knows here, the root, or [`NodeId::LIMBO`].
    Node(NodeId),
    /// The directory of an earlier sighting in the same list, by its index.
    Sighting(usize),
}

/// What was at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub kind: Kind,
    /// `None`: a file that somebody is writing.
    pub content: Option<Content>,
    pub attrs: Attrs,
    pub fingerprint: Fingerprint,
}

/// What a list of sightings means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Integrated {
    pub set: Vec<(NodeId, LocalNode)>,
    pub removed: Vec<NodeId>,
}

/// Whether what was seen under the inode of `node` can be that node. Inode numbers are used again soon after a removal: a file that
/// shares nothing else is another file.
fn is_alike(node: &LocalNode, look: &Look) -> bool {
    node.kind == Kind::Dir
        || (node.content.is_some() && node.content == look.content)
        || (node.attrs.mtime == look.attrs.mtime && node.fingerprint.size == look.fingerprint.size)
}

struct Work<'a> {
    local: &'a LocalTree,
    head: &'a HeadTree,
    /// Nodes made here whose creation may or may not have reached the hub.
    creations: &'a BTreeMap<Place, (NodeId, Kind)>,
    sightings: &'a [Sighting],
    lists: BTreeMap<SeenIn, Vec<usize>>,
    complete: BTreeSet<SeenIn>,
    /// Directories whose names are known, as nodes.
    complete_nodes: BTreeSet<NodeId>,
    gone: BTreeSet<(NodeId, Name)>,
    /// Places already told: a directory may be seen both by itself and in the one above it.
    told: BTreeSet<(NodeId, Name)>,
    /// Which node is at a sighting whose place and inode are both known, but not together.
    swapped: BTreeMap<usize, NodeId>,
    claimed: BTreeSet<NodeId>,
    ids: Vec<Option<(NodeId, NodeId)>>,
    pending: VecDeque<(usize, NodeId)>,
}

impl Work<'_> {
    fn look(&self, at: usize) -> Option<&Look> {
        self.sightings.get(at)?.look.as_ref()
    }

    fn claim(&mut self, at: usize, parent: NodeId, id: NodeId, queue: &mut VecDeque<(NodeId, SeenIn)>) {
        self.claimed.insert(id);
        self.ids[at] = Some((id, parent));
        if self.look(at).is_some_and(|look| look.kind == Kind::Dir) {
            queue.push_back((id, SeenIn::Sighting(at)));
        }
    }

    /// Names that were exchanged among themselves, all still there: the nodes have moved (POLICY row 16). A name that took the inode
    /// of one that has got new bytes, or is gone, is an editor's backup or a replacement: there the path says who it is.
    fn find_swaps(&mut self, mut queue: VecDeque<(NodeId, SeenIn)>) {
        let mut at_place: BTreeMap<NodeId, usize> = BTreeMap::new();
        while let Some((parent, seen)) = queue.pop_front() {
            for &at in self.lists.get(&seen).into_iter().flatten() {
                let place = Place { parent, name: self.sightings[at].name.clone() };
                if let Some(id) = self.local.names().get(&place)
                    && !at_place.contains_key(&id)
                {
                    at_place.insert(id, at);
                    queue.push_back((id, SeenIn::Sighting(at)));
                }
            }
        }
        let other_node_at = |id: &NodeId| -> Option<NodeId> {
            let look = self.look(*at_place.get(id)?)?;
            let mut nodes = self.local.by_inode(look.fingerprint.dev, look.fingerprint.ino);
            let other = nodes.next().filter(|other| other != id && nodes.next().is_none())?;
            let node = self.local.get(other)?;
            (node.kind == look.kind && at_place.contains_key(&other) && is_alike(node, look)).then_some(other)
        };
        let mut swapped = BTreeMap::new();
        for start in at_place.keys() {
            let mut ring = vec![*start];
            while let Some(next) = ring.last().and_then(other_node_at) {
                if next == *start {
                    for (i, id) in ring.iter().enumerate() {
                        swapped.insert(at_place[id], ring[(i + 1) % ring.len()]);
                    }
                    break;
                }
                if ring.contains(&next) || ring.len() > 64 {
                    break;
                }
                ring.push(next);
            }
        }
        self.swapped = swapped;
    }

    /// Identity by path, downwards from every directory in the queue; what has no such identity is left pending.
    fn by_path(&mut self, queue: &mut VecDeque<(NodeId, SeenIn)>) {
        while let Some((parent, seen)) = queue.pop_front() {
            if self.complete.contains(&seen) {
                self.complete_nodes.insert(parent);
            }
            for at in self.lists.get(&seen).cloned().unwrap_or_default() {
                let place = Place { parent, name: self.sightings[at].name.clone() };
                if !self.told.insert((parent, place.name.clone())) {
                    continue;
                }
                let known = self.local.names().get(&place);
                match self.look(at) {
                    None => {
                        self.gone.insert((parent, place.name));
                    }
                    Some(look) => {
                        let kind = look.kind;
                        let exchanged = self.unplaced(look).or(self.swapped.get(&at).copied());
                        if exchanged.is_some() && known.is_some() && exchanged != known {
                            self.gone.insert((parent, place.name.clone()));
                        }
                        let same = exchanged
                            .or(known)
                            .filter(|id| !self.claimed.contains(id) && self.local.get(*id).is_some_and(|node| node.kind == kind));
                        match same {
                            Some(id) => self.claim(at, parent, id, queue),
                            None => {
                                if known.is_some() {
                                    self.gone.insert((parent, place.name));
                                }
                                self.pending.push_back((at, parent));
                            }
                        }
                    }
                }
            }
        }
    }

    /// A node whose place was not certain when it was last seen, and which is exactly this.
    fn unplaced(&self, look: &Look) -> Option<NodeId> {
        self.local.by_inode(look.fingerprint.dev, look.fingerprint.ino).find(|id| {
            let node = self.local.get(*id);
            node.is_some_and(|node| node.place.parent == NodeId::LIMBO && node.fingerprint == look.fingerprint)
                && !self.claimed.contains(id)
        })
    }

    /// What is in the staging directory says itself who it is, whatever else is under the name it had.
    fn by_limbo(&mut self, queue: &mut VecDeque<(NodeId, SeenIn)>) {
        for at in self.lists.get(&SeenIn::Node(NodeId::LIMBO)).cloned().unwrap_or_default() {
            let name = self.sightings[at].name.clone();
            if self.look(at).is_some()
                && let Some(id) = limbo_id(&name)
                && self.told.insert((NodeId::LIMBO, name))
            {
                self.claim(at, NodeId::LIMBO, id, queue);
            }
        }
    }

    /// Whether a node that was here is known to be gone from its place.
    fn is_absent(&self, id: NodeId) -> bool {
        let mut at = id;
        for _ in 0..=self.local.len() {
            let Some(node) = self.local.get(at) else {
                // In a directory that is not here: nowhere that could be looked at.
                return at != id && at != NodeId::ROOT && at != NodeId::LIMBO;
            };
            if self.claimed.contains(&at) {
                return false;
            }
            let parent = node.place.parent;
            if self.gone.contains(&(parent, node.place.name.clone())) || self.complete_nodes.contains(&parent) {
                return true;
            }
            at = parent;
        }
        false
    }

    fn moved_here(&self, at: usize) -> Option<NodeId> {
        let look = self.look(at)?;
        self.local.by_inode(look.fingerprint.dev, look.fingerprint.ino).find(|id| {
            self.local.get(*id).is_some_and(|node| node.kind == look.kind && is_alike(node, look) && self.is_absent(*id))
        })
    }

    fn fresh(&self, at: usize, parent: NodeId, mint: &mut dyn FnMut() -> NodeId) -> NodeId {
        let sighting = &self.sightings[at];
        let place = Place { parent, name: sighting.name.clone() };
        let kind = self.look(at).map(|look| look.kind);
        let known = self.head.names().get(&place).filter(|id| {
            let free = match self.local.get(*id) {
                None => true,
                Some(_) => self.is_absent(*id),
            };
            free && !self.claimed.contains(id) && self.head.get(*id).map(|node| node.kind()) == kind
        });
        let made = self
            .creations
            .get(&place)
            .filter(|(id, made)| Some(*made) == kind && self.local.get(*id).is_none() && !self.claimed.contains(id));
        known.or(made.map(|(id, _)| *id)).unwrap_or_else(mint)
    }
}

/// The name of a node in the staging directory while it is between two places.
pub fn limbo_name(id: NodeId) -> Name {
    Name::new(id.to_string().as_bytes()).expect("hexadecimal digits are a name")
}

fn limbo_id(name: &Name) -> Option<NodeId> {
    let text = std::str::from_utf8(name.as_bytes()).ok().filter(|text| text.len() == 32 && text.is_ascii())?;
    let mut id = [0; 16];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(NodeId(id))
}

/// Reads `sightings` against what is known. In the directories of `complete` every name was seen: others are gone. Directories
/// come before what is seen in them.
pub(super) fn integrate(
    local: &LocalTree,
    head: &HeadTree,
    creations: &BTreeMap<Place, (NodeId, Kind)>,
    sightings: &[Sighting],
    complete: &[SeenIn],
    mint: &mut dyn FnMut() -> NodeId,
) -> Integrated {
    let mut work = Work {
        local,
        head,
        creations,
        sightings,
        lists: BTreeMap::new(),
        complete: complete.iter().copied().collect(),
        complete_nodes: BTreeSet::new(),
        gone: BTreeSet::new(),
        told: BTreeSet::new(),
        swapped: BTreeMap::new(),
        claimed: BTreeSet::new(),
        ids: vec![None; sightings.len()],
        pending: VecDeque::new(),
    };
    let mut roots: BTreeSet<SeenIn> = complete.iter().copied().collect();
    for (at, sighting) in sightings.iter().enumerate() {
        work.lists.entry(sighting.dir).or_default().push(at);
        roots.insert(sighting.dir);
    }
    let known_dir =
        |id: NodeId| id == NodeId::ROOT || id == NodeId::LIMBO || local.get(id).is_some_and(|node| node.kind == Kind::Dir);
    let mut queue: VecDeque<(NodeId, SeenIn)> = roots
        .iter()
        .filter_map(|seen| match seen {
            SeenIn::Node(id) if known_dir(*id) => Some((*id, *seen)),
            _ => None,
        })
        .collect();
    work.find_swaps(queue.clone());
    work.by_limbo(&mut queue);
    work.by_path(&mut queue);
    // Directories first, the shallow ones before the deep: what is inside a moved directory keeps its identity by path.
    loop {
        let next = work.pending.iter().position(|(at, _)| work.look(*at).is_some_and(|look| look.kind == Kind::Dir));
        let Some((at, parent)) = next.and_then(|i| work.pending.remove(i)) else { break };
        let id = match work.moved_here(at) {
            Some(id) => id,
            None => work.fresh(at, parent, mint),
        };
        work.claim(at, parent, id, &mut queue);
        work.by_path(&mut queue);
    }
    let mut new = Vec::new();
    for (at, parent) in std::mem::take(&mut work.pending) {
        match work.moved_here(at) {
            Some(id) => work.claim(at, parent, id, &mut queue),
            None => new.push((at, parent)),
        }
    }
    for (at, parent) in new {
        let id = work.fresh(at, parent, mint);
        work.claim(at, parent, id, &mut queue);
    }

    let mut out = Integrated::default();
    for (at, sighting) in sightings.iter().enumerate() {
        if let (Some((id, parent)), Some(look)) = (work.ids[at], &sighting.look) {
            out.set.push((
                id,
                LocalNode {
                    place: Place { parent, name: sighting.name.clone() },
                    kind: look.kind,
                    content: look.content.clone(),
                    attrs: look.attrs,
                    fingerprint: look.fingerprint,
                },
            ));
        }
    }
    let mut doubtful: Vec<NodeId> = Vec::new();
    for (parent, name) in &work.gone {
        doubtful.extend(local.names().get(&Place { parent: *parent, name: name.clone() }));
    }
    for parent in &work.complete_nodes {
        doubtful.extend(local.names().below(*parent).map(|(_, id)| id));
    }
    // Whoever was at a place where another is now is not there any more.
    for (id, node) in &out.set {
        doubtful.extend(local.names().get(&node.place).filter(|before| before != id));
    }
    let mut removed = BTreeSet::new();
    while let Some(id) = doubtful.pop() {
        if !work.claimed.contains(&id) && removed.insert(id) {
            doubtful.extend(local.names().below(id).map(|(_, child)| child));
        }
    }
    // What was seen in a directory that is gone was seen before it went: wherever it is now is seen there.
    loop {
        let (kept, lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut out.set).into_iter().partition(|(_, node)| !removed.contains(&node.place.parent));
        out.set = kept;
        if lost.is_empty() {
            break;
        }
        removed.extend(lost.into_iter().map(|(id, _)| id));
    }
    out.removed = removed.into_iter().filter(|id| local.get(*id).is_some()).collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mtime;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a name")
    }

    fn look(kind: Kind, ino: u64, bytes: &str) -> Look {
        let content = if kind == Kind::Dir { Content::Dir } else { Content::file(bytes.as_bytes()) };
        let time = Mtime { secs: 1, nanos: 0 };
        let fingerprint = Fingerprint { dev: 1, ino, size: bytes.len() as u64, mtime: time, ctime: time };
        Look { kind, content: Some(content), attrs: Attrs::of(kind, 0o644, time), fingerprint }
    }

    fn at(parent: NodeId, text: &str, look: &Look) -> LocalNode {
        LocalNode {
            place: Place { parent, name: name(text) },
            kind: look.kind,
            content: look.content.clone(),
            attrs: look.attrs,
            fingerprint: look.fingerprint,
        }
    }

    fn id(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    /// Runs the sightings (directory, name, what is there) against the local nodes and tells who is where afterwards.
    fn who(local: &[(u8, u8, &str, Look)], seen: &[(SeenIn, &str, Option<Look>)], complete: &[SeenIn]) -> BTreeMap<String, u8> {
        let mut tree = LocalTree::default();
        let parent = |n: u8| if n == 0 { NodeId::ROOT } else { id(n) };
        for (n, dir, text, look) in local {
            tree.set(id(*n), at(parent(*dir), text, look));
        }
        let sightings: Vec<Sighting> =
            seen.iter().map(|(dir, text, look)| Sighting { dir: *dir, name: name(text), look: look.clone() }).collect();
        let mut fresh = 100;
        let out = integrate(&tree, &HeadTree::default(), &BTreeMap::new(), &sightings, complete, &mut || {
            fresh += 1;
            id(fresh)
        });
        out.removed.iter().for_each(|id| drop(tree.remove(*id)));
        out.set.into_iter().for_each(|(id, node)| tree.set(id, node));
        tree.iter().map(|(id, node)| (format!("{:?}/{:?}", node.place.parent.0[0], node.place.name), id.0[0])).collect()
    }

    fn map(entries: &[(&str, u8)]) -> BTreeMap<String, u8> {
        entries.iter().map(|(place, id)| ((*place).to_owned(), *id)).collect()
    }

    const HERE: SeenIn = SeenIn::Node(NodeId::ROOT);

    /// A save by rename is the same node with new bytes; an editor's backup of the old inode is another.
    #[test]
    fn the_path_says_who_a_saved_file_is() {
        let local = [(1, 0, "f", look(Kind::File, 10, "old")), (2, 0, "f~", look(Kind::File, 9, "older"))];
        let seen = [(HERE, "f", Some(look(Kind::File, 11, "new"))), (HERE, "f~", Some(look(Kind::File, 10, "old")))];
        assert_eq!(who(&local, &seen, &[]), map(&[("0/\"f\"", 1), ("0/\"f~\"", 2)]));
    }

    /// A file whose path vanished and whose inode turns up elsewhere has moved; one that shares only the inode's number has not.
    #[test]
    fn the_inode_says_who_moved() {
        let local = [(1, 0, "f", look(Kind::File, 10, "text"))];
        let gone = (HERE, "f", None);
        let moved = [gone.clone(), (HERE, "g", Some(look(Kind::File, 10, "text")))];
        assert_eq!(who(&local, &moved, &[]), map(&[("0/\"g\"", 1)]));
        let mut other = look(Kind::File, 10, "something else");
        other.attrs.mtime.secs = 2;
        assert_eq!(who(&local, &[gone, (HERE, "g", Some(other))], &[]), map(&[("0/\"g\"", 101)]));
    }

    /// Two names exchanged are two nodes moved.
    #[test]
    fn exchanged_names_are_moves() {
        let (a, b) = (look(Kind::File, 10, "one"), look(Kind::File, 11, "two"));
        let local = [(1, 0, "a", a.clone()), (2, 0, "b", b.clone())];
        let seen = [(HERE, "a", Some(b)), (HERE, "b", Some(a))];
        assert_eq!(who(&local, &seen, &[]), map(&[("0/\"a\"", 2), ("0/\"b\"", 1)]));
    }

    /// A renamed directory keeps all that is in it, also a file that moved out of it at the same time.
    #[test]
    fn a_directory_moves_with_what_is_in_it() {
        let dir = look(Kind::Dir, 5, "");
        let local = [(1, 0, "d", dir.clone()), (2, 1, "x", look(Kind::File, 10, "x")), (3, 1, "y", look(Kind::File, 11, "y"))];
        let seen = [
            (HERE, "d", None),
            (HERE, "k", Some(dir)),
            (SeenIn::Sighting(1), "x", Some(look(Kind::File, 10, "x"))),
            (HERE, "z", Some(look(Kind::File, 11, "y"))),
        ];
        assert_eq!(who(&local, &seen, &[SeenIn::Sighting(1)]), map(&[("0/\"k\"", 1), ("0/\"z\"", 3), ("1/\"x\"", 2)]));
    }

    /// What is seen in a directory by itself and with the one above it is seen once; what is not seen in a complete one is gone.
    #[test]
    fn complete_and_double_sightings() {
        let dir = look(Kind::Dir, 5, "");
        let local = [(1, 0, "d", dir.clone()), (2, 1, "x", look(Kind::File, 10, "x"))];
        let file = look(Kind::File, 12, "new");
        let seen =
            [(SeenIn::Node(id(1)), "n", Some(file.clone())), (HERE, "d", Some(dir)), (SeenIn::Sighting(1), "n", Some(file))];
        assert_eq!(who(&local, &seen, &[SeenIn::Sighting(1)]), map(&[("0/\"d\"", 1), ("1/\"n\"", 101)]));
    }
}
