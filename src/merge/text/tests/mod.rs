//! The merge as its users see it.

use super::Merge;
use super::merge;

#[test]
/// The founding example: a word in front, words in the middle, both are there.
fn founding_example() {
    let merged = merge(b"hello world", b"hello to the world", b"say hello world");
    assert_eq!(merged, Merge::Clean(b"say hello to the world".to_vec()));
}
