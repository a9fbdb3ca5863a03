//! The merge of three framed texts: lines first, then words inside the lines that both sides touched.

use super::diff::diff;
use super::diff::settled;
use super::kind::is_prose;
use super::token::Cutter;
use super::token::Tokens;
use super::weave::Sides;
use super::weave::Stretch;
use super::weave::weave;
use std::ops::Range;

/// One part of a merged text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text that stands.
    Text(String),
    /// Byte ranges of a place to be decided, in the three texts.
    Clash { base: Range<usize>, ours: Range<usize>, theirs: Range<usize> },
}

/// Merges three texts; the parts in order are the result.
pub(super) fn merge_parts(base: &str, ours: &str, theirs: &str) -> Vec<Part> {
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.lines(base), ours: cutter.lines(ours), theirs: cutter.lines(theirs) };
    let mut out = Parts::default();
    let mut prose = None;
    for stretch in three.weave(cutter.kinds(), |end, start, _| start > end) {
        match stretch {
            Stretch::Clash { base: b, ours: o, theirs: t } => {
                let prose = *prose.get_or_insert_with(|| std::env::var("ALLPROSE").is_ok() || is_prose(base));
                let at = [three.base.start(b.start), three.ours.start(o.start), three.theirs.start(t.start)];
                words(three.base.text(&b), three.ours.text(&o), three.theirs.text(&t), at, prose, &mut out);
            }
            sure => out.text(three.text(&sure)),
        }
    }
    out.parts
}

/// Merges the words of lines that both sides changed. `at` is where the three texts start in the whole ones.
fn words(base: &str, ours: &str, theirs: &str, at: [usize; 3], prose: bool, out: &mut Parts) {
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.words(base), ours: cutter.words(ours), theirs: cutter.words(theirs) };
    let words = counted_words(&three.base);
    let apart = |end: usize, start: usize, loose: bool| start > end && (words[start] - words[end] >= if prose { u32::from(loose) } else { 2 });
    let stretches = three.weave(cutter.kinds(), apart);
    let clashes = stretches.iter().any(|stretch| matches!(stretch, Stretch::Clash { .. }));
    if clashes && let Some(text) = settled_lines(base, ours, theirs) {
        return out.text(&text);
    }
    let clashes = stretches.iter().any(|stretch| matches!(stretch, Stretch::Clash { .. }));
    if clashes && !prose {
        return out.clash(base, ours, theirs, at);
    }
    for stretch in stretches {
        match stretch {
            Stretch::Clash { base, ours, theirs } => out.parts.push(Part::Clash {
                base: shift(three.base.bytes(&base), at[0]),
                ours: shift(three.ours.bytes(&ours), at[1]),
                theirs: shift(three.theirs.bytes(&theirs), at[2]),
            }),
            sure => out.text(three.text(&sure)),
        }
    }
}

/// The line merge of a few lines as diff3 does it: edits that can slide stand at the end of their reach, and one unchanged line
/// between two edits is enough. `None` if that is a conflict.
fn settled_lines(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.lines(base), ours: cutter.lines(ours), theirs: cutter.lines(theirs) };
    let edits = |side: &Tokens<'_>| settled(&diff(&three.base.ids, &side.ids, cutter.kinds()), three.base.ids.len());
    let sides = Sides { base: &three.base.ids, ours: &three.ours.ids, theirs: &three.theirs.ids };
    let mut text = String::new();
    for stretch in weave(&sides, &edits(&three.ours), &edits(&three.theirs), |end, start, _| start > end) {
        match stretch {
            Stretch::Clash { .. } => return None,
            sure => text.push_str(three.text(&sure)),
        }
    }
    Some(text)
}

/// Number of words (not white space, not punctuation) before each token and behind the last.
fn counted_words(tokens: &Tokens<'_>) -> Vec<u32> {
    let mut count = 0;
    let mut counts = vec![0];
    for at in 0..tokens.ids.len() {
        count += u32::from(tokens.text(&(at..at + 1)).chars().any(|sign| sign.is_alphanumeric() || sign == '\n'));
        counts.push(count);
    }
    counts
}

fn shift(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

struct Three<'a> {
    base: Tokens<'a>,
    ours: Tokens<'a>,
    theirs: Tokens<'a>,
}

impl Three<'_> {
    fn weave(&self, kinds: u32, apart: impl Fn(usize, usize, bool) -> bool) -> Vec<Stretch> {
        let sides = Sides { base: &self.base.ids, ours: &self.ours.ids, theirs: &self.theirs.ids };
        weave(&sides, &diff(sides.base, sides.ours, kinds), &diff(sides.base, sides.theirs, kinds), apart)
    }

    /// The text of a stretch that is no clash.
    fn text(&self, stretch: &Stretch) -> &str {
        match stretch {
            Stretch::Base(range) => self.base.text(range),
            Stretch::Ours(range) => self.ours.text(range),
            Stretch::Theirs(range) => self.theirs.text(range),
            Stretch::Clash { .. } => "",
        }
    }
}

#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
}

impl Parts {
    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// A clash of whole lines; lines at its ends that all three share are text.
    fn clash(&mut self, base: &str, ours: &str, theirs: &str, at: [usize; 3]) {
        let lines = [base, ours, theirs].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
        let [b, o, t] = &lines;
        let same = |(x, (y, z)): &(&&str, (&&str, &&str))| x == y && y == z;
        let front = b.iter().zip(o.iter().zip(t)).take_while(same).count();
        let rest = |lines: &[&str]| lines.len() - front;
        let most = rest(b).min(rest(o)).min(rest(t));
        let back = b.iter().rev().zip(o.iter().rev().zip(t.iter().rev())).take(most).take_while(same).count();
        let bytes = |lines: &[&str]| lines.iter().map(|line| line.len()).sum::<usize>();
        let (head, tail) = (bytes(&b[..front]), bytes(&b[b.len() - back..]));
        self.text(&base[..head]);
        self.parts.push(Part::Clash {
            base: at[0] + head..at[0] + base.len() - tail,
            ours: at[1] + head..at[1] + ours.len() - tail,
            theirs: at[2] + head..at[2] + theirs.len() - tail,
        });
        self.text(&base[base.len() - tail..]);
    }
}
