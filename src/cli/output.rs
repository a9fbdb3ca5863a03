//! What a command says: answers on standard output, everything else on standard error.

use super::failure::Code;
use super::failure::Failure;
use serde::Serialize;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use tracing_subscriber::EnvFilter;

/// Writes `text` and a line end to standard output, at once.
///
/// # Errors
/// When nobody reads it any more.
pub fn answer(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let text = text.strip_suffix('\n').unwrap_or(text);
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        Failure::new(Code::Failed, format!("standard output cannot be written: {error}"), "See where the output goes.")
    })
}

/// Writes `value` as one line of JSON to standard output.
///
/// # Errors
/// As [`answer`].
pub fn answer_json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::new(Code::Failed, format!("the answer is no JSON: {error}"), "Please report this."))?;
    answer(&line)
}

/// Writes `text` and a line end to standard error.
pub fn tell(text: &str) {
    // Where standard error is closed nobody wants to know.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person looks at standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Starts the log on standard error: `RUST_LOG` if it is set, else this program's own messages from `quiet` (a level as `RUST_LOG` takes
/// it) on, or more for `verbose`.
pub fn start_log(quiet: &str, verbose: u8) {
    let usual = match verbose {
        0 => format!("syncfs={quiet}"),
        1 => "syncfs=info".into(),
        2 => "syncfs=debug".into(),
        _ => "syncfs=trace,quinn=debug".into(),
    };
    let filter = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()).unwrap_or(usual);
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_target(false).with_writer(io::stderr);
    // Only a second log of one process could fail.
    let _ = log.try_init();
}
