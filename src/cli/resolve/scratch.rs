//! Files for an editor or a merge program, in a temporary directory of this user alone.

use crate::cli::failure::Code;
use crate::cli::failure::Failure;
use crate::cli::places;
use crate::cli::places::at;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// How many names are tried.
const NAMES: u32 = 1000;

/// A directory that is removed with its files when it is dropped.
pub struct Scratch {
    dir: PathBuf,
    name: OsString,
    keep: bool,
}

impl Scratch {
    /// For versions of a file called `name`.
    ///
    /// # Errors
    /// When there can be none.
    pub fn new(name: &OsStr) -> Result<Self, Failure> {
        let top = std::env::temp_dir();
        for n in 0..NAMES {
            let dir = top.join(format!("syncfs-resolve-{}-{n}", std::process::id()));
            // Never one that is there already: it could be another user's.
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Self { dir, name: name.to_owned(), keep: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&dir)(error)),
            }
        }
        let sentence = format!("{} is full of leftovers of `syncfs resolve`", top.display());
        Err(Failure::new(Code::Failed, sentence, "Remove its directories syncfs-resolve-*."))
    }

    /// A new file: called as the real one, with `which` in front of the last dot, so that an editor knows what it is.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, which: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.dir.join(named(&self.name, which));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(at(&path))?;
        Ok(path)
    }

    /// Leaves the files there, and says so in the hint.
    pub fn keep(mut self, failure: Failure) -> Failure {
        self.keep = true;
        let path = self.dir.join(named(&self.name, ""));
        failure.and_hint(&format!("Your text is kept in {}.", places::shell_word(&path)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What stays is in the directory for temporary files.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn named(name: &OsStr, which: &str) -> OsString {
    let path = Path::new(name);
    let mut out = path.file_stem().unwrap_or(OsStr::new("file")).to_owned();
    out.push(which);
    if let Some(extension) = path.extension() {
        out.push(".");
        out.push(extension);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An editor sees what kind of file it is; afterwards nothing is left, unless something would be lost.
    #[test]
    fn files_come_and_go() {
        let scratch = Scratch::new(OsStr::new("plan.md")).unwrap();
        let (local, merged) = (scratch.write("_LOCAL", b"l").unwrap(), scratch.write("", b"m").unwrap());
        assert!(local.ends_with("plan_LOCAL.md") && merged.ends_with("plan.md"));
        let dir = scratch.dir.clone();
        drop(scratch);
        assert!(!dir.exists());

        let scratch = Scratch::new(OsStr::new(".profile")).unwrap();
        let path = scratch.write("", b"text").unwrap();
        let dir = scratch.dir.clone();
        let failure = scratch.keep(Failure::new(Code::Refused, "no", "Try.")).to_string();
        assert!(failure.contains(path.to_str().unwrap()), "{failure}");
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
