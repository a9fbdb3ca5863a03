//! The hub's own view, as scripts read it.

use crate::admin::Device;
use crate::admin::State;
use crate::client::status::Stamp;
use crate::merge::sequencer::Sequencer;
use crate::model::DeviceNo;
use crate::model::Hash;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// What `syncfs status --hub --json` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubStatus {
    /// The newest committed record.
    pub seq: u64,
    pub volume: String,
    pub epoch: String,
    /// The number of records kept.
    pub log: u64,
    pub root_hash: String,
    /// The devices that may connect.
    pub clients: Vec<RegisteredClient>,
}

/// A registered device and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredClient {
    pub name: String,
    pub number: u32,
    pub key: String,
    pub state: ClientState,
    pub read_only: bool,
    /// Everything up to here is durable there, but for the records it holds.
    pub acked: u64,
    /// How many records wait there in conflicts.
    pub held: u64,
    pub connected: bool,
    /// The oldest record kept is kept because of this device.
    pub holds_back: bool,
    /// When it was last connected; before the first time, when it was registered.
    pub last_seen: Stamp,
}

/// Where a device stands with the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientState {
    Active,
    /// Silent for so long that it does not hold the log back any more.
    Lapsed,
    Revoked,
}

/// A device of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub name: String,
    pub number: u32,
    pub key: String,
    pub fingerprint: String,
    pub read_only: bool,
    pub state: ClientState,
    /// RFC 3339.
    pub registered_at: String,
}

impl From<&Device> for DeviceInfo {
    fn from(device: &Device) -> Self {
        Self {
            name: device.name.clone(),
            number: device.number,
            key: device.key.to_string(),
            fingerprint: device.key.fingerprint(),
            read_only: device.read_only,
            state: match device.state {
                State::Active => ClientState::Active,
                State::Revoked { .. } => ClientState::Revoked,
            },
            registered_at: humantime::format_rfc3339_seconds(device.registered_at).to_string(),
        }
    }
}

/// The status of a hub with these devices.
pub(super) fn status(sequencer: &Sequencer, root_hash: Hash, devices: &[Device]) -> HubStatus {
    let known: BTreeMap<DeviceNo, &Device> = devices.iter().map(|device| (device.number, device)).collect();
    let clients = sequencer.devices().into_iter().filter_map(|row| {
        let device = known.get(&row.device)?;
        Some(RegisteredClient {
            name: device.name.clone(),
            number: row.device,
            key: device.key.to_string(),
            state: if row.lapsed { ClientState::Lapsed } else { ClientState::Active },
            read_only: device.read_only,
            acked: row.acked,
            held: row.held as u64,
            connected: row.connected,
            holds_back: row.holds_back,
            last_seen: Stamp::from_millis(row.last_seen),
        })
    });
    HubStatus {
        seq: sequencer.seq(),
        volume: sequencer.volume().to_string(),
        epoch: sequencer.epoch().to_string(),
        log: sequencer.log_len() as u64,
        root_hash: root_hash.to_string(),
        clients: clients.collect(),
    }
}
