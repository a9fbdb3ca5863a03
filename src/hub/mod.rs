//! Floor 4: the hub process.
