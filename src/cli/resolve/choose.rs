//! The questions of `resolve` on a terminal: one hunk after the other, each answer can be taken back.

use super::Sides;
use crate::cli::failure::Code;
use crate::cli::failure::Failure;
use crate::cli::failure::one_line;
use crate::client::Choice;
use crate::merge::text::Conflict;
use crate::merge::text::Hunk;
use crate::merge::text::Span;
use std::io;
use std::io::BufRead;
use std::io::Write;

/// So many lines of one side are shown.
const LINES_SHOWN: usize = 30;
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Makes something else of a hunk, given with markers.
pub type Edit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Vec<u8>, Failure>;

/// Who answers, and where the questions are shown.
pub struct Console<I, O> {
    input: I,
    out: O,
    colours: bool,
}

fn broken(error: io::Error) -> Failure {
    Failure::new(Code::Failed, format!("the terminal: {error}"), "Say it with an option, see `syncfs resolve --help`.")
}

impl<I: BufRead, O: Write> Console<I, O> {
    pub fn new(input: I, out: O, colours: bool) -> Self {
        Self { input, out, colours }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(broken)
    }

    /// The answer to a question; `q` where nobody is there any more.
    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        let question = self.paint(BOLD, question);
        write!(self.out, "{question} ").and_then(|()| self.out.flush()).map_err(broken)?;
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line).map_err(broken)? == 0 {
            self.say("")?;
            return Ok("q".into());
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// The text with every hunk decided; `None` where a person gave up.
    ///
    /// # Errors
    /// When the terminal does not work.
    pub fn hunks(&mut self, name: &str, sides: &Sides, conflict: &Conflict, edit: Edit<'_>) -> Result<Option<Vec<u8>>, Failure> {
        let mut chosen: Vec<Vec<u8>> = Vec::new();
        let total = conflict.hunks.len();
        let mut shown = None;
        loop {
            let at = chosen.len();
            let Some(hunk) = conflict.hunks.get(at) else {
                match self.ask("all is decided: write it? [y]es [u]ndo [q]uit").as_deref() {
                    Ok("y" | "yes") => return Ok(Some(conflict.resolve(|at, _| chosen.get(at).map_or(&[][..], |text| text)))),
                    Ok("u" | "undo") => drop(chosen.pop()),
                    Ok("q" | "quit") => return Ok(None),
                    Ok(_) => {}
                    Err(failure) => return Err(failure.clone()),
                }
                shown = None;
                continue;
            };
            if shown != Some(at) {
                self.show(name, at, total, hunk, sides)?;
                shown = Some(at);
            }
            let [base, ours, theirs] = of(hunk, sides);
            match self.ask("[o]urs [t]heirs [b]ase [B]oth [e]dit [u]ndo [q]uit")?.as_str() {
                "o" | "ours" => chosen.push(ours.to_vec()),
                "t" | "theirs" => chosen.push(theirs.to_vec()),
                "b" | "base" => chosen.push(base.to_vec()),
                "B" | "both" => chosen.push(both(ours, theirs)),
                "e" | "edit" => match edited(hunk, sides, edit) {
                    Ok(text) => chosen.push(text),
                    Err(failure) => self.say(&failure.to_string())?,
                },
                "u" | "undo" => {
                    if chosen.pop().is_none() {
                        self.say("this is the first place")?;
                    }
                }
                "q" | "quit" => return Ok(None),
                _ => self.say(HELP)?,
            }
        }
    }

    /// What shall become of a file that is no text; `None` where a person gave up.
    ///
    /// # Errors
    /// When the terminal does not work.
    pub fn whole(&mut self, name: &str) -> Result<Option<(Choice, &'static str)>, Failure> {
        let title = self.paint(BOLD, &format!("{name}: not a text, one version stands"));
        self.say(&title)?;
        loop {
            match self.ask("[o]urs [t]heirs [b]ase [B]oth [q]uit")?.as_str() {
                "o" | "ours" => return Ok(Some((Choice::Ours, "the version of this device stands"))),
                "t" | "theirs" => return Ok(Some((Choice::Theirs, "the version of the others stands"))),
                "b" | "base" => return Ok(Some((Choice::Base, "the version before both edits stands"))),
                "B" | "both" => return Ok(Some((Choice::Both, "the version of the others stands, yours is beside it"))),
                "q" | "quit" => return Ok(None),
                _ => self.say(WHOLE_HELP)?,
            }
        }
    }

    fn show(&mut self, name: &str, at: usize, total: usize, hunk: &Hunk, sides: &Sides) -> Result<(), Failure> {
        let title = format!("{name}: place {} of {total}, line {}", at + 1, hunk.ours.start.line);
        let title = self.paint(BOLD, &title);
        self.say("")?;
        self.say(&title)?;
        let rows = [
            ("ours", GREEN, &hunk.ours, &sides.ours),
            ("base", RED, &hunk.base, &sides.base),
            ("theirs", CYAN, &hunk.theirs, &sides.theirs),
        ];
        for (label, colour, span, text) in rows {
            let (before, inside, after) = lines_of(text, span);
            let (open, close) = if self.colours { ("", "") } else { ("[", "]") };
            let marked: Vec<String> = inside.split('\n').map(|line| self.paint(colour, &one_line(line))).collect();
            let all = format!("{}{open}{}{close}{}", one_line(before), marked.join("\n"), one_line(after));
            for (row, line) in all.split('\n').take(LINES_SHOWN).enumerate() {
                let label = if row == 0 { label } else { "" };
                let label = self.paint(DIM, &format!("  {label:<7}"));
                self.say(&format!("{label} {line}"))?;
            }
            if let more @ 1.. = all.split('\n').count().saturating_sub(LINES_SHOWN) {
                let more = self.paint(DIM, &format!("          and {more} lines more"));
                self.say(&more)?;
            }
        }
        Ok(())
    }
}

const HELP: &str = "\
  o  the version of this device     t  the version of the others
  b  as it was before both          B  both: ours, then theirs
  e  write it yourself              u  back to the place before
  q  decide nothing and end";
const WHOLE_HELP: &str = "\
  o  the version of this device     t  the version of the others
  b  as it was before both          B  theirs, and ours as a file of its own beside it
  q  decide nothing and end";

fn of<'a>(hunk: &Hunk, sides: &'a Sides) -> [&'a [u8]; 3] {
    [hunk.base.of(&sides.base), hunk.ours.of(&sides.ours), hunk.theirs.of(&sides.theirs)]
}

/// A stretch with the rest of its first and its last line.
fn lines_of<'a>(text: &'a [u8], span: &Span) -> (&'a str, &'a str, &'a str) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (start, end) = (span.start.byte as usize, span.end.byte as usize);
    let (Some(head), Some(inside), Some(tail)) = (text.get(..start), text.get(start..end), text.get(end..)) else {
        return ("", "", "");
    };
    let before = head.rfind('\n').map_or(head, |at| &head[at + 1..]);
    // Where the stretch ends with its line, the next line is none of its business.
    let after = if inside.ends_with('\n') || (inside.is_empty() && before.is_empty()) {
        ""
    } else {
        tail.split('\n').next().unwrap_or_default()
    };
    (before, inside.strip_suffix('\n').unwrap_or(inside), after)
}

/// Ours, then theirs; words do not run into each other.
fn both(ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    let mut out = ours.to_vec();
    if let (Some(last), Some(first)) = (ours.last(), theirs.first())
        && !last.is_ascii_whitespace()
        && !first.is_ascii_whitespace()
    {
        let has_lines = ours.contains(&b'\n') || theirs.contains(&b'\n');
        out.push(if has_lines { b'\n' } else { b' ' });
    }
    out.extend_from_slice(theirs);
    out
}

fn edited(hunk: &Hunk, sides: &Sides, edit: Edit<'_>) -> Result<Vec<u8>, Failure> {
    let versions = of(hunk, sides);
    let mut shown = Vec::new();
    for (marker, version) in [("<<<<<<< ours", versions[1]), ("||||||| base", versions[0]), ("=======", versions[2])] {
        shown.extend_from_slice(format!("{marker}\n").as_bytes());
        shown.extend_from_slice(version);
        if version.last().is_some_and(|last| *last != b'\n') {
            shown.push(b'\n');
        }
    }
    shown.extend_from_slice(b">>>>>>> theirs\n");
    let mut text = edit(&shown)?;
    if super::marker_left(&text, sides).is_some() {
        return Err(Failure::new(
            Code::Refused,
            "a conflict marker is still in it",
            "Leave only what shall stand, or answer o, t, b or B.",
        ));
    }
    // An editor ends the last line; inside a line there is nothing to end.
    if versions.iter().all(|version| version.last() != Some(&b'\n')) && text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::text::Merge;
    use crate::merge::text::merge;

    const BASE: &str = "a red cat\n\nstays\n\na red dog\n";
    const OURS: &str = "a big cat\n\nstays\n\na big dog\n";
    const THEIRS: &str = "a wet cat\n\nstays\n\na wet dog\n";

    fn sides(texts: [&str; 3]) -> Sides {
        let [base, ours, theirs] = texts.map(|text| text.as_bytes().to_vec());
        Sides { base, ours, theirs }
    }

    /// What came out, and what was shown, for these answers.
    fn answered(texts: [&str; 3], answers: &str, written: &str) -> (Option<String>, String) {
        let sides = sides(texts);
        let Merge::Conflict(conflict) = merge(&sides.base, &sides.ours, &sides.theirs) else { panic!("no conflict") };
        let mut shown = Vec::new();
        let mut console = Console::new(answers.as_bytes(), &mut shown, false);
        let text = console.hunks("f", &sides, &conflict, &mut |_| Ok(written.as_bytes().to_vec())).unwrap();
        (text.map(|text| String::from_utf8(text).unwrap()), String::from_utf8(shown).unwrap())
    }

    fn text(answers: &str) -> Option<String> {
        answered([BASE, OURS, THEIRS], answers, "a dry cat\n").0
    }

    /// Every place is decided for itself.
    #[test]
    fn each_place_has_its_answer() {
        assert_eq!(text("o\nt\ny\n").as_deref(), Some("a big cat\n\nstays\n\na wet dog\n"));
        assert_eq!(text("b\nB\ny\n").as_deref(), Some("a red cat\n\nstays\n\na big wet dog\n"));
        assert_eq!(text("ours\nours\nyes\n").as_deref(), Some(OURS));
    }

    /// An answer can be taken back, also the last one, and what is no answer is explained and changes nothing.
    #[test]
    fn answers_can_be_taken_back() {
        assert_eq!(text("o\nu\nt\no\nu\nt\ny\n").as_deref(), Some(THEIRS));
        assert_eq!(text("u\nx\no\no\nu\nu\nt\nt\ny\n").as_deref(), Some(THEIRS));
        let (_, shown) = answered([BASE, OURS, THEIRS], "u\n?\nq\n", "");
        assert!(shown.contains("first place") && shown.contains("back to the place before"), "{shown}");
    }

    /// Who leaves, or is gone, has decided nothing.
    #[test]
    fn quitting_decides_nothing() {
        for answers in ["", "q\n", "o\nq\n", "o\no\nq\n", "o\no\n", "o\nt"] {
            assert_eq!(text(answers), None, "{answers:?}");
        }
    }

    /// What a person writes stands, without the line end that his editor adds inside a line; with markers it does not.
    #[test]
    fn a_place_can_be_written() {
        let texts = ["a red cat\n", "a big cat\n", "a wet cat\n"];
        assert_eq!(answered(texts, "e\ny\n", "dry\n").0.as_deref(), Some("a dry cat\n"));
        let (text, shown) = answered(texts, "e\no\ny\n", "<<<<<<< ours\nbig\n");
        assert_eq!(text.as_deref(), Some("a big cat\n"));
        assert!(shown.contains("marker is still in it"), "{shown}");
    }

    /// A person sees the words in their lines; a hostile text cannot draw on the terminal.
    #[test]
    fn the_places_are_shown() {
        let (_, shown) = answered(["a red cat\n", "a \u{1b}[2J cat\n", "a wet cat\n"], "q\n", "");
        assert!(shown.contains("f: place 1 of 1, line 1"), "{shown}");
        assert!(shown.contains("  theirs  a [wet] cat\n"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    /// Both keeps words and lines apart.
    #[test]
    fn both_does_not_glue() {
        assert_eq!(both(b"1500", b"2000"), b"1500 2000");
        assert_eq!(both(b"a\n", b"b\n"), b"a\nb\n");
        assert_eq!(both(b"a\nb", b"c\n"), b"a\nb\nc\n");
        assert_eq!(both(b"", b"x"), b"x");
        assert_eq!(both(b"x", b""), b"x");
    }

    /// What is no text is decided as a whole.
    #[test]
    fn whole_files() {
        let answer = |answers: &str| Console::new(answers.as_bytes(), io::sink(), false).whole("f").unwrap().map(|(how, _)| how);
        assert_eq!(answer("x\nB\n"), Some(Choice::Both));
        assert_eq!(answer("t\n"), Some(Choice::Theirs));
        assert_eq!(answer("q\n"), None);
    }
}
