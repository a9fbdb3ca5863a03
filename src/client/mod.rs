//! Floor 4: the client process.
