//! The signals that ask a process to end: SIGTERM, SIGINT and SIGHUP.

use super::failure::Code;
use super::failure::Failure;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// From now on the signals do not end the process; whoever waits here learns of them, also of those that came before.
pub struct Signals {
    runtime: Runtime,
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Catches the signals.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn catch() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Code::Failed, format!("signals cannot be caught: {error}"), "See the system's limits.");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let inside = runtime.enter();
        let catch = |kind| signal(kind).map_err(failed);
        let (term, int, hup) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?);
        drop(inside);
        Ok(Self { runtime, term, int, hup })
    }

    /// Waits for one of the signals, or for `other`. Returns whether it was a signal.
    pub fn wait_or(&mut self, other: impl Future<Output = ()>) -> bool {
        let Self { runtime, term, int, hup } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => true,
                _ = int.recv() => true,
                _ = hup.recv() => true,
                () = other => false,
            }
        })
    }

    /// Waits for one of the signals, for `longest` at most. Returns whether one came.
    pub fn wait_for(&mut self, longest: Duration) -> bool {
        // A timer can only be made inside the runtime, hence the block.
        self.wait_or(async { tokio::time::sleep(longest).await })
    }
}
