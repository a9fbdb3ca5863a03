//! The way to the hub: connecting again and again, the control stream both ways.

use super::inputs::Input;
use super::inputs::Inputs;
use crate::model::PublicKey;
use crate::net::CloseCode;
use crate::net::Closed;
use crate::net::ConnectError;
use crate::net::ConnectOptions;
use crate::net::Connection;
use crate::net::HubConnection;
use crate::net::Identity;
use crate::net::RecvError;
use crate::net::connect;
use crate::wire::PROTOCOL;
use crate::wire::ToClient;
use crate::wire::ToHub;
use crate::wire::Welcome;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// How often something is sent when there is nothing to say; a hub that was restarted is noticed by it.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The shortest and the longest wait before it is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The same where trying again helps only after somebody has done something.
const AGAIN_REFUSED: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How long the hub may take for its welcome.
const WELCOME: Duration = Duration::from_secs(30);
/// Messages of the hub that wait for the engine; the next one waits on the wire.
const QUEUED: usize = 16;
/// Contents under way at once; the hub serves as many.
const TRANSFERS: usize = 16;

/// Where the hub is and who we are.
pub(super) struct Terms {
    pub hub: String,
    pub identity: Identity,
    pub pins: Vec<PublicKey>,
}

/// A connection that the hub has welcomed.
#[derive(Clone)]
pub(super) struct Session {
    pub number: u64,
    pub connection: Connection,
    pub out: mpsc::UnboundedSender<ToHub>,
    /// One for each content under way.
    pub transfers: Arc<Semaphore>,
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub sentence: String,
    pub hint: String,
    pub is_temporary: bool,
    /// Whether the hub itself, or what it shows, says no.
    pub is_refusal: bool,
}

impl Trouble {
    fn of(error: &ConnectError) -> Self {
        Self {
            sentence: error.to_string(),
            hint: error.hint(),
            is_temporary: error.is_temporary(),
            is_refusal: matches!(
                error,
                ConnectError::Refused { .. } | ConnectError::WrongHub { .. } | ConnectError::NotAHub { .. }
            ),
        }
    }
}

/// Connects until told to leave.
pub(super) async fn run(terms: Arc<Terms>, inputs: Inputs, poke: Arc<Notify>, mut leaving: watch::Receiver<bool>) {
    let mut session = 0;
    let mut wait = Duration::ZERO;
    while !*leaving.borrow() {
        session += 1;
        let begun = Instant::now();
        let Ok(trouble) = one(&terms, &inputs, session, &mut leaving).await else { return };
        let range = if trouble.as_ref().is_none_or(|trouble| trouble.is_temporary) { AGAIN } else { AGAIN_REFUSED };
        let good = begun.elapsed() >= GOOD;
        wait = if good { range.0 } else { (wait * 2).clamp(range.0, range.1) };
        tokio::select! {
            () = tokio::time::sleep(jitter(wait)) => {}
            () = poke.notified() => {}
            _ = leaving.changed() => {}
        }
    }
}

/// Three quarters to five quarters of it, so that the clients of a hub do not all come back at once.
fn jitter(wait: Duration) -> Duration {
    let mut random = [128];
    // Without randomness they may.
    let _ = getrandom::fill(&mut random);
    wait * 3 / 4 + wait / 2 * u32::from(random[0]) / 255
}

/// The engine or the process is ending.
struct Ending;

/// One connection from its beginning to its end; why it ended.
async fn one(
    terms: &Terms,
    inputs: &Inputs,
    session: u64,
    leaving: &mut watch::Receiver<bool>,
) -> Result<Option<Trouble>, Ending> {
    let (hello, asked) = oneshot::channel();
    if !inputs.send(Input::Hello(hello)) {
        return Err(Ending);
    }
    let hello = tokio::select! {
        hello = asked => hello.map_err(|_| Ending)?,
        _ = leaving.changed() => return Err(Ending),
    };
    let options = ConnectOptions { keep_alive: KEEP_ALIVE };
    let connected = tokio::select! {
        connected = connect(&terms.hub, &terms.identity, &terms.pins, &options) => connected,
        _ = leaving.changed() => return Err(Ending),
    };
    let unconnected = |error: ConnectError| {
        let trouble = Trouble::of(&error);
        if inputs.send(Input::Unconnected(trouble.clone())) { Ok(Some(trouble)) } else { Err(Ending) }
    };
    let mut hub = match connected {
        Ok(hub) => hub,
        Err(error) => return unconnected(error),
    };
    let lost = |closed: Closed| ConnectError::lost(&terms.hub, terms.identity.public(), closed);
    let welcome = async {
        // A stream that fails says why when it is read.
        let _ = hub.control.send.send(&hello).await;
        hub.control.recv.recv::<Welcome>().await
    };
    let welcome = match tokio::time::timeout(WELCOME, welcome).await {
        Ok(Ok(Some(welcome))) if welcome.protocol == PROTOCOL => welcome,
        Ok(Err(RecvError::Closed(closed))) => return unconnected(lost(closed)),
        Ok(Err(error)) => {
            hub.connection.close(CloseCode::Protocol);
            return unconnected(ConnectError::NotAHub { hub: terms.hub.clone(), why: error.to_string() });
        }
        Ok(Ok(Some(_))) => return unconnected(lost(Closed::ByPeer(CloseCode::NoCommonVersion))),
        Ok(Ok(None)) => {
            let closed = tokio::time::timeout(WELCOME, hub.connection.closed()).await.unwrap_or(Closed::TimedOut);
            return unconnected(lost(closed));
        }
        Err(_) => return unconnected(lost(Closed::TimedOut)),
    };
    match talk(inputs, session, &mut hub, welcome, leaving).await {
        Ok(closed) => {
            let trouble = closed.map(|closed| Trouble::of(&lost(closed)));
            hub.connection.close(CloseCode::Bye);
            if inputs.send(Input::Lost { session, trouble: trouble.clone() }) { Ok(trouble) } else { Err(Ending) }
        }
        Err(Ending) => {
            hub.finish(CloseCode::Bye).await;
            Err(Ending)
        }
    }
}

/// How a conversation ended.
enum Ended {
    Broken,
    /// The engine does not want it any more.
    LetGo,
    Leaving,
}

async fn talk(
    inputs: &Inputs,
    number: u64,
    hub: &mut HubConnection,
    welcome: Welcome,
    leaving: &mut watch::Receiver<bool>,
) -> Result<Option<Closed>, Ending> {
    let (out, mut outs) = mpsc::unbounded_channel();
    let connection = hub.connection.clone();
    let session = Session { number, connection: connection.clone(), out, transfers: Arc::new(Semaphore::new(TRANSFERS)) };
    if !inputs.send(Input::Welcomed { session, welcome: Box::new(welcome) }) {
        return Err(Ending);
    }
    let (send, recv) = (&mut hub.control.send, &mut hub.control.recv);
    let queued = Arc::new(Semaphore::new(QUEUED));
    let write = async {
        while let Some(message) = outs.recv().await {
            if let Err(error) = send.send(&message).await {
                tracing::debug!(%error, "control stream");
                return Ended::Broken;
            }
        }
        Ended::LetGo
    };
    let read = async {
        while let Ok(permit) = queued.clone().acquire_owned().await {
            match recv.recv::<ToClient>().await {
                Ok(Some(message)) => {
                    if !inputs.send(Input::Message { session: number, message: Box::new(message), _permit: permit }) {
                        return Ended::Leaving;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if !matches!(error, RecvError::Closed(_)) {
                        tracing::warn!(%error, "the hub sent something that is not understood");
                        connection.close(CloseCode::Protocol);
                    }
                    break;
                }
            }
        }
        Ended::Broken
    };
    let ended = tokio::select! {
        ended = write => ended,
        ended = read => ended,
        _ = leaving.changed() => Ended::Leaving,
    };
    match ended {
        Ended::Leaving => Err(Ending),
        Ended::LetGo => Ok(None),
        // A stream may end a moment before the connection does, which says why.
        Ended::Broken => Ok(tokio::time::timeout(Duration::from_secs(1), connection.closed()).await.ok()),
    }
}
