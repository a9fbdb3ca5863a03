//! Floor 3: QUIC with mutual TLS by raw public keys. Everything above deals with typed messages, public keys and close codes only.

mod client;
mod close;
mod connection;
mod hub;
mod live;
mod reset_keys;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use client::ConnectError;
pub use client::ConnectOptions;
pub use client::HubConnection;
pub use client::connect;
pub use client::fetch_hub_key;
pub use close::CloseCode;
pub use close::Closed;
pub use connection::Connection;
pub use connection::Traffic;
pub use hub::Admission;
pub use hub::Admit;
pub use hub::Admitted;
pub use hub::HubEndpoint;
pub use hub::HubOptions;
pub use live::Live;
pub use stream::FRAME_DEADLINE;
pub use stream::RecvError;
pub use stream::RecvStream;
pub use stream::SLOWEST;
pub use stream::SendError;
pub use stream::SendStream;
pub use stream::Stream;

use crate::model::PublicKey;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an endpoint could not be set up on this machine.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("the private key is no Ed25519 key in PKCS#8")]
    Identity,
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the system has no randomness to give")]
    Random,
}

/// The key pair with which this side of a connection proves who it is.
#[derive(Clone)]
pub struct Identity {
    key: tls::Key,
    public: PublicKey,
}

impl Identity {
    /// The Ed25519 key pair in PKCS#8 DER.
    ///
    /// # Errors
    /// [`NetError::Identity`] when the bytes are something else.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NetError> {
        let (key, public) = tls::load(pkcs8)?;
        Ok(Self { key, public })
    }

    /// A key pair for one conversation, known to nobody.
    fn ephemeral() -> Result<Self, NetError> {
        let document = aws_lc_rs::signature::Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        Self::from_pkcs8(document.map_err(|_| NetError::Random)?.as_ref())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public)
    }
}
