//! Why connections end, as numbers on the wire and as sentences for people.

use std::fmt;

/// The code with which one side closes a connection. No text travels: the receiver knows what to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCode {
    Bye,
    NotRegistered,
    Revoked,
    Restarting,
    Busy,
    Protocol,
    NoCommonVersion,
    RateLimit,
    UnknownVolume,
    /// The device's state went back in time, or lies before what the hub still has.
    Reseed,
    /// The same device is connected from somewhere else.
    Elsewhere,
    /// The hub's history does not continue the client's.
    HistoryForked,
    /// A code of a newer program.
    Other(u64),
}

const CODES: [(u64, CloseCode, &str); 12] = [
    (0x100, CloseCode::Bye, "the other side has finished"),
    (0x101, CloseCode::NotRegistered, "this device is not registered"),
    (0x102, CloseCode::Revoked, "this device was revoked"),
    (0x103, CloseCode::Restarting, "the hub is restarting"),
    (0x104, CloseCode::Busy, "the hub is busy"),
    (0x105, CloseCode::Protocol, "the other side received something it does not understand"),
    (0x106, CloseCode::NoCommonVersion, "client and hub have no protocol version in common"),
    (0x107, CloseCode::RateLimit, "this device asks for too much at once"),
    (0x108, CloseCode::UnknownVolume, "the hub does not hold this volume"),
    (0x109, CloseCode::Reseed, "this device's state is older than what the hub has seen of it"),
    (0x10a, CloseCode::Elsewhere, "this device is connected from somewhere else with the same key"),
    (0x10b, CloseCode::HistoryForked, "the hub's history does not continue the one this device knows"),
];

impl CloseCode {
    /// The number on the wire.
    pub fn code(self) -> u64 {
        match self {
            Self::Other(code) => code,
            known => CODES.iter().find(|(_, code, _)| *code == known).map_or(0x105, |(number, _, _)| *number),
        }
    }

    /// The code with this number.
    pub fn from_code(code: u64) -> Self {
        CODES.iter().find(|(number, _, _)| *number == code).map_or(Self::Other(code), |(_, known, _)| *known)
    }

    pub(super) fn var_int(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.code()).unwrap_or(quinn::VarInt::MAX)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODES.iter().find(|(_, code, _)| code == self) {
            Some((_, _, sentence)) => f.write_str(sentence),
            None => write!(f, "the other side closed the connection with code {:#x}", self.code()),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("{0}")]
    ByPeer(CloseCode),
    #[error("closed on this side")]
    ByUs,
    /// Nothing was heard for the idle time.
    #[error("the other side is not answering")]
    TimedOut,
    /// The other side lives but does not know the connection: it was restarted.
    #[error("the other side was restarted")]
    Restarted,
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => Self::ByPeer(CloseCode::from_code(close.error_code.into_inner())),
            quinn::ConnectionError::LocallyClosed => Self::ByUs,
            quinn::ConnectionError::TimedOut => Self::TimedOut,
            quinn::ConnectionError::Reset => Self::Restarted,
            other => Self::Broken(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code on the wire means one reason, and the numbers never change.
    #[test]
    fn codes_are_stable() {
        for (at, (number, code, _)) in CODES.into_iter().enumerate() {
            assert_eq!(number, 0x100 + at as u64);
            assert_eq!((code.code(), CloseCode::from_code(number)), (number, code));
        }
        assert_eq!(CloseCode::from_code(0x999).code(), 0x999);
    }
}
