//! syncfs: a FUSE-mounted synchronized filesystem. ARCHITECTURE.md is the map; floors depend downwards only.

pub mod admin;
pub mod cli;
pub mod client;
pub mod fs;
pub mod hub;
pub mod merge;
pub mod model;
pub mod net;
pub mod store;
pub mod wire;
