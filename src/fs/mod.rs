//! Floor 3: the directory, the mount over it.
