//! Conflicts on real mounts, between real processes: what others see, what can be read, what is refused, and every way to decide.

mod editors;
mod offline;
mod policy;
mod resolving;
mod site;
mod terminal;
#[allow(dead_code, reason = "not every set of tests needs all of it")]
#[path = "../cli/world.rs"]
mod world;
