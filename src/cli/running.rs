//! A running client with its embedded hub, if it has one: started together, stopped in turn.

use super::config::Config;
use super::embedded;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::places::StateDir;
use super::setup::Setup;
use crate::client::Client;
use crate::client::ClientError;
use crate::client::ClientSettings;
use crate::client::Kind;
use crate::client::status::ClientStatus;
use crate::fs::mount::MountOptions;
use crate::hub::Hub;
use std::path::PathBuf;

/// A client, and the hub in the same process.
pub struct Running {
    pub dir: PathBuf,
    state: StateDir,
    config: Config,
    /// Not remembered yet.
    unproven: bool,
    client: Client,
    hub: Option<Hub>,
    /// The hub was made just now.
    first: bool,
    /// The refusal that was told last.
    told: Option<String>,
}

/// Why the hub does not let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub failure: Failure,
    /// Trying again can help without anybody doing something.
    pub is_temporary: bool,
}

impl Running {
    /// Starts the hub, if there is one, and the client; mounts if `mount` says how.
    ///
    /// # Errors
    /// What either says; nothing runs then.
    pub fn start(setup: Setup, mount: Option<MountOptions>, accept_empty: bool) -> Result<Self, Failure> {
        let Setup { dir, state, key, mut config, unproven } = setup;
        state.claim()?;
        let embedded = config.embedded.clone();
        let first = embedded.is_some() && config.hub_keys.is_empty();
        let remembered = config.clone();
        let hub = embedded.map(|embedded| embedded::start(&mut config, &embedded, key.public())).transpose()?;
        let end = |hub: Option<Hub>| {
            if let Some(hub) = hub {
                hub.shutdown();
            }
        };
        let started = config.pins().and_then(|pins| {
            let (dir, state, hub) = (dir.clone(), state.path.clone(), config.hub.clone());
            let settings = ClientSettings { dir, state, identity: key, hub, pins, mount, accept_empty };
            Ok(Client::start(settings)?)
        });
        // Only now: a first start that failed is a first start again.
        let started =
            started.and_then(|client| if config == remembered { Ok(client) } else { config.save(&state).map(|()| client) });
        match started {
            Ok(client) => Ok(Self { dir, state, config, unproven, client, hub, first, told: None }),
            Err(failure) => {
                end(hub);
                Err(failure)
            }
        }
    }

    /// What a person has to run for the next machine, where the hub was made just now.
    pub fn invitation(&self) -> Option<String> {
        let hub = self.hub.as_ref().filter(|_| self.first)?;
        Some(embedded::invitation(&self.dir, hub.data(), hub))
    }

    pub fn status(&self) -> ClientStatus {
        self.client.status()
    }

    /// Why the hub does not let us in, if it does not.
    pub fn refusal(&self) -> Option<Refusal> {
        let crate::client::Refusal { sentence, hint, is_temporary, is_refusal } = self.client.last_refusal()?;
        let code = if is_refusal { Code::Refused } else { Code::Unreachable };
        Some(Refusal { failure: Failure::new(code, sentence, hint), is_temporary })
    }

    /// Remembers a configuration that has proved good.
    pub fn remember(&mut self) {
        if self.unproven && self.status().connected {
            match self.config.save(&self.state) {
                Ok(()) => self.unproven = false,
                Err(failure) => tracing::warn!(%failure, "the new hub is not remembered yet"),
            }
        }
    }

    /// What is to be done from time to time: a configuration that proved good is remembered, a refusal is told once.
    pub fn look_after(&mut self) {
        self.remember();
        let refusal = self.refusal().filter(|refusal| !refusal.is_temporary).map(|refusal| refusal.failure.to_string());
        if refusal != self.told {
            if let Some(refusal) = &refusal {
                output::tell(refusal);
            }
            self.told = refusal;
        }
    }

    /// Whether it ended by itself: the mount was taken away, or something failed.
    pub fn ended(&self) -> bool {
        self.client.ended()
    }

    /// Stops the client, which unmounts, then the hub.
    ///
    /// # Errors
    /// What the client says; the hub is stopped all the same.
    pub fn stop(self) -> Result<(), Failure> {
        let stopped = self.client.stop();
        if let Some(hub) = self.hub {
            hub.shutdown();
        }
        Ok(stopped?)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error.kind() {
            Kind::Usage => Code::Usage,
            Kind::Refused => Code::Refused,
            Kind::Unreachable => Code::Unreachable,
            Kind::Failed => Code::Failed,
        };
        Self::new(code, error.sentence(), error.hint())
    }
}
