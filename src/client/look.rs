//! From the directory to sightings. An error is never a fact: what cannot be seen is not said to be gone.

use super::hands::Hands;
use crate::fs::gate::Ino;
use crate::fs::observe;
use crate::fs::observe::LookKind;
use crate::fs::observe::Reading;
use crate::fs::path::RelPath;
use crate::fs::root::Root;
use crate::fs::watch::Watch;
use crate::merge::replica::Look;
use crate::merge::replica::SeenIn;
use crate::merge::replica::Sighting;
use crate::merge::replica::limbo_name;
use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::Name;
use crate::model::NodeId;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// What is known without reading.
pub(super) trait Known {
    /// The content that stands for a fingerprint.
    fn content(&self, fingerprint: &Fingerprint) -> Option<Content>;
    /// Whether a directory of this inode is one of the volume's.
    fn is_dir(&self, dev: u64, ino: u64) -> bool;
}

/// Collects sightings.
pub(super) struct Eye<'a> {
    pub hands: &'a Hands,
    pub known: &'a dyn Known,
    pub stop: &'a AtomicBool,
    /// Whether something that is mounted inside and hides what is there is an error.
    pub strict: bool,
    pub sightings: Vec<Sighting>,
    pub complete: Vec<SeenIn>,
    /// Files that could not be read, and why.
    pub unread: Vec<(RelPath, String)>,
    /// Files that changed while they were read.
    pub restless: Vec<RelPath>,
    /// Directories, by inode, that are left out because they hold only what is never synchronized.
    pub aside: Vec<(u64, RelPath)>,
    /// Watches every directory before it is listed, so that nothing comes in between unseen.
    pub watch: Option<&'a Watch>,
}

impl<'a> Eye<'a> {
    pub fn new(hands: &'a Hands, known: &'a dyn Known, stop: &'a AtomicBool) -> Self {
        Self {
            hands,
            known,
            stop,
            strict: false,
            sightings: Vec::new(),
            complete: Vec::new(),
            unread: Vec::new(),
            restless: Vec::new(),
            aside: Vec::new(),
            watch: None,
        }
    }

    /// What is at a path of `root`.
    pub fn look(&mut self, root: &Root, path: &RelPath) -> io::Result<Option<Look>> {
        match root.look(path)? {
            Some(look) => self.seen(root, path, look),
            None => Ok(None),
        }
    }

    /// A look as the replica wants it, with the content.
    fn seen(&mut self, root: &Root, path: &RelPath, mut look: observe::Look) -> io::Result<Option<Look>> {
        for _ in 0..TRIES {
            let Some(kind) = look.kind() else { return Ok(None) };
            let content = match &look.kind {
                LookKind::Dir => Some(Content::Dir),
                LookKind::Symlink { target } => Some(Content::Symlink { target: target.clone() }),
                LookKind::File | LookKind::Other => match self.content(root, path, &look.fingerprint) {
                    Ok(Reading::Read(content)) => content,
                    Ok(_) => {
                        match root.look(path)? {
                            Some(again) => look = again,
                            None => return Ok(None),
                        }
                        continue;
                    }
                    Err(error) => {
                        self.unread.push((path.clone(), error.to_string()));
                        None
                    }
                },
            };
            return Ok(Some(Look { kind, content, attrs: look.attrs, fingerprint: look.fingerprint }));
        }
        self.restless.push(path.clone());
        let Some(kind) = look.kind() else { return Ok(None) };
        Ok(Some(Look { kind, content: None, attrs: look.attrs, fingerprint: look.fingerprint }))
    }

    /// The content of a file; none while somebody writes it.
    fn content(&self, root: &Root, path: &RelPath, seen: &Fingerprint) -> io::Result<Reading<Option<Content>>> {
        if self.hands.gate.writers(Ino { dev: seen.dev, ino: seen.ino }) > 0 {
            return Ok(Reading::Read(None));
        }
        if seen.size == 0 {
            return Ok(Reading::Read(Some(Content::file(b""))));
        }
        if let Some(content) = self.known.content(seen) {
            return Ok(Reading::Read(Some(content)));
        }
        Ok(match root.hash(path, seen)? {
            Reading::Read(hash) => Reading::Read(Some(Content::File { hash, len: seen.size })),
            Reading::Changed => Reading::Changed,
            Reading::TooLarge => Reading::TooLarge,
        })
    }

    /// Tells what is at `name`, and everything below a directory.
    pub fn sight(&mut self, root: &Root, path: &RelPath, dir: SeenIn, name: &Name, look: Option<Look>) -> io::Result<()> {
        let Some(look) = look else {
            self.sightings.push(Sighting { dir, name: name.clone(), look: None });
            return Ok(());
        };
        let (kind, fingerprint) = (look.kind, look.fingerprint);
        let at = self.sightings.len();
        self.sightings.push(Sighting { dir, name: name.clone(), look: Some(look) });
        if kind == Kind::Dir {
            let mark = self.complete.len();
            if let Some(watch) = self.watch {
                watch_dir(root, watch, path, fingerprint.ino);
            }
            let seen = self.below(root, path, SeenIn::Sighting(at))?;
            let is_new = !self.known.is_dir(fingerprint.dev, fingerprint.ino);
            if is_new && seen == Below::OnlyIgnored {
                self.sightings.truncate(at);
                self.complete.truncate(mark);
                self.aside.push((fingerprint.ino, path.clone()));
            }
        }
        Ok(())
    }

    /// Tells everything in a directory. It is complete only if all of it could be seen.
    pub fn below(&mut self, root: &Root, path: &RelPath, dir: SeenIn) -> io::Result<Below> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // It was here a moment ago.
        let listing = root.list(path)?.ok_or(io::ErrorKind::NotFound)?;
        if self.strict && !listing.covered.is_empty() {
            let text = format!("something is mounted on \"{}\" inside the directory", path.join(&listing.covered[0]));
            return Err(io::Error::other(text));
        }
        let begun = self.sightings.len();
        let mut ignored = listing.ignored > 0 || !listing.covered.is_empty();
        if listing.covered.is_empty() {
            self.complete.push(dir);
        }
        for (name, look) in listing.entries {
            let inside = path.join(&name);
            let before = self.sightings.len();
            match self.seen(root, &inside, look)? {
                Some(look) => self.sight(root, &inside, dir, &name, Some(look))?,
                None => continue,
            }
            ignored |= self.sightings.len() == before;
        }
        let any = self.sightings.len() > begun;
        Ok(if !any && ignored { Below::OnlyIgnored } else { Below::Something })
    }

    /// Tells everything that is between two places.
    pub fn limbo(&mut self) -> io::Result<()> {
        let dir = SeenIn::Node(NodeId::LIMBO);
        self.complete.push(dir);
        for (node, look) in self.hands.stage.limbo()? {
            let Some(kind) = look.kind() else { continue };
            let at = self.hands.root.state_path().join("stage").join(format!("limbo-{node}"));
            let content = match &look.kind {
                LookKind::Dir => Content::Dir,
                LookKind::Symlink { target } => Content::Symlink { target: target.clone() },
                LookKind::File | LookKind::Other => match self.known.content(&look.fingerprint) {
                    Some(content) => content,
                    None => {
                        let mut hasher = blake3::Hasher::new();
                        let len = io::copy(&mut std::fs::File::open(&at)?, &mut hasher)?;
                        Content::File { hash: Hash(*hasher.finalize().as_bytes()), len }
                    }
                },
            };
            let (attrs, fingerprint) = (look.attrs, look.fingerprint);
            let index = self.sightings.len();
            let look = Look { kind, content: Some(content), attrs, fingerprint };
            self.sightings.push(Sighting { dir, name: limbo_name(node), look: Some(look) });
            if kind == Kind::Dir {
                let inside = Root::open(&at)?;
                self.below(&inside, &RelPath::ROOT, SeenIn::Sighting(index))?;
            }
        }
        Ok(())
    }
}

/// Watches the directory at a path for what happens past the mount.
pub(super) fn watch_dir(root: &Root, watch: &Watch, path: &RelPath, ino: u64) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let bytes = if path.is_root() { b".".to_vec() } else { path.to_bytes() };
    match rustix::fs::openat2(root.dir(), bytes, flags, Mode::empty(), resolve) {
        Ok(dir) => {
            // It says once, itself, that it could not.
            watch.add(dir, ino);
        }
        Err(error) => tracing::debug!(%error, %path, "a directory is not watched"),
    }
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// Names, or nothing at all.
    Something,
    /// Nothing but what is never synchronized.
    OnlyIgnored,
}
