//! A connection between a client and a hub, seen from either side.

use super::close::CloseCode;
use super::close::Closed;
use super::stream;
use super::stream::Stream;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a client may take to open its control stream once it was let in.
const CONTROL_DEADLINE: Duration = Duration::from_secs(10);

/// What has gone over the wire, in bytes of UDP payload: encryption, acknowledgements and retransmissions included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

/// A connection whose peer's key was accepted. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) inner: quinn::Connection,
}

impl Connection {
    /// Opens a stream for one content request; a client's side. Waits while the hub serves as many as it allows.
    ///
    /// # Errors
    /// [`Closed`] when the connection has ended.
    pub async fn open_content(&self) -> Result<Stream, Closed> {
        Ok(Stream::new(self.inner.open_bi().await?, stream::CONTENT))
    }

    /// The client's control stream; the hub's side, once, before [`Connection::accept_content`].
    ///
    /// # Errors
    /// [`Closed`] when the connection has ended. A client that opens none within ten seconds is closed with
    /// [`CloseCode::Protocol`].
    pub async fn accept_control(&self) -> Result<Stream, Closed> {
        match tokio::time::timeout(CONTROL_DEADLINE, self.inner.accept_bi()).await {
            Ok(halves) => Ok(Stream::new(halves?, stream::CONTROL)),
            Err(_) => {
                self.close(CloseCode::Protocol);
                Err(Closed::ByUs)
            }
        }
    }

    /// The next content stream that the client has opened; the hub's side. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when the connection has ended.
    pub async fn accept_content(&self) -> Result<Stream, Closed> {
        Ok(Stream::new(self.inner.accept_bi().await?, stream::CONTENT))
    }

    /// Ends the connection at once; every stream fails on both sides, and the peer learns the code.
    pub fn close(&self, code: CloseCode) {
        self.inner.close(code.var_int(), b"");
    }

    /// Waits until the connection has ended, and says how. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.inner.closed().await.into()
    }

    /// How the connection ended, `None` while it lives.
    pub fn close_reason(&self) -> Option<Closed> {
        self.inner.close_reason().map(Closed::from)
    }

    /// What has gone over the wire so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.inner.stats();
        Traffic { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes }
    }

    /// The round-trip time as it is estimated now.
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Where the peer is now; a client that roams keeps its connection and changes this.
    pub fn peer(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Tells this connection from every other of the process.
    pub fn id(&self) -> usize {
        self.inner.stable_id()
    }
}
