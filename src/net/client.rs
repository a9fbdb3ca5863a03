//! A client's way to its hub, and what to tell a person when there is none.

use super::Identity;
use super::NetError;
use super::close::CloseCode;
use super::close::Closed;
use super::connection::Connection;
use super::socket;
use super::stream;
use super::stream::Stream;
use super::tls;
use super::tls::PinHub;
use crate::model::PublicKey;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long one address of a hub may take for the handshake, and then to let us in.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the farewell to the hub may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What may be set for a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How often something is sent when there is nothing to say. Routers forget a connection after some 30 s; a hub that was killed
    /// and restarted is noticed at the first packet sent after.
    pub keep_alive: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { keep_alive: Duration::from_secs(15) }
    }
}

/// A connection to a hub that has let us in. The client counts as connected only once the hub's `Welcome` is here.
#[derive(Debug)]
pub struct HubConnection {
    pub connection: Connection,
    /// The control stream; `Hello` goes first.
    pub control: Stream,
    endpoint: quinn::Endpoint,
}

impl HubConnection {
    /// Closes the connection and returns when the hub knows, at most two seconds later.
    pub async fn finish(self, code: CloseCode) {
        self.connection.close(code);
        // A hub that does not answer learns it from the idle time.
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

/// Why there is no connection to a hub. The text is one sentence, [`ConnectError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot find the hub {hub}: {why}")]
    Address { hub: String, why: String },
    #[error("the hub {hub} cannot be reached: {why}")]
    Unreachable { hub: String, why: String },
    #[error("the hub at {hub} is not the one this device knows: it shows the key {}", shown.fingerprint())]
    WrongHub { hub: String, shown: PublicKey, pins: Vec<PublicKey> },
    #[error("what answers at {hub} is no syncfs hub this program understands: {why}")]
    NotAHub { hub: String, why: String },
    #[error("the hub {hub} refuses: {code} (key {})", own.fingerprint())]
    Refused { hub: String, code: CloseCode, own: PublicKey },
    #[error(transparent)]
    Local(#[from] NetError),
}

impl ConnectError {
    /// What became of a connection to `hub` that this device, with the key `own`, had.
    pub fn lost(hub: &str, own: PublicKey, closed: Closed) -> Self {
        let hub = hub.into();
        match closed {
            Closed::ByPeer(code) => Self::Refused { hub, code, own },
            other => Self::Unreachable { hub, why: other.to_string() },
        }
    }

    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Address { .. } => "Give the hub as HOST:PORT, and check the name and the network.".into(),
            Self::Unreachable { .. } => "Check that the hub runs and that UDP to this port is allowed; it is tried again.".into(),
            Self::WrongHub { pins, shown, .. } if pins.is_empty() => {
                format!("No hub is trusted yet: have its key confirmed by who runs it and give it with --hub-key {shown}.")
            }
            Self::WrongHub { pins, shown, .. } => {
                let known: Vec<String> = pins.iter().map(PublicKey::fingerprint).collect();
                let known = known.join(" or ");
                format!("Expected {known}; if whoever runs the hub confirms that its key is new, give it with --hub-key {shown}.")
            }
            Self::NotAHub { .. } => "Check the address, and that client and hub are of versions that fit each other.".into(),
            Self::Refused { code, own, .. } => refusal_hint(*code, own),
            Self::Local(_) => "Look at the file or address named, or at the system's limits.".into(),
        }
    }

    /// Whether trying again later can help without anybody doing something.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => {
                let passing =
                    [CloseCode::Bye, CloseCode::Restarting, CloseCode::Busy, CloseCode::RateLimit, CloseCode::Elsewhere];
                passing.contains(code)
            }
            Self::WrongHub { .. } | Self::NotAHub { .. } | Self::Local(_) => false,
        }
    }
}

fn refusal_hint(code: CloseCode, own: &PublicKey) -> String {
    match code {
        CloseCode::NotRegistered => {
            let name = host_name();
            format!("Ask whoever runs the hub to run there, DIR being its data: syncfs admin register {own} --name {name} --data DIR")
        }
        CloseCode::Revoked => {
            "A revoked key never comes back: move the file device.key away; the next start makes a new one, to be registered.".into()
        }
        CloseCode::Elsewhere => {
            "If this machine was copied from another one, move device.key away: the next start makes a key of its own, to be registered."
                .into()
        }
        CloseCode::Reseed => "Its state came from a backup or a copy and has to be brought up to date from the hub first.".into(),
        CloseCode::HistoryForked => "The hub may have been restored from a backup: ask whoever runs it.".into(),
        CloseCode::UnknownVolume => "Check that this is the hub this directory belongs to.".into(),
        CloseCode::NoCommonVersion | CloseCode::Protocol | CloseCode::Other(_) => {
            "Bring client and hub to the same version of syncfs.".into()
        }
        CloseCode::Bye | CloseCode::Restarting | CloseCode::Busy | CloseCode::RateLimit => "It is tried again by itself.".into(),
    }
}

/// This machine's name as a word that a shell takes without quotes.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(64).collect();
    if plain.is_empty() || plain.starts_with('-') { "this-device".into() } else { plain }
}

/// Why one address of a hub did not do.
pub(super) enum Attempt {
    /// Another address would not do better.
    Final(ConnectError),
    Next(String),
}

impl From<NetError> for Attempt {
    fn from(error: NetError) -> Self {
        Self::Final(error.into())
    }
}

/// Connects to the hub at `hub` (`HOST:PORT`; every address of the host is tried in turn) and opens the control stream. The hub must
/// hold one of the keys `pins`; ours is shown to it only then.
///
/// # Errors
/// [`ConnectError`]. That the hub has let us in is known when this returns.
pub async fn connect(
    hub: &str,
    identity: &Identity,
    pins: &[PublicKey],
    options: &ConnectOptions,
) -> Result<HubConnection, ConnectError> {
    each_address(hub, async |addr| {
        let pin = PinHub::new(Some(pins.to_vec()));
        let (inner, endpoint) = handshake(hub, addr, identity, &pin, options, tls::ALPN).await?;
        // The hub allows streams once it has let us in; until then this waits, or the hub closes.
        match tokio::time::timeout(DEADLINE, inner.open_bi()).await {
            Ok(Ok(halves)) => {
                let control = Stream::new(halves, stream::CONTROL);
                Ok(HubConnection { connection: Connection { inner }, control, endpoint })
            }
            Ok(Err(error)) => Err(match Closed::from(error) {
                refused @ Closed::ByPeer(_) => Attempt::Final(ConnectError::lost(hub, identity.public(), refused)),
                other => Attempt::Next(other.to_string()),
            }),
            Err(_) => Err(Attempt::Next("it does not let anybody in".into())),
        }
    })
    .await
}

/// The key of whatever hub answers at `hub`, proven to be held by it, to show it to a person before it is trusted. The hub sees a key
/// made for this occasion, not ours.
///
/// # Errors
/// [`ConnectError`] when nothing answers.
pub async fn fetch_hub_key(hub: &str) -> Result<PublicKey, ConnectError> {
    let identity = Identity::ephemeral()?;
    each_address(hub, async |addr| {
        let (inner, endpoint) =
            handshake(hub, addr, &identity, &PinHub::new(None), &ConnectOptions::default(), tls::ALPN).await?;
        let key = tls::peer_key(&inner);
        inner.close(CloseCode::Bye.var_int(), b"");
        // A hub that does not answer learns it from the idle time.
        let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        key.ok_or_else(|| Attempt::Final(ConnectError::NotAHub { hub: hub.into(), why: "it has shown no key".into() }))
    })
    .await
}

async fn each_address<T>(hub: &str, attempt: impl AsyncFn(SocketAddr) -> Result<T, Attempt>) -> Result<T, ConnectError> {
    let found = tokio::net::lookup_host(hub).await;
    let addrs = found.map_err(|error| ConnectError::Address { hub: hub.into(), why: error.to_string() })?;
    let mut last = None;
    for addr in addrs {
        match attempt(addr).await {
            Ok(done) => return Ok(done),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Next(why)) => last = Some(why),
        }
    }
    Err(match last {
        Some(why) => ConnectError::Unreachable { hub: hub.into(), why },
        None => ConnectError::Address { hub: hub.into(), why: "the name has no address".into() },
    })
}

pub(super) async fn handshake(
    hub: &str,
    addr: SocketAddr,
    identity: &Identity,
    pin: &Arc<PinHub>,
    options: &ConnectOptions,
    alpn: &[u8],
) -> Result<(quinn::Connection, quinn::Endpoint), Attempt> {
    let any: SocketAddr = if addr.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let endpoint = socket::bind(any)
        .and_then(|socket| quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime)))
        .map_err(|source| NetError::Bind { addr: any, source })?;
    let mut config = tls::client_config(identity, Arc::clone(pin), alpn)?;
    config.transport_config(Arc::new(socket::client_transport(options.keep_alive)));
    let connecting = endpoint.connect_with(config, addr, &pin.server_name()).map_err(|error| Attempt::Next(error.to_string()))?;
    let failed = match tokio::time::timeout(DEADLINE, connecting).await {
        Ok(Ok(connection)) => return Ok((connection, endpoint)),
        Ok(Err(error)) => error,
        Err(_) => return Err(Attempt::Next(format!("{addr} does not answer"))),
    };
    if let Some(shown) = pin.shown().filter(|key| !pin.accepts(key)) {
        let pins = pin.pins().to_vec();
        return Err(Attempt::Final(ConnectError::WrongHub { hub: hub.into(), shown, pins }));
    }
    let strange = |why: String| Err(Attempt::Final(ConnectError::NotAHub { hub: hub.into(), why }));
    match failed {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let code = CloseCode::from_code(close.error_code.into_inner());
            Err(Attempt::Final(ConnectError::Refused { hub: hub.into(), code, own: identity.public() }))
        }
        quinn::ConnectionError::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
            Err(Attempt::Final(ConnectError::Refused { hub: hub.into(), code: CloseCode::Busy, own: identity.public() }))
        }
        quinn::ConnectionError::TimedOut => Err(Attempt::Next(format!("{addr} does not answer"))),
        error @ (quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::VersionMismatch) => strange(error.to_string()),
        error => Err(Attempt::Next(error.to_string())),
    }
}
