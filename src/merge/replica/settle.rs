//! When to look at what was touched: new bytes at a known path at once, appearances and disappearances after a quiet moment.

use std::collections::BTreeMap;

/// A place that was touched, told by the inode of its directory and its name.
pub type Spot = (u64, Vec<u8>);

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: u64,
    due: u64,
}

/// Collects touched places until they have settled: in that window "gone and back, by whatever way" is one new version and "created
/// and gone" is nothing (DESIGN section 5). Times are milliseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub struct Settle {
    pending: BTreeMap<Spot, Pending>,
}

impl Settle {
    /// How long appearances and disappearances must be quiet, in milliseconds: editors take a few from rename to rename.
    pub const QUIET: u64 = 40;
    /// A place that is touched again and again is looked at after this many milliseconds all the same.
    pub const PATIENCE: u64 = 400;

    /// Notes a touched place. `at_once`: complete new bytes at a path whose node is known.
    pub fn note(&mut self, spot: Spot, at_once: bool, now: u64) {
        let wait = if at_once { 0 } else { Self::QUIET };
        let entry = self.pending.entry(spot).or_insert(Pending { first: now, due: now + wait });
        entry.due = if at_once { now } else { (now + wait).min(entry.first + Self::PATIENCE) };
    }

    /// The places that have settled by `now`.
    pub fn ready(&mut self, now: u64) -> Vec<Spot> {
        let ready: Vec<Spot> =
            self.pending.iter().filter(|(_, pending)| pending.due <= now).map(|(spot, _)| spot.clone()).collect();
        for spot in &ready {
            self.pending.remove(spot);
        }
        ready
    }

    /// Whether a place has settled by `now` and waits to be looked at.
    pub fn is_due(&self, spot: &Spot, now: u64) -> bool {
        self.pending.get(spot).is_some_and(|pending| pending.due <= now)
    }

    /// When the next place will have settled.
    pub fn next_due(&self) -> Option<u64> {
        self.pending.values().map(|pending| pending.due).min()
    }

    /// Whether nothing is being waited for.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(name: &str) -> Spot {
        (1, name.as_bytes().to_vec())
    }

    /// A save at a known path is looked at now, an appearance after a quiet moment, and a restless one within bounds.
    #[test]
    fn what_settles_when() {
        let mut settle = Settle::default();
        settle.note(spot("new"), false, 0);
        settle.note(spot("known"), true, 0);
        assert!(settle.is_due(&spot("known"), 0) && !settle.is_due(&spot("new"), 0));
        assert_eq!(settle.ready(0), [spot("known")]);
        assert!(!settle.is_due(&spot("known"), 0));
        settle.note(spot("new"), false, 30);
        assert_eq!(settle.ready(Settle::QUIET), Vec::<Spot>::new());
        assert_eq!(settle.next_due(), Some(30 + Settle::QUIET));
        assert_eq!(settle.ready(30 + Settle::QUIET), [spot("new")]);
        for now in (0..10_000).step_by(10) {
            settle.note(spot("restless"), false, now);
            if now < Settle::PATIENCE {
                assert!(settle.ready(now).is_empty());
            } else if settle.is_empty() || !settle.ready(now).is_empty() {
                return;
            }
        }
        panic!("never looked at");
    }
}
