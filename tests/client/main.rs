//! Clients and a hub in one process, on real directories.

mod mounted;
mod plain;
mod power;
mod site;
