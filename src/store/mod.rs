//! Floor 3: redb and contents.
