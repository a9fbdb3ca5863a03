//! Typed messages over QUIC streams.

use super::close::CloseCode;
use super::close::Closed;
use crate::wire;
use crate::wire::FrameError;
use crate::wire::HEADER_LEN;
use crate::wire::Wire;
use std::time::Duration;
use tokio::time::Instant;

/// How long a peer may take to finish a frame it has begun, and longer by a second for each [`SLOWEST`] bytes of its length.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(30);
/// The slowest line that carries large frames, in bytes per second.
pub const SLOWEST: usize = 16 << 10;
/// How much is read, and allocated, at a time: a frame takes memory as it arrives, not when it is announced.
const STEP: usize = 64 << 10;
/// The priority of the control stream and of the streams of contents.
pub(super) const CONTROL: i32 = 10;
pub(super) const CONTENT: i32 = 0;

/// Why a message could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("a message of {len} bytes exceeds the {max} allowed for its kind")]
    TooLong { len: usize, max: usize },
    /// The peer does not want this stream any more; the connection lives.
    #[error("the other side stopped the stream")]
    Stopped,
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a message could not be received. All but [`RecvError::Closed`] concern this stream only, which cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended in the middle of a message")]
    Truncated,
    #[error("a message was begun and not finished in time")]
    TooSlow,
    /// The peer gave the stream up.
    #[error("the other side gave the stream up")]
    Reset,
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// The sending half of a stream. Dropping it ends the stream after what was sent.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
}

impl SendStream {
    pub(super) fn new(inner: quinn::SendStream, priority: i32) -> Self {
        // Fails only for a stream that is closed already, which the first send will say.
        let _ = inner.set_priority(priority);
        Self { inner }
    }

    /// Sends one message; returns when all of it is in the connection's buffer. Not cancel-safe: after a cancelled call the stream
    /// may hold half a message and cannot go on.
    ///
    /// # Errors
    /// [`SendError`]; after [`SendError::TooLong`] nothing was sent and the stream can go on.
    pub async fn send<M: Wire>(&mut self, message: &M) -> Result<(), SendError> {
        let bytes = wire::frame(message);
        if bytes.len() - HEADER_LEN > M::MAX {
            return Err(SendError::TooLong { len: bytes.len() - HEADER_LEN, max: M::MAX });
        }
        self.write(&bytes).await
    }

    /// Sends bytes as they are, whether they are whole messages or not: for whoever tests a peer.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.inner.write_all(bytes).await.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(error) => SendError::Closed(error.into()),
            _ => SendError::Stopped,
        })
    }

    /// Ends the stream: the peer reads what was sent and then a clean end.
    pub fn finish(&mut self) {
        // A stream that is closed already has ended.
        let _ = self.inner.finish();
    }

    /// Gives the stream up: what is not on its way yet is not sent, the peer sees [`RecvError::Reset`].
    pub fn reset(&mut self) {
        // A stream that is closed already has ended.
        let _ = self.inner.reset(CloseCode::Bye.var_int());
    }
}

/// The receiving half of a stream. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct RecvStream {
    inner: quinn::RecvStream,
    /// What has arrived of the frame under way.
    buffer: Vec<u8>,
    /// When its first byte arrived.
    pub(super) begun: Option<Instant>,
}

impl RecvStream {
    pub(super) fn new(inner: quinn::RecvStream) -> Self {
        Self { inner, buffer: Vec::new(), begun: None }
    }

    /// The next message, or `None` when the peer has ended the stream after a whole one. Waits without limit for a message to begin,
    /// and [`FRAME_DEADLINE`] for it to be finished. Cancel-safe: what had arrived is kept for the next call.
    ///
    /// # Errors
    /// [`RecvError`]; the peer is told to stop sending, and the stream cannot go on.
    pub async fn recv<M: Wire>(&mut self) -> Result<Option<M>, RecvError> {
        let received = self.next().await;
        if received.is_err() {
            // A stream that has ended needs no stop.
            let _ = self.inner.stop(CloseCode::Protocol.var_int());
        }
        received
    }

    async fn next<M: Wire>(&mut self) -> Result<Option<M>, RecvError> {
        if !self.fill(HEADER_LEN).await? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(RecvError::Truncated) };
        }
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&self.buffer[..HEADER_LEN]);
        let len = wire::parse_header::<M>(&header)?;
        if !self.fill(HEADER_LEN + len).await? {
            return Err(RecvError::Truncated);
        }
        let message = wire::unframe(&self.buffer[HEADER_LEN..])?;
        self.buffer = Vec::new();
        self.begun = None;
        Ok(Some(message))
    }

    /// Reads until `want` bytes of the frame are here; `false` when the stream ends before.
    async fn fill(&mut self, want: usize) -> Result<bool, RecvError> {
        while self.buffer.len() < want {
            let have = self.buffer.len();
            let mut step = vec![0; (want - have).min(STEP)];
            let read = match self.begun {
                None => self.inner.read(&mut step).await,
                Some(begun) => {
                    let deadline = begun + FRAME_DEADLINE + Duration::from_secs((want / SLOWEST) as u64);
                    tokio::time::timeout_at(deadline, self.inner.read(&mut step)).await.map_err(|_| RecvError::TooSlow)?
                }
            };
            match read {
                Ok(Some(read)) => {
                    self.buffer.extend_from_slice(&step[..read]);
                    self.begun.get_or_insert_with(Instant::now);
                }
                Ok(None) => return Ok(false),
                Err(quinn::ReadError::ConnectionLost(error)) => return Err(RecvError::Closed(error.into())),
                Err(_) => return Err(RecvError::Reset),
            }
        }
        Ok(true)
    }
}

/// The two halves of a stream.
#[derive(Debug)]
pub struct Stream {
    pub send: SendStream,
    pub recv: RecvStream,
}

impl Stream {
    pub(super) fn new((send, recv): (quinn::SendStream, quinn::RecvStream), priority: i32) -> Self {
        Self { send: SendStream::new(send, priority), recv: RecvStream::new(recv) }
    }
}
