//! Conflicts: the block of the file, its sides to read, and a person's choice.

use super::control::Choice;
use super::control::Reply;
use super::control::Request;
use super::engine::Engine;
use crate::fs::gate::Ino;
use crate::fs::path::RelPath;
use crate::fs::place::Placement;
use crate::merge::replica::Conflict;
use crate::merge::replica::Event;
use crate::merge::replica::Resolution;
use crate::merge::text::Labels;
use crate::merge::text::MERGE_LIMIT;
use crate::merge::text::Merge;
use crate::merge::text::Texts;
use crate::merge::text::merge;
use crate::model::Content;
use crate::model::Hash;
use crate::model::NodeId;
use crate::model::Place;
use crate::model::codec::encode;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

/// Where the sides are, in the state directory.
const CONFLICTS: &str = "conflicts";
/// The three sides in order.
pub(super) const SIDES: [&str; 3] = ["base", "ours", "theirs"];
/// What is merged so far, beside them; texts only.
pub(super) const MERGED: &str = "merged";
/// What stands behind the markers in it.
const LABELS: Labels<'static> = Labels { ours: "ours (this device)", base: "base", theirs: "theirs (hub)" };
/// How many names beside another one are tried.
const BESIDE: u32 = 1000;

/// A conflict whose sides can be read.
pub(super) struct Shown {
    /// The path of the file when they were written.
    pub path: Vec<u8>,
    /// How many places of a text need a person; `None` for what is no text.
    pub hunks: Option<u32>,
    conflict: Conflict,
}

/// What stands for the three versions of a conflict; another one as soon as one of them is another.
pub(super) fn version_of(conflict: &Conflict) -> String {
    Hash::of(&encode(&(&conflict.base, &conflict.ours, &conflict.theirs))).to_string()
}

fn refused(sentence: impl Into<String>, hint: &str) -> Reply {
    Reply::Refused { sentence: sentence.into(), hint: hint.into() }
}

impl Engine {
    fn conflicts_dir(&self) -> PathBuf {
        self.hands.root.state_path().join(CONFLICTS)
    }

    /// A conflict blocks the file, or does not any more.
    pub fn block(&mut self, node: NodeId, blocked: bool) {
        if blocked {
            self.blocked.entry(node).or_insert(None);
            return;
        }
        if let Some(Some(ino)) = self.blocked.remove(&node) {
            self.unblock(ino);
        }
        self.hide(node);
    }

    fn unblock(&self, ino: Ino) {
        self.hands.gate.unblock(ino);
        if let Some(mounted) = &self.mounted {
            mounted.invalidate_attrs(ino.ino);
        }
    }

    /// Keeps every block on the inode that the file is now, and its sides readable.
    pub fn update_blocks(&mut self) {
        let nodes: Vec<NodeId> = self.blocked.keys().copied().collect();
        for node in nodes {
            let now = self.replica.local(node).map(|local| Ino { dev: local.fingerprint.dev, ino: local.fingerprint.ino });
            let was = self.blocked.get(&node).copied().flatten();
            if was != now || now.is_some_and(|ino| !self.hands.gate.is_blocked(ino)) {
                if let Some(old) = was.filter(|_| was != now) {
                    self.unblock(old);
                }
                // Somebody who has it open for writing finishes first; then it is tried again.
                let done = now.filter(|ino| self.hands.gate.block_unless_written(*ino).is_ok());
                if let (Some(ino), Some(mounted)) = (done, &self.mounted) {
                    mounted.invalidate_attrs(ino.ino);
                }
                self.blocked.insert(node, done);
            }
            let conflict = self.replica.conflicts().get(&node);
            if conflict != self.shown.get(&node).map(|shown| &shown.conflict)
                && let Some(conflict) = conflict.cloned()
                && let Err(error) = self.show(node, conflict)
            {
                tracing::warn!(%error, "the sides of a conflict cannot be written down");
            }
        }
    }

    /// After a start: the stored conflicts block again.
    pub fn restore_conflicts(&mut self) {
        match std::fs::remove_dir_all(self.conflicts_dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "old conflicts stay readable"),
            _ => {}
        }
        self.shown.clear();
        for ino in std::mem::take(&mut self.blocked).into_values().flatten() {
            self.unblock(ino);
        }
        for node in self.replica.conflicts().keys() {
            self.blocked.insert(*node, None);
        }
    }

    /// Writes the sides of a conflict down, to be read.
    fn show(&mut self, node: NodeId, conflict: Conflict) -> io::Result<()> {
        self.hide(node);
        let path = self.replica.path_for_people(node);
        let dir = self.conflicts_dir().join(OsStr::from_bytes(&path));
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let opened = self.path(node).map(|path| self.hands.root.open_read(&path)).transpose()?.flatten();
        let ours = opened.map(|(file, _)| file);
        self.write_side(&dir.join("ours"), &conflict.ours, ours)?;
        let theirs = conflict.theirs.blob().map(|hash| self.hands.stage.open_content(&hash)).transpose()?.flatten();
        self.write_side(&dir.join("theirs"), &conflict.theirs, theirs)?;
        let base = match &conflict.base {
            Some(Content::Symlink { target }) => target.clone(),
            base => self.version_bytes(base.as_ref()).unwrap_or_default(),
        };
        write_new(&dir.join("base"), &mut &base[..])?;
        let hunks = if is_file(&conflict) { show_merged(&dir)? } else { None };
        self.shown.insert(node, Shown { path, hunks, conflict });
        Ok(())
    }

    /// A link is read as its target.
    fn write_side(&self, path: &Path, content: &Content, source: Option<File>) -> io::Result<()> {
        match (content, source) {
            (Content::Symlink { target }, _) => write_new(path, &mut &target[..]),
            (_, Some(mut file)) => write_new(path, &mut file),
            (_, None) => write_new(path, &mut io::empty()),
        }
    }

    /// Removes the sides of a conflict that is none any more.
    fn hide(&mut self, node: NodeId) {
        let Some(shown) = self.shown.remove(&node) else { return };
        let top = self.conflicts_dir();
        let mut dir = top.join(OsStr::from_bytes(&shown.path));
        for side in SIDES.into_iter().chain([MERGED]) {
            // What is not there is gone.
            let _ = std::fs::remove_file(dir.join(side));
        }
        // Up to the first directory that holds another conflict.
        while dir != top && std::fs::remove_dir(&dir).is_ok() && dir.pop() {}
    }

    /// Somebody asks at the control socket.
    pub fn requested(&mut self, request: Request, reply: Sender<Reply>) {
        let answer = match request {
            Request::Status | Request::Conflicts => {
                self.status_requests.push(reply);
                return;
            }
            Request::Stop { wait_idle } => {
                self.stops.push((wait_idle, reply));
                return;
            }
            Request::Confirm => {
                self.tell(Event::ConfirmRemovals);
                Reply::Done
            }
            Request::Resolve { path, how, seen } => self.resolve(&path, how, seen.as_deref()),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }

    fn resolve(&mut self, path: &[u8], how: Choice, seen: Option<&str>) -> Reply {
        let shown = String::from_utf8_lossy(path).into_owned();
        let node = RelPath::from_bytes(path).ok().and_then(|path| self.node_at(&path));
        let found = node.and_then(|node| Some((node, self.replica.conflicts().get(&node)?.clone())));
        let Some((node, conflict)) = found else {
            return refused(format!("\"{shown}\" is not in conflict"), "See the conflicts with `syncfs conflicts`.");
        };
        // A newer version of the others may be known and not here yet: a decision about the older one would not hold.
        let is_old = self.replica.head_content(node).is_some_and(|head| *head != conflict.theirs);
        if is_old || seen.is_some_and(|seen| seen != version_of(&conflict)) {
            let sentence = format!("\"{shown}\" has changed since it was looked at");
            return refused(sentence, "Nothing was changed; look at it again and choose.");
        }
        let done = match how {
            Choice::Ours => Ok(Resolution::Ours),
            Choice::Theirs => Ok(Resolution::Theirs),
            Choice::With(bytes) => self.stage_choice(&conflict.ours, bytes),
            Choice::Base => match conflict.base.clone() {
                Some(Content::Symlink { target }) => Ok(Resolution::Content(Content::Symlink { target })),
                base => match self.version_bytes(base.as_ref()) {
                    Some(bytes) => self.stage_choice(&conflict.ours, bytes),
                    None => Err("the base is not here".into()),
                },
            },
            Choice::Both => self.keep_beside(node, &conflict.ours).map(|()| Resolution::Theirs),
        };
        match done {
            Ok(how) => {
                self.tell(Event::Resolve { node, how });
                Reply::Done
            }
            Err(why) => refused(format!("\"{shown}\" was not resolved: {why}"), "Nothing was changed; try again."),
        }
    }

    /// The chosen bytes as what such a node holds: of a link they are the target.
    fn stage_choice(&self, ours: &Content, bytes: Vec<u8>) -> Result<Resolution, String> {
        if let Content::Symlink { .. } = ours {
            if bytes.is_empty() || bytes.len() > 4095 || bytes.contains(&0) {
                return Err("a link needs a target of 1 to 4095 bytes".into());
            }
            return Ok(Resolution::Content(Content::Symlink { target: bytes }));
        }
        let hash = self.hands.stage_bytes(&bytes).map_err(|error| error.to_string())?;
        self.hands.stage.sync(&[hash]).map_err(|error| error.to_string())?;
        Ok(Resolution::Content(Content::file(&bytes)))
    }

    /// Keeps ours as a file, or a link, of its own beside.
    fn keep_beside(&mut self, node: NodeId, ours: &Content) -> Result<(), String> {
        let local = self.replica.local(node).cloned().ok_or("the file is not here")?;
        let path = self.path(node).ok_or("the file is not here")?;
        let dir = path.parent().ok_or("the file is not here")?;
        let device = self.device.clone().unwrap_or_else(|| "ours".into());
        for n in 1..BESIDE {
            let name = local.place.name.beside(&device, n);
            let beside = dir.join(&name);
            if self.hands.root.look(&beside).map_err(|error| error.to_string())?.is_some() {
                continue;
            }
            let attrs = local.attrs;
            let placement = match ours {
                Content::File { hash, len } => {
                    self.stage_file(&path, *hash, *len)?;
                    Placement::CreateFile { path: beside, hash: *hash, attrs, more: false }
                }
                Content::Symlink { target } => Placement::CreateSymlink { path: beside, target: target.clone(), attrs },
                Content::Dir => return Err("a directory is in no conflict".into()),
            };
            self.placer.place(&placement).map_err(|error| error.to_string())?;
            self.note_place(&Place { parent: local.place.parent, name });
            return Ok(());
        }
        Err("there are too many files of that name already".into())
    }

    fn stage_file(&self, path: &RelPath, hash: Hash, len: u64) -> Result<(), String> {
        let (mut file, _) = self.hands.root.open_read(path).map_err(|error| error.to_string())?.ok_or("the file is not here")?;
        let mut writer = self.hands.stage.writer(hash, len).map_err(|error| error.to_string())?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(|error| error.to_string())?;
            if read == 0 {
                break;
            }
            writer.write(&buffer[..read]).map_err(|error| error.to_string())?;
        }
        writer.finish().map_err(|error| error.to_string())?;
        self.hands.stage.sync(&[hash]).map_err(|error| error.to_string())
    }
}

fn is_file(conflict: &Conflict) -> bool {
    [conflict.base.as_ref(), Some(&conflict.ours), Some(&conflict.theirs)]
        .into_iter()
        .flatten()
        .all(|content| matches!(content, Content::File { len, .. } if *len <= MERGE_LIMIT as u64))
}

/// Writes what the merge of the sides in `dir` came to, with markers; how many places need a person, if they are texts.
fn show_merged(dir: &Path) -> io::Result<Option<u32>> {
    let [base, ours, theirs] = SIDES.map(|side| std::fs::read(dir.join(side)));
    let (base, ours, theirs) = (base?, ours?, theirs?);
    let merged = catch_unwind(AssertUnwindSafe(|| match merge(&base, &ours, &theirs) {
        Merge::Clean(text) => Some((text, 0)),
        Merge::Conflict(conflict) => {
            let texts = Texts { base: &base, ours: &ours, theirs: &theirs };
            Some((conflict.with_markers(texts, LABELS), conflict.hunks.len()))
        }
        Merge::NotText(_) => None,
    }));
    let Ok(Some((text, hunks))) = merged else { return Ok(None) };
    write_new(&dir.join(MERGED), &mut &text[..])?;
    Ok(Some(u32::try_from(hunks).unwrap_or(u32::MAX)))
}

/// A new file that can only be read.
fn write_new(path: &Path, source: &mut dyn Read) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    io::copy(source, &mut file)?;
    file.flush()
}
