//! `syncfs resolve`: a person's decision about one file, by an option, an editor, a merge program, or answers hunk by hunk.

mod choose;
mod scratch;
mod tool;

use super::args;
use super::asking::Asked;
use super::failure::Code;
use super::failure::Failure;
use super::failure::one_line;
use super::output;
use super::places;
use super::places::at;
use crate::client::Choice;
use crate::client::Request;
use crate::client::status::OpenConflict;
use crate::client::status::ShownPath;
use crate::merge::text::Merge;
use crate::merge::text::merge;
use choose::Console;
use scratch::Scratch;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// How often is looked whether the file is free.
const LOOK: Duration = Duration::from_millis(50);
/// How long an answer of the hub may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest version that a decision can be, in bytes.
const WITH_MAX: u64 = 64 << 20;

/// A blocked file, and what is known of its conflict.
struct Blocked {
    /// Its real path.
    file: PathBuf,
    /// Its path for people.
    name: String,
    client: Asked,
    conflict: OpenConflict,
}

/// The three versions in bytes.
struct Sides {
    base: Vec<u8>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

/// What was decided.
struct Decision {
    how: Choice,
    /// What stands then, for people.
    stands: &'static str,
    /// It is about the versions as they were shown, and about no others.
    seen: bool,
    /// Where a text lies that must not be lost.
    scratch: Option<Scratch>,
}

impl Decision {
    fn option(how: Choice, stands: &'static str) -> Self {
        Self { how, stands, seen: false, scratch: None }
    }
}

/// Runs `resolve`.
pub fn run(asked: &args::Resolve) -> Result<Code, Failure> {
    let blocked = Blocked::find(asked)?;
    let decision = match &asked.with {
        args::ResolveWith { with: Some(path), .. } => Decision::option(Choice::With(read(path)?), "the given version stands"),
        args::ResolveWith { ours: true, .. } => Decision::option(Choice::Ours, "the version of this device stands"),
        args::ResolveWith { theirs: true, .. } => Decision::option(Choice::Theirs, "the version of the others stands"),
        args::ResolveWith { base: true, .. } => Decision::option(Choice::Base, "the version before both edits stands"),
        args::ResolveWith { both: true, .. } => {
            Decision::option(Choice::Both, "the version of the others stands, yours is beside it")
        }
        args::ResolveWith { edit: true, .. } => blocked.edited()?,
        args::ResolveWith { tool: Some(tool), .. } => blocked.merged_with(*tool)?,
        args::ResolveWith { .. } => match blocked.ask()? {
            Some(decision) => decision,
            None => {
                output::tell("nothing was changed");
                return Ok(Code::No);
            }
        },
    };
    blocked.decide(decision)
}

impl Blocked {
    fn find(asked: &args::Resolve) -> Result<Self, Failure> {
        let file = real_entry(&asked.file)?;
        let client = match &asked.state {
            Some(state) => Asked::find(None, Some(state))?,
            None => Asked::above(file.parent().unwrap_or(&file))?,
        };
        let path = file.strip_prefix(&client.dir).map_err(|_| {
            Failure::new(
                Code::Usage,
                format!("{} is not in {}", file.display(), client.dir.display()),
                "Give a file of the directory that this state belongs to.",
            )
        })?;
        let path = ShownPath::new(path.as_os_str().as_bytes());
        let conflict = client.status()?.conflicts.into_iter().find(|conflict| conflict.path == path);
        let Some(conflict) = conflict else {
            return Err(Failure::new(
                Code::Usage,
                format!("{} is in no conflict", file.display()),
                format!("`syncfs conflicts {}` lists what is.", places::shell_word(&client.dir)),
            ));
        };
        let name = one_line(&file.display().to_string());
        Ok(Self { file, name, client, conflict })
    }

    fn sides(&self) -> Result<Sides, Failure> {
        let mut sides = self.conflict.side_paths().into_iter().map(|side| read(&self.client.dir.join(side)));
        let mut next = || sides.next().unwrap_or_else(|| Ok(Vec::new()));
        Ok(Sides { base: next()?, ours: next()?, theirs: next()? })
    }

    /// What is merged so far, with markers.
    fn merged(&self) -> Result<Vec<u8>, Failure> {
        let beside = self.conflict.side_paths().pop().map(|side| side.with_file_name("merged"));
        match (self.conflict.hunks, beside) {
            (Some(_), Some(merged)) => read(&self.client.dir.join(merged)),
            _ => Err(Failure::new(
                Code::Usage,
                format!("{} is no text that could be merged", self.name),
                "Choose with --ours, --theirs, --both or --base, or give a version with --with FILE.",
            )),
        }
    }

    fn scratch(&self) -> Result<Scratch, Failure> {
        Scratch::new(self.file.file_name().unwrap_or_default())
    }

    /// `--edit`.
    fn edited(&self) -> Result<Decision, Failure> {
        let (merged, sides) = (self.merged()?, self.sides()?);
        let scratch = self.scratch()?;
        let path = scratch.write("", &merged)?;
        tool::edit(&path)?;
        self.made(scratch, &path, &sides)
    }

    /// `--tool`.
    fn merged_with(&self, tool: args::MergeTool) -> Result<Decision, Failure> {
        let (merged, sides) = (self.merged()?, self.sides()?);
        let scratch = self.scratch()?;
        let files = tool::Files {
            local: scratch.write("_LOCAL", &sides.ours)?,
            base: scratch.write("_BASE", &sides.base)?,
            remote: scratch.write("_REMOTE", &sides.theirs)?,
            merged: scratch.write("", &merged)?,
        };
        tool::merge(tool, &files)?;
        self.made(scratch, &files.merged, &sides)
    }

    /// What a person made of `path`, if it is finished.
    fn made(&self, scratch: Scratch, path: &Path, sides: &Sides) -> Result<Decision, Failure> {
        let text = read(path)?;
        if let Some(line) = marker_left(&text, sides) {
            let failure = Failure::new(
                Code::Refused,
                format!("line {line} still has a conflict marker; {} stays as it is", self.name),
                "Run it again, or finish the text and give it with --with FILE.",
            );
            return Err(scratch.keep(failure));
        }
        Ok(Decision { how: Choice::With(text), stands: "your version stands", seen: true, scratch: Some(scratch) })
    }

    /// Asks a person; `None` when he does not want to decide now.
    fn ask(&self) -> Result<Option<Decision>, Failure> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::new(
                Code::Usage,
                format!("there is no terminal to ask what shall become of {}", self.name),
                "Say it with --ours, --theirs, --both, --base, --with FILE, --edit or --tool NAME.",
            ));
        }
        let sides = self.sides()?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let mut console = Console::new(io::stdin().lock(), io::stderr().lock(), !plain);
        let is_text = self.conflict.hunks.is_some();
        let answer = match if is_text { Some(merge(&sides.base, &sides.ours, &sides.theirs)) } else { None } {
            Some(Merge::Conflict(conflict)) => console.hunks(&self.name, &sides, &conflict, &mut |hunk| {
                let scratch = self.scratch()?;
                let path = scratch.write("", hunk)?;
                tool::edit(&path)?;
                read(&path)
            }),
            _ => {
                return Ok(console
                    .whole(&self.name)?
                    .map(|(how, stands)| Decision { seen: true, ..Decision::option(how, stands) }));
            }
        };
        Ok(answer?.map(|text| Decision { seen: true, ..Decision::option(Choice::With(text), "your version stands") }))
    }

    fn decide(&self, decision: Decision) -> Result<Code, Failure> {
        let Decision { how, stands, seen, scratch } = decision;
        let made = match &how {
            Choice::With(text) if seen => text.clone(),
            _ => Vec::new(),
        };
        let seen = self.conflict.version.clone().filter(|_| seen);
        let done = self.tell(how, seen);
        match (&done, scratch) {
            (Ok(()), _) => output::answer(&format!("{}: {stands}; it can be written again", self.name))?,
            (Err(_), None) if made.is_empty() => {}
            // What took a person's time is not thrown away because somebody else was faster.
            (Err(failure), scratch) => {
                let failure = failure.clone();
                let scratch = match scratch {
                    Some(scratch) => scratch,
                    None => {
                        let scratch = self.scratch()?;
                        scratch.write("", &made)?;
                        scratch
                    }
                };
                return Err(scratch.keep(failure));
            }
        }
        done.map(|()| Code::Done)
    }

    /// Gives the decision to the client and waits until it is in place.
    fn tell(&self, how: Choice, seen: Option<String>) -> Result<(), Failure> {
        let path = self.file.strip_prefix(&self.client.dir).unwrap_or(&self.file).as_os_str().as_bytes().to_vec();
        self.client.request(&Request::Resolve { path, how, seen })?;
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.client.status()?;
            let Some(now) = status.conflicts.iter().find(|conflict| conflict.path == self.conflict.path) else { return Ok(()) };
            if now.version != self.conflict.version {
                return Err(Failure::new(
                    Code::Refused,
                    format!("{} was changed meanwhile and is in conflict with the new version", self.name),
                    "Look at it again and choose.",
                ));
            }
            if Instant::now() > until {
                let why = if status.connected { "the hub has not taken it yet" } else { "the hub is not reachable" };
                return Err(Failure::new(
                    Code::Unreachable,
                    format!("{} is decided and still blocked: {why}", self.name),
                    "It is finished by itself; `syncfs status` says when.",
                ));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The real path of an entry; a symbolic link is the entry itself.
fn real_entry(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).map_err(at(path))?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(std::fs::canonicalize(parent).map_err(at(parent))?.join(name)),
        _ => Err(Failure::new(Code::Usage, format!("{} is not a file", path.display()), "Give the blocked file.")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(at(path))?;
    file.take(WITH_MAX + 1).read_to_end(&mut bytes).map_err(at(path))?;
    if bytes.len() as u64 > WITH_MAX {
        return Err(Failure::new(
            Code::Usage,
            format!("{} has more than 64 MiB", path.display()),
            "Resolve with --ours or --theirs, then copy the file over it.",
        ));
    }
    Ok(bytes)
}

/// The first line, from 1, that is a conflict marker and was in none of the versions.
fn marker_left(text: &[u8], sides: &Sides) -> Option<usize> {
    let lines = |text: &'_ [u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let is_marker = |line: &[u8]| [&b"<<<<<<< "[..], b"||||||| ", b">>>>>>> "].iter().any(|mark| line.starts_with(mark));
    let is_old = |line: &Vec<u8>| [&sides.base, &sides.ours, &sides.theirs].iter().any(|side| lines(side).contains(line));
    let found = lines(text).into_iter().enumerate().find(|(_, line)| is_marker(line) && !is_old(line));
    found.map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text with a marker in it is not finished, unless the file is about markers itself.
    #[test]
    fn markers_are_noticed() {
        let sides = |text: &str| Sides { base: Vec::new(), ours: text.into(), theirs: Vec::new() };
        assert_eq!(marker_left(b"Title\n=======\ntext <<<<<<< x\n", &sides("")), None);
        for marker in ["<<<<<<< ours (this device)", "||||||| base", ">>>>>>> theirs (hub)\r"] {
            let text = format!("one\n{marker}\n");
            assert_eq!(marker_left(text.as_bytes(), &sides("one\n")), Some(2), "{marker}");
            assert_eq!(marker_left(text.as_bytes(), &sides(&text)), None, "{marker}");
        }
    }
}
