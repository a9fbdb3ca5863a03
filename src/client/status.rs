//! What `syncfs status --json` says of a client. The keys are a contract (CLI.md): add to them, never change or remove one.
//!
//! A path is given as text, with U+FFFD for what is not UTF-8; where that loses something a second key with the suffix `_bytes` gives
//! the exact bytes, percent-encoded (letters, digits and `-._~/` as they are).

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

/// A time as people and scripts read it: RFC 3339 in UTC, to the second. Shown, never compared to decide anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(SystemTime);

impl Stamp {
    /// The time `millis` milliseconds after 1970.
    pub fn from_millis(millis: u64) -> Self {
        // Beyond the year 9999 there is no RFC 3339.
        Self(SystemTime::UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_000)))
    }

    /// How long before `now` it was; zero where it is later.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.0).unwrap_or_default()
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_seconds(self.0))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339_weak(&text).map(Self).map_err(de::Error::custom)
    }
}

/// A path as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPath {
    /// For people; exact where `path_bytes` is absent.
    pub path: String,
    /// The exact bytes, percent-encoded, where the path is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_bytes: Option<String>,
}

impl ShownPath {
    pub fn new(bytes: &[u8]) -> Self {
        Self { path: String::from_utf8_lossy(bytes).into_owned(), path_bytes: not_utf8(bytes) }
    }
}

fn not_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| percent_encode(bytes))
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// What [`percent_encode`] was given; a `%` without two digits behind it is itself.
fn percent_decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        if let (b'%', (Some(high), Some(low))) = (byte, code) {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    out
}

/// A client's own view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// The mount answers.
    pub ready: bool,
    /// Every local change is durable on the hub and everything on the hub is durably applied here, or is a reported conflict.
    pub idle: bool,
    /// The hub has welcomed this client and has not gone since.
    pub connected: bool,
    /// How many nodes have a local change that is not durable on the hub yet.
    pub pending_up: u64,
    /// How many nodes have a change of the hub that is not durably applied here yet.
    pub pending_down: u64,
    /// When this client last knew that it had everything; `None`: never.
    pub last_sync: Option<Stamp>,
    /// The hub sequence number up to which everything is durably recorded here.
    pub cursor: u64,
    /// One hash over the whole tree here, in hex; equal on hub and clients when they agree.
    pub root_hash: String,
    pub conflicts: Vec<OpenConflict>,
    /// What happened and changed nothing for anybody else: a file came back, a name gave way. Oldest first.
    pub notices: Vec<Note>,
    /// What stands in the way now, and is retried. Oldest first.
    pub errors: Vec<Note>,
    /// The name under which this device is registered, as far as it knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// The hub's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hub: Option<String>,
    /// Since when `connected` has been what it is; `None`: since the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Stamp>,
    /// Bytes of UDP payload sent to the hub over the present connection, everything included; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wire_sent: Option<u64>,
    /// The same of what the hub sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wire_received: Option<u64>,
}

/// A file that is blocked here until `syncfs resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenConflict {
    /// Relative to the mounted directory.
    #[serde(flatten)]
    pub path: ShownPath,
    /// When it was noticed.
    pub since: Stamp,
    /// Paths whose bytes are base, ours and theirs, in this order. A base that does not exist is an empty file.
    pub sides: Vec<String>,
    /// The exact bytes of `sides`, percent-encoded, where one of them is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sides_bytes: Option<Vec<String>>,
    /// How many places of a text both sides changed; beside the sides is `merged`, with markers. Absent where it is no text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hunks: Option<u32>,
    /// Stands for the three versions: another one as soon as one of them is another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
}

impl OpenConflict {
    /// A conflict of the file at `path`, noticed `since` milliseconds after 1970, with its three sides at `sides`.
    pub fn new(path: &[u8], since: u64, sides: [&[u8]; 3]) -> Self {
        let exact = sides.iter().any(|side| not_utf8(side).is_some());
        Self {
            path: ShownPath::new(path),
            since: Stamp::from_millis(since),
            sides: sides.iter().map(|side| String::from_utf8_lossy(side).into_owned()).collect(),
            sides_bytes: exact.then(|| sides.iter().map(|side| percent_encode(side)).collect()),
            hunks: None,
            version: None,
        }
    }

    /// The exact paths of base, ours and theirs.
    pub fn side_paths(&self) -> Vec<PathBuf> {
        match &self.sides_bytes {
            Some(sides) => sides.iter().map(|side| OsString::from_vec(percent_decode(side)).into()).collect(),
            None => self.sides.iter().map(PathBuf::from).collect(),
        }
    }
}

/// Something to tell a person about one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Relative to the mounted directory; empty where it is about all of it.
    #[serde(flatten)]
    pub path: ShownPath,
    pub what: String,
    pub at: Stamp,
}

impl Note {
    /// A note on `path`, made `at` milliseconds after 1970.
    pub fn new(path: &[u8], what: impl Into<String>, at: u64) -> Self {
        Self { path: ShownPath::new(path), what: what.into(), at: Stamp::from_millis(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> ClientStatus {
        ClientStatus {
            ready: true,
            idle: false,
            connected: true,
            pending_up: 1,
            pending_down: 2,
            last_sync: Some(Stamp::from_millis(1_000)),
            cursor: 7,
            root_hash: "00ff".into(),
            conflicts: vec![OpenConflict::new(b"a b.txt", 0, [b"s/base", b"s/ours", b"s/theirs"])],
            notices: vec![Note::new(b"x\xff%y", "is back", 2_500)],
            errors: Vec::new(),
            device: None,
            hub: None,
            since: None,
            wire_sent: None,
            wire_received: None,
        }
    }

    /// A script finds every key of the contract, with the types it expects.
    #[test]
    fn the_keys_are_the_contract() {
        let expected = json!({
            "ready": true, "idle": false, "connected": true, "pending_up": 1, "pending_down": 2,
            "last_sync": "1970-01-01T00:00:01Z", "cursor": 7, "root_hash": "00ff",
            "conflicts": [{"path": "a b.txt", "since": "1970-01-01T00:00:00Z", "sides": ["s/base", "s/ours", "s/theirs"]}],
            "notices": [{"path": "x\u{fffd}%y", "path_bytes": "x%FF%25y", "what": "is back", "at": "1970-01-01T00:00:02Z"}],
            "errors": [],
        });
        assert_eq!(serde_json::to_value(sample()).unwrap(), expected);
    }

    /// A client that never finished a sync says null, not a date in 1970.
    #[test]
    fn never_synced_is_null() {
        let status = ClientStatus { last_sync: None, ..sample() };
        assert_eq!(serde_json::to_value(status).unwrap()["last_sync"], serde_json::Value::Null);
    }

    /// What one process writes another one reads back.
    #[test]
    fn a_status_survives_its_json() {
        let status = ClientStatus { notices: vec![Note::new(b"\xfe", "x", 3_000)], ..sample() };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<ClientStatus>(&text).unwrap(), status);
    }

    /// Whatever a file is called, a script and a person find its sides.
    #[test]
    fn the_paths_of_the_sides_are_exact() {
        for name in [&b"a b%41.txt"[..], b"x\xff%41y", b"\xfe%"] {
            let conflict = OpenConflict::new(name, 0, [b"b", name, b"t"]);
            let expected = [OsString::from("b"), OsString::from_vec(name.to_vec()), OsString::from("t")];
            assert_eq!(conflict.side_paths(), expected.map(PathBuf::from), "{name:?}");
        }
    }

    /// A clock that ran wild makes a strange date, never a panic.
    #[test]
    fn the_far_future_is_shown() {
        assert_eq!(serde_json::to_value(Stamp::from_millis(u64::MAX)).unwrap(), json!("9999-12-31T23:59:59Z"));
        assert_eq!(Stamp::from_millis(u64::MAX).age(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }
}
