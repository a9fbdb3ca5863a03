//! The hub's endpoint: who gets as far as a connection, and who is let in.

use super::Identity;
use super::NetError;
use super::close::CloseCode;
use super::connection::Connection;
use super::reset_keys;
use super::socket;
use super::tls;
use crate::model::DeviceNo;
use crate::model::PublicKey;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// The most handshakes under way from one address (for IPv6: from one /64), and from all.
const HANDSHAKES_PER_ADDRESS: usize = 8;
const HANDSHAKES: usize = 256;
/// What is buffered for a handshake that is not begun yet, in bytes, and for all of them.
const INCOMING_BUFFER: u64 = 32 << 10;
const INCOMING_BUFFERS: u64 = 4 << 20;
/// The streams a client may have open: its control stream and the content requests.
const STREAMS: u32 = 1 + 32;
/// Connections let in that nobody has taken over yet.
const QUEUE: usize = 64;
/// How long the farewell to the clients may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The device behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub number: DeviceNo,
    pub name: String,
    pub read_only: bool,
}

/// Decides who is let in.
pub trait Admit: Send + Sync + 'static {
    /// Whether the device with this key is let in; called once for each connection, before its peer can open a stream.
    ///
    /// Looks the key up *and* enters the connection into the table of live ones under one lock, so that a revocation in between
    /// finds it there. Whoever takes the connection over takes it out of the table when it has ended. Must not block for long.
    ///
    /// # Errors
    /// The code with which the connection is closed instead.
    fn admit(&self, key: PublicKey, connection: &Connection) -> Result<Admitted, CloseCode>;
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Admission {
    pub connection: Connection,
    pub device: Admitted,
}

/// What a hub's endpoint needs besides its key.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The file with the keys that let clients notice a restart; made where there is none. It belongs to one running hub only.
    pub keys: PathBuf,
}

/// Handshakes under way.
#[derive(Debug, Default)]
struct Handshakes {
    by_address: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
}

/// One handshake under way; counted until it is dropped.
struct Slot {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *counts;
        let here = by_address.get(&address).copied().unwrap_or(0);
        if *total >= HANDSHAKES || here >= HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *total += 1;
        by_address.insert(address, here + 1);
        Some(Slot { all: Arc::clone(self), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.all.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *counts;
        *total = total.saturating_sub(1);
        match by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_address.remove(&self.address)),
        }
    }
}

/// A hub's endpoint. Connections arrive once their peer has proven its key and was let in by an [`Admit`].
#[derive(Debug)]
pub struct HubEndpoint {
    endpoint: quinn::Endpoint,
    admissions: mpsc::Receiver<Admission>,
    accepting: JoinHandle<()>,
}

impl HubEndpoint {
    /// Listens on `addr`, within a tokio runtime.
    ///
    /// # Errors
    /// [`NetError`] when the address is taken or not ours, or the keys file can be neither read nor made.
    pub fn bind(addr: SocketAddr, identity: &Identity, options: &HubOptions, admit: Arc<dyn Admit>) -> Result<Self, NetError> {
        let mut transport = socket::transport();
        transport.receive_window(quinn::VarInt::from_u32(socket::WINDOW_BEFORE));
        let mut tokens = quinn::ValidationTokenConfig::default();
        tokens.sent(0);
        let mut config = tls::hub_config(identity)?;
        config
            .transport_config(Arc::new(transport))
            .validation_token_config(tokens)
            .max_incoming(HANDSHAKES)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFERS);
        let endpoint_config = reset_keys::endpoint_config(&options.keys)?;
        let endpoint = socket::bind(addr)
            .and_then(|socket| quinn::Endpoint::new(endpoint_config, Some(config), socket, Arc::new(quinn::TokioRuntime)))
            .map_err(|source| NetError::Bind { addr, source })?;
        let (sender, admissions) = mpsc::channel(QUEUE);
        let accepting = tokio::spawn(accept(endpoint.clone(), admit, sender));
        Ok(Self { endpoint, admissions, accepting })
    }

    /// Where it listens; tells the port when `bind` was asked for port 0.
    ///
    /// # Errors
    /// The system's, when the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection that was let in. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Admission> {
        self.admissions.recv().await
    }

    /// Takes no more connections and closes all there are with `code`; returns when the clients have been told, at most two seconds
    /// later.
    pub async fn shutdown(self, code: CloseCode) {
        self.accepting.abort();
        self.endpoint.close(code.var_int(), b"");
        // A client that does not answer learns it from the next hub.
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

impl Drop for HubEndpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(endpoint: quinn::Endpoint, admit: Arc<dyn Admit>, sender: mpsc::Sender<Admission>) {
    let handshakes = Arc::new(Handshakes::default());
    while let Some(incoming) = endpoint.accept().await {
        // Before anything is spent on it the peer proves that it is where it says.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "retry");
            }
            continue;
        }
        let Some(slot) = handshakes.begin(incoming.remote_address().ip()) else {
            incoming.refuse();
            continue;
        };
        tokio::spawn(let_in(incoming, slot, Arc::clone(&admit), sender.clone()));
    }
}

async fn let_in(incoming: quinn::Incoming, slot: Slot, admit: Arc<dyn Admit>, sender: mpsc::Sender<Admission>) {
    let peer = incoming.remote_address();
    let inner = match tokio::time::timeout(HANDSHAKE_DEADLINE, incoming).await {
        Ok(Ok(inner)) => inner,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "handshake"),
        Err(_) => return tracing::debug!(%peer, "handshake took too long"),
    };
    drop(slot);
    let connection = Connection { inner };
    let Some(key) = tls::peer_key(&connection.inner) else {
        return connection.close(CloseCode::Protocol);
    };
    match admit.admit(key, &connection) {
        Ok(device) => {
            connection.inner.set_receive_window(quinn::VarInt::from_u32(socket::WINDOW));
            connection.inner.set_max_concurrent_bi_streams(quinn::VarInt::from_u32(STREAMS));
            if let Err(mpsc::error::SendError(admission)) = sender.send(Admission { connection, device }).await {
                admission.connection.close(CloseCode::Restarting);
            }
        }
        Err(code) => {
            tracing::info!(%peer, key = %key.fingerprint(), %code, "not let in");
            connection.close(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One address gets so many handshakes at once, a /64 counts as one address, and what has ended counts no more.
    #[test]
    fn handshakes_are_capped() {
        let all = Arc::new(Handshakes::default());
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, last, 0, 0, last]);
        let mut slots: Vec<Slot> = (0..8).map_while(|last| all.begin(address(last))).collect();
        assert_eq!(slots.len(), HANDSHAKES_PER_ADDRESS);
        assert!(all.begin(address(9)).is_none());
        assert!(all.begin(IpAddr::from([192, 0, 2, 1])).is_some());
        slots.pop();
        assert!(all.begin(address(9)).is_some());
    }

    /// Many addresses together get so many handshakes at once.
    #[test]
    fn handshakes_are_capped_over_all_addresses() {
        let all = Arc::new(Handshakes::default());
        let slots: Vec<Slot> = (0..=u8::MAX).map_while(|last| all.begin(IpAddr::from([192, 0, 2, last]))).collect();
        assert_eq!(slots.len(), HANDSHAKES);
        assert!(all.begin(IpAddr::from([198, 51, 100, 1])).is_none());
        drop(slots);
        assert!(all.by_address.lock().expect("not poisoned").1.is_empty());
    }
}
