//! The hub in the same process as its first client: made, introduced to that client, and started.

use super::config::Config;
use super::config::Embedded;
use super::config::StoredPath;
use super::failure::Code;
use super::failure::Failure;
use super::places;
use crate::hub;
use crate::hub::Hub;
use crate::hub::HubError;
use crate::hub::HubSettings;
use crate::hub::Reply;
use crate::hub::Request;
use crate::hub::operate;
use crate::model::PublicKey;
use crate::net::NetError;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::path::PathBuf;

/// Where an embedded hub listens if nothing else was said.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4747);
/// How many names for this device are tried.
const NAMES: u32 = 1000;

/// The data directory for the embedded hub of the directory `dir`. Beside the client's state where that was given; else in the user's
/// state directory, for nothing that is under the mount could be reached by `syncfs admin`.
///
/// # Errors
/// When the user has no state directory.
pub fn data_for(dir: &Path, state: &Path) -> Result<PathBuf, Failure> {
    if !state.starts_with(dir) {
        return Ok(state.join("hub"));
    }
    let hubs = places::user_state()?.join("hubs");
    let name = dir.file_name().unwrap_or_else(|| "root".as_ref());
    let mut data = hubs.join(name);
    let mut number = 2;
    while std::fs::symlink_metadata(&data).is_ok() {
        let mut next = name.to_owned();
        next.push(format!("-{number}"));
        data = hubs.join(next);
        number += 1;
    }
    Ok(data)
}

/// Starts the embedded hub of `config` and lets the device with the key `own` in. The first time the hub is made, and `config` gets its
/// key and address.
///
/// # Errors
/// What making and starting a hub says; that its directory is gone.
pub fn start(config: &mut Config, embedded: &Embedded, own: PublicKey) -> Result<Hub, Failure> {
    let data = &embedded.data.0;
    let first = config.hub_keys.is_empty();
    if !hub::exists(data) {
        if !first {
            return Err(Failure::new(
                Code::Failed,
                format!("the hub of this directory is gone: there is none in {}", data.display()),
                "Restore that directory from a backup, or join another hub with --hub.",
            ));
        }
        hub::init(data)?;
    }
    introduce(data, own)?;
    let hub = match Hub::start(data, embedded.listen, HubSettings::default()) {
        Err(HubError::Net(NetError::Bind { source, .. }))
            if first && embedded.listen == LISTEN && source.kind() == io::ErrorKind::AddrInUse =>
        {
            Hub::start(data, SocketAddr::new(LISTEN.ip(), 0), HubSettings::default())
        }
        started => started,
    }?;
    if first {
        config.hub_keys = vec![hub.key().to_string()];
    }
    config.hub = from_here(hub.addr()).to_string();
    config.embedded = Some(Embedded { data: StoredPath(data.clone()), listen: hub.addr() });
    Ok(hub)
}

/// Where the hub that listens on `addr` is for this machine.
fn from_here(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Registers the key unless it ever was: one that was revoked stays so.
fn introduce(data: &Path, own: PublicKey) -> Result<(), Failure> {
    let Reply::Devices(devices) = operate(data, &Request::List)? else {
        return Err(Failure::new(Code::Failed, "the hub answered another question", "Please report this."));
    };
    let key = own.to_string();
    if devices.iter().any(|device| device.key == key) {
        return Ok(());
    }
    let host = host_name().unwrap_or_else(|| "this-device".into());
    let numbered = (2..NAMES).map(|number| format!("{host}-{number}"));
    let free = |name: &String| devices.iter().all(|device| device.name != *name);
    let name = std::iter::once(host.clone()).chain(numbered).find(free).unwrap_or(host);
    operate(data, &Request::Register { key, name, read_only: false })?;
    Ok(())
}

/// This machine's name where it can stand in a command.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let plain: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(60).collect();
    (!plain.is_empty() && !plain.starts_with(['-', '.'])).then_some(plain)
}

/// Where other machines find the hub that listens on `addr`, as well as this machine can know.
pub fn from_elsewhere(addr: SocketAddr) -> String {
    if !addr.ip().is_unspecified() {
        return addr.to_string();
    }
    // Nothing is sent: the kernel only chooses the address it would send from.
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr()));
    match own {
        Ok(own) if !own.ip().is_loopback() && !own.ip().is_unspecified() => SocketAddr::new(own.ip(), addr.port()).to_string(),
        _ => format!("{}:{}", host_name().unwrap_or_else(|| "THIS-MACHINE".into()), addr.port()),
    }
}

/// What to run so that a second machine joins the hub.
pub fn invitation(dir: &Path, data: &Path, hub: &Hub) -> String {
    let (dir, data) = (places::shell_word(dir), places::shell_word(data));
    format!(
        "To have the directory on another machine:\n  \
         there:  syncfs key show\n  \
         here:   syncfs admin register KEY --name NAME --data {data}\n  \
         there:  syncfs mount {dir} --hub {} --hub-key {}",
        from_elsewhere(hub.addr()),
        hub.key()
    )
}
