//! What a merge that needs a person looks like: merged stretches and hunks in order, and their rendering with markers.

use crate::model::codec::Decode;
use crate::model::codec::Encode;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Position {
    /// Offset in bytes from 0.
    pub byte: u64,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters (Unicode scalar values), counted from 1.
    pub column: u32,
}

/// A stretch of a text; empty when `start == end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Span {
    /// First byte.
    pub start: Position,
    /// Behind the last byte.
    pub end: Position,
}

impl Span {
    /// The bytes of the span in the text that it was made for; empty when `text` is shorter.
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start.byte as usize..self.end.byte as usize).unwrap_or_default()
    }
}

/// One place that both sides changed and not alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Hunk {
    /// Where it is in the base.
    pub base: Span,
    /// Where it is in ours.
    pub ours: Span,
    /// Where it is in theirs.
    pub theirs: Span,
}

/// One piece of a merge with conflicts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Piece {
    /// Text on which there is no conflict.
    Merged(String),
    /// A place to be decided: an index into [`Conflict::hunks`].
    Hunk(u32),
}

/// A merge that needs a person: the pieces in order give the file once each hunk is decided.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Conflict {
    /// The places to be decided, in order; at least one.
    pub hunks: Vec<Hunk>,
    /// The whole text in order; every hunk occurs once.
    pub pieces: Vec<Piece>,
}

/// The three texts of a merge, as given to it.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// The last agreed version.
    pub base: &'a [u8],
    /// This side's version.
    pub ours: &'a [u8],
    /// The other side's version.
    pub theirs: &'a [u8],
}

/// Names that stand behind the markers.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Behind `<<<<<<<`.
    pub ours: &'a str,
    /// Behind `|||||||`.
    pub base: &'a str,
    /// Behind `>>>>>>>`.
    pub theirs: &'a str,
}

impl Conflict {
    /// The file with every hunk replaced by what `choose` gives for it (index and hunk).
    pub fn resolve<'a>(&'a self, mut choose: impl FnMut(usize, &Hunk) -> &'a [u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Merged(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Hunk(at) => {
                    if let Some(hunk) = self.hunks.get(*at as usize) {
                        out.extend_from_slice(choose(*at as usize, hunk));
                    }
                }
            }
        }
        out
    }

    /// The file with zdiff3-style markers: whole lines, what ours and theirs have in common at the ends stands outside.
    /// Line ends of the markers follow the text.
    pub fn with_markers(&self, texts: Texts<'_>, labels: Labels<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut open: Option<Three> = None;
        for piece in &self.pieces {
            match piece {
                Piece::Merged(text) => {
                    let text = text.as_bytes();
                    let line = text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |at| at + 1);
                    match open.take() {
                        None => out.extend_from_slice(text),
                        Some(mut block) => {
                            let rest = if block.at_line_start() { 0 } else { line };
                            block.push_all(&text[..rest]);
                            if block.at_line_start() || rest < text.len() {
                                block.close(labels, &mut out);
                                out.extend_from_slice(&text[rest..]);
                            } else {
                                open = Some(block);
                            }
                        }
                    }
                }
                Piece::Hunk(at) => {
                    let Some(hunk) = self.hunks.get(*at as usize) else { continue };
                    let block = open.get_or_insert_with(|| {
                        let line = out.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                        let begun = out.split_off(line);
                        Three { ours: begun.clone(), base: begun.clone(), theirs: begun }
                    });
                    block.ours.extend_from_slice(hunk.ours.of(texts.ours));
                    block.base.extend_from_slice(hunk.base.of(texts.base));
                    block.theirs.extend_from_slice(hunk.theirs.of(texts.theirs));
                }
            }
        }
        if let Some(block) = open {
            block.close(labels, &mut out);
        }
        out
    }
}

/// The three versions of the lines around one or more hunks.
struct Three {
    ours: Vec<u8>,
    base: Vec<u8>,
    theirs: Vec<u8>,
}

impl Three {
    fn at_line_start(&self) -> bool {
        [&self.ours, &self.base, &self.theirs].iter().all(|text| text.last().is_none_or(|&byte| byte == b'\n'))
    }

    fn push_all(&mut self, text: &[u8]) {
        for side in [&mut self.ours, &mut self.base, &mut self.theirs] {
            side.extend_from_slice(text);
        }
    }

    fn close(&self, labels: Labels<'_>, out: &mut Vec<u8>) {
        let ours: Vec<&[u8]> = self.ours.split_inclusive(|&byte| byte == b'\n').collect();
        let theirs: Vec<&[u8]> = self.theirs.split_inclusive(|&byte| byte == b'\n').collect();
        let front = ours.iter().zip(&theirs).take_while(|(x, y)| x == y).count();
        let (inner, other) = (&ours[front..], &theirs[front..]);
        let back = inner.iter().rev().zip(other.iter().rev()).take_while(|(x, y)| x == y).count();
        let end = if self.ours.windows(2).chain(self.theirs.windows(2)).any(|pair| pair == b"\r\n") { "\r\n" } else { "\n" };
        ours[..front].iter().for_each(|line| out.extend_from_slice(line));
        // A marker always starts a line, even behind a text that lacks its last line end.
        let marker = |out: &mut Vec<u8>, mark: &str, label: &str| {
            if out.last().is_some_and(|&byte| byte != b'\n') {
                out.extend_from_slice(end.as_bytes());
            }
            out.extend_from_slice(mark.as_bytes());
            if !label.is_empty() {
                out.push(b' ');
                out.extend_from_slice(label.as_bytes());
            }
            out.extend_from_slice(end.as_bytes());
        };
        marker(out, "<<<<<<<", labels.ours);
        inner[..inner.len() - back].iter().for_each(|line| out.extend_from_slice(line));
        marker(out, "|||||||", labels.base);
        out.extend_from_slice(&self.base);
        marker(out, "=======", "");
        other[..other.len() - back].iter().for_each(|line| out.extend_from_slice(line));
        marker(out, ">>>>>>>", labels.theirs);
        inner[inner.len() - back..].iter().for_each(|line| out.extend_from_slice(line));
    }
}

/// Turns byte offsets of one text into positions; offsets must come in ascending order.
pub(super) struct Ruler<'a> {
    text: &'a str,
    at: Position,
}

impl<'a> Ruler<'a> {
    /// A ruler at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: Position { byte: 0, line: 1, column: 1 } }
    }

    /// The position of byte `to`.
    pub fn position(&mut self, to: usize) -> Position {
        let from = self.at.byte as usize;
        let passed = &self.text[from..to];
        match passed.rfind('\n') {
            Some(last) => {
                self.at.line += passed.bytes().filter(|&byte| byte == b'\n').count() as u32;
                self.at.column = 1 + passed[last + 1..].chars().count() as u32;
            }
            None => self.at.column += passed.chars().count() as u32,
        }
        self.at.byte = to as u64;
        self.at
    }
}
