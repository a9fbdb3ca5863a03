//! What `syncfs status --hub --json` says. The keys are a contract (CLI.md): add to them, never change or remove one.

use crate::client::status::Stamp;
use serde::Deserialize;
use serde::Serialize;

/// A hub's own view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubStatus {
    /// The newest committed record.
    pub seq: u64,
    /// The identity of this hub's history, in hex; another one after a restore from a backup.
    pub epoch: String,
    /// How many records are kept because somebody has not acknowledged them.
    pub log: u64,
    /// One hash over the whole tree, in hex; equal on hub and clients when they agree.
    pub root_hash: String,
    /// Every registered device, revoked ones included, by number.
    pub clients: Vec<RegisteredClient>,
}

/// One device as the hub knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredClient {
    pub name: String,
    /// The device's number; it stays when its key changes.
    pub number: u64,
    /// The public key in one line.
    pub key: String,
    pub state: ClientState,
    /// Everything up to this sequence number is durably applied there, but for what it holds in conflicts.
    pub acked: u64,
    pub connected: bool,
    /// When it was last connected; before the first time, when it was registered.
    pub last_seen: Stamp,
    #[serde(default)]
    pub read_only: bool,
}

/// Whether a device may connect and holds the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientState {
    /// May connect; the log waits for it.
    Active,
    /// May connect; silent for so long that the log no longer waits for it.
    Lapsed,
    /// May not connect.
    Revoked,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A script finds every key of the contract, with the types it expects.
    #[test]
    fn the_keys_are_the_contract() {
        let client = RegisteredClient {
            name: "laptop".into(),
            number: 2,
            key: "syncfs1abc".into(),
            state: ClientState::Lapsed,
            acked: 5,
            connected: false,
            last_seen: Stamp::from_millis(0),
            read_only: true,
        };
        let status = HubStatus { seq: 9, epoch: "ab".into(), log: 4, root_hash: "00".into(), clients: vec![client] };
        let expected = json!({
            "seq": 9, "epoch": "ab", "log": 4, "root_hash": "00",
            "clients": [{"name": "laptop", "number": 2, "key": "syncfs1abc", "state": "lapsed", "acked": 5, "connected": false,
                "last_seen": "1970-01-01T00:00:00Z", "read_only": true}],
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert_eq!(serde_json::from_value::<HubStatus>(expected).unwrap(), status);
    }
}
