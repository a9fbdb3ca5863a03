//! `syncfs key`, and where a device's key lies.

use super::args;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::places;
use crate::admin::KeyError;
use crate::admin::KeyPair;
use std::path::Path;

const KEY_FILE: &str = "device.key";

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let hint = match &error {
            KeyError::Readable { .. } | KeyError::Directory { .. } | KeyError::Owner { .. } => {
                "Run the command named, or keep the state somewhere else with --state."
            }
            KeyError::Format { .. } => {
                "Restore the file from a backup, or move it away: a new key is made and has to be registered."
            }
            _ => "See who may read and write there, and how much space is left; --state keeps the key somewhere else.",
        };
        Self::new(Code::Failed, error.to_string(), hint)
    }
}

/// Runs a `key` command.
pub fn run(command: &args::Key) -> Result<Code, Failure> {
    let args::Key::Show { state } = command;
    output::answer(&device_key(state.as_deref())?.public().to_string())?;
    Ok(Code::Done)
}

/// This device's key, made where there is none: in `state` if that is given, else in the user's state directory.
///
/// # Errors
/// When it cannot be read, made or kept to its owner.
pub fn device_key(state: Option<&Path>) -> Result<KeyPair, Failure> {
    let dir = match state {
        Some(state) => state.to_owned(),
        None => places::user_state()?,
    };
    Ok(KeyPair::load_or_create(&dir.join(KEY_FILE))?)
}
