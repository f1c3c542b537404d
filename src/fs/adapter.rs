//! What the kernel asks, handed to [`Ops`], and the answers in the FUSE library's words.
//!
//! Invariant: no method waits. A read of bytes that are here is answered on the thread that took it; any
//! other is parked.
//! Invariant: every file whose reads come here is opened with KEEP_CACHE, and none with DIRECT_IO. Without the
//! first, a second open behind a waiting read could not be killed; with the second, no waiting read could.
//! Invariant: every writing operation is EROFS, and what only a writable or a network filesystem needs
//! is ENOSYS, which the kernel remembers and then answers itself.
//!
//! Not here: signals and deadlines of waiting reads ([`super::parked`]).

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::errno::Fault;
use super::ops::{Attr, AttrKind, BLOCK_SIZE, Ops, Read};
use super::parked::{self, Parked};
use super::passthrough::Passthrough;
use super::source::ReadReply;
use crate::proto::tree::{EntryKind, Ino, MAX_NAME_LEN};
use crate::proto::units::ReaderId;

/// How long the kernel may keep what never changes.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may keep what changes while pieces arrive.
const SHORT: Duration = Duration::from_secs(1);

/// Requests that the kernel may have waiting here before it holds back others: with the library's 16,
/// a few waiting reads would stop every other read of the mount.
const MAX_BACKGROUND: u16 = 4096;

/// What we ask of the kernel if it can do it.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_EXPORT_SUPPORT,
];

thread_local! {
    /// The bytes of the read that this thread answers; grows to the largest, at most 1 MiB.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The filesystem as the FUSE library wants it.
#[derive(Debug)]
pub struct Adapter {
    ops: Ops,
    parked: Arc<Parked>,
    passthrough: Passthrough,
    owner: Owner,
}

/// Whom all files belong to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A row of a directory: number of the next one, node, type and name.
type Row<'a> = (u64, Ino, FileType, &'a str);

impl Adapter {
    /// The operations, and the table for reads that wait.
    pub fn new(ops: Ops, parked: Arc<Parked>, owner: Owner) -> Self {
        Self { ops, parked, passthrough: Passthrough::default(), owner }
    }

    fn stat(&self, attr: &Attr) -> FileAttr {
        FileAttr {
            ino: INodeNo(attr.ino.0),
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.modified,
            mtime: attr.modified,
            ctime: attr.modified,
            crtime: attr.modified,
            kind: match attr.kind {
                AttrKind::Directory => FileType::Directory,
                AttrKind::File => FileType::RegularFile,
                AttrKind::Symlink => FileType::Symlink,
            },
            perm: attr.mode,
            nlink: attr.links,
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }

    fn answer_read(&self, request: parked::Request, reply: ReplyData) {
        let answer = ReadReply::new(move |result| match result {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(errno(Fault::Read(error))),
        });
        self.parked.park(request, answer);
    }

    /// Hands out the rows of an open directory from an offset on, until `is_full` says that no more fit.
    fn list(
        &self,
        fh: FileHandle,
        offset: u64,
        mut is_full: impl FnMut(Row<'_>) -> bool,
    ) -> Result<(), Fault> {
        let listing = self.ops.listing(fh.0)?;
        let dots = [(listing.ino, "."), (listing.parent, "..")];
        let dots = dots.into_iter().map(|(ino, name)| (ino, FileType::Directory, name));
        let entries = listing.entries.iter().map(|e| (e.ino, file_type(e.kind), &*e.name));
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (1..).zip(dots.chain(entries)).skip(from) {
            if is_full((next, ino, kind, name)) {
                break;
            }
        }
        Ok(())
    }
}

fn errno(fault: Fault) -> Errno {
    Errno::from_i32(fault.errno())
}

fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::Directory => FileType::Directory,
        EntryKind::File => FileType::RegularFile,
        EntryKind::Symlink => FileType::Symlink,
    }
}

fn attr_ttl(attr: &Attr) -> &'static Duration {
    match attr {
        Attr { awaited: true, .. } => &Duration::ZERO,
        Attr { settled: true, .. } => &LONG,
        Attr { .. } => &SHORT,
    }
}

fn give_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        Ok(_) | Err(_) => reply.error(Errno::ERANGE),
    }
}

/// Operations that are all answered with one error, whatever they ask for.
macro_rules! refused {
    ($errno:ident: $($operation:ident($($asked:ty),*) -> $reply:ty,)*) => {$(
        fn $operation(&self, _: &Request, $(_: $asked,)* reply: $reply) {
            reply.error(Errno::$errno);
        }
    )*};
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // A kernel without it works as well, only slower.
            let _ = config.add_capabilities(flag);
        }
        self.passthrough.negotiate(config);
        let limits = [
            config.set_max_background(MAX_BACKGROUND),
            config.set_congestion_threshold(MAX_BACKGROUND),
        ];
        if limits.iter().any(Result::is_err) {
            return Err(io::Error::other("the kernel takes no background requests"));
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.parked.close();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.ops.lookup(Ino(parent.0), name) {
            Ok(attr) => {
                let stat = self.stat(&attr);
                reply.entry_with_ttls(attr_ttl(&attr), &LONG, &stat, Generation(0));
            }
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.ops.attr(Ino(ino.0)) {
            Ok(attr) => reply.attr(attr_ttl(&attr), &self.stat(&attr)),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.ops.readlink(Ino(ino.0)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let ino = Ino(ino.0);
        match self.ops.open(ino, flags.0) {
            Ok(reader) => self.passthrough.answer(reply, ino, reader, || self.ops.backing(ino)),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let reader = ReaderId(fh.0);
        BUFFER.with_borrow_mut(|buf| match self.ops.read(reader, offset, size, buf) {
            Ok(Read::Done(len)) => reply.data(&buf[..len]),
            Ok(Read::Later(at, span)) => {
                self.answer_read(parked::Request { reader, at, span, tid: req.pid() }, reply);
            }
            Err(fault) => reply.error(errno(fault)),
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.ops.release(ReaderId(fh.0));
        self.passthrough.close(Ino(ino.0));
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Torrents come and go in the root, and become known; all else stays as it is.
        let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        let settled = self.ops.attr(Ino(ino.0)).is_ok_and(|attr| attr.settled);
        let flags = if settled { keep } else { FopenFlags::empty() };
        match self.ops.opendir(Ino(ino.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(fh, offset, |(next, ino, kind, name)| {
            reply.add(INodeNo(ino.0), next, kind, name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(fh, offset, |(next, ino, _, name)| {
            // Taken out since the directory was opened.
            let Ok(attr) = self.ops.attr(ino) else { return false };
            let (ttl, stat) = (attr_ttl(&attr), self.stat(&attr));
            reply.add(stat.ino, next, name, ttl, &stat, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.ops.releasedir(fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = self.ops.statfs();
        let names = MAX_NAME_LEN as u32;
        reply.statfs(s.blocks, s.missing, s.missing, s.nodes, 0, BLOCK_SIZE, names, BLOCK_SIZE);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.ops.xattr(Ino(ino.0), name) {
            Ok(value) => give_xattr(reply, size, value.as_bytes()),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.ops.xattrs(Ino(ino.0)) {
            Ok(names) => {
                let list: String = names.iter().flat_map(|name| [*name, "\0"]).collect();
                give_xattr(reply, size, list.as_bytes());
            }
            Err(fault) => reply.error(errno(fault)),
        }
    }

    // What the kernel answers by itself once it has been told that nobody does. Of `lseek` its answer is ours too: all
    // data, one hole at the end (the module of [`Ops`] says why).
    refused! { ENOSYS:
        access(INodeNo, AccessFlags) -> ReplyEmpty,
        flush(INodeNo, FileHandle, LockOwner) -> ReplyEmpty,
        fsync(INodeNo, FileHandle, bool) -> ReplyEmpty,
        fsyncdir(INodeNo, FileHandle, bool) -> ReplyEmpty,
        lseek(INodeNo, FileHandle, i64, i32) -> ReplyLseek,
        bmap(INodeNo, u32, u64) -> ReplyBmap,
        poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) -> ReplyPoll,
        getlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32) -> ReplyLock,
        setlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32, bool) -> ReplyEmpty,
    }

    refused! { ENOTTY:
        ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) -> ReplyIoctl,
    }

    // What would change something.
    refused! { EROFS:
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>,
            Option<BsdFileFlags>
        ) -> ReplyAttr,
        mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry,
        mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry,
        unlink(INodeNo, &OsStr) -> ReplyEmpty,
        rmdir(INodeNo, &OsStr) -> ReplyEmpty,
        symlink(INodeNo, &OsStr, &Path) -> ReplyEntry,
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty,
        link(INodeNo, INodeNo, &OsStr) -> ReplyEntry,
        write(
            INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>
        ) -> ReplyWrite,
        create(INodeNo, &OsStr, u32, u32, i32) -> ReplyCreate,
        fallocate(INodeNo, FileHandle, u64, u64, i32) -> ReplyEmpty,
        copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) -> ReplyWrite,
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty,
        removexattr(INodeNo, &OsStr) -> ReplyEmpty,
    }
}
