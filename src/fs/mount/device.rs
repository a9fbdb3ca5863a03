//! A descriptor of `/dev/fuse` of its own for what the kernel is told unasked.
//!
//! Such a message waits in the kernel for a directory or a page that somebody else in the mount may hold, who waits for an answer of
//! the threads that serve it. When all of them are killed that answer never comes, and the kernel ends what waits for it only when
//! the descriptor by which the question was read is closed: so the messages must not keep that one open.

use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// `FUSE_DEV_IOC_CLONE`.
const CLONE: libc::Ioctl = 0x8004_e500;
/// `FUSE_NOTIFY_INVAL_INODE` and `FUSE_NOTIFY_INVAL_ENTRY`.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
/// The length of `struct fuse_out_header`.
const HEADER: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Another descriptor for the mount that `fuse` speaks for.
    ///
    /// # Errors
    /// When the device may not be opened again, or `fuse` is not mounted.
    pub fn beside(fuse: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/fuse")?;
        let number = fuse.as_raw_fd().cast_unsigned();
        // SAFETY: the kernel reads the number that the pointer leads to, and nothing else.
        if unsafe { libc::ioctl(file.as_raw_fd(), CLONE, &raw const number) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(file))
    }

    /// An inode, by node id; a negative offset leaves its pages alone.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when it does not know the inode.
    pub fn inval_inode(&self, id: u64, offset: i64) -> io::Result<()> {
        self.tell(INVAL_INODE, &[id.to_ne_bytes(), offset.to_ne_bytes(), 0_i64.to_ne_bytes()].concat())
    }

    /// A name in the directory with this node id.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when it does not know the name.
    pub fn inval_entry(&self, id: u64, name: &[u8]) -> io::Result<()> {
        let len = u32::try_from(name.len()).map_err(io::Error::other)?;
        self.tell(INVAL_ENTRY, &[&id.to_ne_bytes()[..], &len.to_ne_bytes(), &0_u32.to_ne_bytes(), name, &[0]].concat())
    }

    fn tell(&self, code: i32, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let header = [&len.to_ne_bytes()[..], &code.to_ne_bytes(), &0_u64.to_ne_bytes()].concat();
        (&self.0).write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}
