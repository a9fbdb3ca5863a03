//! Texts cut into tokens: lines, or the words of a few lines.

use imara_diff::Interner;
use imara_diff::Token;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// One text as a sequence of tokens that cover it without a gap.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    /// The text that the tokens cover.
    pub text: &'a str,
    /// One id a token; equal tokens have equal ids in all texts cut with the same [`Cutter`].
    pub ids: Vec<Token>,
    /// Where each token ends, in bytes.
    ends: Vec<u32>,
}

impl Tokens<'_> {
    /// Byte range of a range of tokens.
    pub fn bytes(&self, range: &Range<usize>) -> Range<usize> {
        self.start(range.start)..self.start(range.end)
    }

    /// Text of a range of tokens.
    pub fn text(&self, range: &Range<usize>) -> &str {
        &self.text[self.bytes(range)]
    }

    /// Byte offset where token `at` starts; the end of the text when `at` is the number of tokens.
    pub fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] as usize }
    }
}

/// Cuts several texts so that their ids can be compared.
pub(super) struct Cutter<'a> {
    seen: Interner<&'a str>,
}

impl<'a> Cutter<'a> {
    /// A cutter that has seen nothing.
    pub fn new() -> Self {
        Self { seen: Interner::new(64) }
    }

    /// Number of different tokens so far.
    pub fn kinds(&self) -> u32 {
        self.seen.num_tokens()
    }

    /// The lines of `text`, each with its line end.
    pub fn lines(&mut self, text: &'a str) -> Tokens<'a> {
        self.cut(text, text.split_inclusive('\n'))
    }

    /// The words, punctuation marks and runs of white space of `text` (UAX 29), never cut inside a grapheme cluster.
    pub fn words(&mut self, text: &'a str) -> Tokens<'a> {
        if text.is_ascii() {
            self.cut(text, text.split_word_bounds())
        } else {
            self.cut(
                text,
                Whole { text, words: text.split_word_bound_indices(), clusters: text.grapheme_indices(true), start: 0 },
            )
        }
    }

    fn cut(&mut self, text: &'a str, parts: impl Iterator<Item = &'a str>) -> Tokens<'a> {
        let mut tokens = Tokens { text, ids: Vec::new(), ends: Vec::new() };
        let mut end = 0;
        for part in parts {
            end += part.len() as u32;
            tokens.ids.push(self.seen.intern(part));
            tokens.ends.push(end);
        }
        tokens
    }
}

/// Word bounds that are grapheme bounds too: the two disagree for some scripts (Thai SARA AM, prepended marks).
struct Whole<'a> {
    text: &'a str,
    words: unicode_segmentation::UWordBoundIndices<'a>,
    clusters: unicode_segmentation::GraphemeIndices<'a>,
    start: usize,
}

impl<'a> Iterator for Whole<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.start == self.text.len() {
            return None;
        }
        let mut cluster_end = self.start;
        for (at, word) in self.words.by_ref() {
            let end = at + word.len();
            while cluster_end < end {
                let (at, cluster) = self.clusters.next()?;
                cluster_end = at + cluster.len();
            }
            if cluster_end == end {
                let token = &self.text[self.start..end];
                self.start = end;
                return Some(token);
            }
        }
        None
    }
}
