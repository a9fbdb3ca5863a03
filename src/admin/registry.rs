//! The registry: which keys are devices, which were, and under which number and name.

use super::registry_file;
use crate::model::DeviceNo;
use crate::model::PublicKey;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

/// The name of the registry's file in a hub's data directory.
const FILE: &str = "registry";
/// The longest name of a device, in characters.
const NAME_MAX: usize = 64;

/// One line of the registry's history. Variants are appended, never changed or reordered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum Entry {
    /// `at` in milliseconds since 1970.
    Register {
        number: DeviceNo,
        key: [u8; 32],
        name: String,
        read_only: bool,
        at: u64,
    },
    Revoke {
        number: DeviceNo,
        at: u64,
    },
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    Revoked { at: SystemTime },
}

/// A device that is or was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// From 1; stays the device's for ever.
    pub number: DeviceNo,
    /// Unique among the active devices.
    pub name: String,
    pub key: PublicKey,
    /// Whether it may only receive.
    pub read_only: bool,
    pub state: State,
    pub registered_at: SystemTime,
}

impl Device {
    /// Whether it may connect.
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }
}

/// Why the registry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged at byte {at}: {why}; nobody is let in by a damaged registry, restore it from a backup", path.display())]
    Damaged { path: PathBuf, at: usize, why: String },
    #[error("{} could not be written before, open it again", path.display())]
    Broken { path: PathBuf },
    /// What is written to the file that was opened would be seen by nobody.
    #[error("{} was replaced or removed while it was in use, open it again", path.display())]
    Replaced { path: PathBuf },
}

/// Why a device was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("this key is registered already, as {name}")]
    KeyKnown { name: String },
    #[error(
        "this key was registered as {name} and revoked; a revoked key never comes back: move its device.key away and a new one is made"
    )]
    KeyRevoked { name: String },
    #[error("there is an active device named {name} already")]
    NameTaken { name: String },
    #[error("{name:?} cannot name a device: 1 to {NAME_MAX} printable characters, no slash, no space at either end")]
    BadName { name: String },
    #[error("this is the hub's own key; what is registered here is the key of a device, which `syncfs key show` prints there")]
    HubKey,
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why a device was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("no device is named {name}")]
    Unknown { name: String },
    #[error("{name} is revoked already")]
    Already { name: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What tells that another process has changed the file.
type Stamp = (u64, i64, i64);

/// The registry in a hub's data directory. Several processes may have it open: each change is made under the file's lock on top of
/// what is in the file then, and seen by the others at their next [`Registry::refresh`].
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    file: File,
    hub_key: PublicKey,
    devices: Vec<Device>,
    end: u64,
    stamp: Stamp,
    broken: bool,
}

impl Registry {
    /// Opens the registry in the directory `data`, an empty one where there is none yet. A record that a crash left unfinished at the
    /// end is cut off.
    ///
    /// # Errors
    /// [`RegistryError`] when the file cannot be read or written or is damaged.
    pub fn open(data: &Path, hub_key: PublicKey) -> Result<Self, RegistryError> {
        let path = data.join(FILE);
        let io = |source| RegistryError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(io)?;
        File::open(data).and_then(|dir| dir.sync_all()).map_err(io)?;
        let mut registry = Self { path, file, hub_key, devices: Vec::new(), end: 0, stamp: (0, 0, 0), broken: false };
        registry.under(FlockOperation::LockExclusive, |registry| {
            registry.read()?;
            registry.cut_torn()
        })?;
        Ok(registry)
    }

    /// Every device that was ever registered, in the order of their numbers.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device with this key, revoked or not.
    pub fn by_key(&self, key: &PublicKey) -> Option<&Device> {
        self.devices.iter().find(|device| device.key == *key)
    }

    /// The device that may connect with this key.
    pub fn active(&self, key: &PublicKey) -> Option<&Device> {
        self.by_key(key).filter(|device| device.is_active())
    }

    /// The device with this number, revoked or not.
    pub fn by_number(&self, number: DeviceNo) -> Option<&Device> {
        self.devices.iter().find(|device| device.number == number)
    }

    /// The active device with this name.
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.is_active() && device.name == name)
    }

    /// Reads the file again if another process has changed it; whether it had.
    ///
    /// # Errors
    /// [`RegistryError`] as at opening; what was known before stays known.
    pub fn refresh(&mut self) -> Result<bool, RegistryError> {
        self.usable()?;
        if self.file.metadata().map(|stat| stamp(&stat)).map_err(|source| self.io(source))? == self.stamp {
            return Ok(false);
        }
        self.under(FlockOperation::LockShared, Self::read)?;
        Ok(true)
    }

    /// Registers a device durably and gives it the next number.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing is registered then.
    pub fn register(&mut self, key: PublicKey, name: &str, read_only: bool, at: SystemTime) -> Result<Device, RegisterError> {
        self.under(FlockOperation::LockExclusive, |registry| {
            registry.read()?;
            registry.cut_torn()?;
            if key == registry.hub_key {
                return Err(RegisterError::HubKey);
            }
            if let Some(known) = registry.by_key(&key) {
                let name = known.name.clone();
                return Err(if known.is_active() {
                    RegisterError::KeyKnown { name }
                } else {
                    RegisterError::KeyRevoked { name }
                });
            }
            if !good_name(name) {
                return Err(RegisterError::BadName { name: name.into() });
            }
            if registry.by_name(name).is_some() {
                return Err(RegisterError::NameTaken { name: name.into() });
            }
            let number = registry.devices.last().map_or(1, |device| device.number + 1);
            let entry = Entry::Register { number, key: *key.as_bytes(), name: name.into(), read_only, at: millis(at) };
            registry.append(&entry)?;
            registry.devices.last().cloned().ok_or_else(|| registry.damaged(0, "the new record was not taken up").into())
        })
    }

    /// Revokes the active device with this name durably; its key never comes back, its number is never given again.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing is revoked then.
    pub fn revoke(&mut self, name: &str, at: SystemTime) -> Result<Device, RevokeError> {
        self.under(FlockOperation::LockExclusive, |registry| {
            registry.read()?;
            registry.cut_torn()?;
            let Some(number) = registry.by_name(name).map(|device| device.number) else {
                let gone = registry.devices.iter().any(|device| device.name == name);
                return Err(if gone {
                    RevokeError::Already { name: name.into() }
                } else {
                    RevokeError::Unknown { name: name.into() }
                });
            };
            registry.append(&Entry::Revoke { number, at: millis(at) })?;
            registry.by_number(number).cloned().ok_or_else(|| registry.damaged(0, "the device vanished").into())
        })
    }

    fn io(&self, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, at: usize, why: impl Into<String>) -> RegistryError {
        RegistryError::Damaged { path: self.path.clone(), at, why: why.into() }
    }

    fn usable(&self) -> Result<(), RegistryError> {
        if self.broken {
            return Err(RegistryError::Broken { path: self.path.clone() });
        }
        let ours = self.file.metadata().map_err(|source| self.io(source))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io(source)),
            _ => Err(RegistryError::Replaced { path: self.path.clone() }),
        }
    }

    fn under<T, E: From<RegistryError>>(
        &mut self,
        operation: FlockOperation,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.usable()?;
        rustix::fs::flock(&self.file, operation).map_err(|errno| self.io(errno.into()))?;
        let done = work(self);
        rustix::fs::flock(&self.file, FlockOperation::Unlock).map_err(|errno| self.io(errno.into()))?;
        done
    }

    /// Takes up the whole file. The caller is under the file's lock.
    fn read(&mut self) -> Result<(), RegistryError> {
        let seen = stamp(&self.file.metadata().map_err(|source| self.io(source))?);
        if seen == self.stamp {
            return Ok(());
        }
        let mut bytes = Vec::new();
        (&self.file).rewind().and_then(|()| (&self.file).read_to_end(&mut bytes)).map_err(|source| self.io(source))?;
        let parsed = registry_file::parse(&bytes);
        if parsed.damaged {
            return Err(self.damaged(parsed.whole, "whole records follow one that is not"));
        }
        let mut devices = Vec::new();
        for body in parsed.bodies {
            let entry = decode_stored(body).map_err(|error| self.damaged(parsed.whole, error.to_string()))?;
            apply(&mut devices, entry).map_err(|why| self.damaged(parsed.whole, why))?;
        }
        self.devices = devices;
        self.end = parsed.whole as u64;
        self.stamp = seen;
        Ok(())
    }

    /// Removes an unfinished record at the end. The caller is under the file's exclusive lock and has read the file.
    fn cut_torn(&mut self) -> Result<(), RegistryError> {
        if self.stamp.0 > self.end {
            tracing::warn!(path = %self.path.display(), bytes = self.stamp.0 - self.end, "cut off an unfinished record");
            self.file.set_len(self.end).and_then(|()| self.file.sync_all()).map_err(|source| self.io(source))?;
            self.restamp()?;
        }
        Ok(())
    }

    fn restamp(&mut self) -> Result<(), RegistryError> {
        self.stamp = stamp(&self.file.metadata().map_err(|source| self.io(source))?);
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), RegistryError> {
        match registry_file::append(&self.file, self.end, &encode_stored(entry)) {
            Ok(end) => self.end = end,
            Err(source) => {
                // What the disk holds is unknown after a failed write.
                self.broken = true;
                return Err(self.io(source));
            }
        }
        apply(&mut self.devices, entry.clone()).map_err(|why| self.damaged(0, why))?;
        self.restamp()
    }
}

fn apply(devices: &mut Vec<Device>, entry: Entry) -> Result<(), &'static str> {
    match entry {
        Entry::Register { number, key, name, read_only, at } => {
            if devices.last().map_or(number != 1, |last| number != last.number + 1) {
                return Err("a device number is out of order");
            }
            let key = PublicKey::new(key).map_err(|_| "a device has a weak key")?;
            devices.push(Device { number, name, key, read_only, state: State::Active, registered_at: time(at) });
        }
        Entry::Revoke { number, at } => {
            let device = devices.iter_mut().find(|device| device.number == number);
            device.ok_or("a device is revoked that was never registered")?.state = State::Revoked { at: time(at) };
        }
    }
    Ok(())
}

fn stamp(stat: &Metadata) -> Stamp {
    (stat.len(), stat.mtime(), stat.mtime_nsec())
}

/// Names are shown on terminals and become part of file names: no character that moves the cursor or turns the writing direction.
fn good_name(name: &str) -> bool {
    let invisible =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let bad = |c: char| c == '/' || c.is_control() || invisible(c);
    (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(bad) && name.trim() == name
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
