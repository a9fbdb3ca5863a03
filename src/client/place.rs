//! From a step of the replica to one atomic change of the directory.

use super::engine::Engine;
use super::look::watch_dir;
use crate::fs::gate::Ino;
use crate::fs::observe;
use crate::fs::path::RelPath;
use crate::fs::place::PlaceError;
use crate::fs::place::Placement;
use crate::merge::replica::Action;
use crate::merge::replica::LocalNode;
use crate::merge::replica::Look;
use crate::merge::replica::PlaceFailure;
use crate::merge::replica::Step;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::NodeId;

/// So often in a row a step may meet another directory than expected before it waits.
const SURPRISES: u32 = 10;

impl Engine {
    /// Does one step; what is there then.
    pub fn place(&mut self, node: NodeId, step: &Step) -> Result<Option<Look>, PlaceFailure> {
        match self.try_place(node, step) {
            Err(PlaceFailure::Changed) => {
                let times = self.surprises.entry(node).or_default();
                *times += 1;
                // Looking again does not help for the moment: what the mount shows may be a second old.
                Err(if times.is_multiple_of(SURPRISES) { PlaceFailure::Busy } else { PlaceFailure::Changed })
            }
            outcome => {
                self.surprises.remove(&node);
                if outcome == Err(PlaceFailure::OnlyIgnored)
                    && let (Some(local), Some(path)) = (self.replica.local(node), self.path(node))
                {
                    self.aside.insert(local.fingerprint.ino, path);
                }
                outcome
            }
        }
    }

    fn try_place(&mut self, node: NodeId, step: &Step) -> Result<Option<Look>, PlaceFailure> {
        if !self.replica.is_current(node) {
            return Err(PlaceFailure::Changed);
        }
        let local = self.replica.local(node).cloned();
        if let Step::Create { place, .. } | Step::Move { place } = step {
            self.check_dir(place.parent)?;
        }
        let placement = self.placement(node, step, local.as_ref())?;
        let hands = self.hands.clone();
        // What is saved between the placer's last look and its act is not overtaken.
        let placing = placement.expected().map(|seen| hands.gate.placing(Ino { dev: seen.dev, ino: seen.ino }));
        let outcome = self.placer.place(&placement);
        drop(placing);
        match outcome {
            Ok(placed) => {
                let Some(now) = placed.now else { return Ok(None) };
                let content = match (step, &local) {
                    (Step::Create { content, .. } | Step::Content { content, .. }, _) => Some(content.clone()),
                    (_, Some(local)) if local.kind != Kind::File => local.content.clone(),
                    // Only the inode was expected: what it holds is known if it was as last seen.
                    (_, Some(local)) if placed.before.as_ref().is_some_and(|before| before.fingerprint == local.fingerprint) => {
                        local.content.clone()
                    }
                    _ => None,
                };
                if content.is_none() {
                    self.note_after(node, step);
                }
                if now.kind() == Some(Kind::Dir)
                    && let Step::Create { place, .. } = step
                    && let (Some(path), Some(watch)) = (self.path_of(place), &self.watch)
                {
                    watch_dir(&self.hands.root, watch, &path, now.fingerprint.ino);
                }
                let Some(kind) = now.kind() else { return Err(PlaceFailure::Changed) };
                Ok(Some(Look { kind, content, attrs: now.attrs, fingerprint: now.fingerprint }))
            }
            Err(error) => Err(self.failure(&placement, error)),
        }
    }

    /// A directory may have been exchanged for another since it was last seen: nothing is put into the wrong one.
    fn check_dir(&self, dir: NodeId) -> Result<(), PlaceFailure> {
        let Some(known) = self.replica.local(dir) else { return Ok(()) };
        let path = self.path(dir).ok_or(PlaceFailure::Changed)?;
        match self.hands.root.look(&path) {
            Ok(Some(look)) if look.fingerprint.ino == known.fingerprint.ino => Ok(()),
            Ok(_) => Err(PlaceFailure::Changed),
            Err(error) => Err(PlaceFailure::Other(error.to_string())),
        }
    }

    /// What was placed must be looked at.
    fn note_after(&mut self, node: NodeId, step: &Step) {
        match step {
            Step::Move { place } => self.note_place(&place.clone()),
            _ => self.note_node(node),
        }
    }

    fn failure(&self, placement: &Placement, error: PlaceError) -> PlaceFailure {
        match error {
            PlaceError::Changed | PlaceError::Exists | PlaceError::Gone => PlaceFailure::Changed,
            PlaceError::Busy => PlaceFailure::Busy,
            PlaceError::NoSpace => PlaceFailure::NoSpace,
            PlaceError::NotStaged => PlaceFailure::NotStaged,
            PlaceError::NotEmpty => {
                let Placement::RemoveDir { path, .. } = placement else { return PlaceFailure::Changed };
                match self.hands.root.list(path) {
                    Ok(Some(listing)) if self.holds_nothing_of_ours(path, &listing) => PlaceFailure::OnlyIgnored,
                    Ok(_) => PlaceFailure::Changed,
                    Err(error) => PlaceFailure::Other(error.to_string()),
                }
            }
            PlaceError::Io(error) => PlaceFailure::Other(error.to_string()),
        }
    }

    /// Whether a directory holds only what is never synchronized, at any depth.
    fn holds_nothing_of_ours(&self, path: &RelPath, listing: &observe::Listing) -> bool {
        listing.entries.iter().all(|(name, look)| {
            let inside = path.join(name);
            look.kind() == Some(Kind::Dir)
                && self.node_at(&inside).is_none()
                && matches!(self.hands.root.list(&inside), Ok(Some(below))
                    if (below.ignored > 0 || !below.covered.is_empty() || !below.entries.is_empty())
                        && self.holds_nothing_of_ours(&inside, &below))
        })
    }

    fn placement(&self, node: NodeId, step: &Step, local: Option<&LocalNode>) -> Result<Placement, PlaceFailure> {
        let to = |place| self.path_of(place).ok_or(PlaceFailure::Changed);
        let here = || self.path(node).ok_or(PlaceFailure::Changed);
        let in_limbo = local.is_some_and(|local| local.place.parent == NodeId::LIMBO);
        Ok(match (step, local) {
            (Step::Create { place, content, attrs }, None) => {
                let path = to(place)?;
                match content {
                    Content::Dir => Placement::CreateDir { path, mode: attrs.mode },
                    Content::Symlink { target } => Placement::CreateSymlink { path, target: target.clone(), attrs: *attrs },
                    Content::File { hash, len } => {
                        let more = self.staged_for_more(hash, *len)?;
                        Placement::CreateFile { path, hash: *hash, attrs: *attrs, more }
                    }
                }
            }
            (Step::Remove, Some(local)) if in_limbo => Placement::RemoveLimbo { node, expected: local.fingerprint },
            (Step::Remove, Some(local)) if local.kind == Kind::Dir => {
                Placement::RemoveDir { path: here()?, ino: local.fingerprint.ino }
            }
            (Step::Remove, Some(local)) => Placement::RemoveFile { path: here()?, expected: local.fingerprint },
            (Step::Move { place }, Some(_)) if in_limbo => Placement::FromLimbo { node, to: to(place)? },
            (Step::Move { place }, Some(local)) => {
                Placement::Rename { from: here()?, ino: local.fingerprint.ino, to: to(place)? }
            }
            (Step::Limbo, Some(local)) if !in_limbo => Placement::ToLimbo { from: here()?, ino: local.fingerprint.ino, node },
            (Step::Content { content, attrs }, Some(local)) => {
                let (path, expected) = (here()?, local.fingerprint);
                match content {
                    Content::File { hash, len } => {
                        let more = self.staged_for_more(hash, *len)?;
                        Placement::ReplaceFile { path, expected, hash: *hash, attrs: *attrs, more }
                    }
                    Content::Symlink { target } => {
                        Placement::ReplaceSymlink { path, expected, target: target.clone(), attrs: *attrs }
                    }
                    Content::Dir => return Err(PlaceFailure::Changed),
                }
            }
            (Step::Attrs { attrs }, Some(local)) => {
                Placement::SetAttrs { path: here()?, ino: local.fingerprint.ino, attrs: *attrs }
            }
            _ => return Err(PlaceFailure::Changed),
        })
    }

    /// Whether the staged content is wanted for another step that waits. An empty content is staged here.
    fn staged_for_more(&self, hash: &Hash, len: u64) -> Result<bool, PlaceFailure> {
        if len == 0 {
            let staged = self.hands.stage_bytes(b"").map_err(PlaceError::from).map(|_| ());
            staged.map_err(|error| match error {
                PlaceError::NoSpace => PlaceFailure::NoSpace,
                error => PlaceFailure::Other(error.to_string()),
            })?;
            return Ok(false);
        }
        let wants = |action: &Action| {
            matches!(action, Action::Place { step: Step::Create { content, .. } | Step::Content { content, .. }, .. }
                if content.blob().as_ref() == Some(hash))
        };
        let is_theirs = |content: &Content| content.blob().as_ref() == Some(hash);
        Ok(self.actions.iter().any(wants) || self.replica.conflicts().values().any(|conflict| is_theirs(&conflict.theirs)))
    }
}
