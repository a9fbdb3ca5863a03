//! What the tests of the house need to look at it.

pub mod source;
