//! How long the text merge takes: large texts, many edits, and inputs made to be hard. Prints milliseconds, judges nothing.

use std::time::Instant;
use syncfs::merge::text::Merge;
use syncfs::merge::text::merge;

/// A small generator of numbers with a fixed start, so that every run merges the same texts.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Prose lines of about 70 bytes from a vocabulary of 3,000 words.
fn prose(dice: &mut Dice, bytes: usize, line: usize) -> String {
    let mut text = String::with_capacity(bytes + 80);
    let mut column = 0;
    while text.len() < bytes {
        let word = format!("w{:x}", dice.below(3000) * 7919 % 65_536);
        column += word.len() + 1;
        text.push_str(&word);
        text.push(if column > line { '\n' } else { ' ' });
        if column > line {
            column = 0;
        }
    }
    text
}

/// `text` with `count` words replaced, spread over it; `odd` keeps the words of two sides apart.
fn edited(text: &str, count: usize, odd: bool) -> String {
    let words = text.matches(' ').count();
    let every = (words / count.max(1)).max(2);
    let mut out = String::with_capacity(text.len() + count * 8);
    for (at, word) in text.split_inclusive(' ').enumerate() {
        if at % every == if odd { every / 2 } else { 0 } {
            out.push_str(if odd { "theirs " } else { "ours " });
        } else {
            out.push_str(word);
        }
    }
    out
}

fn repeated(lines: usize, from: usize) -> String {
    (0..lines).map(|at| ["alpha\n", "beta\n", "gamma\n", "delta\n"][(at + from) % 4]).collect()
}

fn run(name: &str, base: &str, ours: &str, theirs: &str) {
    let start = Instant::now();
    let merged = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let what = match merged {
        Merge::Clean(_) => "clean".to_owned(),
        Merge::Conflict(conflict) => format!("{} conflicts", conflict.hunks.len()),
        Merge::NotText(why) => why.to_string(),
    };
    println!("{name:<44} {ms:>9.1} ms  {what}");
}

fn main() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mib = 1 << 20;
    for (name, bytes, edits, line) in [
        ("8 KiB, 10 edits a side", 8 << 10, 10, 70),
        ("1 MiB, 1,000 edits a side", mib, 1000, 70),
        ("1 MiB in one line, 1,000 edits a side", mib, 1000, usize::MAX),
        ("1 MiB, every second word edited", mib, 80_000, 70),
        ("8 MiB, 1,000 edits a side", 8 * mib - 9000, 1000, 70),
        ("8 MiB in one line, 1,000 edits a side", 8 * mib - 9000, 1000, usize::MAX),
    ] {
        let base = prose(&mut dice, bytes, line);
        run(name, &base, &edited(&base, edits, false), &edited(&base, edits, true));
    }
    for (name, bytes) in [("1 MiB", mib), ("8 MiB", 8 * mib - 100)] {
        let strangers = [0; 3].map(|_| prose(&mut dice, bytes, 70));
        run(&format!("{name}, three unrelated texts"), &strangers[0], &strangers[1], &strangers[2]);
        let lines = bytes / 6;
        run(&format!("{name}, four lines repeated"), &repeated(lines, 0), &repeated(lines - 1001, 1), &repeated(lines - 2003, 2));
        let noise = [0; 3].map(|_| (0..bytes / 2).map(|_| if dice.below(2) == 0 { "a\n" } else { "b\n" }).collect::<String>());
        run(&format!("{name}, random lines a and b"), &noise[0], &noise[1], &noise[2]);
        let numbered: String = (0..bytes / 9).map(|at| format!("{at:08}\n")).collect();
        let halves = [0, 1].map(|odd| {
            numbered
                .split_inclusive('\n')
                .enumerate()
                .map(|(at, line)| if at % 2 == odd { "changed\n" } else { line })
                .collect::<String>()
        });
        run(&format!("{name}, every second line changed, either side"), &numbered, &halves[0], &halves[1]);
        let signs = [0; 3].map(|_| (0..bytes / 2).map(|_| [". ", ", ", "a ", "b "][dice.below(4)]).collect::<String>());
        run(&format!("{name} in one line, four words at random"), &signs[0], &signs[1], &signs[2]);
    }
}
