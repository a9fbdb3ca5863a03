//! The FUSE operations: a thin skin over [`Served`](super::served::Served), which does the work.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::AccessFlags;
use fuser::BsdFileFlags;
use fuser::CopyFileRangeFlags;
use fuser::FileHandle;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::InitFlags;
use fuser::KernelConfig;
use fuser::LockOwner;
use fuser::OpenFlags;
use fuser::RenameFlags;
use fuser::ReplyAttr;
use fuser::ReplyCreate;
use fuser::ReplyData;
use fuser::ReplyDirectory;
use fuser::ReplyDirectoryPlus;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyLseek;
use fuser::ReplyOpen;
use fuser::ReplyStatfs;
use fuser::ReplyWrite;
use fuser::ReplyXattr;
use fuser::Request;
use fuser::TimeOrNow;
use fuser::WriteFlags;
use rustix::io::Errno;

use super::attrs;
use super::names::Made;
use super::set::Wanted;
use super::skin::Skin;
use super::skin::WISHES;
use super::skin::guarded;

fn done(reply: ReplyEmpty, result: Result<(), fuser::Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn value(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, fuser::Errno>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(errno) => reply.error(errno),
    }
}

fn written(reply: ReplyWrite, result: Result<u32, fuser::Errno>) {
    match result {
        Ok(count) => reply.written(count),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Skin {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in WISHES {
            let granted = config.add_capabilities(wish).is_ok();
            if wish == InitFlags::FUSE_NO_OPENDIR_SUPPORT {
                self.lists_without_open.store(granted, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match guarded("lookup", || self.served.lookup(self.caller(req), parent.0, name.as_bytes())) {
            Ok(None) => reply.entry(&self.served.terms.ttl, &attrs::absent(), Generation(0)),
            Ok(Some(found)) => self.answer(reply, Ok(found)),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let _ = guarded("forget", || {
            let mut nodes = self.served.nodes_mut();
            let ino = nodes.ino_of(ino.0);
            let kept = nodes.forget(ino, count);
            drop(nodes);
            drop(kept);
            Ok(())
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        match guarded("getattr", || Ok(self.served.shown(&self.served.stat(ino.0, fh.map(|fh| fh.0))?))) {
            Ok(attr) => reply.attr(&self.served.terms.ttl, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, uid, gid, size, atime, mtime };
        match guarded("setattr", || self.served.setattr(self.caller(req), ino.0, fh.map(|fh| fh.0), wanted)) {
            Ok(attr) => reply.attr(&self.served.terms.ttl, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match guarded("readlink", || self.served.readlink(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let made = Made::Node(mode & !umask, rdev);
        self.answer(reply, guarded("mknod", || self.served.make(self.caller(req), parent.0, name.as_bytes(), made)));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = Made::Directory(mode & !umask);
        self.answer(reply, guarded("mkdir", || self.served.make(self.caller(req), parent.0, name.as_bytes(), made)));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, guarded("unlink", || self.served.remove(self.caller(req), parent.0, name.as_bytes(), false)));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, guarded("rmdir", || self.served.remove(self.caller(req), parent.0, name.as_bytes(), true)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = Made::Symlink(target.as_os_str().as_bytes());
        self.answer(reply, guarded("symlink", || self.served.make(self.caller(req), parent.0, name.as_bytes(), made)));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        done(reply, guarded("rename", || self.served.rename(self.caller(req), from, to, flags.bits())));
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = guarded("link", || self.served.link(self.caller(req), ino.0, newparent.0, newname.as_bytes()));
        self.answer(reply, linked);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match guarded("open", || self.served.open(self.caller(req), ino.0, flags.0)) {
            Ok((number, how)) => reply.opened(FileHandle(number), how),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Whichever way it goes the reply is sent once: by the reader with the bytes, or here with the error.
        let mut reply = Some(reply);
        let read = guarded("read", || {
            self.served.read(fh.0, offset, size, |data| {
                if let Some(reply) = reply.take() {
                    reply.data(data);
                }
            })
        });
        if let (Err(errno), Some(reply)) = (read, reply) {
            reply.error(errno);
        }
    }

    fn write(
        &self,
        req: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let caller = self.caller(req);
        written(reply, guarded("write", || self.served.write(caller, fh.0, offset, data, write_flags, flags.0)));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty) {
        let closed = guarded("release", || {
            self.served.close(fh.0);
            Ok(())
        });
        done(reply, closed);
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        done(reply, guarded("fsync", || self.served.fsync(fh.0, datasync)));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.lists_without_open.load(Ordering::Relaxed) {
            reply.error(fuser::Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::empty());
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match guarded("readdir", || self.plain(ino.0, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        match guarded("readdirplus", || self.plus(ino.0, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, guarded("fsyncdir", || self.served.fsync_directory(ino.0)));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        match guarded("statfs", || rustix::fs::fstatvfs(self.served.dir())) {
            Ok(fs) => reply.statfs(
                fs.f_blocks,
                fs.f_bfree,
                fs.f_bavail,
                fs.f_files,
                fs.f_ffree,
                narrow(fs.f_bsize),
                narrow(fs.f_namemax),
                narrow(fs.f_frsize),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let set = || self.served.setxattr(self.caller(req), ino.0, name.as_bytes(), Some(value), flags);
        done(reply, guarded("setxattr", set));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let get = || if self.served.terms.xattr { self.served.getxattr(ino.0, name.as_bytes()) } else { Err(Errno::NOSYS) };
        value(reply, size, guarded("getxattr", get));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let list = || if self.served.terms.xattr { self.served.listxattr(ino.0) } else { Err(Errno::NOSYS) };
        value(reply, size, guarded("listxattr", list));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.served.setxattr(self.caller(req), ino.0, name.as_bytes(), None, 0);
        done(reply, guarded("removexattr", remove));
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        done(reply, guarded("access", || self.served.access(self.caller(req), ino.0, mask.bits())));
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let create = || self.served.create(self.caller(req), parent.0, name.as_bytes(), mode & !umask, flags);
        match guarded("create", create) {
            Ok((found, number, how)) => {
                let (ttl, generation) = (self.served.terms.ttl, Generation(found.generation));
                reply.created(&ttl, &found.attr, generation, FileHandle(number), how);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(&self, req: &Request, _: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let allocate = || self.served.fallocate(self.caller(req), fh.0, offset, length, mode);
        done(reply, guarded("fallocate", allocate));
    }

    fn lseek(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match guarded("lseek", || self.served.lseek(fh.0, offset, whence)) {
            Ok(at) => reply.offset(at.cast_signed()),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy = || self.served.copy(self.caller(req), (fh_in.0, offset_in), (fh_out.0, offset_out), length);
        written(reply, guarded("copy_file_range", copy));
    }
}
