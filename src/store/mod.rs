//! Floor 3: what is kept on disk. redb for records and state, pack files for a hub's contents.

mod chunker;
mod client;
mod contents;
mod db;
mod hub;

pub use chunker::CHUNK_LEAST;
pub use chunker::CHUNK_USUAL;
pub use chunker::Chunked;
pub use chunker::Located;
pub use chunker::chunk;
pub use chunker::chunk_with;
pub use client::BASE_MAX;
pub use client::ClientStore;
pub use contents::Contents;
pub use contents::LIST_MAX;
pub use db::StoreError;
pub use hub::HubStore;
