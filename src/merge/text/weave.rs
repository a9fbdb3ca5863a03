//! Two edit lists over one base woven into one sequence: what one side changed is taken, what both changed alike is taken once,
//! and edits of different sides that meet become a clash.

use super::diff::Edit;
use imara_diff::Token;
use std::ops::Range;

/// A stretch of the result, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Both sides kept these base tokens.
    Base(Range<usize>),
    /// These tokens of ours stand; theirs has the base here, or the same tokens.
    Ours(Range<usize>),
    /// These tokens of theirs stand; ours has the base here.
    Theirs(Range<usize>),
    /// Both changed this and not alike.
    Clash {
        /// Base tokens.
        base: Range<usize>,
        /// What ours made of them.
        ours: Range<usize>,
        /// What theirs made of them.
        theirs: Range<usize>,
    },
}

/// The three texts of one weave.
pub(super) struct Sides<'a> {
    pub base: &'a [Token],
    pub ours: &'a [Token],
    pub theirs: &'a [Token],
}

/// Weaves `ours` and `theirs`. `apart(end, start)` tells whether an edit that ends at base token `end` and one of the other side
/// that starts at `start > end` are far enough from each other.
///
/// An edit occupies its whole reach: nothing of the other side may be in it. How near the two are is measured where each edit is
/// farthest from the other, because the result is the same text wherever in its reach an edit is made. Two insertions are the
/// exception: if their reaches touch, they could be at one spot and their order would be a guess.
pub(super) fn weave(sides: &Sides<'_>, ours: &[Edit], theirs: &[Edit], apart: impl Fn(usize, usize, bool) -> bool) -> Vec<Stretch> {
    let groups = group(sides, ours, theirs, apart);
    let mut out = Vec::new();
    let mut at = Cursor::default();
    for group in groups {
        at.keep(group.start, &mut out);
        let (o, t) = (&ours[group.ours.clone()], &theirs[group.theirs.clone()]);
        let mine = at.ours..at.ours + length(&(group.start..group.end), o);
        let other = at.theirs..at.theirs + length(&(group.start..group.end), t);
        out.push(if t.is_empty() || sides.ours[mine.clone()] == sides.theirs[other.clone()] {
            Stretch::Ours(mine.clone())
        } else if o.is_empty() {
            Stretch::Theirs(other.clone())
        } else {
            Stretch::Clash { base: group.start..group.end, ours: mine.clone(), theirs: other.clone() }
        });
        at = Cursor { base: group.end, ours: mine.end, theirs: other.end };
    }
    at.keep(sides.base.len(), &mut out);
    out
}

/// How many tokens a side has for `base` after `edits`, which all lie inside it.
fn length(base: &Range<usize>, edits: &[Edit]) -> usize {
    edits.iter().fold(base.len(), |length, edit| length + edit.side.len() - edit.base.len())
}

#[derive(Default)]
struct Cursor {
    base: usize,
    ours: usize,
    theirs: usize,
}

impl Cursor {
    /// Goes forward to base token `to` over tokens that both sides kept.
    fn keep(&mut self, to: usize, out: &mut Vec<Stretch>) {
        let length = to - self.base;
        if length > 0 {
            out.push(Stretch::Base(self.base..to));
        }
        *self = Cursor { base: to, ours: self.ours + length, theirs: self.theirs + length };
    }
}

/// Edits that must be decided together: index ranges into both lists, and the base tokens that they cover.
struct Group {
    ours: Range<usize>,
    theirs: Range<usize>,
    start: usize,
    end: usize,
}

/// How far the edits of one side have come.
#[derive(Clone, Copy)]
struct Far {
    /// Where the furthest reach starts.
    start: usize,
    /// Where the furthest reach ends.
    reach: usize,
    /// Where the edit itself may end at the earliest.
    end: usize,
    /// Whether it is an insertion.
    insertion: bool,
    /// The first group that an edit which meets it must join.
    first: usize,
}

impl Far {
    fn after(edit: &Edit, group: usize, before: Option<Far>) -> Self {
        match before {
            // Two edits of one side may reach over the same tokens: then the stricter view of both is taken.
            Some(before) if edit.reach.start <= before.reach => {
                let reach = before.reach.max(edit.reach.end);
                Self { start: edit.reach.start, reach, end: reach, insertion: true, first: before.first }
            }
            _ => Self { start: edit.reach.start, reach: edit.reach.end, end: if dup(edit) { edit.reach.end } else { edit.base.end },  insertion: edit.base.is_empty(), first: group },
        }
    }

    fn meets(&self, edit: &Edit, apart: impl Fn(usize, usize, bool) -> bool) -> bool {
        let both_insert = self.insertion && edit.base.is_empty();
        if both_insert {
            if !(self.start < edit.reach.start && self.reach < edit.reach.end) && self.reach >= edit.reach.start {
                return true;
            }
        } else if edit.reach.start < self.reach {
            return true;
        }
        let start = if dup(edit) { edit.reach.start } else { edit.reach.end - edit.base.len() };
        start <= self.end || !apart(self.end, start, self.end < self.reach || edit.reach.start < start)
    }
}

fn dup(edit: &Edit) -> bool {
    edit.reach.len() - edit.base.len() >= edit.base.len().max(edit.side.len())
}

fn group(sides: &Sides<'_>, ours: &[Edit], theirs: &[Edit], apart: impl Fn(usize, usize, bool) -> bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut far: [Option<Far>; 2] = [None, None];
    let (mut i, mut j) = (0, 0);
    while i < ours.len() || j < theirs.len() {
        if let (Some(o), Some(t)) = (ours.get(i), theirs.get(j))
            && o.base == t.base
            && sides.ours[o.side.clone()] == sides.theirs[t.side.clone()]
        {
            // The same change on both sides is no longer a difference between them, so it meets nothing.
            let agreed = Group { ours: i..i + 1, theirs: j..j + 1, start: o.base.start, end: o.base.end };
            push(&mut groups, agreed, None, &mut far);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let mine = match (ours.get(i), theirs.get(j)) {
            (Some(o), Some(t)) => (o.reach.start, o.reach.end) <= (t.reach.start, t.reach.end),
            (o, _) => o.is_some(),
        };
        let (edit, side) = if mine { (&ours[i], 0) } else { (&theirs[j], 1) };
        let mut new = Group { ours: i..i, theirs: j..j, start: edit.base.start, end: edit.base.end };
        if mine {
            new.ours.end += 1;
            i += 1;
        } else {
            new.theirs.end += 1;
            j += 1;
        }
        let met = far[1 - side].filter(|before| before.meets(edit, &apart));
        if let Some(before) = met {
            new.end = edit.reach.end.max(before.reach);
        }
        push(&mut groups, new, met.map(|before| before.first), &mut far);
        far[side] = Some(Far::after(edit, groups.len() - 1, far[side]));
    }
    groups
}

/// Adds a group, joined with all groups from `first` on and with every group that covers some of its base tokens.
fn push(groups: &mut Vec<Group>, mut new: Group, first: Option<usize>, far: &mut [Option<Far>; 2]) {
    while first.is_some_and(|first| first < groups.len())
        && let Some(last) = groups.pop()
    {
        new.join(&last);
    }
    while let Some(last) = groups.pop_if(|last| last.end > new.start) {
        new.join(&last);
    }
    groups.push(new);
    for before in far.iter_mut().flatten() {
        before.first = before.first.min(groups.len() - 1);
    }
}

impl Group {
    fn join(&mut self, before: &Group) {
        self.start = self.start.min(before.start);
        self.end = self.end.max(before.end);
        self.ours.start = self.ours.start.min(before.ours.start);
        self.theirs.start = self.theirs.start.min(before.theirs.start);
    }
}
