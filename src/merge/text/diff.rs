//! Edits between two token sequences: histogram diff (imara-diff) inside, an exact bound on the work around it.
//!
//! imara-diff is quadratic in the worst case. Sequences below [`DIRECT`] tokens go to it whole; longer ones are first split at
//! *anchors* (runs of tokens that occur exactly once on either side, the longest increasing chain of them), and only the gaps
//! between anchors go to it, if they are small enough. What stays too large counts as replaced as a whole, which makes a merge
//! coarser but never wrong. Every bound counts tokens, so two machines always cut at the same place.

use imara_diff::Algorithm;
use imara_diff::Diff;
use imara_diff::Token;
use std::ops::Range;

/// Tokens on both sides together up to which the diff runs without anchors.
const DIRECT: usize = 1 << 14;
/// Token pairs that the gaps of one long diff may compare together; the longer the input, the smaller a gap must be.
const GAP_WORK: usize = 1 << 28;
/// How often one long diff may look at each token while it searches anchors.
const ANCHOR_PASSES: usize = 6;
/// How often each token may occur on average in a long diff: where everything repeats there are no anchors.
const REPEATS: usize = 1 << 10;
/// Lengths, in tokens, of the runs that are tried as anchors, in this order.
const RUNS: [usize; 2] = [1, 16];

/// One change: the tokens `base` were replaced by the tokens `side`. Either may be empty, not both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Token range in the base.
    pub base: Range<usize>,
    /// Token range in the changed text.
    pub side: Range<usize>,
    /// All base positions that the edit could occupy with the same result: an insertion or deletion may slide over equal tokens.
    pub reach: Range<usize>,
}

impl Edit {
    /// Whether the edit slides over as much as it is long: it doubles what stands beside it, or takes away one of several.
    pub fn repeats(&self) -> bool {
        self.reach.len() - self.base.len() >= self.base.len().max(self.side.len())
    }
}

/// The edits from `base` to `side` in order, at least one unchanged token between any two, each slid as far to the left as it goes.
/// `tokens` is the number of different tokens: all ids are below it.
pub(super) fn diff(base: &[Token], side: &[Token], tokens: u32) -> Vec<Edit> {
    let mut search = Search { base, side, tokens, changed: Vec::new(), passes: 0, gap: 0 };
    search.run();
    slide(base, side, &search.changed)
}

struct Search<'a> {
    base: &'a [Token],
    side: &'a [Token],
    tokens: u32,
    changed: Vec<(Range<usize>, Range<usize>)>,
    /// Tokens that the anchor search may still look at.
    passes: usize,
    /// Tokens on both sides together up to which a gap is compared token by token.
    gap: usize,
}

impl Search<'_> {
    fn run(&mut self) {
        let (b, s) = self.strip(0..self.base.len(), 0..self.side.len());
        let size = b.len() + s.len();
        if size <= DIRECT {
            self.compare(b, s);
            return;
        }
        if self.tokens as usize * REPEATS < size {
            return self.replace(b, s);
        }
        self.passes = size * ANCHOR_PASSES;
        self.gap = (GAP_WORK / size).clamp(64, DIRECT);
        self.split(b, s, 0);
    }

    /// Takes equal tokens off both ends.
    fn strip(&self, b: Range<usize>, s: Range<usize>) -> (Range<usize>, Range<usize>) {
        let (before, after) = (&self.base[b.clone()], &self.side[s.clone()]);
        let front = before.iter().zip(after).take_while(|(x, y)| x == y).count();
        let (before, after) = (&before[front..], &after[front..]);
        let back = before.iter().rev().zip(after.iter().rev()).take_while(|(x, y)| x == y).count();
        (b.start + front..b.end - back, s.start + front..s.end - back)
    }

    fn replace(&mut self, b: Range<usize>, s: Range<usize>) {
        if b.is_empty() && s.is_empty() {
            return;
        }
        if let Some(last) = self.changed.last_mut()
            && last.0.end == b.start
            && last.1.end == s.start
        {
            last.0.end = b.end;
            last.1.end = s.end;
            return;
        }
        self.changed.push((b, s));
    }

    fn compare(&mut self, b: Range<usize>, s: Range<usize>) {
        if b.is_empty() || s.is_empty() {
            self.replace(b, s);
            return;
        }
        let (before, after) = (&self.base[b.clone()], &self.side[s.clone()]);
        let strange = match (before, after) {
            ([one], many) | (many, [one]) => !many.contains(one),
            _ => false,
        };
        if strange {
            return self.replace(b, s);
        }
        let mut found = Diff::default();
        if self.tokens as usize <= 2 * (before.len() + after.len()) + 64 {
            found.compute_with(Algorithm::Histogram, before, after, self.tokens);
        } else {
            let (before, after, tokens) = renumber(before, after);
            found.compute_with(Algorithm::Histogram, &before, &after, tokens);
        }
        let hunks: Vec<_> = found.hunks().collect();
        for hunk in hunks {
            self.replace(
                b.start + hunk.before.start as usize..b.start + hunk.before.end as usize,
                s.start + hunk.after.start as usize..s.start + hunk.after.end as usize,
            );
        }
    }

    fn split(&mut self, b: Range<usize>, s: Range<usize>, level: usize) {
        let (b, s) = self.strip(b, s);
        let size = b.len() + s.len();
        if b.is_empty() || s.is_empty() {
            return self.replace(b, s);
        }
        if size <= self.gap {
            return self.compare(b, s);
        }
        for (level, &run) in RUNS.iter().enumerate().skip(level) {
            if size > self.passes {
                break;
            }
            self.passes -= size;
            let anchors = anchors(&self.base[b.clone()], &self.side[s.clone()], run);
            if anchors.is_empty() {
                continue;
            }
            let (mut at_b, mut at_s) = (b.start, s.start);
            for (x, y) in anchors {
                let (x, y) = (b.start + x, s.start + y);
                // An anchor that overlaps the one before it on either side is part of it or contradicts it.
                if x < at_b || y < at_s {
                    continue;
                }
                self.split(at_b..x, at_s..y, level);
                (at_b, at_s) = (x + run, y + run);
            }
            return self.split_rest(at_b..b.end, at_s..s.end, level, size);
        }
        self.replace(b, s);
    }

    /// The part behind the last anchor; if it is nearly everything, longer runs must be tried or the search would not end.
    fn split_rest(&mut self, b: Range<usize>, s: Range<usize>, level: usize, whole: usize) {
        let level = if b.len() + s.len() > whole - whole / 8 { level + 1 } else { level };
        self.split(b, s, level)
    }
}

/// The same sequences with ids counted from 0, so that tables over the ids stay small.
fn renumber(before: &[Token], after: &[Token]) -> (Vec<Token>, Vec<Token>, u32) {
    let mut ids: Vec<u32> = before.iter().chain(after).map(|token| token.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let place = |token: &Token| Token(ids.partition_point(|&id| id < token.0) as u32);
    (before.iter().map(place).collect(), after.iter().map(place).collect(), ids.len() as u32)
}

/// Starts of runs of `run` tokens that occur exactly once on each side: the longest chain that ascends on both.
fn anchors(before: &[Token], after: &[Token], run: usize) -> Vec<(usize, usize)> {
    let (b, s) = (runs_once(before, run), runs_once(after, run));
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < b.len() && j < s.len() {
        match b[i].0.cmp(&s[j].0) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                let (x, y) = (b[i].1 as usize, s[j].1 as usize);
                if before[x..x + run] == after[y..y + run] {
                    pairs.push((x, y));
                }
                i += 1;
                j += 1;
            }
        }
    }
    pairs.sort_unstable();
    ascending(&pairs)
}

/// Hash and start of every run that occurs once, by hash.
fn runs_once(tokens: &[Token], run: usize) -> Vec<(u64, u32)> {
    if tokens.len() < run {
        return Vec::new();
    }
    let mut all: Vec<(u64, u32)> = tokens
        .windows(run)
        .enumerate()
        .map(|(at, window)| {
            let hash = window
                .iter()
                .fold(0u64, |hash, token| (hash.rotate_left(5) ^ u64::from(token.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            (hash, at as u32)
        })
        .collect();
    all.sort_unstable();
    let mut once = Vec::new();
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        if let [only] = group {
            once.push(*only);
        }
    }
    once
}

/// The longest subsequence of `pairs` (ascending in the first part) that ascends in the second part too.
fn ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let place = tails.partition_point(|&tail| pairs[tail].1 < pair.1);
        before.push(place.checked_sub(1).map(|previous| tails[previous]));
        match tails.get_mut(place) {
            Some(tail) => *tail = at,
            None => tails.push(at),
        }
    }
    let mut chain = Vec::new();
    let mut at = tails.last().copied();
    while let Some(here) = at {
        chain.push(pairs[here]);
        at = before[here];
    }
    chain.reverse();
    chain
}

/// Gives every edit its reach and moves it to the left end of it; edits that meet become one.
fn slide(base: &[Token], side: &[Token], changed: &[(Range<usize>, Range<usize>)]) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::with_capacity(changed.len());
    for (at, (b, s)) in changed.iter().enumerate() {
        let (floor_b, floor_s) = edits.last().map_or((0, 0), |last| (last.base.end, last.side.end));
        let room_right = changed.get(at + 1).map_or(base.len(), |next| next.0.start) - b.end;
        let (left, right) = if b.is_empty() {
            slides(side, s, b.start - floor_b, room_right)
        } else if s.is_empty() {
            slides(base, b, s.start - floor_s, room_right)
        } else {
            (0, 0)
        };
        let edit =
            Edit { base: b.start - left..b.end - left, side: s.start - left..s.end - left, reach: b.start - left..b.end + right };
        match edits.last_mut() {
            Some(last) if last.base.end == edit.base.start && last.side.end == edit.side.start => {
                last.base.end = edit.base.end;
                last.side.end = edit.side.end;
                last.reach.end = last.reach.end.max(edit.reach.end);
            }
            _ => edits.push(edit),
        }
    }
    edits
}

/// The same edits, each at the right end of its reach and occupying nothing but its place, as line merges of the field have it.
pub(super) fn settled(edits: &[Edit], base_len: usize) -> Vec<Edit> {
    let mut out: Vec<Edit> = edits.to_vec();
    let mut next = base_len;
    for edit in out.iter_mut().rev() {
        let slides = edit.base.is_empty() || edit.side.is_empty();
        let by = if slides { edit.reach.end.min(next) - edit.base.end } else { 0 };
        edit.base = edit.base.start + by..edit.base.end + by;
        edit.side = edit.side.start + by..edit.side.end + by;
        edit.reach = edit.base.clone();
        next = edit.base.start;
    }
    out
}

/// How far a run of tokens that is in one text only can move to the left and to the right with the same result.
fn slides(text: &[Token], run: &Range<usize>, room_left: usize, room_right: usize) -> (usize, usize) {
    let left = (0..room_left).take_while(|k| text[run.start - 1 - k] == text[run.end - 1 - k]).count();
    let right = (0..room_right).take_while(|k| text[run.start + k] == text[run.end + k]).count();
    (left, right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn tokens(ids: impl IntoIterator<Item = u32>) -> Vec<Token> {
        ids.into_iter().map(Token).collect()
    }

    /// The side that the edits make of the base; panics when they are not in order or leave nothing between them.
    fn applied(base: &[Token], side: &[Token], edits: &[Edit]) -> Vec<Token> {
        let mut out = Vec::new();
        let mut at = 0;
        for (place, edit) in edits.iter().enumerate() {
            assert!(place == 0 || edit.base.start > at, "edits touch at {at}");
            assert!(edit.reach.start == edit.base.start && edit.reach.end >= edit.base.end);
            out.extend_from_slice(&base[at..edit.base.start]);
            assert_eq!(out.len(), edit.side.start);
            out.extend_from_slice(&side[edit.side.clone()]);
            at = edit.base.end;
        }
        out.extend_from_slice(&base[at..]);
        out
    }

    proptest! {
        /// The edits lead from the base to the side, for any two sequences.
        #[test]
        fn edits_lead_to_the_side(base in vec(0..5u32, 0..60), side in vec(0..5u32, 0..60)) {
            let (base, side) = (tokens(base), tokens(side));
            let edits = diff(&base, &side, 5);
            prop_assert_eq!(applied(&base, &side, &edits), side);
        }
    }

    #[test]
    /// A long text is cut at anchors and gives exactly the edits that were made.
    fn long_texts_are_cut_at_anchors() {
        let base = tokens((0..60_000).map(|at| if at % 3 == 0 { 7 } else { at + 10 }));
        let mut side = base.clone();
        for at in (100..60_000).step_by(1000) {
            side[at] = Token(1);
        }
        let edits = diff(&base, &side, 60_010);
        assert_eq!(edits.len(), 60);
        assert_eq!(applied(&base, &side, &edits), side);
    }

    #[test]
    /// A long text of which every token repeats is anchored at longer runs.
    fn long_texts_without_unique_tokens() {
        let mut state = 1u64;
        let base = tokens((0..40_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u32
        }));
        let mut side = base.clone();
        for at in (500..40_000).step_by(2000) {
            side.insert(at, Token(300));
        }
        let edits = diff(&base, &side, 301);
        assert_eq!(edits.len(), 20);
        assert_eq!(applied(&base, &side, &edits), side);
    }

    #[test]
    /// Where everything repeats, a long change is one replacement.
    fn hopeless_texts_are_replaced() {
        let base = tokens((0..40_000).map(|at| at % 4));
        let side = tokens((0..39_000).map(|at| at % 3));
        let edits = diff(&base, &side, 4);
        assert_eq!(edits.len(), 1);
        assert_eq!(applied(&base, &side, &edits), side);
    }

    #[test]
    /// An insertion among equal tokens reaches over all of them.
    fn reach_of_an_insertion() {
        let edits = diff(&tokens([1, 2, 2, 3]), &tokens([1, 2, 2, 2, 3]), 4);
        assert_eq!(edits, [Edit { base: 1..1, side: 1..2, reach: 1..3 }]);
        assert!(edits[0].repeats());
    }
}
