//! The merge of three framed texts: lines first, then words inside the lines that both sides touched.

use super::diff::diff;
use super::diff::settled;
use super::kind::is_prose;
use super::token::Cutter;
use super::token::Tokens;
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
    for stretch in three.weave(cutter.kinds(), |end, start, _| start > end) {
        match stretch {
            Stretch::Clash { base: b, ours: o, theirs: t } => {
                let prose = *prose.get_or_insert_with(|| match std::env::var("KIND").as_deref() {
                    Ok("p") => true,
                    Ok("c") => false,
                    _ => is_prose(base),
                });
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
    let marks = counted(&three.base, |sign| sign.is_alphanumeric() || sign == '\n');
    let words = counted(&three.base, char::is_alphanumeric);
    let cw: u32 = std::env::var("CW").ok().and_then(|x| x.parse().ok()).unwrap_or(2);
    let nl = std::env::var("NL").is_ok();
    let apart = |end: usize, start: usize, loose: bool| {
        start > end && if prose { !loose || marks[start] > marks[end] } else if nl { marks[start] - marks[end] >= cw } else { words[start] - words[end] >= cw }
    };
    let mut stretches = three.weave(cutter.kinds(), apart);
    for stretch in &mut stretches {
        if let Stretch::Clash { base, ours, theirs } = stretch {
            if !prose { continue; }
            let new = |ids: &[Token]| ids.len() > base.len();
            let (b, o, t) = (&three.base.ids[base.clone()], &three.ours.ids[ours.clone()], &three.theirs.ids[theirs.clone()]);
            let wordy = |text: &str, base: &str| words_in(text) > words_in(base);
            let texts = (three.base.text(base), three.ours.text(ours), three.theirs.text(theirs));
            if new(o) && wordy(texts.1, texts.0) && grows(b, o) && grows(o, t) {
                *stretch = Stretch::Theirs(theirs.clone());
            } else if new(t) && wordy(texts.2, texts.0) && grows(b, t) && grows(t, o) {
                *stretch = Stretch::Ours(ours.clone());
            }
        }
    }
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

/// Whether `long` is `short` with something inserted, or the same.
fn grows(short: &[Token], long: &[Token]) -> bool {
    if std::env::var("LOOSE").is_ok() {
        let mut rest = long.iter();
        return short.iter().all(|token| rest.any(|other| other == token));
    }
    let front = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let back = short.iter().rev().zip(long.iter().rev()).take_while(|(x, y)| x == y).count();
    short.len() <= long.len() && front + back >= short.len()
}

fn words_in(text: &str) -> usize {
    text.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty()).count()
}

/// Number of tokens with such a character before each token and behind the last.
fn counted(tokens: &Tokens<'_>, such: impl Fn(char) -> bool) -> Vec<u32> {
    let mut count = 0;
    let mut counts = vec![0];
    for at in 0..tokens.ids.len() {
        count += u32::from(tokens.text(&(at..at + 1)).chars().any(&such));
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
