//! The one file that names `bincode`: bytes of messages and of stored values.
//!
//! Rules: native derive only, a limit on every decode (the limit counts memory, not input bytes), trailing bytes are an error, no
//! recursive types, no collections of zero-sized elements. Stored values carry a version byte in front ([`encode_stored`]).
//! What is signed or hashed is always the bytes received, because varints have more than one encoding.

use super::name::Name;
pub use bincode::Decode;
pub use bincode::Encode;
use bincode::config;
use bincode::de::Decoder;
use bincode::error::DecodeError;

/// Why bytes were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are no value of the wanted type, or would need more memory than allowed.
    #[error("malformed bytes: {0}")]
    Malformed(String),
    /// A whole value was read and something follows it.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// The version byte of a stored value is not one this program reads.
    #[error("stored value has version {0}, this program reads up to {1}")]
    Version(u8, u8),
}

/// The largest memory one decoded value may claim, in bytes.
pub const DECODE_LIMIT: usize = 64 << 20;

/// The bytes of `value`; the same value always gives the same bytes.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).expect("encoding into memory cannot fail")
}

/// The value in `bytes`.
///
/// # Errors
/// [`CodecError`] when the bytes are malformed, claim more than [`DECODE_LIMIT`] or go on after the value.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, read) = bincode::decode_from_slice(bytes, config::standard().with_limit::<DECODE_LIMIT>())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if read != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - read));
    }
    Ok(value)
}

/// The version that stored values are written with.
pub const STORED_VERSION: u8 = 1;

/// The bytes of `value` for a database: a version byte, then the value.
pub fn encode_stored<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = vec![STORED_VERSION];
    bytes.extend(encode(value));
    bytes
}

/// The value that [`encode_stored`] wrote.
///
/// # Errors
/// As [`decode`], and [`CodecError::Version`] for a version from a newer program.
pub fn decode_stored<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&STORED_VERSION, rest)) => decode(rest),
        Some((&version, _)) => Err(CodecError::Version(version, STORED_VERSION)),
        None => Err(CodecError::Malformed("empty".into())),
    }
}

impl Encode for Name {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

impl<C> Decode<C> for Name {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        Name::new(&bytes).map_err(|_| DecodeError::Other("not a name"))
    }
}

bincode::impl_borrow_decode!(Name);
