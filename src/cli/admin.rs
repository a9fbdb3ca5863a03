//! `syncfs admin`, and the hub's own view: on the hub's machine, whether the hub runs or not.

use super::args;
use super::failure::Code;
use super::failure::Failure;
use super::failure::one_line;
use super::output;
use super::render;
use crate::hub::ClientState;
use crate::hub::DeviceInfo;
use crate::hub::HubStatus;
use crate::hub::Reply;
use crate::hub::Request;
use crate::hub::operate;
use crate::model::BadKey;
use crate::model::PublicKey;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

/// How often `--watch` looks.
const LOOK: Duration = Duration::from_millis(500);

/// Runs an `admin` command.
pub fn run(command: &args::Admin) -> Result<Code, Failure> {
    match command {
        args::Admin::Register { key, name, read_only, target } => {
            // A typo is told before a hub is asked.
            let key: PublicKey = key.parse().map_err(|error: BadKey| {
                Failure::new(Code::Usage, error.to_string(), "Paste what `syncfs key show` prints on the device.")
            })?;
            let request = Request::Register { key: key.to_string(), name: name.clone(), read_only: *read_only };
            let device = device(operate(&target.dir, &request)?)?;
            let rights = if device.read_only { ", read-only" } else { "" };
            output::answer(&format!(
                "{} is device {}{rights}, key {}",
                one_line(&device.name),
                device.number,
                device.fingerprint
            ))?;
        }
        args::Admin::Revoke { name, target } => {
            let device = device(operate(&target.dir, &Request::Revoke { name: name.clone() })?)?;
            output::answer(&format!("{} is revoked, its key never gets in again", one_line(&device.name)))?;
        }
        args::Admin::List(view) => {
            let Reply::Devices(devices) = operate(&view.target.dir, &Request::List)? else { return Err(strange()) };
            if view.json {
                output::answer_json(&devices)?;
            } else if devices.is_empty() {
                output::tell("no device is registered");
            } else {
                output::answer(&table(&devices))?;
            }
        }
        args::Admin::Status(view) => show(&status(&view.target.dir)?, view.json)?,
    }
    Ok(Code::Done)
}

/// Runs `status --hub`.
pub fn hub_status(asked: &args::Status) -> Result<Code, Failure> {
    let Some(data) = &asked.data else {
        return Err(Failure::new(Code::Usage, "the hub's directory is missing", "Give it with --data DIR."));
    };
    let mut shown = status(data)?;
    show(&shown, asked.json)?;
    if !asked.watch {
        return Ok(Code::Done);
    }
    loop {
        std::thread::sleep(LOOK);
        let now = status(data)?;
        if now != shown {
            show(&now, asked.json)?;
            shown = now;
        }
    }
}

fn status(data: &Path) -> Result<HubStatus, Failure> {
    match operate(data, &Request::Status)? {
        Reply::Status(status) => Ok(status),
        _ => Err(strange()),
    }
}

fn show(status: &HubStatus, json: bool) -> Result<(), Failure> {
    if json { output::answer_json(status) } else { output::answer(&render::hub_status(status, SystemTime::now())) }
}

fn device(reply: Reply) -> Result<DeviceInfo, Failure> {
    match reply {
        Reply::Device(device) => Ok(device),
        _ => Err(strange()),
    }
}

fn strange() -> Failure {
    Failure::new(Code::Unreachable, "the hub answered another question", "Run the same version of syncfs as the hub does.")
}

fn table(devices: &[DeviceInfo]) -> String {
    let width = devices.iter().map(|device| device.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for device in devices {
        let state = match device.state {
            ClientState::Active if device.read_only => "read-only",
            ClientState::Active => "active",
            ClientState::Lapsed => "lapsed",
            ClientState::Revoked => "revoked",
        };
        let name = one_line(&device.name);
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{:>3}  {name:<width$}  {state:<9}  {}", device.number, device.fingerprint);
    }
    out
}
