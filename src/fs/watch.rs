//! Notices of changes that bypass the mount: inotify on the directories underneath.
//!
//! A notice says "look there", not what happened; our own changes are noticed too.

use super::root::descriptor_path;
use crate::model::Name;
use rustix::fs::inotify;
use rustix::fs::inotify::CreateFlags;
use rustix::fs::inotify::ReadFlags;
use rustix::fs::inotify::WatchFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// The entry `name` of the directory with inode `dir` came, went, or was written and closed.
    Entry { dir: u64, name: Name },
    /// Notices were lost: look everywhere.
    Lost,
}

#[derive(Debug, Default)]
struct Watched {
    dirs: BTreeMap<i32, u64>,
    by_ino: BTreeMap<u64, i32>,
    warned: bool,
    ending: bool,
}

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    watched: Mutex<Watched>,
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watched directories of a root; dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    /// A watch that nothing happens to; its removal wakes the thread.
    bell: i32,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to send what is noticed to `sender`, which never waits.
    ///
    /// # Errors
    /// When the system gives no inotify instance or thread; one can go on without.
    pub fn start(sender: Sender<Noticed>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let bell = inotify::add_watch(&inotify, "/proc", WatchFlags::DELETE_SELF)?;
        let shared = Arc::new(Shared { inotify, watched: Mutex::default() });
        let read = shared.clone();
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || deliver(&read, &sender))?;
        Ok(Self { shared, bell, thread: Some(thread) })
    }

    /// Watches the open directory `dir` with inode `ino`; twice is once. False: it is not watched, because the system's limit is
    /// reached (said once, as a warning) or the directory is gone.
    pub fn add(&self, dir: impl AsFd, ino: u64) -> bool {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        // Before the watch: a notice that comes at once must find its directory.
        let mut watched = self.shared.watched();
        match inotify::add_watch(&self.shared.inotify, descriptor_path(dir.as_fd()), flags) {
            Ok(wd) => {
                watched.dirs.insert(wd, ino);
                watched.by_ino.insert(ino, wd);
                true
            }
            Err(error) => {
                if !watched.warned {
                    watched.warned = true;
                    let hint =
                        if error == Errno::NOSPC { "raise fs.inotify.max_user_watches" } else { "the next start finds them" };
                    tracing::warn!(%error, hint, "not every directory is watched for changes that bypass the mount");
                }
                false
            }
        }
    }

    /// Stops watching the directory with inode `ino`; one that is not watched is fine too.
    pub fn remove(&self, ino: u64) {
        let mut watched = self.shared.watched();
        if let Some(wd) = watched.by_ino.remove(&ino) {
            watched.dirs.remove(&wd);
            // It fails only for a directory that is gone, and with it the watch.
            let _ = inotify::remove_watch(&self.shared.inotify, wd);
        }
    }

    /// Whether every directory that was asked for could be watched.
    pub fn is_complete(&self) -> bool {
        !self.shared.watched().warned
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.watched().ending = true;
        if inotify::remove_watch(&self.shared.inotify, self.bell).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn deliver(shared: &Shared, sender: &Sender<Noticed>) {
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    let mut reader = inotify::Reader::new(&shared.inotify, &mut buffer);
    loop {
        let event = match reader.next() {
            Err(Errno::INTR) => continue,
            Err(error) => {
                tracing::warn!(%error, "watching the directory ended");
                let _ = sender.send(Noticed::Lost);
                return;
            }
            Ok(event) => event,
        };
        let noticed = {
            let mut watched = shared.watched();
            if watched.ending {
                return;
            }
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                Some(Noticed::Lost)
            } else if event.events().contains(ReadFlags::IGNORED) {
                if let Some(ino) = watched.dirs.remove(&event.wd())
                    && watched.by_ino.get(&ino) == Some(&event.wd())
                {
                    watched.by_ino.remove(&ino);
                }
                None
            } else {
                let dir = watched.dirs.get(&event.wd()).copied();
                let name = event.file_name().and_then(|name| Name::new(name.to_bytes()).ok());
                dir.zip(name).map(|(dir, name)| Noticed::Entry { dir, name })
            }
        };
        if let Some(noticed) = noticed
            && sender.send(noticed).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::mpsc::Receiver;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn wait_for(receiver: &Receiver<Noticed>, dir: &Path, name: &[u8]) {
        let wanted = Noticed::Entry { dir: dir.metadata().unwrap().ino(), name: Name::new(name).unwrap() };
        while receiver.recv_timeout(Duration::from_secs(20)).expect("a notice") != wanted {}
    }

    /// Writing, making, moving and removing in a watched directory is noticed under the directory's inode.
    #[test]
    fn changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let (sender, receiver) = channel();
        let watch = Watch::start(sender).unwrap();
        assert!(watch.add(File::open(at).unwrap(), at.metadata().unwrap().ino()));
        std::fs::write(at.join("written"), "x").unwrap();
        wait_for(&receiver, at, b"written");
        std::fs::rename(at.join("written"), at.join("moved")).unwrap();
        wait_for(&receiver, at, b"moved");
        std::fs::remove_file(at.join("moved")).unwrap();
        wait_for(&receiver, at, b"moved");
        assert!(watch.is_complete());
    }

    /// A directory that is not watched any more is silent, and the end of the watch ends its thread.
    #[test]
    fn a_watch_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (sender, receiver) = channel();
        let watch = Watch::start(sender).unwrap();
        for at in [&one, &two] {
            std::fs::create_dir(at).unwrap();
            assert!(watch.add(File::open(at).unwrap(), at.metadata().unwrap().ino()));
        }
        watch.remove(one.metadata().unwrap().ino());
        std::fs::write(one.join("a"), "x").unwrap();
        std::fs::write(two.join("b"), "x").unwrap();
        let first = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(first, Noticed::Entry { dir: two.metadata().unwrap().ino(), name: Name::new(b"b").unwrap() });
        drop(watch);
        while receiver.recv_timeout(Duration::from_secs(20)) != Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {}
    }
}
