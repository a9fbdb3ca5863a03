//! Mounted directories: every change shows on the other side.
