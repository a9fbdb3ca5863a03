//! The mount as programs see it: real mounts over temporary directories.

mod blocked;
mod lives;
mod notes;
mod operations;
mod shared;
mod world;
