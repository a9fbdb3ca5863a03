//! Who may in: the registry and the table of live connections under one lock.

use crate::admin::Device;
use crate::admin::PublicKey;
use crate::admin::RegisterError;
use crate::admin::Registry;
use crate::admin::RegistryError;
use crate::admin::RevokeError;
use crate::model::DeviceNo;
use crate::net::Admit;
use crate::net::Admitted;
use crate::net::CloseCode;
use crate::net::Connection;
use crate::net::Live;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::SystemTime;

/// The registry and who is connected.
pub(super) struct Gate {
    inner: Mutex<Inner>,
    /// Called after a change of the registry, so that the sequencer's thread looks at it.
    wake: Box<dyn Fn() + Send + Sync>,
}

struct Inner {
    registry: Registry,
    live: Live,
    /// Raised with every change of the registry.
    version: u64,
    /// The hub is ending or its store failed: nobody is let in.
    shut: bool,
}

impl Gate {
    pub fn new(registry: Registry, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { inner: Mutex::new(Inner { registry, live: Live::default(), version: 1, shut: false }), wake: Box::new(wake) }
    }

    fn hold(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The devices that count, when the registry is not at `version` any more.
    pub fn changed_since(&self, version: u64) -> Option<(u64, BTreeSet<DeviceNo>)> {
        let inner = self.hold();
        let active = || inner.registry.devices().iter().filter(|device| device.is_active()).map(|device| device.number).collect();
        (inner.version != version).then(|| (inner.version, active()))
    }

    /// Every device that was ever registered.
    pub fn devices(&self) -> Vec<Device> {
        self.hold().registry.devices().to_vec()
    }

    /// Registers a device; it may connect when this returns.
    pub fn register(&self, key: PublicKey, name: &str, read_only: bool) -> Result<Device, RegisterError> {
        let mut inner = self.hold();
        let device = inner.registry.register(key, name, read_only, SystemTime::now())?;
        inner.version += 1;
        drop(inner);
        (self.wake)();
        Ok(device)
    }

    /// Revokes a device; it is out when this returns.
    pub fn revoke(&self, name: &str) -> Result<Device, RevokeError> {
        let mut inner = self.hold();
        let device = inner.registry.revoke(name, SystemTime::now())?;
        inner.throw_out();
        drop(inner);
        (self.wake)();
        Ok(device)
    }

    /// Takes up what another process wrote into the registry.
    pub fn refresh(&self) -> Result<(), RegistryError> {
        let mut inner = self.hold();
        if !inner.registry.refresh()? {
            return Ok(());
        }
        inner.throw_out();
        drop(inner);
        (self.wake)();
        Ok(())
    }

    /// A connection has ended.
    pub fn ended(&self, device: DeviceNo, connection: &Connection) {
        self.hold().live.remove(device, connection);
    }

    /// Closes every connection and lets nobody in until [`Gate::open`].
    pub fn shut(&self) {
        let mut inner = self.hold();
        inner.shut = true;
        let devices: Vec<DeviceNo> = inner.live.devices().collect();
        for device in devices {
            inner.live.close(device, CloseCode::Restarting);
        }
    }

    /// Lets the registered in again.
    pub fn open(&self) {
        self.hold().shut = false;
    }
}

impl Inner {
    /// Closes the connections of those who are not registered any more.
    fn throw_out(&mut self) {
        self.version += 1;
        let connected: Vec<DeviceNo> = self.live.devices().collect();
        for device in connected {
            if !self.registry.by_number(device).is_some_and(Device::is_active) {
                self.live.close(device, CloseCode::Revoked);
            }
        }
    }
}

impl Admit for Gate {
    fn admit(&self, key: PublicKey, connection: &Connection) -> Result<Admitted, CloseCode> {
        let mut inner = self.hold();
        match inner.registry.refresh() {
            Ok(true) => inner.throw_out(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "registry");
                return Err(CloseCode::Busy);
            }
        }
        if inner.shut {
            return Err(CloseCode::Restarting);
        }
        let device = match inner.registry.by_key(&key) {
            Some(device) if device.is_active() => device,
            Some(_) => return Err(CloseCode::Revoked),
            None => return Err(CloseCode::NotRegistered),
        };
        let admitted = Admitted { number: device.number, name: device.name.clone(), read_only: device.read_only };
        inner.live.insert(admitted.number, connection.clone());
        Ok(admitted)
    }
}
