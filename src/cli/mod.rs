//! Floor 5: the command line.

pub mod args;
pub mod failure;
pub mod parse;
pub mod render;
