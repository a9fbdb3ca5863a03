//! Floor 4: the client process.

pub mod status;
