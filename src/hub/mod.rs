//! Floor 4: the hub process.

pub mod status;
