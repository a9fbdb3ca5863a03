//! The merge of three framed texts: lines first, then words inside the lines that both sides touched.

use super::diff::diff;
use super::diff::settled;
use super::kind::is_prose;
use super::token::Cutter;
use super::token::Tokens;
use super::weave::Near;
use super::weave::Sides;
use super::weave::Stretch;
use super::weave::weave;
use imara_diff::Token;
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
    for stretch in three.weave(cutter.kinds(), |_| true) {
        match stretch {
            Stretch::Clash { base: b, ours: o, theirs: t } => {
                let prose = *prose.get_or_insert_with(|| is_prose(base));
                let at = [three.base.start(b.start), three.ours.start(o.start), three.theirs.start(t.start)];
                words([three.base.text(&b), three.ours.text(&o), three.theirs.text(&t)], at, prose, &mut out);
            }
            sure => out.text(three.text(&sure)),
        }
    }
    out.parts
}

/// Merges the words of lines that both sides changed. `at` is where the three texts start in the whole ones.
fn words(texts: [&str; 3], at: [usize; 3], prose: bool, out: &mut Parts) {
    let [base, ours, theirs] = texts;
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.words(base), ours: cutter.words(ours), theirs: cutter.words(theirs) };
    let held = held_apart(&three.base);
    let apart = |near: &Near<'_>| {
        (prose || held[near.between.end] > held[near.between.start]) && !(near.loose() && rewritten(&three, near))
    };
    let mut stretches = three.weave(cutter.kinds(), apart);
    if prose {
        stretches.iter_mut().for_each(|stretch| three.grown(stretch));
    }
    if !stretches.iter().any(|stretch| matches!(stretch, Stretch::Clash { .. })) {
        return stretches.iter().for_each(|stretch| out.text(three.text(stretch)));
    }
    if let Some(text) = settled_lines(texts) {
        return out.text(&text);
    }
    if !prose {
        return out.clash(texts, at);
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
fn settled_lines([base, ours, theirs]: [&str; 3]) -> Option<String> {
    let mut cutter = Cutter::new();
    let three = Three { base: cutter.lines(base), ours: cutter.lines(ours), theirs: cutter.lines(theirs) };
    let mut text = String::new();
    for stretch in three.weave_settled(cutter.kinds()) {
        match stretch {
            Stretch::Clash { .. } => return None,
            sure => text.push_str(three.text(&sure)),
        }
    }
    Some(text)
}

/// Number of tokens that hold two edits of code apart, before each token and behind the last: words and line ends.
fn held_apart(tokens: &Tokens<'_>) -> Vec<u32> {
    let mut count = 0;
    let mut counts = vec![0];
    for at in 0..tokens.ids.len() {
        count += u32::from(tokens.text(&(at..at + 1)).contains(|sign: char| sign.is_alphanumeric() || sign == '\n'));
        counts.push(count);
    }
    counts
}

/// Whether one edit inserts a line that reads like the line in which the other edit is: half of it or more is the same. Then it
/// may be that line rewritten, and the other edit would belong into it.
fn rewritten(three: &Three<'_>, near: &Near<'_>) -> bool {
    let (left, right) = if near.ours_left { (&three.ours, &three.theirs) } else { (&three.theirs, &three.ours) };
    let base = three.base.text;
    let like = |text: &str, at: usize| {
        let start = base[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = base[start..].split('\n').next().unwrap_or_default().trim();
        text.split('\n').any(|new| reads_like(new.trim(), line))
    };
    (near.right.base.is_empty() && like(right.text(&near.right.side), three.base.start(near.left.base.start)))
        || (near.left.base.is_empty() && like(left.text(&near.left.side), three.base.start(near.right.base.start)))
}

fn reads_like(new: &str, line: &str) -> bool {
    let front = new.chars().zip(line.chars()).take_while(|(x, y)| x == y).count();
    let back = new.chars().rev().zip(line.chars().rev()).take_while(|(x, y)| x == y).count();
    let length = line.chars().count();
    length > 0 && front.max(back) * 2 >= length
}

/// Whether `long` is `short` with one stretch inserted, or the same.
fn grows(short: &[Token], long: &[Token]) -> bool {
    let front = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let back = short.iter().rev().zip(long.iter().rev()).take_while(|(x, y)| x == y).count();
    short.len() <= long.len() && front + back >= short.len()
}

/// Everything between the lines that all three texts share at both ends as one place to be decided.
pub(super) fn uncertain(texts: [&str; 3]) -> Vec<Part> {
    let mut out = Parts::default();
    out.clash(texts, [0; 3]);
    out.parts
}

fn shift(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// Three texts cut with one cutter.
pub(super) struct Three<'a> {
    /// The common ancestor.
    pub base: Tokens<'a>,
    /// One side.
    pub ours: Tokens<'a>,
    /// The other side.
    pub theirs: Tokens<'a>,
}

impl Three<'_> {
    fn sides(&self) -> Sides<'_> {
        Sides { base: &self.base.ids, ours: &self.ours.ids, theirs: &self.theirs.ids }
    }

    /// The weave of the two sides; `kinds` is the number of different tokens in all three.
    pub fn weave(&self, kinds: u32, apart: impl Fn(&Near<'_>) -> bool) -> Vec<Stretch> {
        let sides = self.sides();
        weave(&sides, &diff(sides.base, sides.ours, kinds), &diff(sides.base, sides.theirs, kinds), apart)
    }

    /// The weave of edits that each stand at the end of their reach.
    pub fn weave_settled(&self, kinds: u32) -> Vec<Stretch> {
        let edits = |side: &Tokens<'_>| settled(&diff(&self.base.ids, &side.ids, kinds), self.base.ids.len());
        weave(&self.sides(), &edits(&self.ours), &edits(&self.theirs), |_| true)
    }

    /// A clash where one side inserted words and the other the same words and more: the longer one holds both.
    fn grown(&self, stretch: &mut Stretch) {
        let Stretch::Clash { base, ours, theirs } = stretch else { return };
        let (b, o, t) = (&self.base.ids[base.clone()], &self.ours.ids[ours.clone()], &self.theirs.ids[theirs.clone()]);
        let word = |text: &str| text.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty()).count();
        let words = word(self.base.text(base));
        if word(self.ours.text(ours)) > words && grows(b, o) && grows(o, t) {
            *stretch = Stretch::Theirs(theirs.clone());
        } else if word(self.theirs.text(theirs)) > words && grows(b, t) && grows(t, o) {
            *stretch = Stretch::Ours(ours.clone());
        }
    }

    /// The text of a stretch that is no clash.
    fn text(&self, stretch: &Stretch) -> &str {
        match stretch {
            Stretch::Base(range) => self.base.text(range),
            Stretch::Ours(range) | Stretch::Both(range) => self.ours.text(range),
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
    fn clash(&mut self, texts: [&str; 3], at: [usize; 3]) {
        let [base, ours, theirs] = texts;
        let lines = texts.map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
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
