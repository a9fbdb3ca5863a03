//! The one place that decides whether an inode may be changed now.
//!
//! Every way to change or replace a file asks here: the operations of the mount, and through them the applier. A conflict
//! *blocks* an inode; an *open writer* holds off the applier. The decision and the system call that acts on it happen under
//! one mutex ([`Gate::enter`]), so nobody slips in between. The mutex is held over single local system calls only (open,
//! rename, unlink, link), never over reading, writing or hashing, and nothing waits inside.

use std::collections::HashMap;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;

use rustix::io::Errno;

/// What stands for an inode on this machine: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino {
    /// `st_dev` of the file system underneath.
    pub dev: u64,
    /// `st_ino` on it.
    pub ino: u64,
}

/// On whose behalf a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A process that uses the mount: refused by a block.
    User,
    /// The sync engine placing what the hub sent: exempt from blocks, refused by an open writer.
    Applier,
}

/// What the last close left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Handles still open for writing on the inode.
    pub writers: u32,
    /// Whether a user's handle was among those closed since nobody wrote; only meaningful when `writers` is 0.
    pub by_user: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    inodes: Mutex<Inodes>,
    appliers: RwLock<HashSet<u32>>,
}

#[derive(Debug, Default)]
struct Inodes {
    blocked: HashSet<Ino>,
    writers: HashMap<Ino, Writers>,
    placing: Option<Target>,
    /// How often a person has given something another name.
    moves: u64,
}

/// What the applier is about to replace or remove.
#[derive(Debug, Clone, Copy)]
struct Target {
    ino: Ino,
    /// Somebody has had it open for writing since.
    written: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Writers {
    open: u32,
    user: bool,
}

/// The gate held: between the question and the system call nothing else passes.
#[derive(Debug)]
pub struct Entered<'a>(MutexGuard<'a, Inodes>);

/// From here until dropped the applier may replace or remove one inode only, and that only if nobody has written it meanwhile.
#[derive(Debug)]
pub struct Placing<'a>(&'a Gate);

impl Drop for Placing<'_> {
    fn drop(&mut self) {
        self.0.enter().0.placing = None;
    }
}

/// Makes the thread that called [`Gate::register_applier`] the applier until dropped. It cannot leave its thread.
#[derive(Debug)]
pub struct Applier {
    gate: Arc<Gate>,
    tid: u32,
    not_send: PhantomData<*const ()>,
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.gate.appliers.write().unwrap_or_else(PoisonError::into_inner).remove(&self.tid);
    }
}

impl Gate {
    /// A gate with nothing blocked and nobody writing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds the gate, for a decision and the one system call that follows it.
    pub fn enter(&self) -> Entered<'_> {
        Entered(self.inodes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often a person has renamed something through the mount: a look at many directories during which that has grown may have
    /// seen something in two places, or in none.
    pub fn moves(&self) -> u64 {
        self.enter().0.moves
    }

    /// Blocks an inode whoever writes it; writes through handles opened earlier are refused from now on. Prefer
    /// [`Gate::block_unless_written`].
    pub fn block(&self, ino: Ino) {
        self.enter().0.blocked.insert(ino);
    }

    /// Blocks an inode nobody has open for writing.
    ///
    /// # Errors
    /// `EBUSY` while somebody has; nothing is changed then.
    pub fn block_unless_written(&self, ino: Ino) -> Result<(), Errno> {
        let mut entered = self.enter();
        entered.unwritten(ino)?;
        entered.0.blocked.insert(ino);
        Ok(())
    }

    /// Ends a block; nothing happens when there is none.
    pub fn unblock(&self, ino: Ino) {
        self.enter().0.blocked.remove(&ino);
    }

    /// Whether a conflict blocks the inode.
    pub fn is_blocked(&self, ino: Ino) -> bool {
        self.enter().is_blocked(ino)
    }

    /// Handles open for writing on the inode, through the mount.
    pub fn writers(&self, ino: Ino) -> u32 {
        self.enter().writers(ino)
    }

    /// What is open for writing through the mount.
    pub fn written(&self) -> Vec<Ino> {
        self.enter().0.writers.keys().copied().collect()
    }

    /// One more handle is open for writing. A file that is opened must be counted while the gate is held, with
    /// [`Entered::writer_opened`].
    pub fn writer_opened(&self, ino: Ino, who: Who) {
        self.enter().writer_opened(ino, who);
    }

    /// One handle less is open for writing.
    pub fn writer_closed(&self, ino: Ino) -> Left {
        self.writer_closed_and(ino, |left| left)
    }

    /// As [`Gate::writer_closed`]; `then` runs before anybody else can see that the writer is gone. It must not wait for anything.
    pub fn writer_closed_and<T>(&self, ino: Ino, then: impl FnOnce(Left) -> T) -> T {
        let mut entered = self.enter();
        let left = match entered.0.writers.get_mut(&ino) {
            None => Left { writers: 0, by_user: false },
            Some(writers) => {
                writers.open = writers.open.saturating_sub(1);
                let left = Left { writers: writers.open, by_user: writers.user };
                if left.writers == 0 {
                    entered.0.writers.remove(&ino);
                }
                left
            }
        };
        then(left)
    }

    /// Begins, before the last look at it, what ends with the applier replacing or removing `ino`: a save that comes in between, in
    /// place or by another file, makes the applier's act fail instead of being overtaken. There is one at a time.
    pub fn placing(&self, ino: Ino) -> Placing<'_> {
        let mut entered = self.enter();
        let written = entered.writers(ino) > 0;
        entered.0.placing = Some(Target { ino, written });
        Placing(self)
    }

    /// Makes the calling thread an applier: what it does through the mount passes blocks, is no local edit, and never
    /// overtakes an open writer. It must not be a thread that serves the mount.
    #[must_use]
    pub fn register_applier(self: &Arc<Self>) -> Applier {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        self.appliers.write().unwrap_or_else(PoisonError::into_inner).insert(tid);
        Applier { gate: Arc::clone(self), tid, not_send: PhantomData }
    }

    /// Whether this thread id, as FUSE reports the caller, is an applier's.
    pub fn is_applier(&self, tid: u32) -> bool {
        self.appliers.read().unwrap_or_else(PoisonError::into_inner).contains(&tid)
    }

    /// On whose behalf a request with this thread id is made.
    pub fn who(&self, tid: u32) -> Who {
        if self.is_applier(tid) { Who::Applier } else { Who::User }
    }
}

impl Entered<'_> {
    /// A person renames something, in this moment.
    pub fn moves(&mut self) {
        self.0.moves += 1;
    }

    /// Whether a conflict blocks the inode.
    pub fn is_blocked(&self, ino: Ino) -> bool {
        self.0.blocked.contains(&ino)
    }

    /// Handles open for writing on the inode.
    pub fn writers(&self, ino: Ino) -> u32 {
        self.0.writers.get(&ino).map_or(0, |writers| writers.open)
    }

    /// May this inode be opened for writing, written, renamed or linked?
    ///
    /// # Errors
    /// `EROFS` when a conflict blocks it, unless the applier asks.
    pub fn may_change(&self, ino: Ino, who: Who) -> Result<(), Errno> {
        if who == Who::User && self.is_blocked(ino) { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// May this inode be unlinked, renamed over or truncated by path?
    ///
    /// # Errors
    /// `EROFS` as [`Entered::may_change`]; `EBUSY` for the applier while somebody has it open for writing, or when it is not what
    /// [`Gate::placing`] was told, or was written since.
    pub fn may_replace(&self, ino: Ino, who: Who) -> Result<(), Errno> {
        self.may_change(ino, who)?;
        if who == Who::User {
            return Ok(());
        }
        if self.0.placing.is_some_and(|target| target.ino != ino || target.written) {
            return Err(Errno::BUSY);
        }
        self.unwritten(ino)
    }

    /// May something be put where nothing is?
    ///
    /// # Errors
    /// `EBUSY` for the applier when it was to replace something: that was removed.
    pub fn may_appear(&self, who: Who) -> Result<(), Errno> {
        if who == Who::Applier && self.0.placing.is_some() { Err(Errno::BUSY) } else { Ok(()) }
    }

    /// The inode lost its last name: a block ends with it, because its number may be another file's next.
    pub fn gone(&mut self, ino: Ino) {
        self.0.blocked.remove(&ino);
    }

    /// One more handle is open for writing.
    pub fn writer_opened(&mut self, ino: Ino, who: Who) {
        if let Some(target) = self.0.placing.as_mut().filter(|target| target.ino == ino) {
            target.written = true;
        }
        let writers = self.0.writers.entry(ino).or_default();
        writers.open += 1;
        writers.user |= who == Who::User;
    }

    fn unwritten(&self, ino: Ino) -> Result<(), Errno> {
        if self.writers(ino) > 0 { Err(Errno::BUSY) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino { dev: 1, ino: 7 };
    const OTHER: Ino = Ino { dev: 1, ino: 8 };

    /// A block stops users, not the applier, and only the one inode.
    #[test]
    fn a_block_is_for_users_and_one_inode() {
        let gate = Gate::new();
        gate.block(FILE);
        assert_eq!(gate.enter().may_change(FILE, Who::User), Err(Errno::ROFS));
        assert_eq!(gate.enter().may_change(FILE, Who::Applier), Ok(()));
        assert_eq!(gate.enter().may_change(OTHER, Who::User), Ok(()));
        gate.unblock(FILE);
        assert_eq!(gate.enter().may_replace(FILE, Who::User), Ok(()));
    }

    /// The applier does not overtake an open writer, neither by replacing the file nor by a block; users may replace it.
    #[test]
    fn an_open_writer_is_not_overtaken() {
        let gate = Gate::new();
        gate.writer_opened(FILE, Who::User);
        assert_eq!(gate.enter().may_replace(FILE, Who::Applier), Err(Errno::BUSY));
        assert_eq!(gate.enter().may_replace(FILE, Who::User), Ok(()));
        assert_eq!(gate.block_unless_written(FILE), Err(Errno::BUSY));
        assert!(!gate.is_blocked(FILE));
        assert_eq!(gate.writer_closed(FILE), Left { writers: 0, by_user: true });
        assert_eq!(gate.enter().may_replace(FILE, Who::Applier), Ok(()));
        assert_eq!(gate.block_unless_written(FILE), Ok(()));
    }

    /// A user's save is reported although the applier's handle is the last to close, and only once.
    #[test]
    fn a_users_close_is_not_hidden_by_the_applier() {
        let gate = Gate::new();
        gate.writer_opened(FILE, Who::Applier);
        gate.writer_opened(FILE, Who::User);
        assert_eq!(gate.writer_closed(FILE).writers, 1);
        assert_eq!(gate.writer_closed(FILE), Left { writers: 0, by_user: true });
        gate.writer_opened(FILE, Who::Applier);
        assert_eq!(gate.writer_closed(FILE), Left { writers: 0, by_user: false });
    }

    /// A thread is the applier for as long as it holds the registration.
    #[test]
    fn the_applier_is_a_thread() {
        let gate = Arc::new(Gate::new());
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let applier = gate.register_applier();
        assert!(gate.is_applier(tid));
        let there = Arc::clone(&gate);
        std::thread::spawn(move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            assert!(!there.is_applier(own));
        })
        .join()
        .unwrap();
        drop(applier);
        assert!(!gate.is_applier(tid));
    }
}
