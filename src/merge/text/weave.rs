//! Two edit lists over one base woven into one sequence: what one side changed is taken, what both changed alike is taken once,
//! and edits of different sides that meet become a clash.
//!
//! An edit occupies its whole reach: nothing that the other side changed may lie in it. How near two edits are is measured where
//! each is farthest from the other, because the result is the same text wherever in its reach an edit is made. Two insertions
//! must also keep their order wherever they are made; else they could be at one spot, and their order would be a guess.

use super::diff::Edit;
use imara_diff::Token;
use std::cmp::Ordering;
use std::ops::Range;

/// A stretch of the result, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Both sides kept these base tokens.
    Base(Range<usize>),
    /// These tokens of ours stand; theirs has the base here.
    Ours(Range<usize>),
    /// These tokens of theirs stand; ours has the base here.
    Theirs(Range<usize>),
    /// Both sides changed this alike, to these tokens of ours.
    Both(Range<usize>),
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
    /// The common ancestor.
    pub base: &'a [Token],
    /// One side.
    pub ours: &'a [Token],
    /// The other side.
    pub theirs: &'a [Token],
}

/// Two edits of different sides that do not overlap, the left one first, and the unchanged tokens between them.
pub(super) struct Near<'a> {
    /// The base tokens between them, where they are farthest from each other; at least one.
    pub between: Range<usize>,
    /// The edit on the left.
    pub left: &'a Edit,
    /// The edit on the right.
    pub right: &'a Edit,
    /// Whether the left one is of ours.
    pub ours_left: bool,
}

impl Near<'_> {
    /// Whether the distance depends on where in its reach an edit is made.
    pub fn loose(&self) -> bool {
        self.between.start < self.left.reach.end || self.right.reach.start < self.between.end
    }
}

/// Weaves `ours` and `theirs`. `apart` tells whether two edits that do not touch are far enough from each other.
pub(super) fn weave(sides: &Sides<'_>, ours: &[Edit], theirs: &[Edit], apart: impl Fn(&Near<'_>) -> bool) -> Vec<Stretch> {
    let mut out = Vec::new();
    let mut at = Cursor::default();
    for group in group(sides, ours, theirs, apart) {
        at.keep(group.start, &mut out);
        let (o, t) = (&ours[group.ours.clone()], &theirs[group.theirs.clone()]);
        let mine = at.ours..at.ours + length(group.start..group.end, o);
        let other = at.theirs..at.theirs + length(group.start..group.end, t);
        out.push(if t.is_empty() {
            Stretch::Ours(mine.clone())
        } else if o.is_empty() {
            Stretch::Theirs(other.clone())
        } else if sides.ours[mine.clone()] == sides.theirs[other.clone()] {
            Stretch::Both(mine.clone())
        } else {
            Stretch::Clash { base: group.start..group.end, ours: mine.clone(), theirs: other.clone() }
        });
        at = Cursor { base: group.end, ours: mine.end, theirs: other.end };
    }
    at.keep(sides.base.len(), &mut out);
    out
}

/// How many tokens a side has for `base` after `edits`, which all lie inside it.
fn length(base: Range<usize>, edits: &[Edit]) -> usize {
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

impl Group {
    fn join(&mut self, before: &Group) {
        self.start = self.start.min(before.start);
        self.end = self.end.max(before.end);
        self.ours.start = self.ours.start.min(before.ours.start);
        self.theirs.start = self.theirs.start.min(before.theirs.start);
    }
}

/// How far the edits of one side have come.
#[derive(Clone, Copy)]
struct Far<'a> {
    /// The edit that reaches furthest.
    edit: &'a Edit,
    /// Where its reach ends; further than the edit's own when several edits reach over the same tokens.
    reach: usize,
    /// Whether several edits reach over the same tokens: then the strictest view of them is taken.
    crowded: bool,
    /// The first group that an edit which meets it must join.
    first: usize,
}

impl<'a> Far<'a> {
    fn after(edit: &'a Edit, group: usize, before: Option<Self>) -> Self {
        match before {
            Some(before) if edit.reach.start <= before.reach => {
                Self { edit, reach: before.reach.max(edit.reach.end), crowded: true, first: before.first }
            }
            _ => Self { edit, reach: edit.reach.end, crowded: false, first: group },
        }
    }

    fn meets(&self, edit: &Edit, ours_left: bool, apart: &impl Fn(&Near<'_>) -> bool) -> bool {
        let ordered = !self.crowded
            && self.edit.base.is_empty()
            && edit.base.is_empty()
            && self.edit.reach.start < edit.reach.start
            && self.reach < edit.reach.end;
        let touch = if self.crowded || (self.edit.base.is_empty() && edit.base.is_empty()) {
            edit.reach.start <= self.reach
        } else {
            edit.reach.start < self.reach
        };
        if touch && !ordered {
            return true;
        }
        let end = if self.crowded || self.edit.repeats() { self.reach } else { self.edit.base.end };
        let start = if edit.repeats() { edit.reach.start } else { edit.reach.end - edit.base.len() };
        start <= end || !apart(&Near { between: end..start, left: self.edit, right: edit, ours_left })
    }
}

fn group(sides: &Sides<'_>, ours: &[Edit], theirs: &[Edit], apart: impl Fn(&Near<'_>) -> bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut far: [Option<Far<'_>>; 2] = [None, None];
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
        let order = match (ours.get(i), theirs.get(j)) {
            (Some(o), Some(t)) => (o.reach.start, o.reach.end).cmp(&(t.reach.start, t.reach.end)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        // Edits with one reach meet each other; taking them together keeps the result the same when the sides change places.
        let o = ours.get(i).filter(|_| order.is_le());
        let t = theirs.get(j).filter(|_| order.is_ge());
        let mut new = Group { ours: i..i, theirs: j..j, start: usize::MAX, end: 0 };
        let mut first = None;
        for (edit, other, ours_left) in [(o, far[1], false), (t, far[0], true)] {
            let Some(edit) = edit else { continue };
            let met = other.filter(|before| before.meets(edit, ours_left, &apart));
            let end = if let Some(before) = met { edit.reach.end.max(before.reach) } else { edit.base.end };
            new.start = new.start.min(edit.base.start);
            new.end = new.end.max(if order.is_eq() { end.max(edit.reach.end) } else { end });
            first = met.map(|before| before.first).into_iter().chain(first).min();
        }
        new.ours.end += usize::from(o.is_some());
        new.theirs.end += usize::from(t.is_some());
        (i, j) = (new.ours.end, new.theirs.end);
        push(&mut groups, new, first, &mut far);
        for (side, edit) in [o, t].into_iter().enumerate() {
            if let Some(edit) = edit {
                far[side] = Some(Far::after(edit, groups.len() - 1, far[side]));
            }
        }
    }
    groups
}

/// Adds a group, joined with all groups from `first` on and with every group that covers some of its base tokens.
fn push(groups: &mut Vec<Group>, mut new: Group, first: Option<usize>, far: &mut [Option<Far<'_>>; 2]) {
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
