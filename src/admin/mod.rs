//! Floor 3: keys and the registry.

mod key;
mod registry;
mod registry_file;

pub use crate::model::PublicKey;
pub use key::KeyError;
pub use key::KeyPair;
pub use registry::Device;
pub use registry::RegisterError;
pub use registry::Registry;
pub use registry::RegistryError;
pub use registry::RevokeError;
pub use registry::State;
