//! `syncfs hub`: a hub of its own.

use super::args;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::places;
use super::signals::Signals;
use crate::hub;
use crate::hub::Hub;
use crate::hub::HubError;
use crate::hub::HubSettings;
use std::net::SocketAddr;
use std::path::Path;

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let code = match &error {
            HubError::Refused(_) | HubError::Exists(_) => Code::Refused,
            HubError::Control { .. } => Code::Unreachable,
            _ => Code::Failed,
        };
        Self::new(code, error.to_string(), error.hint())
    }
}

/// Runs a `hub` command.
pub fn run(command: &args::Hub, verbose: u8) -> Result<Code, Failure> {
    match command {
        args::Hub::Init(data) => init(&data.dir),
        args::Hub::Key(data) => output::answer(&hub::key(&data.dir)?.to_string()),
        args::Hub::Serve { data, listen } => serve(&data.dir, *listen, verbose),
    }
    .map(|()| Code::Done)
}

fn init(data: &Path) -> Result<(), Failure> {
    let key = hub::init(data)?;
    output::answer(&key.to_string())?;
    output::tell(&format!("Start it with: syncfs hub serve --data {} --listen :4747", places::shell_word(data)));
    Ok(())
}

fn serve(data: &Path, listen: SocketAddr, verbose: u8) -> Result<(), Failure> {
    output::start_log("warn", verbose);
    // Before the hub makes threads, so that no signal finds the old way to end.
    let mut signals = Signals::catch()?;
    let hub = Hub::start(data, listen, HubSettings::default())?;
    output::answer(&format!("listening on {}", hub.addr()))?;
    let told = signals.wait_or(hub.ended());
    hub.shutdown();
    if told {
        return Ok(());
    }
    Err(Failure::new(
        Code::Failed,
        format!("the hub in {} ended by itself", data.display()),
        "Its log above says why; check the disk and start it again.",
    ))
}
