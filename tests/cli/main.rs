//! The command line as scripts and people use it: real processes, their exit codes and what they say where.

mod first_start;
mod hub;
mod joining;
mod mounts;
mod world;
