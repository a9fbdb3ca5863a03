//! Floor 3: keys and the registry.
