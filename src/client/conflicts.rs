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
use crate::model::Content;
use crate::model::Hash;
use crate::model::NodeId;
use crate::model::Place;
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
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc::Sender;

/// Where the sides are, in the state directory.
const CONFLICTS: &str = "conflicts";
/// The three sides in order; what is merged so far is beside them.
pub(super) const SIDES: [&str; 3] = ["base", "ours", "theirs"];
/// How many names beside another one are tried.
const BESIDE: u32 = 1000;

/// A conflict whose sides can be read.
pub(super) struct Shown {
    /// The path of the file when they were written.
    pub path: Vec<u8>,
    conflict: Conflict,
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
        self.blocked.clear();
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
        self.write_side(&dir.join("ours"), ours)?;
        let theirs = conflict.theirs.blob().map(|hash| self.hands.stage.open_content(&hash)).transpose()?.flatten();
        self.write_side(&dir.join("theirs"), theirs)?;
        let base = self.version_bytes(conflict.base.as_ref()).unwrap_or_default();
        write_new(&dir.join("base"), &mut &base[..])?;
        self.shown.insert(node, Shown { path, conflict });
        Ok(())
    }

    fn write_side(&self, path: &Path, source: Option<File>) -> io::Result<()> {
        match source {
            Some(mut file) => write_new(path, &mut file),
            None => write_new(path, &mut io::empty()),
        }
    }

    /// Removes the sides of a conflict that is none any more.
    fn hide(&mut self, node: NodeId) {
        let Some(shown) = self.shown.remove(&node) else { return };
        let top = self.conflicts_dir();
        let mut dir = top.join(OsStr::from_bytes(&shown.path));
        for side in SIDES.into_iter().chain(["merged"]) {
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
            Request::Resolve { path, how } => self.resolve(&path, how),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }

    fn resolve(&mut self, path: &[u8], how: Choice) -> Reply {
        let shown = String::from_utf8_lossy(path).into_owned();
        let node = RelPath::from_bytes(path).ok().and_then(|path| self.node_at(&path));
        let found = node.and_then(|node| Some((node, self.replica.conflicts().get(&node)?.clone())));
        let Some((node, conflict)) = found else {
            return refused(format!("\"{shown}\" is not in conflict"), "See the conflicts with `syncfs conflicts`.");
        };
        let done = match how {
            Choice::Ours => Ok(Resolution::Ours),
            Choice::Theirs => Ok(Resolution::Theirs),
            Choice::With(bytes) => self.stage_choice(&bytes),
            Choice::Base => match self.version_bytes(conflict.base.as_ref()) {
                Some(bytes) => self.stage_choice(&bytes),
                None => Err("the base is not here".into()),
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

    fn stage_choice(&self, bytes: &[u8]) -> Result<Resolution, String> {
        let hash = self.hands.stage_bytes(bytes).map_err(|error| error.to_string())?;
        self.hands.stage.sync(&[hash]).map_err(|error| error.to_string())?;
        Ok(Resolution::Content(Content::file(bytes)))
    }

    /// Keeps ours as a file of its own beside.
    fn keep_beside(&mut self, node: NodeId, ours: &Content) -> Result<(), String> {
        let Content::File { hash, len } = *ours else { return Err("only a file can be kept beside another".into()) };
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
            self.stage_file(&path, hash, len)?;
            let placement = Placement::CreateFile { path: beside, hash, attrs: local.attrs, more: false };
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

/// A new file that can only be read.
fn write_new(path: &Path, source: &mut dyn Read) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    io::copy(source, &mut file)?;
    file.flush()
}
