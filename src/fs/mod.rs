//! Floor 3: the directory, the mount over it.

pub mod gate;
pub mod mount;
