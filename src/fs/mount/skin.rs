//! What the FUSE operations share. Each one is guarded: a panic is answered with `EIO` and logged, and the
//! mount lives on.

use std::any::Any;
use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fuser::FileType;
use fuser::Generation;
use fuser::INodeNo;
use fuser::InitFlags;
use fuser::ReplyDirectory;
use fuser::ReplyDirectoryPlus;
use fuser::ReplyEntry;
use fuser::Request;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::attrs;
use super::served::Caller;
use super::served::Found;
use super::served::Served;

/// What is asked of the kernel where it has it. Not locks: they stay the kernel's own, between the processes here.
pub const WISHES: [InitFlags; 8] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
];

/// See the module.
#[derive(Debug)]
pub struct Skin {
    /// What is served.
    pub served: Arc<Served>,
    /// The kernel lists directories without opening them, and keeps the listings.
    pub lists_without_open: AtomicBool,
}

thread_local! {
    static UMASK_FREE: Cell<bool> = const { Cell::new(false) };
}

impl Skin {
    /// A skin over a served directory.
    pub fn new(served: Arc<Served>) -> Self {
        Self { served, lists_without_open: AtomicBool::new(false) }
    }

    /// Who makes the request.
    pub fn caller(&self, request: &Request) -> Caller {
        Caller { who: self.served.gate().who(request.pid()), uid: request.uid(), gid: request.gid() }
    }

    /// Replies with an entry.
    pub fn answer(&self, reply: ReplyEntry, found: Result<Found, fuser::Errno>) {
        match found {
            Ok(found) => reply.entry(&self.served.terms.ttl, &found.attr, Generation(found.generation)),
            Err(errno) => reply.error(errno),
        }
    }

    /// One piece of a listing with attributes; each entry that fits counts as looked up.
    pub fn plus(&self, id: u64, from: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), Errno> {
        let served = &self.served;
        let ttl = served.terms.ttl;
        served.list(id, from, |dir, at, entry| {
            let name = OsStr::from_bytes(entry.name);
            if entry.name == b"." || entry.name == b".." {
                let mut attr = attrs::absent();
                attr.ino = INodeNo(served.id_of(entry.ino));
                attr.kind = FileType::Directory;
                return !reply.add(attr.ino, entry.next, name, &Duration::ZERO, &attr, Generation(0));
            }
            match attrs::of_entry(dir, entry.name) {
                Ok(stat) => match served.found(at, entry.name, &stat) {
                    Ok(found) => {
                        let generation = Generation(found.generation);
                        let full = reply.add(found.attr.ino, entry.next, name, &ttl, &found.attr, generation);
                        if full {
                            let kept = served.nodes_mut().forget(stat.stx_ino, 1);
                            drop(kept);
                        }
                        !full
                    }
                    Err(_) => !reply.add(INodeNo(0), entry.next, name, &Duration::ZERO, &attrs::absent(), Generation(0)),
                },
                Err(Errno::NOENT) => true,
                Err(_) => !reply.add(INodeNo(0), entry.next, name, &Duration::ZERO, &attrs::absent(), Generation(0)),
            }
        })
    }

    /// One piece of a listing.
    pub fn plain(&self, id: u64, from: u64, reply: &mut ReplyDirectory) -> Result<(), Errno> {
        let served = &self.served;
        served.list(id, from, |dir, _, entry| {
            let kind = entry.kind.or_else(|| attrs::of_entry(dir, entry.name).ok().map(|stat| attrs::kind(stat.stx_mode)));
            let ino = INodeNo(served.id_of(entry.ino));
            let name = OsStr::from_bytes(entry.name);
            !reply.add(ino, entry.next, kind.unwrap_or(FileType::RegularFile), name)
        })
    }
}

/// Runs one operation: a panic becomes `EIO`.
pub fn guarded<T>(operation: &'static str, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, fuser::Errno> {
    free_of_umask();
    match std::panic::catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(errno)) => Err(fuser::Errno::from_i32(errno.raw_os_error())),
        Err(panic) => {
            tracing::error!(operation, panic = message(panic.as_ref()), "an operation of the mount panicked; answered EIO");
            Err(fuser::Errno::EIO)
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The kernel has applied the caller's umask; the daemon's must not be applied on top. A thread that serves the mount gets
/// a umask of its own, because the process's is in use elsewhere.
fn free_of_umask() {
    UMASK_FREE.with(|free| {
        if !free.get() {
            free.set(true);
            // SAFETY: gives this thread its own umask and working directory; no other thread or memory is concerned.
            match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) } {
                Ok(()) => {
                    rustix::process::umask(Mode::empty());
                }
                Err(errno) => tracing::warn!(%errno, "new files will have the daemon's umask applied too"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic in an operation is an error for its caller and for nobody else.
    #[test]
    fn a_panic_is_an_input_output_error() {
        let panicked = guarded("test", || if true { panic!("planted") } else { Ok(()) });
        assert_eq!(panicked.map_err(fuser::Errno::code), Err(libc::EIO));
        assert_eq!(guarded("test", || Ok(5)).map_err(fuser::Errno::code), Ok(5));
        assert_eq!(guarded::<()>("test", || Err(Errno::ROFS)).map_err(fuser::Errno::code), Err(libc::EROFS));
    }
}
