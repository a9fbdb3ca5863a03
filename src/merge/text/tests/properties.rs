//! What holds for every input.

use super::super::Merge;
use super::super::merge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const TOKENS: [&str; 22] = [
    "a",
    "b",
    "the",
    "cat",
    "1000",
    "3.14",
    "x_y",
    " ",
    " ",
    "  ",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    ", ",
    ".",
    "(",
    "}",
    "猫が",
    "é",
    "e\u{301}",
    "👨‍👩‍👧",
];

fn text() -> impl Strategy<Value = String> {
    (any::<bool>(), vec(select(&TOKENS[..]), 0..40)).prop_map(|(bom, tokens)| {
        let mut text = tokens.concat();
        if bom && text.len() % 5 == 0 {
            text.insert(0, '\u{feff}');
        }
        text
    })
}

/// Edits as (where, how much goes, what comes) of a text cut at token bounds.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<&'static str>)>> {
    vec((any::<prop::sample::Index>(), 0..4usize, vec(select(&TOKENS[..]), 0..4)), 0..4)
}

fn apply(base: &[&'static str], edits: &[(prop::sample::Index, usize, Vec<&'static str>)]) -> String {
    let mut tokens = base.to_vec();
    for (at, gone, come) in edits {
        let at = at.index(tokens.len() + 1);
        let end = (at + gone).min(tokens.len());
        tokens.splice(at..end, come.iter().copied());
    }
    tokens.concat()
}

/// A base and two sides edited from it.
fn versions() -> impl Strategy<Value = (String, String, String)> {
    (vec(select(&TOKENS[..]), 0..60), edits(), edits())
        .prop_map(|(base, ours, theirs)| (base.concat(), apply(&base, &ours), apply(&base, &theirs)))
}

fn run(base: &str, ours: &str, theirs: &str) -> Merge {
    merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes())
}

fn swapped(merged: Merge) -> Merge {
    match merged {
        Merge::Conflict(mut conflict) => {
            conflict.hunks.iter_mut().for_each(|hunk| std::mem::swap(&mut hunk.ours, &mut hunk.theirs));
            Merge::Conflict(conflict)
        }
        other => other,
    }
}

fn count(text: &str, sign: char) -> i64 {
    text.chars().filter(|other| *other == sign).count() as i64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// A side that changed nothing gives way, and two equal sides are the merge.
    #[test]
    fn unchanged_sides_give_way(base in text(), side in text()) {
        prop_assert_eq!(run(&base, &base, &side), Merge::Clean(side.clone().into_bytes()));
        prop_assert_eq!(run(&base, &side, &base), Merge::Clean(side.clone().into_bytes()));
        prop_assert_eq!(run(&base, &side, &side), Merge::Clean(side.into_bytes()));
    }

    /// Two devices that call different sides theirs get the same result.
    #[test]
    fn symmetric((base, ours, theirs) in versions()) {
        prop_assert_eq!(run(&base, &ours, &theirs), swapped(run(&base, &theirs, &ours)));
    }

    /// Texts that have nothing to do with each other are no trouble either.
    #[test]
    fn strangers(base in text(), ours in text(), theirs in text()) {
        prop_assert_eq!(run(&base, &ours, &theirs), swapped(run(&base, &theirs, &ours)));
    }

    /// Merging the result again with a parent never gives another text, and with an ancestor that is its parent nothing changes.
    #[test]
    fn idempotent((base, ours, theirs) in versions()) {
        if let Merge::Clean(merged) = run(&base, &ours, &theirs) {
            for side in [&ours, &theirs] {
                if let Merge::Clean(again) = merge(base.as_bytes(), &merged, side.as_bytes()) {
                    prop_assert_eq!(&again, &merged);
                }
                prop_assert_eq!(merge(side.as_bytes(), &merged, side.as_bytes()), Merge::Clean(merged.clone()));
            }
        }
    }

    /// No sign comes from nowhere, and none is there more often than both sides together have it.
    #[test]
    fn nothing_from_nowhere((base, ours, theirs) in versions()) {
        if let Merge::Clean(merged) = run(&base, &ours, &theirs) {
            let merged = String::from_utf8(merged).expect("merged text is UTF-8");
            for sign in merged.chars().chain(base.chars()).chain(ours.chars()).chain(theirs.chars()).filter(|sign| !"\r\n\u{feff}".contains(*sign)) {
                let (b, o, t, m) = (count(&base, sign), count(&ours, sign), count(&theirs, sign), count(&merged, sign));
                prop_assert!(m <= b.max(o).max(t).max(o + t), "{:?}: base {} ours {} theirs {} merged {}", sign, b, o, t, m);
            }
        }
    }

    /// What only ever grew loses nothing: every sign is there as often as in the side that has it most.
    #[test]
    fn insertions_stay(base in vec(select(&TOKENS[..]), 0..60), ours in edits(), theirs in edits()) {
        let only = |edits: Vec<(prop::sample::Index, usize, Vec<&'static str>)>| -> Vec<_> {
            edits.into_iter().map(|(at, _, come)| (at, 0, come)).collect()
        };
        let (ours, theirs) = (apply(&base, &only(ours)), apply(&base, &only(theirs)));
        if let Merge::Clean(merged) = run(&base.concat(), &ours, &theirs) {
            let merged = String::from_utf8(merged).expect("merged text is UTF-8");
            for sign in ours.chars().chain(theirs.chars()).filter(|sign| !"\r\n".contains(*sign)) {
                prop_assert!(count(&merged, sign) >= count(&ours, sign).max(count(&theirs, sign)), "{:?} lost", sign);
            }
        }
    }

    /// Every choice of sides in a conflict gives whole UTF-8 with the merged rest.
    #[test]
    fn conflicts_are_whole((base, ours, theirs) in versions()) {
        if let Merge::Conflict(conflict) = run(&base, &ours, &theirs) {
            prop_assert!(!conflict.hunks.is_empty());
            let one = conflict.resolve(|_, hunk| hunk.ours.of(ours.as_bytes()));
            let other = conflict.resolve(|_, hunk| hunk.theirs.of(theirs.as_bytes()));
            prop_assert!(std::str::from_utf8(&one).is_ok() && std::str::from_utf8(&other).is_ok());
        }
    }
}
