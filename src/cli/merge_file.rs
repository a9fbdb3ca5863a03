//! `syncfs merge-file`: the text merge for git, scripts and benches.

use crate::merge::text::Labels;
use crate::merge::text::Merge;
use crate::merge::text::Texts;
use crate::merge::text::merge;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

/// The exit code for anything but a merge and conflicts: outside of git's range for numbers of conflicts.
const FAILED: u8 = 255;
/// The largest exit code that stands for a number of conflicts.
const MOST_CONFLICTS: usize = 127;

/// What `syncfs merge-file` was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeFile {
    /// Merge three files; the result goes into `ours`, or to standard output.
    Once {
        /// This side's version.
        ours: PathBuf,
        /// The common ancestor.
        base: PathBuf,
        /// The other side's version.
        theirs: PathBuf,
        /// `-p`: write to standard output and leave `ours` alone.
        print: bool,
    },
    /// Merge what JSON lines on standard input name.
    Batch,
}

/// One line of a batch.
#[derive(Debug, Deserialize)]
struct Request {
    id: serde_json::Value,
    base: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
    out: PathBuf,
}

/// The answer to it.
#[derive(Debug, Serialize)]
struct Answer {
    id: serde_json::Value,
    status: &'static str,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Runs `asked` and gives the exit code: 0 clean, 1 to 127 the number of conflicts (127 for more), 255 anything else,
/// which is told on `errors`. A batch exits with 0 when every line was answered.
pub fn run(asked: &MergeFile, input: impl BufRead, mut output: impl Write, mut errors: impl Write) -> u8 {
    let done = match asked {
        MergeFile::Once { ours, base, theirs, print } => once(ours, base, theirs, *print, &mut output),
        MergeFile::Batch => batch(input, &mut output).map(|()| 0),
    };
    match done.and_then(|code| output.flush().map(|()| code).map_err(|error| format!("standard output: {error}"))) {
        Ok(code) => code,
        Err(why) => {
            // With standard error gone too there is nobody left to tell; the code still says it.
            let _ = writeln!(errors, "syncfs merge-file: {why}");
            FAILED
        }
    }
}

fn once(ours: &Path, base: &Path, theirs: &Path, print: bool, output: &mut impl Write) -> Result<u8, String> {
    let (text, conflicts) = merge_paths(base, ours, theirs)?.1?;
    if print {
        output.write_all(&text).map_err(|error| format!("standard output: {error}"))?;
    } else {
        fs::write(ours, &text).map_err(|error| format!("{}: {error}", ours.display()))?;
    }
    Ok(conflicts.min(MOST_CONFLICTS) as u8)
}

fn batch(input: impl BufRead, output: &mut impl Write) -> Result<(), String> {
    for line in input.lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let asked: Request = serde_json::from_str(&line).map_err(|error| format!("not a request: {error}"))?;
        let answer = answer(asked);
        let line = serde_json::to_string(&answer).map_err(|error| format!("answer: {error}"))?;
        writeln!(output, "{line}").and_then(|()| output.flush()).map_err(|error| format!("standard output: {error}"))?;
    }
    Ok(())
}

fn answer(asked: Request) -> Answer {
    let merged = merge_paths(&asked.base, &asked.ours, &asked.theirs).and_then(|(ms, merged)| match merged {
        Ok((text, conflicts)) => write(&asked.out, &text).map(|()| (ms, if conflicts == 0 { "clean" } else { "conflict" }, None)),
        Err(why) => Ok((ms, "conflict", Some(why))),
    });
    let (ms, status, why) = merged.unwrap_or_else(|why| (0.0, "error", Some(why)));
    Answer { id: asked.id, status, ms, why }
}

fn write(path: &Path, text: &[u8]) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The milliseconds of the merge itself, and the merged text with its number of conflicts, or why there is none.
type Timed = (f64, Result<(Vec<u8>, usize), String>);

fn merge_paths(base: &Path, ours: &Path, theirs: &Path) -> Result<Timed, String> {
    let read = |path: &Path| fs::read(path).map_err(|error: io::Error| format!("{}: {error}", path.display()));
    let bytes = (read(base)?, read(ours)?, read(theirs)?);
    let texts = Texts { base: &bytes.0, ours: &bytes.1, theirs: &bytes.2 };
    let start = Instant::now();
    let merged = merge(texts.base, texts.ours, texts.theirs);
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let name = |path: &Path| path.display().to_string();
    let (ours, base, theirs) = (name(ours), name(base), name(theirs));
    Ok((
        ms,
        match merged {
            Merge::Clean(text) => Ok((text, 0)),
            Merge::Conflict(conflict) => {
                let labels = Labels { ours: &ours, base: &base, theirs: &theirs };
                Ok((conflict.with_markers(texts, labels), conflict.hunks.len()))
            }
            Merge::NotText(why) => Err(format!("cannot merge {ours}: {why}")),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn folder(ours: &str, base: &str, theirs: &str) -> TempDir {
        let dir = TempDir::new().expect("temporary directory");
        for (name, text) in [("ours", ours), ("base", base), ("theirs", theirs)] {
            fs::write(dir.path().join(name), text).expect("test file");
        }
        dir
    }

    fn once(dir: &TempDir, print: bool) -> (u8, String, String) {
        let path = |name: &str| dir.path().join(name);
        let asked = MergeFile::Once { ours: path("ours"), base: path("base"), theirs: path("theirs"), print };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let code = run(&asked, io::empty(), &mut output, &mut errors);
        (code, String::from_utf8_lossy(&output).into_owned(), String::from_utf8_lossy(&errors).into_owned())
    }

    fn read(dir: &TempDir, name: &str) -> String {
        fs::read_to_string(dir.path().join(name)).expect("test file")
    }

    #[test]
    /// Without -p a clean merge goes into OURS and exits with 0, as git has it.
    fn clean_into_ours() {
        let dir = folder("hello to the world", "hello world", "say hello world");
        assert_eq!(once(&dir, false), (0, String::new(), String::new()));
        assert_eq!(read(&dir, "ours"), "say hello to the world");
    }

    #[test]
    /// With -p the result is printed and OURS stays as it was.
    fn clean_to_standard_output() {
        let dir = folder("hello to the world", "hello world", "say hello world");
        assert_eq!(once(&dir, true), (0, "say hello to the world".to_owned(), String::new()));
        assert_eq!(read(&dir, "ours"), "hello to the world");
    }

    #[test]
    /// The exit code is the number of conflicts, and the markers name the files.
    fn conflicts_are_counted() {
        let dir =
            folder("a red cat\n\nstays\n\na red dog\n", "a big cat\n\nstays\n\na big dog\n", "a wet cat\n\nstays\n\na wet dog\n");
        let (code, output, _) = once(&dir, true);
        assert_eq!(code, 2);
        assert_eq!(output.matches("<<<<<<< ").count(), 2);
        assert!(output.contains(&format!(">>>>>>> {}", dir.path().join("theirs").display())));
    }

    #[test]
    /// More conflicts than an exit code can say are 127.
    fn many_conflicts_are_127() {
        let text = |word: &str| (0..200).map(|at| format!("the {word} {at}\n\nstays as it is\n\n")).collect::<String>();
        let dir = folder(&text("red"), &text("big"), &text("wet"));
        assert_eq!(once(&dir, true).0, 127);
    }

    #[test]
    /// A binary file is an error that leaves OURS alone.
    fn binary_is_an_error() {
        let dir = folder("a\0", "b", "c");
        let (code, _, errors) = once(&dir, false);
        assert_eq!(code, 255);
        assert!(errors.contains("not text"), "{errors}");
        assert_eq!(read(&dir, "ours"), "a\0");
    }

    #[test]
    /// A file that is not there is an error that names it.
    fn missing_file_is_an_error() {
        let dir = folder("a", "b", "c");
        fs::remove_file(dir.path().join("base")).expect("test file");
        let (code, _, errors) = once(&dir, false);
        assert_eq!(code, 255);
        assert!(errors.contains("base"), "{errors}");
    }

    #[test]
    /// A batch answers every line in order, whatever became of the one before.
    fn batch_answers_in_order() {
        let dir = folder("hello to the world", "hello world", "say hello world");
        let line = |id: &str, theirs: &str| {
            let path = |name: &str| dir.path().join(name).display().to_string();
            serde_json::json!({"id": id, "base": path("base"), "ours": path("ours"), "theirs": path(theirs), "out": path("out")})
                .to_string()
        };
        let input = [line("1", "missing"), line("2", "theirs")].join("\n");
        let mut output = Vec::new();
        assert_eq!(run(&MergeFile::Batch, input.as_bytes(), &mut output, io::sink()), 0);
        let answers: Vec<serde_json::Value> =
            String::from_utf8_lossy(&output).lines().map(|line| serde_json::from_str(line).expect("an answer is JSON")).collect();
        let said: Vec<_> = answers.iter().map(|answer| (answer["id"].as_str(), answer["status"].as_str())).collect();
        assert_eq!(said, [(Some("1"), Some("error")), (Some("2"), Some("clean"))]);
        assert_eq!(read(&dir, "out"), "say hello to the world");
    }

    #[test]
    /// A batch line that is no request ends the batch with an error.
    fn batch_refuses_nonsense() {
        let mut errors = Vec::new();
        assert_eq!(run(&MergeFile::Batch, "nonsense".as_bytes(), io::sink(), &mut errors), 255);
        assert!(String::from_utf8_lossy(&errors).contains("not a request"));
    }
}
