//! The thread that owns the replica: one queue in, one action at a time out.

use super::ClientError;
use super::conflicts::Shown;
use super::control::Reply;
use super::hands::Hands;
use super::inputs::FetchFailure;
use super::inputs::Input;
use super::inputs::Inputs;
use super::inputs::Queue;
use super::link::Session;
use super::link::Trouble;
use super::persist::Loose;
use super::running::Outside;
use super::status::ClientStatus;
use super::texts::Waiting;
use crate::fs::gate::Ino;
use crate::fs::mount::Mounted;
use crate::fs::mount::Note;
use crate::fs::path::RelPath;
use crate::fs::place::Placer;
use crate::fs::watch::Watch;
use crate::merge::replica::Action;
use crate::merge::replica::ClientWrite;
use crate::merge::replica::Event;
use crate::merge::replica::Replica;
use crate::merge::replica::Settle;
use crate::model::Hash;
use crate::model::Name;
use crate::model::NodeId;
use crate::store::StoreError;
use crate::wire::ToHub;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// How often the replica is told that time goes on.
const TICK: Duration = Duration::from_millis(200);
/// How long actions are done before the queue is looked at again.
const TURN: Duration = Duration::from_millis(100);
/// How often what nobody needs any more is removed.
const TIDY: Duration = Duration::from_secs(10 * 60);
/// So much of it at once.
const TIDY_SLICE: usize = 1_000;
/// How long what failed at the disk waits before it is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// Something failed that leaves nothing to go on with.
pub(super) enum Fault {
    /// The store, or the durability of the directory: what was not durable is forgotten, and the start made again.
    Store(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// A place that was touched: the inode of a directory and a name.
pub(super) type Spot = (u64, Vec<u8>);

/// See the module. Its work is spread over the rooms beside this one.
pub(super) struct Engine {
    pub hands: Arc<Hands>,
    pub outside: Arc<Outside>,
    pub inputs: Inputs,
    pub queue: Queue,
    pub runtime: tokio::runtime::Handle,
    pub mounted: Option<Arc<Mounted>>,
    pub watch: Option<Watch>,
    pub state_dir: PathBuf,
    /// The hub's address, for people.
    pub hub: String,

    pub placer: Placer,
    pub replica: Replica,
    pub actions: VecDeque<Action>,
    /// What the next commit makes durable, and the ticket to report then.
    pub writes: Vec<ClientWrite>,
    pub ticket: Option<u64>,
    /// What that commit relies on and may not be durable.
    pub loose: Loose,
    /// What the hub may hear only after that commit.
    pub outbox: Vec<ToHub>,
    /// Contents that the store keeps, as far as is known.
    pub kept: BTreeSet<Hash>,
    pub settle: Settle,
    /// Settling spots of which only the watch knows.
    pub bypass: BTreeSet<Spot>,
    /// Spots whose directory was not where it was known to be, and how often.
    pub astray: BTreeMap<Spot, u32>,
    /// Directories, by inode, that hold only what is never synchronized and so are no nodes, and where they were.
    pub aside: BTreeMap<u64, RelPath>,
    /// What could not be looked at, why, and since when; tried again.
    pub unread: BTreeMap<(NodeId, Name), (String, u64)>,
    pub unread_due: Option<Instant>,
    pub scanned: bool,
    pub scan_due: Option<Instant>,
    /// A directory that was emptied is meant so.
    pub confirmed: bool,
    /// How often in a row the directory was not as expected, by node.
    pub surprises: BTreeMap<NodeId, u32>,
    pub blocked: BTreeMap<NodeId, Option<Ino>>,
    pub shown: BTreeMap<NodeId, Shown>,
    pub waiting: Waiting,

    pub session: Option<Session>,
    pub device: Option<String>,
    /// Since when there is, or is not, a connection: milliseconds since 1970.
    pub since: Option<u64>,
    pub trouble: Option<Trouble>,
    pub poked: Instant,
    pub fetched: Vec<(u64, Hash, Result<(), FetchFailure>)>,
    /// Contents under way, each way.
    pub transfers: usize,
    /// What is wrong with the disk or the store, and since when.
    pub disk_error: Option<(String, u64)>,
    /// No action is done before this: the disk refused to be written.
    pub stalled: Option<Instant>,
    /// The store could not be opened again.
    pub down: bool,
    pub questions: Vec<Sender<ClientStatus>>,
    pub status_requests: Vec<Sender<Reply>>,
    pub stops: Vec<(bool, Sender<Reply>)>,
    pub stopping: Option<Sender<Result<(), ClientError>>>,
    /// The tree's hash, of which version, when it was made and how long that took.
    pub root_hash: Option<(Hash, u64, Instant, Duration)>,
    /// Counts what the replica was told.
    pub version: u64,
    pub ticked: Instant,
    pub tidied: Instant,
}

/// Milliseconds since 1970; shown to people and spacing retries, deciding nothing. Where the system's clock is set back it goes on
/// from where it was: what waits for a time must not wait for a day.
pub(super) fn now() -> u64 {
    static LAST: Mutex<Option<(u64, Instant)>> = Mutex::new(None);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let least = last.map_or(0, |(told, at)| told + at.elapsed().as_millis() as u64);
    if wall >= least {
        *last = Some((wall, Instant::now()));
    }
    wall.max(least)
}

fn drain<T>(queue: &Receiver<T>) -> Vec<T> {
    queue.try_iter().collect()
}

impl Engine {
    /// Works until told to end.
    pub fn run(mut self) {
        let applier = self.mounted.is_some().then(|| self.hands.gate.register_applier());
        loop {
            match self.turn() {
                Ok(false) => {}
                Ok(true) => break,
                Err(Fault::Store(why)) => self.reopen(&why),
            }
        }
        drop(applier);
        let result = self.end();
        self.outside.ended(result.clone().err());
        for (_, reply) in self.stops.drain(..) {
            // Who asked may have gone.
            let _ = reply.send(Reply::Done);
        }
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.send(result);
        }
    }

    /// One look at the queue and what follows from it. Returns whether the client ends.
    fn turn(&mut self) -> Result<bool, Fault> {
        let note = self.queue.notes.recv_timeout(self.patience()).ok();
        let inputs = drain(&self.queue.inputs);
        let notes: Vec<Note> = note.into_iter().chain(drain(&self.queue.notes)).collect();
        for note in notes {
            self.noted(note);
        }
        for input in inputs {
            self.take(input)?;
        }
        if self.down {
            self.open_again();
        } else {
            self.go_on()?;
        }
        self.answer();
        self.look_outside()
    }

    fn go_on(&mut self) -> Result<(), Fault> {
        if !self.scanned && self.scan_due.is_none_or(|due| due <= Instant::now()) {
            self.scan();
        }
        if !self.scanned {
            return Ok(());
        }
        self.take_fetched()?;
        self.look_at_settled();
        self.retry_unread();
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            self.tell(Event::Tick);
            self.retry_merges();
        }
        self.work()?;
        self.update_blocks();
        if let Some(asked) = self.waiting.hello.take() {
            self.greet(asked)?;
        }
        if self.tidied.elapsed() >= TIDY && self.transfers == 0 && self.is_idle() {
            self.tidied = Instant::now();
            self.tidy()?;
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        if !self.down && self.scanned && self.stalled.is_none() && !self.actions.is_empty() {
            return Duration::ZERO;
        }
        let settled = self.settle.next_due().map(|due| Duration::from_millis(due.saturating_sub(now())));
        settled.map_or(TICK, |wait| wait.min(TICK))
    }

    /// Does what the replica wants, for a while.
    fn work(&mut self) -> Result<(), Fault> {
        if self.stalled.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        self.stalled = None;
        let until = Instant::now() + TURN;
        while let Some(action) = self.actions.pop_front() {
            self.act(action)?;
            if self.stalled.is_some() || Instant::now() >= until {
                break;
            }
        }
        if self.actions.is_empty() {
            self.flush()?;
        }
        Ok(())
    }

    /// Tells the replica, and keeps what it wants done.
    pub fn tell(&mut self, event: Event) {
        tracing::trace!(?event, "tells");
        let actions = self.replica.handle(event, now());
        self.version += 1;
        self.actions.extend(actions);
    }

    fn take(&mut self, input: Input) -> Result<(), Fault> {
        match input {
            Input::Noticed(noticed) => self.noticed(noticed),
            Input::Hello(asked) => {
                if self.down || !self.scanned {
                    // It asks again when it hears nothing.
                    self.waiting.hello = Some(asked);
                } else {
                    self.greet(asked)?;
                }
            }
            Input::Welcomed { session, welcome } => self.welcomed(session, &welcome),
            Input::Message { session, message, .. } => {
                if self.is_current(session) {
                    self.heard(*message);
                }
            }
            Input::Lost { session, trouble } => {
                if self.is_current(session) {
                    self.lost(trouble);
                }
            }
            Input::Unconnected(trouble) => {
                self.outside.refused(&trouble);
                self.since.get_or_insert_with(now);
                self.trouble = Some(trouble);
            }
            Input::Fetched { session, hash, result } => {
                self.transfers = self.transfers.saturating_sub(1);
                self.fetched.push((session, hash, result));
            }
            Input::Uploaded { session, node, hash, result } => {
                self.transfers = self.transfers.saturating_sub(1);
                self.uploaded(session, node, hash, result);
            }
            Input::Request(request, reply) => self.requested(request, reply),
            Input::Status(reply) => self.questions.push(reply),
            Input::Stop(reply) => self.stopping = Some(reply),
        }
        Ok(())
    }

    pub fn is_current(&self, session: u64) -> bool {
        self.session.as_ref().is_some_and(|current| current.number == session)
    }

    /// Answers what was asked, now that everything noted before is known.
    fn answer(&mut self) {
        if self.questions.is_empty() && self.status_requests.is_empty() {
            return;
        }
        let status = self.status();
        self.outside.keep(&status);
        for question in self.questions.drain(..) {
            // Who asked may have given up.
            let _ = question.send(status.clone());
        }
        for question in self.status_requests.drain(..) {
            let _ = question.send(Reply::Status(status.clone()));
        }
    }

    /// Whether something outside wants the client to end.
    fn look_outside(&mut self) -> Result<bool, Fault> {
        if self.stopping.is_some() {
            return Ok(true);
        }
        if self.mounted.as_ref().is_some_and(|mounted| mounted.has_ended()) {
            tracing::info!("the mount was taken away: the client ends");
            return Ok(true);
        }
        let idle = self.stops.iter().any(|(wait, _)| *wait) && self.is_idle();
        Ok(self.stops.iter().any(|(wait, _)| !wait || idle))
    }

    /// The end: plain directory, everything known durable.
    fn end(&mut self) -> Result<(), ClientError> {
        if let Err(error) = self.hands.root.through(None) {
            tracing::debug!(%error, "the way through the mount");
        }
        let mut result = Ok(());
        if let Some(mounted) = &self.mounted
            && let Err(error) = mounted.unmount()
        {
            let hint = "See what uses it with `fuser -m`, or unmount it with `fusermount3 -u`.";
            result = Err(ClientError::failed(format!("cannot unmount {}: {error}", mounted.mountpoint().display()), hint));
        }
        if !self.down
            && let Err(Fault::Store(why)) = self.flush()
        {
            tracing::warn!(why, "the last changes are found again at the next start");
        }
        self.session = None;
        self.hands.close();
        result
    }

    /// Removes bases and staged contents that nothing needs; called when nothing is under way.
    fn tidy(&mut self) -> Result<(), Fault> {
        if self.hands.with_store(|store| store.sweep(TIDY_SLICE))? > 0 {
            self.kept.clear();
        }
        let keep = self.replica.conflicts().values().filter_map(|conflict| conflict.theirs.blob()).collect();
        if let Err(error) = self.hands.stage.sweep(&keep) {
            tracing::warn!(%error, "leftovers stay in the stage");
        }
        Ok(())
    }
}
