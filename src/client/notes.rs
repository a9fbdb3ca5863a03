//! From notes of the mount and notices of the watch to observations.

use super::engine::Engine;
use super::engine::RETRY;
use super::engine::Spot;
use super::engine::now;
use super::look::Eye;
use super::look::Known;
use crate::fs::ignore::never_synced;
use crate::fs::mount::Invalidation;
use crate::fs::mount::Note;
use crate::fs::mount::What;
use crate::fs::path::RelPath;
use crate::fs::watch::Noticed;
use crate::merge::replica::Event;
use crate::merge::replica::LocalNode;
use crate::merge::replica::Replica;
use crate::merge::replica::SeenIn;
use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Kind;
use crate::model::Name;
use crate::model::NodeId;
use crate::model::Place;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

/// How often places are looked at again because something was renamed meanwhile.
const LOOKS: u32 = 20;

/// What settles within this many milliseconds of what has settled is looked at with it: the two ends of a rename are noted apart.
const TOGETHER: u64 = 15;
/// How often a directory that is not where it was may be looked for before everything is looked at.
const ASTRAY: u32 = 50;
/// A lost connection is tried at once after a local change, so often at most.
const POKE: Duration = Duration::from_secs(5);

/// Whether what happened at a path need not settle. `is_agreed`: hub and client have agreed on a node there, so that the path says who
/// it is. Anything else may be the file that an editor is about to rename over another one.
fn is_looked_at_once(what: What, is_agreed: impl FnOnce() -> bool) -> bool {
    match what {
        What::Closed | What::Attr | What::Appeared => is_agreed(),
        What::Vanished => false,
    }
}

impl Known for Replica {
    fn content(&self, fingerprint: &Fingerprint) -> Option<Content> {
        self.content_of(fingerprint)
    }

    fn is_dir(&self, dev: u64, ino: u64) -> bool {
        self.by_inode(dev, ino).into_iter().any(|id| self.local(id).is_some_and(|node| node.kind == Kind::Dir))
    }
}

impl Engine {
    /// The directory node of an inode here.
    fn dir_node(&self, ino: u64) -> Option<NodeId> {
        let (dev, root) = self.hands.root.identity();
        if ino == root {
            return Some(NodeId::ROOT);
        }
        let ids = self.replica.by_inode(dev, ino);
        ids.into_iter().find(|id| self.replica.local(*id).is_some_and(|node| node.kind == Kind::Dir))
    }

    /// The path of a node; none while it is between two places or not here.
    pub fn path(&self, node: NodeId) -> Option<RelPath> {
        self.replica.path(node).map(RelPath::from)
    }

    /// The path of a place.
    pub fn path_of(&self, place: &Place) -> Option<RelPath> {
        Some(self.path(place.parent)?.join(&place.name))
    }

    /// The inode of a directory here.
    fn dir_inode(&self, node: NodeId) -> Option<u64> {
        match node {
            NodeId::ROOT => Some(self.hands.root.identity().1),
            node => self.replica.local(node).map(|local| local.fingerprint.ino),
        }
    }

    /// Something happened through the mount.
    pub fn noted(&mut self, note: Note) {
        if note.dir_ino == 0 || never_synced(&note.name) {
            return;
        }
        let is_agreed = || {
            let name = Name::new(&note.name).ok()?;
            let node = self.replica.child(self.dir_node(note.dir_ino)?, &name)?;
            self.replica.base_content(node)
        };
        let at_once = is_looked_at_once(note.what, || is_agreed().is_some());
        let spot = (note.dir_ino, note.name);
        self.bypass.remove(&spot);
        // Heard after a long turn, the second end of a rename would settle after the first and look like something new.
        let at = now().saturating_sub(u64::try_from(note.at.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.settle.note(spot, at_once, at);
        if self.session.is_none() && self.poked.elapsed() >= POKE {
            self.poked = Instant::now();
            self.outside.poke.notify_one();
        }
    }

    /// The place is to be looked at, at once.
    pub fn note_node(&mut self, node: NodeId) {
        let Some(place) = self.replica.local(node).map(|local| local.place.clone()) else { return };
        self.note_place(&place);
    }

    pub fn note_place(&mut self, place: &Place) {
        if let Some(dir) = self.dir_inode(place.parent) {
            self.settle.note((dir, place.name.as_bytes().to_vec()), true, now());
        }
    }

    /// Something happened underneath: ours, through the mount, or past it.
    pub fn noticed(&mut self, noticed: Noticed) {
        match noticed {
            Noticed::Lost => {
                self.scanned = false;
                self.scan_due = None;
            }
            Noticed::Entry { dir, name } => {
                let spot = (dir, name.as_bytes().to_vec());
                if never_synced(name.as_bytes()) || self.is_echo(dir, &name) {
                    return;
                }
                self.bypass.insert(spot.clone());
                // The watch reports a save through the mount as well: what is looked at now anyway must not wait for its echo to settle.
                if !self.settle.is_due(&spot, now()) {
                    self.settle.note(spot, false, now());
                }
            }
        }
    }

    /// Whether a place is as it is known to be.
    fn is_echo(&self, dir: u64, name: &Name) -> bool {
        let Some(parent) = self.dir_node(dir) else { return false };
        let local: Option<&LocalNode> = self.replica.child(parent, name).and_then(|id| self.replica.local(id));
        let Some(path) = self.path(parent).map(|path| path.join(name)) else { return false };
        match (self.hands.root.look(&path), local) {
            (Ok(None), None) => true,
            (Ok(Some(look)), Some(local)) => {
                let is_same = match local.kind {
                    Kind::Dir => look.fingerprint.ino == local.fingerprint.ino && look.attrs == local.attrs,
                    _ => look.fingerprint == local.fingerprint && local.content.is_some(),
                };
                look.kind() == Some(local.kind) && is_same
            }
            _ => false,
        }
    }

    /// Looks at what has settled.
    pub fn look_at_settled(&mut self) {
        let due = now();
        if self.settle.next_due().is_none_or(|first| first > due) {
            return;
        }
        let ready = self.settle.ready(due + TOGETHER);
        let mut spots = BTreeSet::new();
        for spot in ready {
            let past_the_mount = self.bypass.remove(&spot);
            let Some(parent) = self.dir_node(spot.0) else {
                self.astray.remove(&spot);
                self.reconsider(spot.0);
                continue;
            };
            let Ok(name) = Name::new(&spot.1) else { continue };
            let is_there = self.path(parent).is_some_and(|path| {
                let looked = self.hands.root.look(&path);
                matches!(looked, Ok(Some(look)) if look.fingerprint.ino == spot.0)
            });
            if !is_there {
                self.stray(spot);
                continue;
            }
            self.astray.remove(&spot);
            if past_the_mount {
                self.invalidate(spot.0, parent, &name);
            }
            spots.insert((parent, name));
        }
        if !spots.is_empty() {
            self.observe(spots);
        }
    }

    /// A directory that held only what is never synchronized may hold more now, and nothing else tells of it. Any other that is not
    /// known will be seen with the directory above it.
    fn reconsider(&mut self, dir: u64) {
        let Some(path) = self.aside.remove(&dir) else { return };
        if !matches!(self.hands.root.look(&path), Ok(Some(look)) if look.fingerprint.ino == dir) {
            self.scanned = false;
            self.scan_due = None;
            return;
        }
        let mut parent = NodeId::ROOT;
        for name in path.names() {
            let Some(id) = self.replica.child(parent, name) else {
                self.note_place(&Place { parent, name: name.clone() });
                return;
            };
            parent = id;
        }
    }

    /// The directory of a spot has moved, and the note of that is on its way.
    fn stray(&mut self, spot: Spot) {
        let times = self.astray.entry(spot.clone()).or_default();
        *times += 1;
        if *times > ASTRAY {
            tracing::info!("a directory is not where it was: looking at everything");
            self.astray.clear();
            self.scanned = false;
            self.scan_due = None;
        } else {
            self.settle.note(spot, false, now());
        }
    }

    /// The mount must ask again for what was changed past it.
    fn invalidate(&self, dir_ino: u64, parent: NodeId, name: &Name) {
        let Some(mounted) = &self.mounted else { return };
        mounted.invalidate(Invalidation::Entry { dir_ino, name: name.as_bytes().to_vec() });
        mounted.invalidate(Invalidation::Attributes { ino: dir_ino });
        let known = self.replica.child(parent, name).and_then(|id| self.replica.local(id));
        if let Some(local) = known {
            mounted.invalidate(Invalidation::Content { ino: local.fingerprint.ino });
        }
    }

    /// Looks at places, and at where else the inodes found there were known to be, and tells all of it at once.
    pub fn observe(&mut self, mut spots: BTreeSet<(NodeId, Name)>) {
        for _ in 0..LOOKS {
            let moves = self.hands.gate.moves();
            let notes: Vec<_> = self.queue.notes.try_iter().collect();
            notes.into_iter().for_each(|note| self.noted(note));
            if spots.iter().any(|(parent, name)| self.has_lost(*parent, name)) {
                // Where it is now may be told already, and only not have settled.
                self.take_pending(&mut spots);
            }
            if self.observe_unless_moved(&spots, moves) {
                return;
            }
        }
        for (parent, name) in spots {
            if let Some(dir) = self.dir_inode(parent) {
                self.settle.note((dir, name.as_bytes().to_vec()), false, now());
            }
        }
    }

    /// Whether a node that is known at a place is not there.
    fn has_lost(&self, parent: NodeId, name: &Name) -> bool {
        let known = self.replica.child(parent, name).is_some();
        known && self.path(parent).is_some_and(|dir| matches!(self.hands.root.look(&dir.join(name)), Ok(None)))
    }

    fn take_pending(&mut self, spots: &mut BTreeSet<(NodeId, Name)>) {
        for spot in self.settle.ready(u64::MAX) {
            match (self.dir_node(spot.0), Name::new(&spot.1)) {
                (Some(parent), Ok(name)) => {
                    spots.insert((parent, name));
                }
                _ => self.settle.note(spot, false, now()),
            }
        }
    }

    /// Looks and tells, unless a person renamed something meanwhile: then what is gone here may be there.
    fn observe_unless_moved(&mut self, spots: &BTreeSet<(NodeId, Name)>, moves: u64) -> bool {
        let hands = self.hands.clone();
        let outside = self.outside.clone();
        let mut eye = Eye::new(&hands, &self.replica, &outside.stop);
        eye.watch = self.watch.as_ref();
        let mut queue: Vec<(NodeId, Name)> = spots.iter().cloned().collect();
        let mut told = spots.clone();
        let mut failed: Vec<((NodeId, Name), String)> = Vec::new();
        let mut elsewhere: Vec<Spot> = Vec::new();
        let mut limbo = false;
        while let Some((parent, name)) = queue.pop() {
            if parent == NodeId::LIMBO {
                limbo = true;
                continue;
            }
            let Some(dir) = self.path(parent) else { continue };
            let path = dir.join(&name);
            let look = match eye.look(&hands.root, &path) {
                Ok(look) => look,
                Err(error) => {
                    failed.push(((parent, name), error.to_string()));
                    continue;
                }
            };
            // Looked at once more, after: in a directory that was renamed meanwhile nothing is gone.
            if let Some(known) = self.replica.local(parent).map(|node| node.fingerprint.ino)
                && !matches!(hands.root.look(&dir), Ok(Some(look)) if look.fingerprint.ino == known)
            {
                elsewhere.push((known, name.as_bytes().to_vec()));
                told.remove(&(parent, name));
                continue;
            }
            let mut known_here = false;
            if let Some(look) = &look {
                for id in self.replica.by_inode(look.fingerprint.dev, look.fingerprint.ino) {
                    let Some(node) = self.replica.local(id) else { continue };
                    let place = (node.place.parent, node.place.name.clone());
                    known_here |= place == (parent, name.clone());
                    if place.0 != NodeId::LIMBO && told.insert(place.clone()) {
                        queue.push(place);
                    }
                }
            }
            let seen = SeenIn::Node(parent);
            let marks = (eye.sightings.len(), eye.complete.len());
            let sighted = match look {
                Some(look) if look.kind == Kind::Dir && known_here => {
                    eye.sightings.push(crate::merge::replica::Sighting { dir: seen, name: name.clone(), look: Some(look) });
                    Ok(())
                }
                look => eye.sight(&hands.root, &path, seen, &name, look),
            };
            if let Err(error) = sighted {
                eye.sightings.truncate(marks.0);
                eye.complete.truncate(marks.1);
                failed.push(((parent, name), error.to_string()));
            }
        }
        if limbo && let Err(error) = eye.limbo() {
            tracing::warn!(%error, "the staging directory cannot be looked at");
        }
        let Eye { sightings, complete, unread, restless, aside, .. } = eye;
        if hands.gate.moves() != moves {
            return false;
        }
        self.aside.extend(aside);
        for spot in elsewhere {
            self.settle.note(spot, false, now());
        }
        for place in &told {
            self.unread.remove(place);
        }
        // A place that is seen with what is below it has more sightings than one.
        let below = sightings.len().saturating_sub(told.len());
        self.loose.seen(told, if below > 0 { usize::MAX } else { 0 });
        if !sightings.is_empty() || !complete.is_empty() {
            self.tell(Event::Observed { sightings, complete, full: false });
        }
        for (place, why) in failed {
            self.unread.insert(place, (why, now()));
            self.unread_due = Some(Instant::now() + RETRY);
        }
        self.keep_unread(unread, restless);
        true
    }

    /// Remembers what has to be looked at again.
    pub fn keep_unread(&mut self, unread: Vec<(RelPath, String)>, restless: Vec<RelPath>) {
        for (path, why) in unread {
            if let Some(place) = self.place_at(&path) {
                self.unread.insert(place, (why, now()));
                self.unread_due = Some(Instant::now() + RETRY);
            }
        }
        for path in restless {
            if let Some((parent, name)) = self.place_at(&path)
                && let Some(dir) = self.dir_inode(parent)
            {
                self.settle.note((dir, name.as_bytes().to_vec()), false, now());
            }
        }
    }

    fn place_at(&self, path: &RelPath) -> Option<(NodeId, Name)> {
        let parent = self.node_at(&path.parent()?)?;
        Some((parent, path.name()?.clone()))
    }

    /// The node at a path here.
    pub fn node_at(&self, path: &RelPath) -> Option<NodeId> {
        path.names().iter().try_fold(NodeId::ROOT, |dir, name| self.replica.child(dir, name))
    }

    pub fn retry_unread(&mut self) {
        if self.unread.is_empty() || self.unread_due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        self.unread_due = Some(Instant::now() + RETRY);
        self.observe(self.unread.keys().cloned().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new file that was closed may be renamed over another one a moment later, and must not have gone to the hub by then; new bytes
    /// at a path that is known go at once.
    #[test]
    fn a_temporary_file_settles() {
        for what in [What::Closed, What::Attr, What::Appeared] {
            assert!(!is_looked_at_once(what, || false), "{what:?}");
            assert!(is_looked_at_once(what, || true), "{what:?}");
        }
        assert!(!is_looked_at_once(What::Vanished, || true));
    }
}
