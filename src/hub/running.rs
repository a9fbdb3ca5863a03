//! A running hub: its tasks, its thread, and how they end.

use super::control;
use super::data;
use super::data::HubError;
use super::data::at;
use super::gate::Gate;
use super::operation;
use super::operation::Reply;
use super::operation::Request;
use super::session;
use super::shared::Shared;
use super::writer::Input;
use super::writer::QUEUE;
use super::writer::Writer;
use crate::admin::PublicKey;
use crate::net::CloseCode;
use crate::net::HubEndpoint;
use crate::net::HubOptions;
use crate::net::Identity;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often the registry's file is looked at for changes by another process.
const LOOK: Duration = Duration::from_secs(2);
/// How often contents that nothing names are collected.
const COLLECT: Duration = Duration::from_secs(60);
/// How many of them at once.
const COLLECT_SLICE: usize = 10_000;
/// How often lapses are decided.
const TICK: Duration = Duration::from_secs(60 * 60);
/// How long sessions may take to end after their connections have, and the store's last users after them.
const FAREWELL: Duration = Duration::from_secs(5);

/// What may be set for a hub.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// A device silent for so long does not hold the log back any more.
    pub lapse_after: Duration,
    /// The runtime to work on, of whatever kind; `None`: one of the hub's own.
    pub runtime: Option<Handle>,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self { lapse_after: Duration::from_secs(90 * 24 * 60 * 60), runtime: None }
    }
}

/// A running hub. Dropping it ends it without a word to the clients, who notice as after a crash; [`Hub::shutdown`] tells them.
pub struct Hub {
    data: PathBuf,
    addr: SocketAddr,
    key: PublicKey,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    leave: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    tasks: tokio::task::JoinHandle<()>,
    writer: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl Hub {
    /// Starts the hub in the directory `data`, which [`super::init`] has made, and listens on `listen`. Blocks while the store is
    /// loaded.
    ///
    /// # Errors
    /// [`HubError`]: no hub there, the store in use or damaged, the address taken.
    pub fn start(data: &Path, listen: SocketAddr, settings: HubSettings) -> Result<Self, HubError> {
        let pair = data::key_pair(data)?;
        let registry = data::registry(data)?;
        let identity = Identity::from_pkcs8(pair.pkcs8())?;
        let (inputs, queue) = mpsc::channel(QUEUE);
        let waker = inputs.clone();
        // A queue that is full wakes the writer as well.
        let gate = Gate::new(registry, move || drop(waker.try_send(Input::Wake)));
        let shared = Arc::new(Shared::new(gate, inputs));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = Writer { data: data.into(), lapse_after: settings.lapse_after, shared: shared.clone(), stop: stop.clone() };
        let open = writer.open()?;
        let runtime = match settings.runtime {
            Some(_) => None,
            None => {
                let built = Builder::new_multi_thread().worker_threads(2).thread_name("syncfs-hub").enable_all().build();
                Some(built.map_err(at(data))?)
            }
        };
        let handle = settings.runtime.or_else(|| runtime.as_ref().map(|runtime| runtime.handle().clone()));
        let Some(handle) = handle else { return Err(at(data)(std::io::ErrorKind::Other.into())) };
        let inside = handle.enter();
        let options = HubOptions { keys: data.join(data::TRANSPORT_KEYS) };
        let endpoint = HubEndpoint::bind(listen, &identity, &options, Arc::new(Door(shared.clone())))?;
        let addr = endpoint.local_addr().map_err(at(data))?;
        let socket = control::bind(data)?;
        drop(inside);
        let writer =
            std::thread::Builder::new().name("syncfs-writer".into()).spawn(move || writer.run(open, queue)).map_err(at(data))?;
        let (leave, leaving) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let tasks = handle.spawn(work(shared.clone(), endpoint, socket, data.join(control::CONTROL_SOCKET), leaving, end));
        Ok(Self { data: data.into(), addr, key: pair.public(), shared, stop, leave, ended, tasks, writer: Some(writer), runtime })
    }

    /// Where it listens, with the port that was chosen when port 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The hub's public key, which clients pin.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The hub's data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Carries out an admin's request without the detour over the control socket.
    pub async fn operate(&self, request: Request) -> Reply {
        operation::answer(&self.shared, request).await
    }

    /// Returns when the hub has ended by itself, which is a defect, or was told to.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // A sender that is gone has ended too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Tells the clients that the hub is restarting, makes what was queued durable and ends. Blocks up to some seconds; not for async
    /// tasks, but [`Hub::shutdown_async`].
    pub fn shutdown(mut self) {
        self.leave.send_replace(true);
        let until = Instant::now() + 2 * FAREWELL;
        while !self.tasks.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
    }

    /// As [`Hub::shutdown`], for async tasks.
    pub async fn shutdown_async(mut self) {
        self.leave.send_replace(true);
        // What has not ended by then is aborted.
        let _ = tokio::time::timeout(2 * FAREWELL, &mut self.tasks).await;
        // The rest blocks for one commit at most.
        let _ = tokio::task::spawn_blocking(move || self.end()).await;
    }

    /// As if somebody had met a failure of the store.
    #[cfg(test)]
    pub(super) async fn fail_store(&self) {
        assert!(self.shared.inputs.send(Input::StoreFailed).await.is_ok());
    }

    fn end(&mut self) {
        self.tasks.abort();
        self.shared.gate.shut();
        self.stop.store(true, Ordering::Release);
        // A queue that is full wakes the writer as well.
        let _ = self.shared.inputs.try_send(Input::Wake);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer had panicked");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Whoever opens the store next finds it free.
        let until = Instant::now() + FAREWELL;
        while self.shared.store_in_use() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.end();
        }
    }
}

/// Lets the transport ask the gate.
struct Door(Arc<Shared>);

impl crate::net::Admit for Door {
    fn admit(&self, key: PublicKey, connection: &crate::net::Connection) -> Result<crate::net::Admitted, CloseCode> {
        self.0.gate.admit(key, connection)
    }
}

/// The hub's tasks, until it is told to leave or the writer is gone.
async fn work(
    shared: Arc<Shared>,
    mut endpoint: HubEndpoint,
    socket: UnixListener,
    socket_path: PathBuf,
    mut leaving: watch::Receiver<bool>,
    end: watch::Sender<bool>,
) {
    let mut sessions = JoinSet::new();
    let mut services = JoinSet::new();
    services.spawn(control::serve(shared.clone(), socket));
    services.spawn(keep_house(shared.clone()));
    loop {
        tokio::select! {
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            admission = endpoint.accept() => match admission {
                Some(admission) => drop(sessions.spawn(session::serve(shared.clone(), admission))),
                None => break,
            },
            _ = leaving.changed() => break,
            () = shared.inputs.closed() => break,
        }
    }
    shared.gate.shut();
    services.shutdown().await;
    // Whoever finds no socket asks the directory.
    let _ = std::fs::remove_file(socket_path);
    endpoint.shutdown(CloseCode::Restarting).await;
    // What does not end by itself is aborted.
    let _ = tokio::time::timeout(FAREWELL, async { while sessions.join_next().await.is_some() {} }).await;
    sessions.shutdown().await;
    end.send_replace(true);
}

/// What is done from time to time.
async fn keep_house(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    let mut collect = tokio::time::interval(COLLECT);
    // Not at once: after a long stop of the hub its clients shall have time to come back.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let gate = shared.clone();
                match tokio::task::spawn_blocking(move || gate.gate.refresh()).await {
                    Ok(Err(error)) => tracing::error!(%error, "registry"),
                    _ => continue,
                }
            }
            _ = collect.tick() => {
                // Slice by slice, so that commits come in between.
                while let Ok(1..) = shared.work(|store| store.collect(COLLECT_SLICE)).await {}
            }
            _ = tick.tick() => {
                if shared.inputs.send(Input::Tick).await.is_err() {
                    return;
                }
            }
        }
    }
}
