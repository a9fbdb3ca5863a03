//! Floor 3: the directory, the mount over it.

pub mod gate;
pub mod ignore;
pub mod mount;
pub mod observe;
pub mod path;
pub mod place;
pub mod root;
pub mod stage;
pub mod watch;
