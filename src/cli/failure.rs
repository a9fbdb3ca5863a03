//! How a command ends: an exit code, and for a failure one sentence and one hint.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::process::ExitCode;

/// The exit codes scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Done.
    Done = 0,
    /// The question's answer is no: conflicts exist, not idle.
    No = 1,
    /// Wrong usage.
    Usage = 2,
    /// Refused: not registered, revoked, blocked.
    Refused = 3,
    /// Cannot reach the hub, or the client of a directory.
    Unreachable = 4,
    /// Anything else.
    Failed = 5,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A command that did not do what it was asked to. Shown as one sentence on what is wrong and one hint on what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct Failure {
    code: Code,
    sentence: String,
    hint: String,
}

impl Failure {
    /// `sentence` says what is wrong, with the name of the thing; `hint` what to run or to look at. Neither ends in a line end.
    pub fn new(code: Code, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), hint: hint.into() }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    /// The same with one more sentence in its hint.
    #[must_use]
    pub fn and_hint(mut self, more: &str) -> Self {
        self.hint = format!("{} {more}", self.hint);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "syncfs: {}\n  hint: {}", one_line(&self.sentence), one_line(&self.hint))
    }
}

/// Names of files and words of peers go into sentences; none of them may move the cursor of a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A person reads two lines, whatever a file is called.
    #[test]
    fn a_failure_is_a_sentence_and_a_hint() {
        let failure = Failure::new(Code::Refused, "a\nb\u{1b}[2J is blocked", "run `syncfs resolve`");
        assert_eq!(failure.to_string(), "syncfs: a\\nb\\u{1b}[2J is blocked\n  hint: run `syncfs resolve`");
    }

    /// The numbers of the contract.
    #[test]
    fn codes_are_the_contract() {
        let codes = [Code::Done, Code::No, Code::Usage, Code::Refused, Code::Unreachable, Code::Failed];
        assert_eq!(codes.map(|code| code as u8), [0, 1, 2, 3, 4, 5]);
    }
}
