//! Editors and merge programs, called as git calls them.

use crate::cli::args::MergeTool;
use crate::cli::failure::Code;
use crate::cli::failure::Failure;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// What a merge program is given.
pub struct Files {
    /// Ours.
    pub local: PathBuf,
    pub base: PathBuf,
    /// Theirs.
    pub remote: PathBuf,
    /// Where the result goes; it holds what is merged so far.
    pub merged: PathBuf,
}

/// Opens the user's editor on `path` and waits until it ends.
///
/// # Errors
/// When there is none, or it ended badly.
pub fn edit(path: &Path) -> Result<(), Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    // The variables hold a shell command that may have options.
    let mut script = editor.clone();
    script.push(" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("syncfs resolve").arg(path);
    run(command, &editor.to_string_lossy(), "Set VISUAL or EDITOR to an editor that waits until you are done.")
}

/// Runs a merge program and waits until it ends.
///
/// # Errors
/// When it is not there, or ended badly.
pub fn merge(tool: MergeTool, files: &Files) -> Result<(), Failure> {
    let (program, words) = words(tool, files);
    let mut command = Command::new(program);
    command.args(words);
    run(command, program, "See that it is installed, or choose another with --tool, or --edit.")
}

fn words(tool: MergeTool, files: &Files) -> (&'static str, Vec<OsString>) {
    let Files { local, base, remote, merged } = files;
    let path = |path: &PathBuf| path.clone().into_os_string();
    let mut words: Vec<OsString> = Vec::new();
    let program = match tool {
        MergeTool::Vimdiff | MergeTool::Nvimdiff => {
            words.extend(["-f", "-d", "-c", "4wincmd w | wincmd J"].map(OsString::from));
            words.extend([local, base, remote, merged].map(path));
            if tool == MergeTool::Vimdiff { "vim" } else { "nvim" }
        }
        MergeTool::Meld => {
            let mut output = OsString::from("--output=");
            output.push(merged);
            words.push(output);
            words.extend([local, base, remote].map(path));
            "meld"
        }
        MergeTool::Kdiff3 => {
            words.extend(["--auto", "--L1", "base", "--L2", "ours", "--L3", "theirs", "-o"].map(OsString::from));
            words.extend([merged, base, local, remote].map(path));
            "kdiff3"
        }
        MergeTool::Vscode => {
            words.extend(["--wait", "--merge"].map(OsString::from));
            words.extend([remote, local, base, merged].map(path));
            "code"
        }
    };
    (program, words)
}

fn run(mut command: Command, name: &str, hint: &str) -> Result<(), Failure> {
    let failed = |why: String| Err(Failure::new(Code::Failed, format!("{name} {why}; nothing was changed"), hint));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("ended with {status}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => failed("is not installed".into()),
        Err(error) => failed(format!("cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every program gets its files where git puts them.
    #[test]
    fn the_conventions_are_git_s() {
        let files = Files { local: "L".into(), base: "B".into(), remote: "R".into(), merged: "M".into() };
        let line = |tool| {
            let (program, words) = words(tool, &files);
            format!("{program} {}", words.join(" ".as_ref()).to_string_lossy())
        };
        assert_eq!(line(MergeTool::Vimdiff), "vim -f -d -c 4wincmd w | wincmd J L B R M");
        assert_eq!(line(MergeTool::Nvimdiff), "nvim -f -d -c 4wincmd w | wincmd J L B R M");
        assert_eq!(line(MergeTool::Meld), "meld --output=M L B R");
        assert_eq!(line(MergeTool::Kdiff3), "kdiff3 --auto --L1 base --L2 ours --L3 theirs -o M B L R");
        assert_eq!(line(MergeTool::Vscode), "code --wait --merge R L B M");
    }
}
