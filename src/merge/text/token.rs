//! Texts cut into tokens: lines, or the words of a few lines.

use imara_diff::Interner;
use imara_diff::Token;
use std::ops::Range;
use unicode_segmentation::GraphemeIndices;
use unicode_segmentation::UWordBoundIndices;
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
        let words = Words { text, bounds: text.split_word_bound_indices(), clusters: Clusters::of(text), start: 0 };
        self.cut(text, words.flat_map(dotted))
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

/// Word bounds, but for those inside a grapheme cluster (the two disagree for Thai SARA AM and for prepended marks) and those
/// between two letters or digits: scripts without spaces would fall apart into characters, and a character is no word.
struct Words<'a> {
    text: &'a str,
    bounds: UWordBoundIndices<'a>,
    clusters: Clusters<'a>,
    start: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        for (at, word) in self.bounds.by_ref() {
            let end = at + word.len();
            let (before, after) = (word.chars().next_back(), self.text[end..].chars().next());
            let inside = before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric);
            if !inside && self.clusters.bound(end) {
                let token = &self.text[self.start..end];
                self.start = end;
                return Some(token);
            }
        }
        None
    }
}

/// The parts of a dotted name (`file.txt`, `a.b.c`, `0.91.0`), which UAX 29 takes for one word; a decimal number stays whole.
fn dotted(word: &str) -> impl Iterator<Item = &str> {
    let number =
        word.matches('.').count() == 1 && !word.contains(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != ',');
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = match rest.find('.') {
            _ if number => rest.len(),
            Some(0) => 1,
            Some(at) => at,
            None => rest.len(),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// Bounds of grapheme clusters, asked in ascending order.
struct Clusters<'a> {
    /// The clusters that come next; `None` for ASCII, where every bound of a word is one of a cluster.
    next: Option<GraphemeIndices<'a>>,
    end: usize,
}

impl<'a> Clusters<'a> {
    fn of(text: &'a str) -> Self {
        Self { next: (!text.is_ascii()).then(|| text.grapheme_indices(true)), end: 0 }
    }

    fn bound(&mut self, at: usize) -> bool {
        let Some(next) = &mut self.next else { return true };
        while self.end < at
            && let Some((start, cluster)) = next.next()
        {
            self.end = start + cluster.len();
        }
        self.end == at
    }
}
