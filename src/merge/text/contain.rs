//! Whether one side already holds all that the other did, as a merged text does when it is merged again with one of its parents.

use super::diff::diff;
use super::engine::Three;
use super::token::Cutter;
use super::token::Tokens;
use super::weave::Near;
use super::weave::Stretch;

/// The side that holds all changes of the other one, if exactly one does.
pub(super) fn holder<'a>(base: &str, ours: &'a str, theirs: &'a str) -> Option<&'a str> {
    let ledger = Ledger::new(base, ours, theirs);
    let ours_holds = ledger.covers(0, 1) && passes_through(base, theirs, ours);
    let theirs_holds = ledger.covers(1, 0) && passes_through(base, ours, theirs);
    match (ours_holds, theirs_holds) {
        (true, false) => Some(ours),
        (false, true) => Some(theirs),
        _ => None,
    }
}

/// The one of two texts that is the other one with words inserted.
pub(super) fn longer<'a>(ours: &'a str, theirs: &'a str) -> Option<&'a str> {
    let mut cutter = Cutter::new();
    let (o, t) = (cutter.words(ours), cutter.words(theirs));
    let within = |short: &Tokens<'_>, long: &Tokens<'_>| {
        let mut rest = long.ids.iter();
        short.ids.iter().all(|token| rest.any(|other| other == token))
    };
    if within(&o, &t) {
        Some(theirs)
    } else if within(&t, &o) {
        Some(ours)
    } else {
        None
    }
}

/// How many of each word the two sides have more than the base.
struct Ledger {
    more: [Vec<i64>; 2],
}

impl Ledger {
    fn new(base: &str, ours: &str, theirs: &str) -> Self {
        let mut lines = Cutter::new();
        let base = lines.lines(base);
        let sides = [lines.lines(ours), lines.lines(theirs)];
        let mut words = Cutter::new();
        let mut more = [Vec::new(), Vec::new()];
        for (side, more) in sides.iter().zip(&mut more) {
            for edit in diff(&base.ids, &side.ids, lines.kinds()) {
                count(&words.words(base.text(&edit.base)), -1, more);
                count(&words.words(side.text(&edit.side)), 1, more);
            }
        }
        let kinds = words.kinds() as usize;
        more.iter_mut().for_each(|more| more.resize(kinds, 0));
        Self { more }
    }

    /// Whether side `long` has most of the words more and less that side `short` has. The rest may be what else `long` changed;
    /// a side that has little of them does not hold them, however its text can be aligned.
    fn covers(&self, long: usize, short: usize) -> bool {
        let (mut all, mut held) = (0, 0);
        for (&long, &short) in self.more[long].iter().zip(&self.more[short]) {
            all += short.abs();
            held += (long * short.signum()).clamp(0, short.abs());
        }
        held * 5 >= all * 3
    }
}

/// Counts the words; white space and punctuation are in every text and prove nothing.
fn count(tokens: &Tokens<'_>, by: i64, more: &mut Vec<i64>) {
    for (place, token) in tokens.ids.iter().enumerate() {
        if !tokens.text(&(place..place + 1)).contains(char::is_alphanumeric) {
            continue;
        }
        let at = token.0 as usize;
        if at >= more.len() {
            more.resize(at + 1, 0);
        }
        more[at] += by;
    }
}

/// Whether what leads from `before` to `after` meets nothing of what leads from `base` to `before`.
fn passes_through(base: &str, before: &str, after: &str) -> bool {
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.lines(before), ours: cutter.lines(base), theirs: cutter.lines(after) };
    three.weave(cutter.kinds(), |_| true).iter().all(|stretch| match stretch {
        Stretch::Both(_) => false,
        Stretch::Clash { base: b, ours: o, theirs: t } => {
            let mut cutter = Cutter::new();
            let texts = [three.base.text(b), three.ours.text(o), three.theirs.text(t)];
            let words = Three { base: cutter.words(texts[0]), ours: cutter.words(texts[1]), theirs: cutter.words(texts[2]) };
            let apart = |near: &Near<'_>| {
                !near.loose() || words.base.text(&near.between).contains(|sign: char| sign.is_alphanumeric() || sign == '\n')
            };
            independent(&words.weave(cutter.kinds(), apart)) || {
                let mut cutter = Cutter::new();
                let lines = Three { base: cutter.lines(texts[0]), ours: cutter.lines(texts[1]), theirs: cutter.lines(texts[2]) };
                independent(&lines.weave_settled(cutter.kinds()))
            }
        }
        _ => true,
    })
}

fn independent(stretches: &[Stretch]) -> bool {
    !stretches.iter().any(|stretch| matches!(stretch, Stretch::Both(_) | Stretch::Clash { .. }))
}
