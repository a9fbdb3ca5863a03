//! Floor 2: a client's decisions.

mod state;

pub use state::Base;
pub use state::ClientState;
pub use state::ClientWrite;
pub use state::Conflict;
pub use state::Intent;
pub use state::MAX_NOTICES;
pub use state::Notice;
pub use state::Position;
pub use state::Proposed;
