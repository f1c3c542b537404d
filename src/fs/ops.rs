//! The operations of the filesystem, without a kernel: over the tree and the source.
//!
//! Invariant: no operation waits; a read that would have to is handed back as [`Read::Later`].
//! Invariant: a read gives all that lies between its offset and the end of the file, or nothing: a
//! short answer would cut the file off in the kernel's eyes.
//! Invariant: a file's size is what the torrent says, whatever is here.
//!
//! A byte that is not here is no hole: a hole reads as zeros, and programs that copy skip it. So a file
//! is all data to SEEK_DATA and SEEK_HOLE, and a file that is not empty owns at least one block; what is
//! here is told by `st_blocks` and `user.btfs.pieces`.
//!
//! Not here: FUSE types ([`super::adapter`]); waiting ([`super::parked`]).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use super::errno::Fault;
use super::source::{Backing, FileSpan, Form, Part, Source, Totals};
use super::xattr::{self, Place, Xattr};
use crate::proto::tree::{Entry, FileRef, Ino, MAX_NAME_LEN, Node, NodeKind, Tree};
use crate::proto::units::{InfoHash, ReaderId};

/// Unit of `st_blocks`, by POSIX.
const STAT_BLOCK: u64 = 512;

/// Unit of the block counts in statfs, and the size that programs are told to read in.
pub const BLOCK_SIZE: u32 = 4096;

/// The filesystem.
pub struct Ops {
    tree: Arc<RwLock<Tree>>,
    source: Arc<dyn Source>,
    mounted: SystemTime,
    next_handle: AtomicU64,
    files: Mutex<HashMap<ReaderId, OpenFile>>,
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
}

#[derive(Clone, Copy)]
struct OpenFile {
    at: FileRef,
    length: u64,
}

/// An open directory as it was when it was opened.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The directory.
    pub ino: Ino,
    /// The directory that it is in.
    pub parent: Ino,
    /// What is in it, `.` and `..` not counted.
    pub entries: Arc<[Entry]>,
}

/// What stat tells of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Number of the node.
    pub ino: Ino,
    /// What it is.
    pub kind: AttrKind,
    /// Bytes in it.
    pub size: u64,
    /// What is here, in blocks of 512 bytes.
    pub blocks: u64,
    /// Permission bits.
    pub mode: u16,
    /// Hard links; a directory has its own two and one from each directory in it.
    pub links: u32,
    /// When the torrent was made, or else when it was mounted.
    pub modified: SystemTime,
    /// Whether all this stays as it is. A file's blocks grow until all are here, and the root's links
    /// change with the torrents in it.
    pub settled: bool,
    /// Whether it may be another in the next instant: its torrent is not known yet.
    pub awaited: bool,
}

/// A node's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The buffer's first bytes, so many, are the answer; 0 at the end of the file.
    Done(usize),
    /// This must be waited for.
    Later(FileRef, FileSpan),
}

/// What statfs tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Blocks of [`BLOCK_SIZE`] in all torrents.
    pub blocks: u64,
    /// Blocks that are not here.
    pub missing: u64,
    /// Nodes in the tree.
    pub nodes: u64,
}

impl Ops {
    /// A filesystem over a tree, which may change under it, and a source.
    pub fn new(tree: Arc<RwLock<Tree>>, source: Arc<dyn Source>, mounted: SystemTime) -> Self {
        Self {
            tree,
            source,
            mounted,
            next_handle: AtomicU64::new(1),
            files: Mutex::default(),
            listings: Mutex::default(),
        }
    }

    /// The source beneath.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The node of this name in a directory; `.` and `..` too.
    ///
    /// # Errors
    /// When there is none, `parent` is no directory, or the name is too long.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, Fault> {
        if name.len() > MAX_NAME_LEN {
            return Err(Fault::NameTooLong);
        }
        let tree = self.tree.read();
        let directory = tree.node(parent).ok_or(Fault::NoEntry)?;
        if !matches!(directory.kind, NodeKind::Directory { .. }) {
            return Err(Fault::NotDirectory);
        }
        let node = match name.to_str().ok_or(Fault::NoEntry)? {
            "." => Some(directory),
            ".." => tree.node(directory.parent),
            name => tree.lookup(parent, name),
        };
        Ok(self.describe(&tree, node.ok_or(Fault::NoEntry)?))
    }

    /// What stat tells of a node.
    ///
    /// # Errors
    /// When it is not in the tree.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Fault> {
        let tree = self.tree.read();
        Ok(self.describe(&tree, tree.node(ino).ok_or(Fault::NoEntry)?))
    }

    /// Where a link points.
    ///
    /// # Errors
    /// When the node is no link.
    pub fn readlink(&self, ino: Ino) -> Result<String, Fault> {
        match &self.tree.read().node(ino).ok_or(Fault::NoEntry)?.kind {
            NodeKind::Symlink { target } => Ok(target.clone()),
            NodeKind::Directory { .. } | NodeKind::File { .. } => Err(Fault::Invalid),
        }
    }

    /// Opens a file; `flags` are those of open(2).
    ///
    /// # Errors
    /// When it is no file, or is to be written.
    pub fn open(&self, ino: Ino, flags: i32) -> Result<ReaderId, Fault> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(Fault::ReadOnly);
        }
        let file = self.file(ino)?;
        let reader = ReaderId(self.next_handle.fetch_add(1, Ordering::Relaxed));
        self.files.lock().insert(reader, file);
        self.source.opened(reader, file.at);
        Ok(reader)
    }

    /// The file on disk that may be read in the node's place.
    pub fn backing(&self, ino: Ino) -> Option<Backing> {
        let file = self.file(ino).ok()?;
        let backing = self.source.backing(file.at)?;
        // The kernel would take its length for the file's.
        let length = backing.file.metadata().ok()?.len();
        (length == file.length).then_some(backing)
    }

    /// Reads at most `size` bytes into `buf`, which grows to hold them and never shrinks.
    ///
    /// # Errors
    /// When the handle is not open or the source fails.
    pub fn read(
        &self,
        reader: ReaderId,
        offset: u64,
        size: u32,
        buf: &mut Vec<u8>,
    ) -> Result<Read, Fault> {
        let open = *self.files.lock().get(&reader).ok_or(Fault::BadHandle)?;
        let left = open.length.saturating_sub(offset);
        let len = left.min(u64::from(size)) as u32;
        if len == 0 {
            return Ok(Read::Done(0));
        }
        let wanted = len as usize;
        if buf.len() < wanted {
            buf.resize(wanted, 0);
        }
        if self.source.read_now(reader, open.at, offset, &mut buf[..wanted])? {
            return Ok(Read::Done(wanted));
        }
        Ok(Read::Later(open.at, FileSpan { offset, len }))
    }

    /// Closes a file.
    pub fn release(&self, reader: ReaderId) {
        let known = self.files.lock().remove(&reader).is_some();
        if known {
            self.source.closed(reader);
        }
    }

    /// Opens a directory, and tells the handle.
    ///
    /// # Errors
    /// When the node is no directory.
    pub fn opendir(&self, ino: Ino) -> Result<u64, Fault> {
        let listing = {
            let tree = self.tree.read();
            let node = tree.node(ino).ok_or(Fault::NoEntry)?;
            let entries = tree.entries(ino).ok_or(Fault::NotDirectory)?;
            Arc::new(Listing { ino, parent: node.parent, entries: Arc::clone(entries) })
        };
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.listings.lock().insert(handle, listing);
        Ok(handle)
    }

    /// An open directory.
    ///
    /// # Errors
    /// When the handle is not open.
    pub fn listing(&self, handle: u64) -> Result<Arc<Listing>, Fault> {
        self.listings.lock().get(&handle).map(Arc::clone).ok_or(Fault::BadHandle)
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        self.listings.lock().remove(&handle);
    }

    /// Sizes of the whole, from what is known here.
    pub fn statfs(&self) -> Statfs {
        let totals = self.source.grand_totals();
        let unit = u64::from(BLOCK_SIZE);
        let blocks = totals.bytes.div_ceil(unit);
        let missing = totals.bytes.saturating_sub(totals.here) / unit;
        Statfs { blocks, missing, nodes: self.tree.read().len() as u64 }
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// When the node has none of this name.
    pub fn xattr(&self, ino: Ino, name: &OsStr) -> Result<String, Fault> {
        let tree = self.tree.read();
        let node = tree.node(ino).ok_or(Fault::NoEntry)?;
        let name = name.to_str().ok_or(Fault::NoAttribute)?;
        let wanted = Xattr::named(name, place(node)).ok_or(Fault::NoAttribute)?;
        let hash = tree.info_hash(node);
        let node = node.clone();
        drop(tree);
        self.value(wanted, &node, hash).ok_or(Fault::NoAttribute)
    }

    /// The names of a node's extended attributes.
    ///
    /// # Errors
    /// When the node is not in the tree.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<&'static str>, Fault> {
        let tree = self.tree.read();
        let node = tree.node(ino).ok_or(Fault::NoEntry)?;
        Ok(Xattr::at(place(node)).map(Xattr::name).collect())
    }

    fn value(&self, wanted: Xattr, node: &Node, hash: Option<InfoHash>) -> Option<String> {
        match wanted {
            Xattr::IsBtfs => Some("1".to_owned()),
            Xattr::Pid => Some(std::process::id().to_string()),
            Xattr::InfoHash => Some(hash?.to_string()),
            Xattr::Have => Some(self.totals(node).here.to_string()),
            Xattr::Progress => Some(xattr::progress(self.totals(node))),
            Xattr::Metadata => Some(xattr::metadata(self.source.metadata(node.torrent?))),
            Xattr::Pieces => Some(xattr::pieces(&self.source.pieces(node.file()?))),
            Xattr::Why => Some(clipped(self.source.why(part(node), Form::Text))),
            Xattr::WhyJson => Some(clipped(self.source.why(part(node), Form::Json))),
        }
    }

    fn totals(&self, node: &Node) -> Totals {
        match (&node.kind, node.torrent, node.file()) {
            (&NodeKind::File { length, .. }, _, Some(at)) => {
                let here = self.source.resident(at).min(length);
                Totals { bytes: length, here, more: false }
            }
            (_, Some(torrent), _) => self.source.totals(torrent),
            (_, None, _) => self.source.grand_totals(),
        }
    }

    fn file(&self, ino: Ino) -> Result<OpenFile, Fault> {
        let tree = self.tree.read();
        let node = tree.node(ino).ok_or(Fault::NoEntry)?;
        match (&node.kind, node.file()) {
            (&NodeKind::File { length, .. }, Some(at)) => Ok(OpenFile { at, length }),
            (NodeKind::Directory { .. }, _) => Err(Fault::IsDirectory),
            (NodeKind::File { .. } | NodeKind::Symlink { .. }, _) => Err(Fault::Invalid),
        }
    }

    fn describe(&self, tree: &Tree, node: &Node) -> Attr {
        let base = Attr {
            ino: node.ino,
            kind: AttrKind::File,
            size: 0,
            blocks: 0,
            mode: 0o444,
            links: 1,
            modified: tree.created(node).and_then(time).unwrap_or(self.mounted),
            settled: true,
            awaited: tree.is_awaited(node),
        };
        match &node.kind {
            NodeKind::Directory { subdirectories, .. } => Attr {
                kind: AttrKind::Directory,
                mode: 0o555,
                links: subdirectories.saturating_add(2),
                settled: node.ino != Ino::ROOT && !base.awaited,
                ..base
            },
            NodeKind::Symlink { target } => {
                Attr { kind: AttrKind::Symlink, size: target.len() as u64, mode: 0o777, ..base }
            }
            &NodeKind::File { length, executable, .. } => {
                let here = self.totals(node).here;
                let blocks = here.div_ceil(STAT_BLOCK).max(u64::from(length > 0));
                let mode = if executable { 0o555 } else { 0o444 };
                Attr { size: length, blocks, mode, settled: here == length, ..base }
            }
        }
    }
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").field("open_files", &self.files.lock().len()).finish_non_exhaustive()
    }
}

fn place(node: &Node) -> Place {
    match &node.kind {
        NodeKind::Directory { .. } if node.ino == Ino::ROOT => Place::Root,
        NodeKind::Directory { .. } => Place::Directory,
        NodeKind::File { .. } => Place::File,
        NodeKind::Symlink { .. } => Place::Symlink,
    }
}

/// The part of the mount that a node is asked about: a directory stands for its torrent.
fn part(node: &Node) -> Part {
    let torrent = node.torrent.map_or(Part::All, Part::Torrent);
    node.file().map_or(torrent, Part::File)
}

/// The text, cut to what an attribute may hold.
fn clipped(mut text: String) -> String {
    let fits = (0..=xattr::MAX_VALUE_LEN.min(text.len())).rfind(|&at| text.is_char_boundary(at));
    text.truncate(fits.unwrap_or(0));
    text
}

/// The instant, if the clock can tell it.
fn time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}
