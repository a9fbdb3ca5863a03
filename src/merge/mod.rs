//! Floors 1 and 2: the decisions. No file, socket, clock, randomness or hash-map order in here.

pub mod delta;
pub mod order;
pub mod replica;
pub mod sequencer;
pub mod text;
