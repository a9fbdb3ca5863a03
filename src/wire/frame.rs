//! Frames: length, kind, version and body, checked before anything is allocated.

use super::ChunkData;
use super::ContentReply;
use super::ContentRequest;
use super::Hello;
use super::PutReply;
use super::ToClient;
use super::ToHub;
use super::Welcome;
use crate::model::codec::CodecError;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::model::codec::decode;
use crate::model::codec::encode;

/// A message that travels in a frame of its own.
pub trait Wire: Encode + Decode<()> {
    /// The kind in the frame's header; never reused for another message.
    const KIND: u16;
    /// The version of the body's layout.
    const VERSION: u16 = 1;
    /// The longest body in bytes.
    const MAX: usize;
}

macro_rules! wire {
    ($($message:ty = $kind:literal up to $max:expr;)*) => {$(
        impl Wire for $message { const KIND: u16 = $kind; const MAX: usize = $max; }
    )*};
}
wire! {
    Hello = 1 up to 64 << 10;
    Welcome = 2 up to 4 << 10;
    ToHub = 3 up to 4 << 20;
    ToClient = 4 up to 8 << 20;
    ContentRequest = 5 up to 8 << 20;
    ContentReply = 6 up to 8 << 20;
    PutReply = 7 up to 1 << 20;
    ChunkData = 8 up to 512 << 10;
}

/// The length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;

/// Why a frame was not accepted; after one the stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("expected message kind {expected} version {version}, got kind {kind} version {got}")]
    Kind { expected: u16, version: u16, kind: u16, got: u16 },
    #[error("a message of {len} bytes exceeds the {max} allowed for its kind")]
    TooLong { len: usize, max: usize },
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The whole frame of `message`.
pub fn frame<M: Wire>(message: &M) -> Vec<u8> {
    let body = encode(message);
    debug_assert!(body.len() <= M::MAX, "a message is built within its limit");
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(M::KIND.to_le_bytes());
    bytes.extend(M::VERSION.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The body's length that a header announces for a message of type `M`.
///
/// # Errors
/// [`FrameError`] when the header announces another kind or version, or more than the kind's maximum.
pub fn parse_header<M: Wire>(header: &[u8; HEADER_LEN]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_le_bytes([header[4], header[5]]);
    let got = u16::from_le_bytes([header[6], header[7]]);
    if (kind, got) != (M::KIND, M::VERSION) {
        return Err(FrameError::Kind { expected: M::KIND, version: M::VERSION, kind, got });
    }
    if len > M::MAX {
        return Err(FrameError::TooLong { len, max: M::MAX });
    }
    Ok(len)
}

/// The message in a frame's body.
///
/// # Errors
/// [`FrameError`] when the body is no such message.
pub fn unframe<M: Wire>(body: &[u8]) -> Result<M, FrameError> {
    Ok(decode(body)?)
}
