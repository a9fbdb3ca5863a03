//! What an admin asks of a hub: through its control socket while it runs, else of its data directory.

use super::control;
use super::data;
use super::data::HubError;
use super::gate::Gate;
use super::shared::Shared;
use super::status;
use super::status::DeviceInfo;
use super::status::HubStatus;
use super::writer::Input;
use crate::admin::PublicKey;
use crate::admin::RegisterError;
use crate::admin::RevokeError;
use crate::merge::sequencer::Sequencer;
use crate::store::StoreError;
use serde::Deserialize;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often, and how many times, a hub that is just starting is asked again.
const AGAIN: Duration = Duration::from_millis(100);
const TIMES: usize = 50;

/// A question or an order to a hub; one line of JSON on its control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// `key` in any form that [`PublicKey`] reads.
    Register {
        key: String,
        name: String,
        #[serde(default)]
        read_only: bool,
    },
    Revoke {
        name: String,
    },
    List,
    Status,
}

/// A hub's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The device that was registered or revoked.
    Device(DeviceInfo),
    /// Every device that was ever registered.
    Devices(Vec<DeviceInfo>),
    Status(HubStatus),
    /// Understood and not possible; nothing was changed.
    Refused(String),
    /// Something is wrong with the hub.
    Failed(String),
}

/// Carries out `request` at the hub in the directory `data`, whether it runs or not. Blocks; not for async tasks.
///
/// # Errors
/// [`HubError`]; a [`Reply::Refused`] becomes [`HubError::Refused`], a [`Reply::Failed`] becomes [`HubError::Control`].
pub fn operate(data: &Path, request: &Request) -> Result<Reply, HubError> {
    let mut times = TIMES;
    loop {
        if let Some(reply) = control::ask(data, request)? {
            return match reply {
                Reply::Refused(why) => Err(HubError::Refused(why)),
                Reply::Failed(why) => Err(HubError::Control { data: data.into(), why }),
                reply => Ok(reply),
            };
        }
        match directly(data, request) {
            // Whoever has the store open is a hub on its way up or down, or another command like this one.
            Err(HubError::Store(StoreError::Busy(_))) if times > 0 => times -= 1,
            done => return done,
        }
        std::thread::sleep(AGAIN);
    }
}

fn directly(data: &Path, request: &Request) -> Result<Reply, HubError> {
    let registry = data::registry(data)?;
    if *request == Request::Status {
        let sequencer = Sequencer::new(data::store(data)?.load()?, u64::MAX);
        return Ok(Reply::Status(status::status(&sequencer, sequencer.root_hash(), registry.devices())));
    }
    match of_registry(&Gate::new(registry, || {}), request) {
        Reply::Refused(why) => Err(HubError::Refused(why)),
        Reply::Failed(why) => Err(HubError::Control { data: data.into(), why }),
        reply => Ok(reply),
    }
}

/// Carries out a request that concerns the registry only.
fn of_registry(gate: &Gate, request: &Request) -> Reply {
    match request {
        Request::Register { key, name, read_only } => match key.parse::<PublicKey>() {
            Err(error) => Reply::Refused(error.to_string()),
            Ok(key) => match gate.register(key, name, *read_only) {
                Ok(device) => Reply::Device((&device).into()),
                Err(RegisterError::Registry(error)) => Reply::Failed(error.to_string()),
                Err(error) => Reply::Refused(error.to_string()),
            },
        },
        Request::Revoke { name } => match gate.revoke(name) {
            Ok(device) => Reply::Device((&device).into()),
            Err(RevokeError::Registry(error)) => Reply::Failed(error.to_string()),
            Err(error) => Reply::Refused(error.to_string()),
        },
        Request::List | Request::Status => Reply::Devices(gate.devices().iter().map(DeviceInfo::from).collect()),
    }
}

/// The running hub's answer.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request) -> Reply {
    if request == Request::Status {
        let (reply, status) = oneshot::channel();
        if shared.inputs.send(Input::Status(reply)).await.is_ok()
            && let Ok(status) = status.await
        {
            return Reply::Status(status);
        }
        return Reply::Failed("it is ending or its store failed".into());
    }
    let shared = shared.clone();
    let done = tokio::task::spawn_blocking(move || of_registry(&shared.gate, &request)).await;
    done.unwrap_or_else(|error| Reply::Failed(error.to_string()))
}
