//! The merge as its users see it.

mod properties;
mod render;
mod table;

use super::Conflict;
use super::Merge;
use super::NotText;
use super::merge;

/// The merged text, or `None` for a conflict.
fn clean(base: &str, ours: &str, theirs: &str) -> Option<String> {
    match merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()) {
        Merge::Clean(text) => Some(String::from_utf8(text).expect("merged text is UTF-8")),
        Merge::Conflict(_) => None,
        Merge::NotText(why) => panic!("text taken for no text: {why}"),
    }
}

fn conflict(base: &str, ours: &str, theirs: &str) -> Conflict {
    match merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()) {
        Merge::Conflict(conflict) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

#[test]
/// The founding example: a word in front, words in the middle, both are there.
fn founding_example() {
    assert_eq!(clean("hello world", "hello to the world", "say hello world").as_deref(), Some("say hello to the world"));
}

#[test]
/// Bytes that are no UTF-8, or hold a NUL, are left to a person.
fn binary_is_not_merged() {
    assert_eq!(merge(b"a", b"b\xff", b"c"), Merge::NotText(NotText::Binary));
    assert_eq!(merge(b"a\0", b"b", b"c"), Merge::NotText(NotText::Binary));
}

#[test]
/// A text above the limit is left to a person.
fn too_large_is_not_merged() {
    let large = vec![b'a'; super::MERGE_LIMIT + 1];
    assert_eq!(merge(b"a", b"b", &large), Merge::NotText(NotText::TooLarge));
}

#[test]
/// Where there is nothing to merge, kind and size do not matter.
fn binary_with_one_side_unchanged_is_taken() {
    assert_eq!(merge(b"a\0", b"a\0", b"\xff"), Merge::Clean(b"\xff".to_vec()));
}
