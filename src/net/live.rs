//! The table of live connections. It belongs under one lock together with the registry, so that a revocation cannot slip between the
//! question whether a key may in and the entry of its connection.

use super::close::CloseCode;
use super::connection::Connection;
use crate::model::DeviceNo;
use std::collections::BTreeMap;

/// The most connections of one device at once. More than one is ordinary: a client that lost its network is back before the hub
/// notices that the old connection is dead.
const PER_DEVICE: usize = 4;

/// The live connections of each device, the oldest first.
#[derive(Debug, Default)]
pub struct Live {
    connections: BTreeMap<DeviceNo, Vec<Connection>>,
}

impl Live {
    /// Enters a connection; when the device has too many, its oldest is closed with [`CloseCode::Elsewhere`].
    pub fn insert(&mut self, device: DeviceNo, connection: Connection) {
        let connections = self.connections.entry(device).or_default();
        connections.retain(|live| live.close_reason().is_none());
        if connections.len() >= PER_DEVICE {
            connections.remove(0).close(CloseCode::Elsewhere);
        }
        connections.push(connection);
    }

    /// Takes a connection out that has ended.
    pub fn remove(&mut self, device: DeviceNo, connection: &Connection) {
        if let Some(connections) = self.connections.get_mut(&device) {
            connections.retain(|live| live.id() != connection.id());
            if connections.is_empty() {
                self.connections.remove(&device);
            }
        }
    }

    /// Closes every connection of a device; how many there were.
    pub fn close(&mut self, device: DeviceNo, code: CloseCode) -> usize {
        let connections = self.connections.remove(&device).unwrap_or_default();
        connections.iter().for_each(|connection| connection.close(code));
        connections.len()
    }

    /// The connections of a device, the oldest first.
    pub fn of(&self, device: DeviceNo) -> &[Connection] {
        self.connections.get(&device).map_or(&[], Vec::as_slice)
    }

    /// The devices that are connected, in the order of their numbers.
    pub fn devices(&self) -> impl Iterator<Item = DeviceNo> {
        self.connections.keys().copied()
    }
}
