//! The one thread that decides: it owns the sequencer, takes what is queued as one transaction, and tells nobody before it is durable.

use super::data;
use super::data::HubError;
use super::shared::Shared;
use super::status;
use super::status::HubStatus;
use crate::merge::sequencer::Action;
use crate::merge::sequencer::Closed;
use crate::merge::sequencer::Event;
use crate::merge::sequencer::HubWrite;
use crate::merge::sequencer::Sequencer;
use crate::merge::sequencer::SessionId;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Op;
use crate::model::Seq;
use crate::net::Admitted;
use crate::net::CloseCode;
use crate::store::HubStore;
use crate::store::StoreError;
use crate::wire::Hello;
use crate::wire::ToClient;
use crate::wire::Welcome;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// Inputs that wait at most; beyond it whoever brings one waits.
pub(super) const QUEUE: usize = 512;
/// How long between two attempts to reopen a store that failed.
const REOPEN: Duration = Duration::from_millis(200);

/// What the writer is told.
pub(super) enum Input {
    Joined {
        session: SessionId,
        device: Admitted,
        hello: Hello,
        out: mpsc::UnboundedSender<Out>,
    },
    Left(SessionId),
    Propose {
        session: SessionId,
        batch: u64,
        groups: Vec<Vec<Op>>,
    },
    Ack {
        session: SessionId,
        cursor: Seq,
        held: Vec<Seq>,
    },
    Status(oneshot::Sender<HubStatus>),
    /// The registry has changed, or the hub is to end.
    Wake,
    Tick,
    /// Somebody met a failure after which the store must be reopened.
    StoreFailed,
}

/// What a session is told.
pub(super) enum Out {
    Welcome(Box<Welcome>),
    /// With records: for each the content that its content replaced, where the record is still its node's newest content.
    Message(ToClient, Vec<Option<Hash>>),
    Close(CloseCode),
}

pub(super) struct Writer {
    pub data: PathBuf,
    pub lapse_after: Duration,
    pub shared: Arc<Shared>,
    pub stop: Arc<AtomicBool>,
}

/// The state over an open store; dropped as a whole when the store fails.
pub(super) struct Open {
    store: Arc<HubStore>,
    sequencer: Sequencer,
    sessions: BTreeMap<SessionId, mpsc::UnboundedSender<Out>>,
    registry: u64,
    writes: Vec<HubWrite>,
    ticket: u64,
    root_hash: Option<(Seq, Hash)>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Writer {
    /// Opens the store and loads its state.
    pub fn open(&self) -> Result<Open, HubError> {
        let store = Arc::new(data::store(&self.data)?);
        let sequencer = Sequencer::new(store.load()?, self.lapse_after.as_millis() as u64);
        self.shared.set_store(Some(store.clone()));
        Ok(Open { store, sequencer, sessions: BTreeMap::new(), registry: 0, writes: Vec::new(), ticket: 0, root_hash: None })
    }

    /// Works until the hub is stopped; opens the store again whenever it fails.
    pub fn run(self, open: Open, mut inputs: mpsc::Receiver<Input>) {
        let mut opened = Ok(open);
        loop {
            let ended = opened.and_then(|mut open| {
                self.shared.gate.open();
                self.serve(&mut open, &mut inputs).map_err(HubError::from)
            });
            // Everybody is disconnected; what they were told stays true, and they come again.
            self.shared.gate.shut();
            self.shared.set_store(None);
            if let Err(error) = ended {
                tracing::error!(%error, "the store failed and is opened again");
                std::thread::sleep(REOPEN);
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            opened = self.open();
        }
    }

    fn serve(&self, open: &mut Open, inputs: &mut mpsc::Receiver<Input>) -> Result<(), StoreError> {
        loop {
            // With writes left over from the last turn there is work without an input.
            let mut queued = Vec::new();
            if open.writes.is_empty() {
                match inputs.blocking_recv() {
                    Some(input) => queued.push(input),
                    None => return Ok(()),
                }
            }
            while queued.len() < QUEUE
                && let Ok(input) = inputs.try_recv()
            {
                queued.push(input);
            }
            let last = self.stop.load(Ordering::Acquire);
            self.turn(open, queued)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Takes the inputs as one transaction.
    fn turn(&self, open: &mut Open, queued: Vec<Input>) -> Result<(), StoreError> {
        // Whoever was revoked before this moment commits nothing in this turn.
        if let Some((version, active)) = self.shared.gate.changed_since(open.registry) {
            open.registry = version;
            open.event(Event::Devices { active });
        }
        let mut asked = Vec::new();
        for input in queued {
            match input {
                Input::Joined { session, device, hello, out } => {
                    open.sessions.insert(session, out);
                    let Admitted { number, name, read_only } = device;
                    open.event(Event::Joined { session, device: number, name, read_only, hello });
                }
                Input::Left(session) => {
                    open.sessions.remove(&session);
                    open.event(Event::Left { session });
                }
                Input::Propose { session, batch, groups } => {
                    let absent = open.absent(&groups)?;
                    open.event(Event::Propose { session, batch, groups, absent });
                }
                Input::Ack { session, cursor, held } => open.event(Event::Ack { session, cursor, held }),
                Input::Tick => open.event(Event::Tick),
                Input::Status(reply) => asked.push(reply),
                Input::Wake => {}
                Input::StoreFailed => return Err(StoreError::Failed),
            }
        }
        if !open.writes.is_empty() {
            let writes = std::mem::take(&mut open.writes);
            open.store.commit(&writes)?;
            open.event(Event::Persisted { ticket: open.ticket });
        }
        if !asked.is_empty() {
            let devices = self.shared.gate.devices();
            let root_hash = open.root_hash();
            let status = status::status(&open.sequencer, root_hash, &devices);
            for reply in asked {
                // Whoever asked may have gone.
                let _ = reply.send(status.clone());
            }
        }
        Ok(())
    }
}

impl Open {
    fn event(&mut self, event: Event) {
        for action in self.sequencer.handle(event, now()) {
            match action {
                Action::Persist { ticket, writes } => {
                    self.ticket = ticket;
                    self.writes.extend(writes);
                }
                Action::Welcome { session, welcome } => self.tell(session, Out::Welcome(welcome)),
                Action::Send { session, message } => {
                    let replaced = match &message {
                        ToClient::Records { records, .. } => records.iter().map(|sent| self.replaced(sent.record.seq)).collect(),
                        _ => Vec::new(),
                    };
                    self.tell(session, Out::Message(message, replaced));
                }
                Action::Close { session, why } => {
                    self.tell(session, Out::Close(code(why)));
                    self.sessions.remove(&session);
                }
            }
        }
    }

    fn tell(&self, session: SessionId, out: Out) {
        if let Some(sender) = self.sessions.get(&session) {
            // A session that is gone says so itself.
            let _ = sender.send(out);
        }
    }

    /// What the content of record `seq` replaced, if a client may still want that content.
    fn replaced(&self, seq: Seq) -> Option<Hash> {
        let logged = self.sequencer.logged(seq)?;
        let newest = self.sequencer.node(logged.record.node)?.content.seq == seq;
        logged.replaced.filter(|_| newest)
    }

    /// The contents named in the groups that are not durable here, or have another length than is said.
    fn absent(&self, groups: &[Vec<Op>]) -> Result<BTreeSet<Hash>, StoreError> {
        let mut absent = BTreeSet::new();
        for content in groups.iter().flatten().filter_map(|op| op.change.content.as_ref()) {
            if let Some(hash) = content.blob()
                && let Content::File { len, .. } = content
                && !(self.store.contents().has(&hash)? && self.store.contents().size(&hash)? == Some(*len))
            {
                absent.insert(hash);
            }
        }
        Ok(absent)
    }

    fn root_hash(&mut self) -> Hash {
        let seq = self.sequencer.seq();
        match self.root_hash {
            Some((at, hash)) if at == seq => hash,
            _ => {
                let hash = self.sequencer.root_hash();
                self.root_hash = Some((seq, hash));
                hash
            }
        }
    }
}

fn code(why: Closed) -> CloseCode {
    match why {
        Closed::Protocol => CloseCode::Protocol,
        Closed::OtherVolume => CloseCode::UnknownVolume,
        Closed::Version => CloseCode::NoCommonVersion,
        Closed::Elsewhere => CloseCode::Elsewhere,
        Closed::NotRegistered => CloseCode::Revoked,
    }
}
