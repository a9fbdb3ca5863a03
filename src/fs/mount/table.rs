//! The threads that serve a mount have a table of descriptors of their own.
//!
//! A process that uses its own mount, as the applier does, could otherwise not be killed: a thread of it that waits for an answer
//! cannot end, so the table it shares with the serving threads, who are gone, keeps `/dev/fuse` open, so the kernel waits for an
//! answer for ever, and with it everybody else in the mount. With two tables the serving threads' ends with them, the kernel gives
//! the mount up, and the other thread ends.

use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

/// Gives the calling thread, and the threads it will start, a table of descriptors that holds the standard ones and the copy of
/// `keep` that is returned. From here on no descriptor may pass between these threads and the others of the process, and
/// `/proc/self/fd` means another table than `/proc/thread-self/fd`.
///
/// # Errors
/// Those of duplicating `keep`.
pub fn own(keep: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: what this thread has of the shared table is closed below, but for the copy that is made after; whoever calls it
    // lets no descriptor pass.
    if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) } {
        // Some containers forbid it; all is well there until this process is killed at the wrong moment.
        tracing::warn!(%errno, "the mount shares its descriptors with the rest of the process");
        return keep.try_clone_to_owned();
    }
    let kept = keep.try_clone_to_owned()?;
    let number = kept.as_raw_fd();
    close_all(3, number - 1);
    close_all(number + 1, RawFd::MAX);
    Ok(kept)
}

fn close_all(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the table is this thread's own since a moment ago, and nothing in it is known to any value of this thread but `kept`.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "descriptors of others stay open in the mount's table");
    }
}
