//! Floor 1: a content as the difference to another one, made and applied; pure.
//!
//! Two forms. *Text*: the middle that two UTF-8 texts do not share is compared line by line, and changed lines character by character
//! with diff-match-patch; what travels is its delta notation (`=n`, `-n`, `+text`, separated by tabs) with lengths in bytes, compressed.
//! *Dictionary*: a zstd frame with the old bytes as its dictionary. The work of both is bounded by sizes and never by a clock, so that
//! the same two contents give the same delta on every machine.

use crate::model::Hash;
use crate::wire::Delta;
use crate::wire::DeltaForm;
use diff_match_patch_rs::Compat;
use diff_match_patch_rs::DiffMatchPatch;
use diff_match_patch_rs::Ops;
use imara_diff::Algorithm;
use imara_diff::Diff;
use imara_diff::InternedInput;
use std::ops::Range;
use zstd::bulk::Compressor;
use zstd::bulk::Decompressor;

/// The largest content that a delta is made from or for, in bytes.
pub const DELTA_MAX: usize = 1 << 20;
/// The largest differing middle of a text, in bytes on either side, that the text form is tried for.
const TEXT_MIDDLE: usize = 32 << 10;
/// The largest product of the lengths of two changed runs of lines that are compared character by character.
const TEXT_WORK: usize = 4 << 20;
/// The longest delta notation, in bytes.
const NOTATION_MAX: usize = 256 << 10;
const LEVEL: i32 = 3;

/// Why a delta does not give the announced content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// The base or the announced length is above [`DELTA_MAX`].
    #[error("contents above {DELTA_MAX} bytes do not travel as deltas")]
    TooLarge,
    /// The bytes are no delta, or none to this base.
    #[error("malformed delta")]
    Malformed,
    /// The delta was applied and gives another content.
    #[error("the delta gives another content than announced")]
    WrongResult,
}

/// The smallest delta that turns `base` into `new`, or `None` where a delta saves less than a fifth of what `new` takes compressed,
/// where one of them is empty or above [`DELTA_MAX`].
pub fn make(base: &[u8], new: &[u8]) -> Option<Delta> {
    if base.is_empty() || new.is_empty() || base.len() > DELTA_MAX || new.len() > DELTA_MAX {
        return None;
    }
    let plain = zstd::bulk::compress(new, LEVEL).ok()?.len();
    let dictionary = Compressor::with_dictionary(LEVEL, base).and_then(|mut zstd| zstd.compress(new)).ok();
    // The diff comes from outside: what it does not lead to is not sent.
    let text = notation(base, new).filter(|text| follow(base, text.as_bytes(), new.len()).as_deref() == Some(new));
    let text = text.and_then(|text| zstd::bulk::compress(text.as_bytes(), LEVEL).ok());
    let (form, bytes) = match (text, dictionary) {
        (Some(text), Some(dictionary)) if dictionary.len() < text.len() => (DeltaForm::Dictionary, dictionary),
        (Some(text), _) => (DeltaForm::Text, text),
        (None, Some(dictionary)) => (DeltaForm::Dictionary, dictionary),
        (None, None) => return None,
    };
    (bytes.len() * 5 < plain * 4).then(|| Delta { base: Hash::of(base), form, bytes })
}

/// The content of `len` bytes and the hash `expected` that `delta` makes out of `base`. Takes any bytes; allocates at most a small
/// multiple of [`DELTA_MAX`].
///
/// # Errors
/// [`DeltaError`]; the result is never anything but the announced content.
pub fn apply(base: &[u8], delta: &Delta, len: u64, expected: &Hash) -> Result<Vec<u8>, DeltaError> {
    let len = usize::try_from(len).ok().filter(|&len| len <= DELTA_MAX).ok_or(DeltaError::TooLarge)?;
    if base.len() > DELTA_MAX {
        return Err(DeltaError::TooLarge);
    }
    let new = match delta.form {
        DeltaForm::Text => {
            let text = zstd::bulk::decompress(&delta.bytes, NOTATION_MAX).map_err(|_| DeltaError::Malformed)?;
            follow(base, &text, len).ok_or(DeltaError::Malformed)?
        }
        DeltaForm::Dictionary => Decompressor::with_dictionary(base)
            .and_then(|mut zstd| zstd.decompress(&delta.bytes, len))
            .map_err(|_| DeltaError::Malformed)?,
    };
    if new.len() != len || Hash::of(&new) != *expected {
        return Err(DeltaError::WrongResult);
    }
    Ok(new)
}

/// The delta notation from `base` to `new`, where both are texts that differ in a small middle.
fn notation(base: &[u8], new: &[u8]) -> Option<String> {
    let base = std::str::from_utf8(base).ok()?;
    let new = std::str::from_utf8(new).ok()?;
    let head = common_prefix(base, new);
    let tail = common_suffix(&base[head..], &new[head..]);
    let old_middle = &base[head..base.len() - tail];
    let new_middle = &new[head..new.len() - tail];
    if old_middle.len() > TEXT_MIDDLE || new_middle.len() > TEXT_MIDDLE {
        return None;
    }
    let mut writer = Writer::default();
    writer.equal(head);
    compare_lines(old_middle, new_middle, &mut writer);
    writer.equal(tail);
    let text = writer.finish();
    (text.len() <= NOTATION_MAX).then_some(text)
}

fn compare_lines(old: &str, new: &str, writer: &mut Writer) {
    let input = InternedInput::new(old, new);
    let diff = Diff::compute(Algorithm::Histogram, &input);
    let old_starts = line_starts(old);
    let new_starts = line_starts(new);
    let part = |starts: &[usize], lines: &Range<u32>| starts[lines.start as usize]..starts[lines.end as usize];
    let mut at = 0;
    for hunk in diff.hunks() {
        let removed = part(&old_starts, &hunk.before);
        let added = part(&new_starts, &hunk.after);
        writer.equal(removed.start - at);
        at = removed.end;
        compare_characters(&old[removed], &new[added], writer);
    }
    writer.equal(old.len() - at);
}

/// Where each line of `text` begins, and its end.
fn line_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
    if starts.last() != Some(&text.len()) {
        starts.push(text.len());
    }
    starts
}

fn compare_characters(old: &str, new: &str, writer: &mut Writer) {
    if old.len().saturating_mul(new.len()) <= TEXT_WORK {
        let mut dmp = DiffMatchPatch::new();
        dmp.set_timeout(None);
        dmp.set_checklines(false);
        if let Ok(diffs) = dmp.diff_main::<Compat>(old, new) {
            for diff in &diffs {
                let bytes = diff.data().iter().map(|c| c.len_utf8()).sum();
                match diff.op() {
                    Ops::Equal => writer.equal(bytes),
                    Ops::Delete => writer.delete(bytes),
                    Ops::Insert => writer.insert(&diff.data().iter().collect::<String>()),
                }
            }
            return;
        }
    }
    writer.delete(old.len());
    writer.insert(new);
}

fn common_prefix(a: &str, b: &str) -> usize {
    let mut at = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !a.is_char_boundary(at) || !b.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn common_suffix(a: &str, b: &str) -> usize {
    let mut len = a.bytes().rev().zip(b.bytes().rev()).take_while(|(x, y)| x == y).count();
    while !a.is_char_boundary(a.len() - len) || !b.is_char_boundary(b.len() - len) {
        len -= 1;
    }
    len
}

/// Writes delta notation and joins neighbours of one kind.
#[derive(Default)]
struct Writer {
    text: String,
    equal: usize,
    delete: usize,
    insert: String,
}

impl Writer {
    fn equal(&mut self, bytes: usize) {
        if bytes > 0 {
            self.edit();
            self.equal += bytes;
        }
    }

    fn delete(&mut self, bytes: usize) {
        if bytes > 0 {
            self.keep();
            self.delete += bytes;
        }
    }

    fn insert(&mut self, text: &str) {
        if !text.is_empty() {
            self.keep();
            for c in text.chars() {
                match c {
                    '\t' => self.insert.push_str("%09"),
                    '%' => self.insert.push_str("%25"),
                    c => self.insert.push(c),
                }
            }
        }
    }

    fn token(&mut self, kind: char, rest: &str) {
        if !self.text.is_empty() {
            self.text.push('\t');
        }
        self.text.push(kind);
        self.text.push_str(rest);
    }

    fn keep(&mut self) {
        if self.equal > 0 {
            let bytes = std::mem::take(&mut self.equal).to_string();
            self.token('=', &bytes);
        }
    }

    fn edit(&mut self) {
        if self.delete > 0 {
            let bytes = std::mem::take(&mut self.delete).to_string();
            self.token('-', &bytes);
        }
        if !self.insert.is_empty() {
            let text = std::mem::take(&mut self.insert);
            self.token('+', &text);
        }
    }

    fn finish(mut self) -> String {
        self.keep();
        self.edit();
        self.text
    }
}

/// What the delta notation `text` makes out of `base`, at most `limit` bytes.
fn follow(base: &[u8], text: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut new = Vec::with_capacity(limit);
    let mut rest = base;
    for token in text.split(|&byte| byte == b'\t') {
        let (kind, body) = token.split_first()?;
        match kind {
            b'+' => insert(&mut new, body, limit)?,
            b'=' | b'-' => {
                let bytes: usize = std::str::from_utf8(body).ok()?.parse().ok()?;
                let (part, after) = rest.split_at_checked(bytes)?;
                if *kind == b'=' {
                    push(&mut new, part, limit)?;
                }
                rest = after;
            }
            _ => return None,
        }
    }
    rest.is_empty().then_some(new)
}

fn push(new: &mut Vec<u8>, part: &[u8], limit: usize) -> Option<()> {
    if part.len() > limit - new.len() {
        return None;
    }
    new.extend_from_slice(part);
    Some(())
}

fn insert(new: &mut Vec<u8>, mut body: &[u8], limit: usize) -> Option<()> {
    while let Some(at) = body.iter().position(|&byte| byte == b'%') {
        push(new, &body[..at], limit)?;
        let digits = body.get(at + 1..at + 3)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        push(new, &[(digit(digits[0])? * 16 + digit(digits[1])?) as u8], limit)?;
        body = &body[at + 3..];
    }
    push(new, body, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn there(base: &[u8], new: &[u8]) -> Result<Vec<u8>, DeltaError> {
        let delta = make(base, new).expect("a delta pays here");
        apply(base, &delta, new.len() as u64, &Hash::of(new))
    }

    fn prose(lines: usize) -> String {
        (0..lines).map(|n| format!("{n}: the {} fox jumps over {} dogs\n", n * 7919 % 1000, n * 104_729 % 997)).collect()
    }

    /// One line changed in 200 kB of text costs less than 400 bytes.
    #[test]
    fn a_small_edit_is_a_small_delta() {
        let base = prose(5500);
        assert!(base.len() > 200_000);
        let new = base.replacen("2000: the", "2000: someone's quick 🦊", 1);
        let delta = make(base.as_bytes(), new.as_bytes()).unwrap();
        assert!(delta.bytes.len() < 400, "{} bytes", delta.bytes.len());
        assert_eq!(there(base.as_bytes(), new.as_bytes()).unwrap(), new.as_bytes());
    }

    /// A byte changed in a megabyte that does not compress travels as a few bytes.
    #[test]
    fn binary_contents_use_the_old_one_as_dictionary() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"noise");
        let mut base = vec![0; DELTA_MAX];
        hasher.finalize_xof().fill(&mut base);
        let mut new = base.clone();
        new[500_000] ^= 1;
        let delta = make(&base, &new).unwrap();
        assert_eq!(delta.form, DeltaForm::Dictionary);
        assert!(delta.bytes.len() < 2000, "{} bytes", delta.bytes.len());
        assert_eq!(there(&base, &new).unwrap(), new);
    }

    /// Where the contents have nothing in common, or one is empty or too large, there is no delta.
    #[test]
    fn no_delta_where_none_pays() {
        assert_eq!(make(b"", b"new"), None);
        assert_eq!(make(b"old", b""), None);
        assert_eq!(make(b"abcdefgh", b"12345678"), None);
        let large = vec![7; DELTA_MAX + 1];
        assert_eq!(make(&large, &large), None);
    }

    /// Two texts of 32 KiB without a common line are answered, however long the lines.
    #[test]
    fn unlike_texts_are_bounded_work() {
        let long: String = (0..TEXT_MIDDLE / 4).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
        let other: String = (0..TEXT_MIDDLE / 4).map(|n| char::from(b'a' + (n * 7 % 19) as u8)).collect();
        for (base, new) in [(long.repeat(4), other.repeat(4)), (prose(800), prose(800).replace("fox", "🦊\r\n"))] {
            if let Some(delta) = make(base.as_bytes(), new.as_bytes()) {
                assert_eq!(apply(base.as_bytes(), &delta, new.len() as u64, &Hash::of(new.as_bytes())).unwrap(), new.as_bytes());
            }
        }
    }

    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\r\n"),
            Just("\n"),
            Just("\t"),
            Just("%"),
            Just("%41"),
            Just("👩‍👩‍👧"),
            Just("é"),
            Just("word "),
            Just("a"),
            Just("\0"),
            Just("日本")
        ];
        vec(piece, 0..120).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Any text leads to any other through its delta notation.
        #[test]
        fn texts_round_trip(base in text(), new in text()) {
            let notation = notation(base.as_bytes(), new.as_bytes()).unwrap();
            if !notation.is_empty() {
                prop_assert_eq!(follow(base.as_bytes(), notation.as_bytes(), new.len()).unwrap(), new.as_bytes());
            } else {
                prop_assert!(base.is_empty() && new.is_empty());
            }
        }

        /// Long texts of few letters, the worst for a diff, lead to each other too.
        #[test]
        fn repetitive_texts_round_trip(base in "[ab\n]{0,600}", new in "[ab\n]{0,600}") {
            if let Some(notation) = notation(base.as_bytes(), new.as_bytes()).filter(|notation| !notation.is_empty()) {
                prop_assert_eq!(follow(base.as_bytes(), notation.as_bytes(), new.len()).unwrap(), new.as_bytes());
            }
        }

        /// Any bytes with some of them replaced are reached through whatever delta pays.
        #[test]
        fn edits_round_trip(base in vec(any::<u8>(), 1..3000), at in any::<prop::sample::Index>(), cut in 0usize..50, put in text()) {
            let at = at.index(base.len());
            let end = (at + cut).min(base.len());
            let new = [&base[..at], put.as_bytes(), &base[end..]].concat();
            if let Some(delta) = make(&base, &new) {
                prop_assert_eq!(apply(&base, &delta, new.len() as u64, &Hash::of(&new)).unwrap(), new);
            }
        }

        /// A delta damaged or made up by a peer gives an error or the announced bytes, never a panic and never others.
        #[test]
        fn hostile_deltas(base in text(), new in text(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), len in 0u64..4000, raw in vec(any::<u8>(), 0..60)) {
            let notation = notation(base.as_bytes(), new.as_bytes()).unwrap();
            for form in [DeltaForm::Text, DeltaForm::Dictionary] {
                let mut text = notation.clone().into_bytes();
                for (at, byte) in &flips {
                    if !text.is_empty() {
                        let at = at.index(text.len());
                        text[at] = *byte;
                    }
                }
                let _ = follow(base.as_bytes(), &text, len as usize);
                let mut bytes = zstd::bulk::compress(&text, 3).unwrap();
                for bytes in [bytes.clone(), raw.clone(), { for (at, byte) in &flips { let at = at.index(bytes.len()); bytes[at] = *byte; } bytes }] {
                    let delta = Delta { base: Hash::of(base.as_bytes()), form, bytes };
                    for len in [len, new.len() as u64, u64::MAX] {
                        if let Ok(result) = apply(base.as_bytes(), &delta, len, &Hash::of(new.as_bytes())) {
                            prop_assert_eq!(result, new.as_bytes());
                        }
                    }
                }
            }
        }
    }
}
