//! The start: state, directory and the first complete look; and the same again after the store has failed.

use super::ClientError;
use super::Kind;
use super::engine::Engine;
use super::engine::RETRY;
use super::engine::now;
use super::hands::Hands;
use super::look::Eye;
use super::look::Known;
use crate::fs::path::RelPath;
use crate::fs::root::Marker;
use crate::fs::root::Root;
use crate::merge::replica::ClientState;
use crate::merge::replica::Config;
use crate::merge::replica::Event;
use crate::merge::replica::Replica;
use crate::merge::replica::SeenIn;
use crate::model::Content;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::NodeId;
use crate::model::VolumeId;
use crate::store::ClientStore;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

/// POLICY row 31: the directory must be the one that was synchronized before.
///
/// Returns whether a person has said that it is, though it does not look so.
pub(super) fn check_root(root: &Root, store: &ClientStore, state: &ClientState, accept_empty: bool) -> Result<bool, ClientError> {
    let read = |error: io::Error| ClientError::failed(format!("the directory cannot be checked: {error}"), "Look at the disk.");
    let marker = root.marker();
    let fits = matches!(&marker, Ok(Some(marker)) if marker.id == store.instance());
    if !state.base.is_empty() && !fits && !accept_empty {
        let what = match marker {
            Ok(None) => "the directory has lost its identity marker: it was emptied, or another file system is there now".into(),
            Ok(Some(_)) => "the directory is another one than was synchronized before".into(),
            Err(error) => format!("the directory's identity cannot be read: {error}"),
        };
        let hint =
            "Bring the right directory back (is a disk not mounted?); to delete everywhere what is missing here, --accept-empty.";
        return Err(ClientError::new(Kind::Refused, what, hint));
    }
    if fits {
        return Ok(false);
    }
    let volume = state.position.as_ref().map_or(VolumeId([0; 16]), |position| position.volume);
    root.write_marker(&Marker { id: store.instance(), volume }).map_err(read)?;
    Ok(!state.base.is_empty())
}

/// Every content that may be in the stage for a reason.
fn wanted(state: &ClientState) -> BTreeSet<Hash> {
    let heads = state.head.values().map(|node| &node.content.value);
    let intents = state.intents.values().flat_map(|intent| [&intent.before, &intent.after, &intent.base.value]);
    let conflicts = state.conflicts.values().flat_map(|conflict| conflict.base.iter().chain([&conflict.ours, &conflict.theirs]));
    heads.chain(intents).chain(conflicts).filter_map(Content::blob).collect()
}

/// A replica with what is stored, told what is staged.
pub(super) fn load(hands: &Hands, state: ClientState) -> Result<(Replica, Event), ClientError> {
    let stage =
        |error: io::Error| ClientError::failed(format!("the staging directory cannot be used: {error}"), "Look at the disk.");
    let wanted = wanted(&state);
    hands.stage.sweep(&wanted).map_err(stage)?;
    let mut hashes = Vec::new();
    for hash in wanted {
        if hands.stage.has(&hash).map_err(stage)? {
            hashes.push(hash);
        }
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| ClientError::failed("the system has no randomness to give", "Try again."))?;
    Ok((Replica::new(Config::new(seed), state), Event::Fetched { hashes }))
}

/// What the store knows of fingerprints.
struct Stored(BTreeMap<(u64, u64), Vec<(Fingerprint, Content)>>);

impl Known for Stored {
    fn content(&self, fingerprint: &Fingerprint) -> Option<Content> {
        let known = self.0.get(&(fingerprint.dev, fingerprint.ino))?;
        known.iter().find(|(seen, _)| seen == fingerprint).map(|(_, content)| content.clone())
    }

    fn is_dir(&self, dev: u64, ino: u64) -> bool {
        self.0.get(&(dev, ino)).is_some_and(|known| known.iter().any(|(_, content)| *content == Content::Dir))
    }
}

/// How often everything is looked at again because something was renamed meanwhile.
const SCANS: u32 = 20;

impl Engine {
    /// The complete look at everything. What fails is shown and tried again; nothing is decided before.
    pub fn scan(&mut self) {
        let begun = Instant::now();
        let mut stored = Stored(BTreeMap::new());
        for (fingerprint, content) in self.replica.known_contents() {
            let known = stored.0.entry((fingerprint.dev, fingerprint.ino)).or_default();
            known.push((fingerprint, content.clone()));
        }
        let hands = self.hands.clone();
        let outside = self.outside.clone();
        let root = SeenIn::Node(NodeId::ROOT);
        let mut tries = 0;
        let (eye, looked) = loop {
            let moves = hands.gate.moves();
            let mut eye = Eye::new(&hands, &stored, &outside.stop);
            eye.strict = self.replica.position().is_some();
            eye.watch = self.watch.as_ref();
            let looked = eye.below(&hands.root, &RelPath::ROOT, root).and_then(|_| eye.limbo());
            tries += 1;
            // What was renamed meanwhile may have been seen nowhere, which must not read as removed.
            if hands.gate.moves() == moves || tries >= SCANS {
                break (eye, looked);
            }
        };
        let Eye { sightings, complete, unread, restless, aside, .. } = eye;
        if let Err(error) = looked {
            tracing::warn!(%error, "the directory could not be looked at completely");
            self.disk_error = Some((format!("the directory cannot be looked at completely: {error}"), now()));
            self.scan_due = Some(Instant::now() + RETRY);
            return;
        }
        self.disk_error = None;
        self.aside = aside.into_iter().collect();
        self.loose.all();
        let names = sightings.len();
        self.tell(Event::Observed { sightings, complete, full: true });
        self.scanned = true;
        self.scan_due = None;
        tracing::info!(names, millis = begun.elapsed().as_millis() as u64, "looked at the directory");
        if std::mem::take(&mut self.confirmed) {
            self.tell(Event::ConfirmRemovals);
        }
        self.keep_unread(unread, restless);
        self.restore_conflicts();
    }

    /// The store failed: whatever is not durable is forgotten, as after a crash.
    pub fn reopen(&mut self, why: &str) {
        tracing::error!(why, "the store failed; it is opened again");
        self.disk_error = Some((why.to_owned(), now()));
        if let Some(session) = self.session.take() {
            session.connection.close(crate::net::CloseCode::Bye);
        }
        self.since = Some(now());
        self.down = true;
        self.scanned = false;
        self.actions.clear();
        self.writes.clear();
        self.ticket = None;
        self.outbox.clear();
        self.fetched.clear();
        self.unread.clear();
        self.waiting.forget();
        self.stalled = None;
        // A full disk fails again and again; it must not be asked without a pause.
        self.scan_due = Some(Instant::now() + RETRY);
    }

    /// Opens the store again, when it is time.
    pub fn open_again(&mut self) {
        if self.scan_due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let dir = self.state_dir.clone();
        let opened =
            self.hands.reopen(|| ClientStore::open_or_create(&dir)).and_then(|()| self.hands.with_store(ClientStore::load));
        let loaded = opened.map_err(|error| error.to_string());
        let loaded = loaded.and_then(|state| load(&self.hands, state).map_err(|error| error.to_string()));
        match loaded {
            Ok((replica, staged)) => {
                self.replica = replica;
                self.placer = crate::fs::place::Placer::new(self.hands.root.clone(), self.hands.stage.clone());
                self.kept.clear();
                self.down = false;
                self.scan_due = None;
                self.tell(staged);
            }
            Err(why) => {
                self.disk_error = Some((why, now()));
                self.scan_due = Some(Instant::now() + RETRY);
            }
        }
    }
}
