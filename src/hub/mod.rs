//! Floor 4: the hub process. One thread owns the sequencer and the store's commits; connections, contents and the control socket are
//! tasks around it that talk to it through one queue.

mod contents;
mod control;
mod data;
mod gate;
mod operation;
mod running;
mod session;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod writer;

pub use control::CONTROL_SOCKET;
pub use data::HubError;
pub use data::exists;
pub use data::init;
pub use data::key;
pub use operation::Reply;
pub use operation::Request;
pub use operation::operate;
pub use running::Hub;
pub use running::HubSettings;
pub use status::ClientState;
pub use status::DeviceInfo;
pub use status::HubStatus;
pub use status::RegisteredClient;
