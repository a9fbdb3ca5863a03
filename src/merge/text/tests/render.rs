//! Conflicts as values and with markers.

use super::super::Labels;
use super::super::Position;
use super::super::Texts;
use super::conflict;
use crate::model::codec;

const LABELS: Labels<'_> = Labels { ours: "ours", base: "base", theirs: "theirs" };

fn texts<'a>(base: &'a str, ours: &'a str, theirs: &'a str) -> Texts<'a> {
    Texts { base: base.as_bytes(), ours: ours.as_bytes(), theirs: theirs.as_bytes() }
}

fn marked(base: &str, ours: &str, theirs: &str) -> String {
    let marked = conflict(base, ours, theirs).with_markers(texts(base, ours, theirs), LABELS);
    String::from_utf8(marked).expect("markers keep UTF-8")
}

#[test]
/// A conflict in one word names its place in all three texts.
fn places_of_a_hunk() {
    let (base, ours, theirs) = ("zero\nthe ol\u{301}d house\n", "zero\nthe new house\n", "nil\n\nthe big house\n");
    let hunks = conflict(base, ours, theirs).hunks;
    let old = hunks.last().expect("a conflict has a hunk");
    assert_eq!(old.base.of(base.as_bytes()), "ol\u{301}d".as_bytes());
    assert_eq!(old.ours.of(ours.as_bytes()), b"new");
    assert_eq!(old.theirs.of(theirs.as_bytes()), b"big");
    assert_eq!(old.base.start, Position { byte: 9, line: 2, column: 5 });
    assert_eq!(old.base.end, Position { byte: 14, line: 2, column: 9 });
    assert_eq!(old.theirs.start, Position { byte: 9, line: 3, column: 5 });
}

#[test]
/// What does not conflict is merged in the same text.
fn the_rest_is_merged() {
    let (base, ours, theirs) = ("a big cat\n\nx y z\n", "a red cat\n\nX y z\n", "a wet cat\n\nx y Z\n");
    let got = conflict(base, ours, theirs);
    let ours_chosen = got.resolve(|_, hunk| hunk.ours.of(ours.as_bytes()));
    let theirs_chosen = got.resolve(|_, hunk| hunk.theirs.of(theirs.as_bytes()));
    assert_eq!(String::from_utf8_lossy(&ours_chosen), "a red cat\n\nX y Z\n");
    assert_eq!(String::from_utf8_lossy(&theirs_chosen), "a wet cat\n\nX y Z\n");
}

#[test]
/// Markers hold whole lines in zdiff3 style.
fn markers() {
    assert_eq!(
        marked("one\nthe big cat\ntwo\n", "one\nthe red cat\ntwo\n", "one\nthe wet cat\ntwo\n"),
        "one\n<<<<<<< ours\nthe red cat\n||||||| base\nthe big cat\n=======\nthe wet cat\n>>>>>>> theirs\ntwo\n"
    );
}

#[test]
/// Markers stand on lines of their own where the last line has no end, and follow CRLF.
fn markers_at_odd_ends() {
    assert_eq!(
        marked("big cat", "red cat", "wet cat"),
        "<<<<<<< ours\nred cat\n||||||| base\nbig cat\n=======\nwet cat\n>>>>>>> theirs\n"
    );
    assert_eq!(
        marked("a\r\nbig cat\r\n", "a\r\nred cat\r\n", "a\r\nwet cat\r\n"),
        "a\r\n<<<<<<< ours\r\nred cat\r\n||||||| base\r\nbig cat\r\n=======\r\nwet cat\r\n>>>>>>> theirs\r\n"
    );
}

#[test]
/// A byte order mark and a missing last line end survive a conflict.
fn frames_survive() {
    let (base, ours, theirs) = ("\u{feff}big cat\nx", "\u{feff}red cat\nx", "\u{feff}wet cat\nx");
    let got = conflict(base, ours, theirs);
    assert_eq!(got.resolve(|_, hunk| hunk.ours.of(ours.as_bytes())), ours.as_bytes());
    assert_eq!(got.resolve(|_, hunk| hunk.theirs.of(theirs.as_bytes())), theirs.as_bytes());
}

#[test]
/// A stored conflict is read back as it was.
fn stored() {
    let got = conflict("a b c", "a x c", "a y c");
    let bytes = codec::encode_stored(&got);
    assert_eq!(codec::decode_stored::<super::Conflict>(&bytes), Ok(got));
}
