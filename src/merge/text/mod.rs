//! The three-way text merge: pure, symmetric, deterministic, bounded by counted work.
//!
//! Lines are merged first; inside the lines that both sides touched, words (UAX 29). Edits of the two sides that overlap, touch or
//! insert at one spot are a conflict; an insertion or deletion that could stand at several places with the same result occupies
//! all of them; the same edit on both sides is made once. In prose one unchanged token between two edits is enough, in code two
//! unchanged words are wanted. What is uncertain is a conflict, never a guess.

mod contain;
mod diff;
mod engine;
mod frame;
mod hunk;
mod kind;
mod token;
mod weave;

#[cfg(test)]
mod tests;

use contain::holder;
use contain::longer;
use engine::Part;
use engine::merge_parts;
use engine::uncertain;
use frame::Framed;
use frame::one_style;
use frame::open_end;
use hunk::Ruler;
use std::ops::Range;

pub use hunk::Conflict;
pub use hunk::Hunk;
pub use hunk::Labels;
pub use hunk::Piece;
pub use hunk::Position;
pub use hunk::Span;
pub use hunk::Texts;

/// The largest text that is merged, in bytes; each of the three must be at most this long.
pub const MERGE_LIMIT: usize = 8 << 20;

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// Every change of both sides is in this text.
    Clean(Vec<u8>),
    /// Some places need a person.
    Conflict(Conflict),
    /// The contents differ and cannot be merged as text: a person chooses one.
    NotText(NotText),
}

/// Why contents cannot be merged as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// One of the three is not UTF-8, or holds a NUL.
    #[error("not text (UTF-8)")]
    Binary,
    /// One of the three is longer than [`MERGE_LIMIT`].
    #[error("larger than the merge limit of 8 MiB")]
    TooLarge,
}

/// Merges `ours` and `theirs`, both changed from `base`. An empty base stands for two files added at one path.
///
/// The result does not depend on the order of the sides, but that the spans of a conflict change places.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Merge {
    if ours == theirs || theirs == base {
        return Merge::Clean(ours.to_vec());
    }
    if ours == base {
        return Merge::Clean(theirs.to_vec());
    }
    let bytes = [base, ours, theirs];
    if bytes.iter().any(|text| text.len() > MERGE_LIMIT) {
        return Merge::NotText(NotText::TooLarge);
    }
    let [Some(base), Some(ours), Some(theirs)] = bytes.map(text) else {
        return Merge::NotText(NotText::Binary);
    };
    merge_text([base, ours, theirs])
}

fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) { None } else { std::str::from_utf8(bytes).ok() }
}

fn merge_text(texts: [&str; 3]) -> Merge {
    let [base, ours, theirs] = texts;
    let parts = match merge_framed(texts) {
        Ok(merged) => {
            // Whoever merges the result with a parent again, after a crash or out of order, must never get another text.
            let different = |ours: &str, theirs: &str| merge_framed([base, ours, theirs]).is_ok_and(|again| again != merged);
            if !different(&merged, theirs) && !different(ours, &merged) {
                return Merge::Clean(merged.into_bytes());
            }
            uncertain(Framed::new(texts).bodies.each_ref().map(|body| body.as_ref()))
        }
        Err(parts) => parts,
    };
    Merge::Conflict(conflict(texts, &Framed::new(texts), parts))
}

/// The merged text, or the parts of its body that are certain and those that are not.
fn merge_framed(texts: [&str; 3]) -> Result<String, Vec<Part>> {
    let [base, ours, theirs] = texts;
    if ours == theirs || theirs == base {
        return Ok(ours.to_owned());
    }
    if ours == base {
        return Ok(theirs.to_owned());
    }
    let framed = Framed::new(texts);
    let bodies = framed.bodies.each_ref().map(|body| body.as_ref());
    if let Some((plain, crlf)) = one_style(bodies)
        && let Ok(body) = merge_once(plain.each_ref().map(String::as_str))
    {
        let body = if crlf { body.replace('\n', "\r\n") } else { body };
        if let Some(text) = framed.close(&body) {
            return Ok(text);
        }
    }
    framed.close(&merge_once(bodies)?).ok_or_else(|| uncertain(bodies))
}

/// The merged body, or the parts of it that are certain and those that are not.
fn merge_once([base, ours, theirs]: [&str; 3]) -> Result<String, Vec<Part>> {
    if ours == theirs || theirs == base {
        return Ok(ours.to_owned());
    }
    if ours == base {
        return Ok(theirs.to_owned());
    }
    if base.is_empty() {
        // Two files added at one path: nothing was agreed on, so only a file that is the other one plus insertions holds both.
        return longer(ours, theirs).map(str::to_owned).ok_or_else(|| uncertain([base, ours, theirs]));
    }
    if let Some(all) = holder(base, ours, theirs) {
        return Ok(all.to_owned());
    }
    let mut parts = merge_parts(base, ours, theirs);
    match parts.as_mut_slice() {
        [] => Ok(String::new()),
        [Part::Text(text)] => Ok(std::mem::take(text)),
        _ => Err(parts),
    }
}

/// The parts as values that outlive the merge, with their places in the texts as given.
fn conflict(texts: [&str; 3], framed: &Framed<'_>, parts: Vec<Part>) -> Conflict {
    let mut rulers = texts.map(Ruler::new);
    let mut span = |side: usize, range: &Range<usize>| {
        let place = |at: usize| (at + framed.cut[side]).min(texts[side].len());
        let start = rulers[side].position(place(range.start));
        Span { start, end: rulers[side].position(place(range.end)) }
    };
    let mut hunks = Vec::new();
    let mut pieces = Vec::new();
    if framed.bom() {
        pieces.push(Piece::Merged('\u{feff}'.to_string()));
    }
    let last = parts.len().saturating_sub(1);
    for (at, part) in parts.into_iter().enumerate() {
        match part {
            Part::Text(text) if at == last && !framed.last_line_end() => pieces.push(Piece::Merged(open_end(&text).to_owned())),
            Part::Text(text) => pieces.push(Piece::Merged(text)),
            Part::Clash { base, ours, theirs } => {
                hunks.push(Hunk { base: span(0, &base), ours: span(1, &ours), theirs: span(2, &theirs) });
                pieces.push(Piece::Hunk(hunks.len() as u32 - 1));
            }
        }
    }
    Conflict { hunks, pieces }
}
