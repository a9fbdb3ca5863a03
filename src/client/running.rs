//! A running client: its threads and tasks, and how they end.

use super::ClientError;
use super::Kind;
use super::control;
use super::core;
use super::engine::Engine;
use super::engine::RETRY;
use super::engine::now;
use super::hands::Hands;
use super::inputs::Input;
use super::inputs::Inputs;
use super::link;
use super::link::Terms;
use super::link::Trouble;
use super::look::watch_dir;
use super::persist::Loose;
use super::status::ClientStatus;
use super::texts::Waiting;
use crate::admin::KeyPair;
use crate::admin::PublicKey;
use crate::fs::gate::Gate;
use crate::fs::mount;
use crate::fs::mount::MountOptions;
use crate::fs::mount::Mounted;
use crate::fs::path::RelPath;
use crate::fs::place::Placer;
use crate::fs::root::Root;
use crate::fs::stage::Stage;
use crate::fs::watch::Watch;
use crate::merge::replica::Settle;
use crate::model::Hash;
use crate::model::STATE_DIR;
use crate::net::Identity;
use crate::store::ClientStore;
use crate::store::StoreError;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::watch;

/// How long a question waits for the engine before it is answered with what was known last.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long contents under way may take to be given up.
const FAREWELL: Duration = Duration::from_secs(3);
/// The engine follows directories to any depth.
const STACK: usize = 64 << 20;

/// What a client runs with.
pub struct ClientSettings {
    /// The synchronized directory, canonical.
    pub dir: PathBuf,
    /// Where `state.redb` lives; made where it is missing.
    pub state: PathBuf,
    pub identity: KeyPair,
    /// `HOST:PORT`.
    pub hub: String,
    /// The hub's keys that are trusted.
    pub pins: Vec<PublicKey>,
    /// `None`: the directory is synchronized without a mount.
    pub mount: Option<MountOptions>,
    /// Takes a directory that was emptied or exchanged for what it seems (POLICY row 31).
    pub accept_empty: bool,
}

/// Why the hub does not let this client in, or cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub sentence: String,
    pub hint: String,
    /// Whether trying again can help without anybody doing something.
    pub is_temporary: bool,
    /// Whether the hub, or what it shows, says no; else it was not reached.
    pub is_refusal: bool,
}

/// What is known of the engine without asking it.
pub(super) struct Outside {
    /// The client is to end: a long look at the directory is given up.
    pub stop: AtomicBool,
    /// A connection is wanted at once.
    pub poke: Arc<Notify>,
    known: Mutex<Seen>,
    told: Condvar,
}

#[derive(Default)]
struct Seen {
    status: Option<ClientStatus>,
    refusal: Option<Refusal>,
    /// Why it ended, once it has; none for an end that was asked for.
    ended: Option<Option<ClientError>>,
}

impl Outside {
    fn known(&self) -> MutexGuard<'_, Seen> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keep(&self, status: &ClientStatus) {
        self.known().status = Some(status.clone());
    }

    pub fn refused(&self, trouble: &Trouble) {
        let Trouble { sentence, hint, is_temporary, is_refusal } = trouble.clone();
        self.known().refusal = Some(Refusal { sentence, hint, is_temporary, is_refusal });
    }

    pub fn welcomed(&self) {
        self.known().refusal = None;
    }

    pub fn ended(&self, why: Option<ClientError>) {
        self.known().ended = Some(why);
        self.told.notify_all();
    }
}

/// A running client. Dropping it ends it as [`Client::stop`] does, without a word on what went wrong.
pub struct Client {
    inputs: Inputs,
    outside: Arc<Outside>,
    engine: Option<JoinHandle<()>>,
    control: Option<control::Serving>,
    leave: watch::Sender<bool>,
    link: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
    hub: String,
}

fn failed(what: &'static str, hint: &'static str) -> impl FnOnce(io::Error) -> ClientError {
    move |error| ClientError::failed(format!("{what}: {error}"), hint)
}

fn open_store(dir: &Path) -> Result<ClientStore, ClientError> {
    ClientStore::open_or_create(dir).map_err(|error| match error {
        StoreError::Busy(_) => ClientError::new(
            Kind::Refused,
            "a client runs for this directory already",
            "See it with `syncfs status`; end it with `syncfs unmount`.",
        ),
        error => ClientError::failed(
            format!("the client's state cannot be used: {error}"),
            "Look at the disk; a damaged state can be moved away, files that are equal on both sides are recognised.",
        ),
    })
}

impl Client {
    /// Starts a client. Returns when the mount answers; the first look at the directory and the connection go on behind.
    ///
    /// # Errors
    /// [`ClientError`]: the directory or the state cannot be used, another client runs here, the directory is not the one that was
    /// synchronized before, or mounting failed.
    pub fn start(settings: ClientSettings) -> Result<Self, ClientError> {
        if settings.mount.is_some() {
            mount::clean_stale(&settings.dir).map_err(failed("a dead mount cannot be removed", "Run `fusermount3 -u` on it."))?;
        }
        let root = Root::open(&settings.dir).map_err(|error| {
            ClientError::failed(
                format!("cannot open the directory {}: {error}", settings.dir.display()),
                "Make it, or give another.",
            )
        })?;
        let root = Arc::new(root);
        let disk = "Look at the disk and at the permissions of the directory.";
        drop(root.state_dir().map_err(failed("the state directory .syncfs cannot be used", disk))?);
        let state_dir = if settings.state == settings.dir.join(OsStr::from_bytes(STATE_DIR)) {
            // A path that keeps leading underneath the mount.
            root.state_path()
        } else {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&settings.state);
            made.map_err(failed("the state directory cannot be made", disk))?;
            settings.state.clone()
        };
        let store = open_store(&state_dir)?;
        let state =
            store.load().map_err(|error| ClientError::failed(format!("the client's state cannot be read: {error}"), disk))?;
        let confirmed = core::check_root(&root, &store, &state, settings.accept_empty)?;
        let stage = Arc::new(Stage::open(&root).map_err(failed("the staging directory cannot be used", disk))?);
        let gate = Arc::new(Gate::new());
        let hands = Arc::new(Hands::new(root.clone(), stage.clone(), gate.clone(), store));
        let (replica, staged) = core::load(&hands, state)?;
        let identity = Identity::from_pkcs8(settings.identity.pkcs8()).map_err(|error| {
            ClientError::failed(error, "Move device.key away: the next start makes a new one, which has to be registered.")
        })?;
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("syncfs-net").enable_all().build();
        let runtime = runtime.map_err(failed("no threads for the network", "Look at the system's limits."))?;
        let handle = runtime.handle().clone();
        let (inputs, queue, notes) = Inputs::new();
        let outside = Arc::new(Outside {
            stop: AtomicBool::new(false),
            poke: Arc::new(Notify::new()),
            known: Mutex::default(),
            told: Condvar::new(),
        });
        // A path of the directory that the control socket's name is made of, before anything is mounted over it.
        let socket = control::bind(&settings.state)?;
        let mounted = match &settings.mount {
            Some(options) => Some(mount_over(&settings.dir, &root, &gate, notes, options)?),
            None => None,
        };
        let watch = mounted.is_some().then(|| start_watch(&inputs)).flatten();
        let past = Instant::now().checked_sub(RETRY).unwrap_or_else(Instant::now);
        let mut engine = Engine {
            placer: Placer::new(root, stage),
            hands,
            outside: outside.clone(),
            inputs: inputs.clone(),
            queue,
            runtime: runtime.handle().clone(),
            mounted,
            watch,
            state_dir,
            hub: settings.hub.clone(),
            replica,
            actions: VecDeque::new(),
            writes: Vec::new(),
            ticket: None,
            loose: Loose::default(),
            outbox: Vec::new(),
            kept: BTreeSet::new(),
            settle: Settle::default(),
            bypass: BTreeSet::new(),
            astray: BTreeMap::new(),
            aside: BTreeMap::new(),
            unread: BTreeMap::new(),
            unread_due: None,
            scanned: false,
            scan_due: None,
            confirmed,
            surprises: BTreeMap::new(),
            blocked: BTreeMap::new(),
            shown: BTreeMap::new(),
            waiting: Waiting::default(),
            session: None,
            device: None,
            since: Some(now()),
            trouble: None,
            poked: past,
            fetched: Vec::new(),
            transfers: 0,
            disk_error: None,
            stalled: None,
            down: false,
            questions: Vec::new(),
            status_requests: Vec::new(),
            stops: Vec::new(),
            stopping: None,
            root_hash: None,
            version: 0,
            ticked: past,
            tidied: Instant::now(),
        };
        engine.tell(staged);
        if let Some(watch) = &engine.watch {
            watch_dir(&engine.hands.root, watch, &RelPath::ROOT, engine.hands.root.identity().1);
        }
        let control = control::serve(socket, inputs.clone())?;
        let thread = std::thread::Builder::new().name("syncfs-engine".into()).stack_size(STACK);
        let thread =
            thread.spawn(move || engine.run()).map_err(failed("no thread for the engine", "Look at the system's limits."))?;
        let (leave, leaving) = watch::channel(false);
        let mut client = Self {
            inputs: inputs.clone(),
            outside: outside.clone(),
            engine: Some(thread),
            control: Some(control),
            leave,
            link: None,
            runtime: Some(runtime),
            hub: settings.hub.clone(),
        };
        let terms = Arc::new(Terms { hub: settings.hub, identity, pins: settings.pins });
        let link = std::thread::Builder::new().name("syncfs-link".into());
        let link = link.spawn(move || handle.block_on(link::run(terms, inputs, outside.poke.clone(), leaving)));
        client.link = Some(link.map_err(failed("no thread for the connection", "Look at the system's limits."))?);
        Ok(client)
    }

    /// How everything stands. Every change whose system call had returned is known; while the engine is busy with a long look at the
    /// directory, what was known last is returned, and is not idle.
    pub fn status(&self) -> ClientStatus {
        let (reply, answer) = channel();
        if self.inputs.send(Input::Status(reply))
            && let Ok(status) = answer.recv_timeout(PATIENCE)
        {
            return status;
        }
        control::busy(self.outside.known().status.clone(), &self.hub)
    }

    /// Why the hub does not let us in, or cannot be reached; `None` while connected or before the first try has ended.
    pub fn last_refusal(&self) -> Option<Refusal> {
        self.outside.known().refusal.clone()
    }

    /// Whether it has ended by itself: the mount was taken away, a request at the control socket, or an error.
    pub fn ended(&self) -> bool {
        self.outside.known().ended.is_some()
    }

    /// Waits until it has ended by itself, for this long at most. Returns whether it has.
    pub fn wait_ended(&self, longest: Duration) -> bool {
        let known = self.outside.known();
        let waited = self.outside.told.wait_timeout_while(known, longest, |known| known.ended.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.ended.is_some()
    }

    /// Ends it: unmounted, everything known durable, the hub told. The directory is a plain one with all its files.
    ///
    /// # Errors
    /// What made it end before, or kept it from ending well.
    pub fn stop(mut self) -> Result<(), ClientError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ClientError> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        self.outside.stop.store(true, Ordering::Relaxed);
        let (reply, answer) = channel();
        let result = match self.inputs.send(Input::Stop(reply)).then(|| answer.recv().ok()).flatten() {
            Some(result) => result,
            None => self.outside.known().ended.clone().flatten().map_or(Ok(()), Err),
        };
        let joined = engine.join();
        drop(self.control.take());
        self.leave.send_replace(true);
        if let Some(link) = self.link.take() {
            // It says farewell, for two seconds at most; a defect in it was its own.
            let _ = link.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(FAREWELL);
        }
        joined.map_err(|_| ClientError::failed("the engine met a defect", "Start again; nothing that was saved is lost."))?;
        result
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "ended");
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.hub)
    }
}

fn mount_over(
    dir: &Path,
    root: &Arc<Root>,
    gate: &Arc<Gate>,
    notes: std::sync::mpsc::Sender<mount::Note>,
    options: &MountOptions,
) -> Result<Arc<Mounted>, ClientError> {
    let hint = "See that /dev/fuse is there and, for a user, that the package fuse3 is installed.";
    let broken = |error: io::Error| ClientError::failed(format!("cannot mount over {}: {error}", dir.display()), hint);
    let under = root.dir().try_clone_to_owned().map_err(broken)?;
    let mounted = mount::mount(under, dir, gate.clone(), notes, options).map_err(broken)?;
    root.through(Some(dir)).map_err(broken)?;
    Ok(Arc::new(mounted))
}

/// Changes that bypass the mount; without, the next start finds them.
fn start_watch(inputs: &Inputs) -> Option<Watch> {
    let (sender, noticed) = channel();
    let forward = inputs.clone();
    let started = Watch::start(sender).and_then(|watch| {
        let pass_on = move || {
            for notice in noticed {
                if !forward.send(Input::Noticed(notice)) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("syncfs-noticed".into()).spawn(pass_on)?;
        Ok(watch)
    });
    started.map_err(|error| tracing::warn!(%error, "changes that bypass the mount are found at the next start")).ok()
}

/// The name of the socket of a state directory.
pub(super) fn state_name(state: &Path) -> Hash {
    let canonical = std::fs::canonicalize(state).unwrap_or_else(|_| state.into());
    Hash::of(canonical.as_os_str().as_bytes())
}
