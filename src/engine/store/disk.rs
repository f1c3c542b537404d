//! A torrent's own files under a directory: sparse, made when first written to.
//!
//! Invariant: nothing outside the root is touched, whatever stands in it.
//! Invariant: a file that was opened for writing has its final length.
//!
//! Not here: the names, which [`crate::proto::metainfo`] has made legal and unique.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, fallocate};
use nix::sys::stat::{SFlag, fstatat};
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, lseek, syncfs};
use parking_lot::Mutex;

use crate::proto::layout::{Layout, Source};
use crate::proto::metainfo::{FileKind, Metainfo};
use crate::proto::units::{FileIndex, PieceIndex, TorrentId};

use super::StoreError;
use super::open_files::OpenFiles;
use super::tree::{Opening, Tree};
use super::witness::{Change, Watch, Witness};
use crate::proto::bitfield::Bitfield;

/// Slices that one system call takes: the kernel's own limit.
const MAX_SLICES: usize = 1024;

/// Where a torrent's files are laid out. Links in the given directory itself are followed.
#[derive(Clone, Debug)]
pub enum Place {
    /// `DIR/<info-hash>/data/<name>…`, in a cache directory.
    Cache(PathBuf),
    /// `DIR/<name>…`, as ordinary files for the user to keep.
    Kept(PathBuf),
    /// The torrent's one file or top directory is here, under whatever name.
    Exact(PathBuf),
}

/// What may be done to the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is made or changed.
    ReadOnly,
    /// Files are made, sized, written and punched.
    ReadWrite,
}

/// What a file looked like when it was vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its length in bytes.
    pub len: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When the system last saw a change of it or of its inode, which nobody can set back.
    pub changed: i128,
}

impl Stamp {
    fn of(directory: &OwnedFd, name: &str) -> Option<Self> {
        let seen = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let regular = SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        regular.then(|| Self {
            len: seen.st_size as u64,
            modified: nanos(seen.st_mtime, seen.st_mtime_nsec),
            changed: nanos(seen.st_ctime, seen.st_ctime_nsec),
        })
    }
}

/// Files that are flushed one by one; thousands would keep an unmount waiting, each for its own turn of the disk.
const FLUSHED_ONE_BY_ONE: usize = 32;

/// One torrent's files.
#[derive(Debug)]
pub struct Disk {
    torrent: TorrentId,
    metainfo: Arc<Metainfo>,
    layout: Layout,
    tree: Tree,
    names: Names,
    access: Access,
    /// Whether the files are the cache's, and hold nothing that is dear to anybody.
    disposable: bool,
    open: Arc<OpenFiles>,
    watch: Watch,
    flush: Mutex<Flush>,
    /// Held while a file gets its length.
    lengthening: Mutex<()>,
}

/// What stands before a file's path below the root.
#[derive(Debug)]
enum Names {
    Below(Vec<String>),
    Only(String),
}

#[derive(Debug, Default)]
struct Flush {
    /// Written to since the last flush.
    dirty: BTreeSet<FileIndex>,
    /// Flushing failed once: the kernel may have dropped what was written, and will not say so again.
    suspect: BTreeSet<FileIndex>,
}

impl Disk {
    /// Opens the torrent's place, which is made when it is missing and may be written.
    ///
    /// # Errors
    /// When something that is no directory stands there, or the system refuses.
    pub fn open(
        place: &Place,
        access: Access,
        torrent: TorrentId,
        metainfo: Arc<Metainfo>,
        open: Arc<OpenFiles>,
    ) -> Result<Self, StoreError> {
        let create = access == Access::ReadWrite;
        let named = if metainfo.single_file { vec![] } else { vec![metainfo.name.clone()] };
        let (tree, names) = match place {
            Place::Cache(dir) => {
                let below = [metainfo.info_hash.to_string(), "data".to_owned()];
                (Tree::open(dir, &below, create)?, Names::Below(named))
            }
            Place::Kept(dir) => (Tree::open(dir, &[], create)?, Names::Below(named)),
            Place::Exact(path) if metainfo.single_file => {
                let (dir, name) = split(path)?;
                (Tree::open(dir, &[], false)?, Names::Only(name))
            }
            Place::Exact(path) => (Tree::open(path, &[], false)?, Names::Below(vec![])),
        };
        let layout = Layout::new(&metainfo);
        let disposable = matches!(place, Place::Cache(_));
        let (watch, flush, lengthening) = Default::default();
        Ok(Self {
            torrent,
            metainfo,
            layout,
            tree,
            names,
            access,
            disposable,
            open,
            watch,
            flush,
            lengthening,
        })
    }

    /// The same, under the eyes of a witness.
    #[must_use]
    pub fn watched(mut self, witness: Arc<dyn Witness>) -> Self {
        self.watch = Watch::by(witness);
        self
    }

    pub(in crate::engine) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Makes every file, also those without bytes, every directory and every link; for data that is to be
    /// kept.
    ///
    /// # Errors
    /// At the first that cannot be made.
    pub fn materialise(&self) -> Result<(), StoreError> {
        for (file, index) in self.metainfo.files.iter().zip(0..).map(|(f, n)| (f, FileIndex(n))) {
            match &file.kind {
                FileKind::Regular { .. } => drop(self.open_file(index, self.creating(index))?),
                FileKind::Symlink { target } => {
                    let up = std::iter::repeat_n("..", file.path.len().saturating_sub(1));
                    let target: PathBuf = up.chain(target.iter().map(String::as_str)).collect();
                    self.tree.link(&self.elements(index), &target)?;
                }
                FileKind::Padding => {}
            }
        }
        Ok(())
    }

    /// How each of these files looks now; `None` when it is missing, no regular file, or lost bytes in a
    /// flush. Neighbours in one directory are quick.
    pub fn stamps(&self, files: impl IntoIterator<Item = FileIndex>) -> Vec<Option<Stamp>> {
        let suspect = self.flush.lock().suspect.clone();
        let mut last: Option<(Vec<String>, Option<OwnedFd>)> = None;
        let look = |file: FileIndex| {
            let elements = self.elements(file);
            let (name, above) = elements.split_last()?;
            if last.as_ref().is_none_or(|(path, _)| path != above) {
                last = Some((above.to_vec(), self.tree.directory(above, false).ok()));
            }
            let parent = last.as_ref()?.1.as_ref()?;
            Stamp::of(parent, name).filter(|_| !suspect.contains(&file))
        };
        files.into_iter().map(look).collect()
    }

    /// Pieces of which something lies in these files; holes are passed over.
    pub(in crate::engine) fn written(&self, files: impl Iterator<Item = FileIndex>) -> Bitfield {
        let mut pieces = Bitfield::empty(self.metainfo.geometry.piece_count());
        for index in files {
            let file = &self.metainfo.files[index.slot()];
            let Ok(open) = self.fetch(index, Opening::Write) else { continue };
            let mut at = 0;
            while at < file.length {
                let data = match lseek(&*open, at as i64, Whence::SeekData) {
                    Ok(data) => data as u64,
                    Err(Errno::ENXIO) => break,
                    // A file system that knows no holes.
                    Err(_) => at,
                };
                let hole = lseek(&*open, data as i64, Whence::SeekHole);
                let hole = hole.map_or(file.length, |hole| hole as u64).min(file.length);
                let range = file.offset + data..file.offset + hole;
                for piece in self.metainfo.geometry.pieces_in(&range) {
                    pieces.insert(piece);
                }
                at = hole.max(data + 1);
            }
        }
        pieces
    }

    /// Gives every file of the piece its length. `cut` hears first of those that lack bytes: what was
    /// stored there is gone, and would read as zeros from then on.
    pub(super) fn lengthen(
        &self,
        piece: PieceIndex,
        mut cut: impl FnMut(FileIndex),
    ) -> Result<(), StoreError> {
        let _alone = self.lengthening.lock();
        for segment in self.layout.segments(self.metainfo.geometry.piece_range(piece)) {
            let Source::File { file, .. } = segment.source else { continue };
            let expected = self.metainfo.files[file.slot()].length;
            let open = match self.fetch(file, Opening::Write) {
                Err(StoreError::Missing { .. }) => {
                    cut(file);
                    self.fetch(file, self.creating(file))?
                }
                open => open?,
            };
            if open.metadata().map_err(|e| self.error("look at", file, e))?.len() < expected {
                cut(file);
                self.set_len(&open, file)?;
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, piece: PieceIndex, blocks: &[Bytes]) -> Result<(), StoreError> {
        let mut blocks = Blocks { blocks, skip: 0 };
        for segment in self.layout.segments(self.metainfo.geometry.piece_range(piece)) {
            let mut slices = blocks.take(segment.len as usize);
            let Source::File { file, offset } = segment.source else { continue };
            let open = self.fetch(file, self.creating(file))?;
            let len = segment.len;
            let allowed = self.watch.before(Change::Write { file, offset, len });
            let written = allowed.and_then(|()| write_all(&open, &mut slices, offset));
            // After the write and before the piece is vouched for, or a flush between would miss it.
            self.flush.lock().dirty.insert(file);
            written.map_err(|e| self.error("write", file, e))?;
        }
        Ok(())
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let mut rest = buf;
        for segment in self.layout.segments(offset..offset + rest.len() as u64) {
            let (part, later) = rest.split_at_mut(segment.len as usize);
            rest = later;
            match segment.source {
                Source::Zeros => part.fill(0),
                Source::File { file, offset } => {
                    let open = self.fetch(file, Opening::Write)?;
                    open.read_exact_at(part, offset).map_err(|e| self.error("read", file, e))?;
                }
            }
        }
        match rest {
            [] => Ok(()),
            _ => Err(StoreError::Missing { path: self.tree.locate(&[]) }),
        }
    }

    pub(super) fn punch(&self, piece: PieceIndex) -> Result<(), StoreError> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for segment in self.layout.segments(self.metainfo.geometry.piece_range(piece)) {
            let Source::File { file, offset } = segment.source else { continue };
            let open = match self.fetch(file, Opening::Write) {
                Err(StoreError::Missing { .. }) => continue,
                opened => opened?,
            };
            let len = segment.len;
            let punch = || {
                self.watch.before(Change::Punch { file, offset, len })?;
                Ok(fallocate(&*open, flags, offset as i64, len as i64)?)
            };
            let punched = punch();
            self.flush.lock().dirty.insert(file);
            punched.map_err(|e| self.error("punch a hole into", file, e))?;
        }
        Ok(())
    }

    /// What is stored of the piece is wrong. In the cache its room is given back; a user's file stays as it
    /// is until the right bytes come.
    pub(super) fn discard(&self, piece: PieceIndex) -> Result<(), StoreError> {
        if self.disposable && self.access == Access::ReadWrite { self.punch(piece) } else { Ok(()) }
    }

    /// The piece's bytes were found right, and perhaps nobody has flushed them.
    pub(super) fn adopt(&self, piece: PieceIndex) {
        let segments = self.layout.segments(self.metainfo.geometry.piece_range(piece));
        let files = segments.filter_map(|segment| match segment.source {
            Source::File { file, .. } => Some(file),
            Source::Zeros => None,
        });
        self.flush.lock().dirty.extend(files);
    }

    pub(super) fn is_hole(&self, piece: PieceIndex) -> bool {
        self.layout.segments(self.metainfo.geometry.piece_range(piece)).all(|segment| {
            let Source::File { file, offset } = segment.source else { return true };
            match self.fetch(file, Opening::Write) {
                Err(StoreError::Missing { .. }) => true,
                Err(_) => false,
                Ok(open) => match lseek(&*open, offset as i64, Whence::SeekData) {
                    Ok(data) => data as u64 >= offset + segment.len,
                    Err(errno) => errno == Errno::ENXIO,
                },
            }
        })
    }

    /// Flushes every file that was touched since the last flush; says which, and the last failure.
    pub(in crate::engine) fn flush(&self) -> (BTreeSet<FileIndex>, Result<(), StoreError>) {
        let touched = std::mem::take(&mut self.flush.lock().dirty);
        if touched.len() > FLUSHED_ONE_BY_ONE {
            let flushed = self.flush_all(&touched);
            if flushed.is_err() {
                self.flush.lock().suspect.extend(&touched);
            }
            return (touched, flushed);
        }
        let mut outcome = Ok(());
        for &file in &touched {
            // Not only the data: the times that the state file records must be the ones on the disk.
            let flushed = self.fetch(file, Opening::Write).and_then(|open| {
                let allowed = self.watch.before(Change::Flush(file));
                let flushed = allowed.and_then(|()| open.sync_all());
                flushed.map_err(|e| self.error("flush", file, e))
            });
            if let Err(error) = flushed {
                self.flush.lock().suspect.insert(file);
                outcome = Err(error);
            }
        }
        (touched, outcome)
    }

    /// Flushes the file system that holds the files, in one call instead of one for each.
    fn flush_all(&self, touched: &BTreeSet<FileIndex>) -> Result<(), StoreError> {
        let Some(&file) = touched.first() else { return Ok(()) };
        let open = self.fetch(file, Opening::Write)?;
        let allowed = self.watch.before(Change::FlushAll);
        let flushed = allowed.and_then(|()| Ok(syncfs(&*open)?));
        flushed.map_err(|e| self.error("flush", file, e))
    }

    pub(super) fn backing(&self, file: FileIndex) -> Option<Arc<File>> {
        self.fetch(file, Opening::Write).ok()
    }

    fn fetch(&self, file: FileIndex, opening: Opening) -> Result<Arc<File>, StoreError> {
        self.open.fetch(self.torrent, file, || self.open_file(file, opening))
    }

    fn open_file(&self, file: FileIndex, opening: Opening) -> Result<File, StoreError> {
        if self.access == Access::ReadOnly {
            return self.tree.file(&self.elements(file), Opening::Read);
        }
        let open = self.tree.file(&self.elements(file), opening)?;
        let found = open.metadata().map_err(|e| self.error("look at", file, e))?.len();
        let expected = self.metainfo.files[file.slot()].length;
        if found > expected {
            let path = self.tree.locate(&self.elements(file));
            return Err(StoreError::TooLong { path, found, expected });
        }
        if found < expected {
            // Only for a write: a reader must not take zeros for what was cut off.
            if !matches!(opening, Opening::Create { .. }) {
                return Err(StoreError::Missing { path: self.tree.locate(&self.elements(file)) });
            }
            self.set_len(&open, file)?;
            self.flush.lock().dirty.insert(file);
        }
        Ok(open)
    }

    fn set_len(&self, open: &File, file: FileIndex) -> Result<(), StoreError> {
        let allowed = self.watch.before(Change::Length(file));
        let set = allowed.and_then(|()| open.set_len(self.metainfo.files[file.slot()].length));
        set.map_err(|e| self.error("size", file, e))
    }

    fn creating(&self, file: FileIndex) -> Opening {
        let kind = &self.metainfo.files[file.slot()].kind;
        Opening::Create { executable: *kind == FileKind::Regular { executable: true } }
    }

    fn elements(&self, file: FileIndex) -> Vec<String> {
        match &self.names {
            Names::Only(name) => vec![name.clone()],
            Names::Below(above) => {
                above.iter().chain(&self.metainfo.files[file.slot()].path).cloned().collect()
            }
        }
    }

    fn error(&self, action: &'static str, file: FileIndex, source: io::Error) -> StoreError {
        StoreError::io(action, &self.tree.locate(&self.elements(file)), source)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.open.forget(self.torrent);
    }
}

fn split(path: &Path) -> Result<(&Path, String), StoreError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| StoreError::NotAFile { path: path.to_path_buf() })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok((dir.unwrap_or(Path::new(".")), name.to_owned()))
}

/// Blocks from which runs are taken off the front.
struct Blocks<'a> {
    blocks: &'a [Bytes],
    /// Bytes of the first block that are taken.
    skip: usize,
}

impl<'a> Blocks<'a> {
    fn take(&mut self, mut len: usize) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::new();
        while let Some((first, later)) = self.blocks.split_first().filter(|_| len > 0) {
            let rest = &first[self.skip..];
            let taken = rest.len().min(len);
            slices.push(IoSlice::new(&rest[..taken]));
            len -= taken;
            self.skip += taken;
            if self.skip == first.len() {
                (self.blocks, self.skip) = (later, 0);
            }
        }
        slices
    }
}

fn write_all(file: &File, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
    let mut left = slices;
    let mut at = offset as i64;
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let now = left.len().min(MAX_SLICES);
        match pwritev(file, &left[..now], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as i64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
