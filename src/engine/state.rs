//! What a torrent's directory is vouched to hold, kept between runs.
//!
//! ```text
//! magic and version | info-hash | piece length | total | pieces | files |
//! a stamp for each file | one bit for each piece that is claimed | CRC-32 of all before
//! ```
//!
//! Invariant: the file on disk claims only pieces that were flushed before it was written and not touched
//! since: before a piece's bytes are punched, cut off or given up, its claim is withdrawn, durably.
//! Invariant: a claim holds for files that look as recorded, or whose last change is no later than this
//! program's own last write, which the state file's own time tells. All other claims are withdrawn before a run
//! writes its first byte, or that time would speak for them.
//!
//! So a kill at any instant costs nothing, and a power cut the pieces that were not flushed; bytes that nobody
//! vouches for are doubted: hashed before they are used, by the swarm's leave and not all at once.
//! What somebody else writes into a file between two of our own writes is not seen, nor are bytes that rot on the
//! disk: to see them, each run would have to hash every piece on its first read, which is slower than reading a
//! complete file from the page cache, and rules out that the kernel reads it past us.
//!
//! Not here: when it is saved (the torrent's task), the have-map in use ([`super::have_map`]), when what is
//! doubted is hashed (the swarm decides).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use parking_lot::Mutex;
use tracing::warn;

use crate::proto::bitfield::Bitfield;
use crate::proto::layout::{Layout, Source};
use crate::proto::metainfo::{self, Metainfo};
use crate::proto::units::{FileIndex, PieceIndex};

use super::have_map::HaveMap;
use super::store::StoreError;
use super::store::disk::{Disk, Stamp};
use super::store::witness::{Change, Watch};

const MAGIC: &[u8; 12] = b"btfs state 2";
const STAMP_LEN: usize = 1 + 8 + 16 + 16;
const CRC_LEN: usize = 4;

/// Claims that are withdrawn together at first, and twice as many each time until the next save: writing the
/// file for each piece that is evicted would keep the disk busy with nothing else. What is withdrawn and still
/// here costs a hash after a kill.
const WITHDRAWN: usize = 64;

/// The state file of one torrent.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    metainfo: Arc<Metainfo>,
    layout: Layout,
    watch: Watch,
    /// Held through a save, so that there is one at a time.
    stamps: Mutex<Vec<Option<Stamp>>>,
    on_disk: Mutex<OnDisk>,
}

/// What the file on disk says.
#[derive(Debug)]
struct OnDisk {
    /// All that stands before the claims.
    front: Vec<u8>,
    claims: Bitfield,
    /// Pieces that left since the save began that is under way.
    left: Bitfield,
    /// Times that claims were withdrawn since the last save.
    withdrawals: u32,
}

/// What an earlier run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Pieces whose bytes are on the disk, unchanged: to be taken as verified.
    pub vouched: Bitfield,
    /// Pieces of which something is here that nobody vouches for: to be checked before they are used.
    pub doubted: Bitfield,
}

/// Why nothing is known from an earlier run, or nothing was recorded for a later one.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is not as this program left it, or belongs to another torrent.
    #[error("{path} is damaged or belongs to another torrent")]
    Damaged {
        /// The state file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data could not be flushed; its files are no longer vouched for.
    #[error("the torrent's data could not be flushed")]
    Flush(#[source] StoreError),
}

impl StateFile {
    /// The state at `path` for the torrent's files in `disk`, and what is recorded there. A damaged record says
    /// nothing: all that lies in the files is doubted then.
    ///
    /// # Errors
    /// When claims that no longer hold cannot be withdrawn.
    pub fn open(
        path: &Path,
        metainfo: Arc<Metainfo>,
        disk: &Disk,
    ) -> Result<(Self, Recorded), StoreError> {
        let stamps = disk.stamps((0..metainfo.files.len() as u32).map(FileIndex));
        let none = Bitfield::empty(metainfo.geometry.piece_count());
        let (front, claims, left) = (Vec::new(), none.clone(), none);
        let on_disk = OnDisk { front, claims, left, withdrawals: 0 };
        let state = Self {
            path: path.to_path_buf(),
            layout: Layout::new(&metainfo),
            metainfo,
            watch: disk.watch(),
            stamps: Mutex::new(stamps),
            on_disk: Mutex::new(on_disk),
        };
        let recorded = state.load(disk)?;
        Ok((state, recorded))
    }

    /// Flushes the data and records the have-map.
    ///
    /// # Errors
    /// When either failed. After a failed flush the state is written without the files concerned.
    pub(super) fn save(&self, disk: &Disk, have: &HaveMap) -> Result<(), StateError> {
        let mut stamps = self.stamps.lock();
        let none = Bitfield::empty(self.metainfo.geometry.piece_count());
        // First this, then the snapshot: what leaves between the two is in neither.
        self.on_disk.lock().left.clone_from(&none);
        let mut claims = have.snapshot();
        let (touched, flushed) = disk.flush();
        let seen = disk.stamps(touched.iter().copied());
        for (file, stamp) in touched.into_iter().zip(seen) {
            stamps[file.slot()] = stamp;
        }
        let mut on_disk = self.on_disk.lock();
        // What left may have come back meanwhile, and is not flushed.
        for piece in on_disk.left.iter() {
            claims.remove(piece);
        }
        let front = front(&self.metainfo, &stamps);
        if let Err(error) = self.replace(&encode(&front, &claims)) {
            // Either may be there.
            on_disk.claims.union_with(&claims);
            return Err(error);
        }
        *on_disk = OnDisk { front, claims, left: none, withdrawals: 0 };
        flushed.map_err(StateError::Flush)
    }

    /// To be called after a piece left the have-map and before its bytes are touched.
    pub(super) fn withdraw(&self, piece: PieceIndex) -> Result<(), StoreError> {
        let mut on_disk = self.on_disk.lock();
        on_disk.left.insert(piece);
        if !on_disk.claims.has(piece) {
            return Ok(());
        }
        let together = WITHDRAWN << on_disk.withdrawals.min(20);
        on_disk.withdrawals += 1;
        let first = piece.slot() / together * together;
        for piece in self.metainfo.geometry.pieces().skip(first).take(together) {
            on_disk.claims.remove(piece);
        }
        self.put(&mut on_disk)
    }

    /// To be called after each change of the data: until then all changes were ours.
    pub(super) fn pulse(&self) {
        let touch = || {
            self.watch.before(Change::Pulse)?;
            let (now, flags) = (TimeSpec::UTIME_NOW, UtimensatFlags::NoFollowSymlink);
            Ok::<_, io::Error>(utimensat(AT_FDCWD, &self.path, &now, &now, flags)?)
        };
        // Without it, more is doubted after a kill; there may be no file yet.
        let _ = touch();
    }

    /// Writes what is claimed, or removes the file when there is no room even for that.
    fn put(&self, on_disk: &mut OnDisk) -> Result<(), StoreError> {
        if self.replace(&encode(&on_disk.front, &on_disk.claims)).is_ok() {
            return Ok(());
        }
        let remove = || {
            self.watch.before(Change::Remove)?;
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.sync_directory(),
            }
        };
        remove().map_err(|error| StoreError::io("remove", &self.path, error))?;
        on_disk.claims = Bitfield::empty(self.metainfo.geometry.piece_count());
        Ok(())
    }

    fn load(&self, disk: &Disk) -> Result<Recorded, StoreError> {
        let pieces = self.metainfo.geometry.piece_count();
        let mut recorded =
            Recorded { vouched: Bitfield::empty(pieces), doubted: Bitfield::empty(pieces) };
        let mut on_disk = self.on_disk.lock();
        let files = match self.read() {
            Ok(Said { front, claims, pulse }) => {
                let head = front.len() - self.metainfo.files.len() * STAMP_LEN;
                let files = self.compare(&front[head..], pulse);
                (on_disk.front, on_disk.claims) = (front, claims);
                files
            }
            Err(error) => {
                if !matches!(&error, StateError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
                {
                    warn!(%error, "what is here is hashed before it is used");
                }
                let seen = |stamp: &Option<Stamp>| stamp.map_or(Look::Gone, |_| Look::Changed);
                self.stamps.lock().iter().map(seen).collect()
            }
        };
        let written = disk.written(self.incomplete(&on_disk.claims));
        for piece in self.metainfo.geometry.pieces() {
            match (self.worst(piece, &files), on_disk.claims.has(piece)) {
                (Look::Same | Look::Ours, true) => recorded.vouched.insert(piece),
                (Look::Changed, true) => recorded.doubted.insert(piece),
                // Came after the last save, or was doubted before and never checked.
                (_, false) if written.has(piece) => recorded.doubted.insert(piece),
                (_, false) | (Look::Gone, _) => false,
            };
        }
        if on_disk.claims != recorded.vouched {
            on_disk.claims.clone_from(&recorded.vouched);
            self.put(&mut on_disk)?;
        }
        Ok(recorded)
    }

    /// Files that have pieces without a claim.
    fn incomplete(&self, claims: &Bitfield) -> impl Iterator<Item = FileIndex> {
        let files = self.metainfo.files.iter().zip(0..);
        files.filter_map(|(file, n)| {
            let range = file.offset..file.offset + file.length;
            let mut pieces = self.metainfo.geometry.pieces_in(&range);
            pieces.any(|piece| !claims.has(piece)).then_some(FileIndex(n))
        })
    }

    /// What became of each file since its stamp was recorded; `pulse` is when this program last wrote.
    fn compare(&self, recorded: &[u8], pulse: i128) -> Vec<Look> {
        let now = self.stamps.lock();
        let files = self.metainfo.files.iter().zip(recorded.chunks_exact(STAMP_LEN));
        let look = |((file, then), now): ((&metainfo::File, &[u8]), &Option<Stamp>)| match now {
            None => Look::Gone,
            Some(now) if now.len != file.length || then[0] == 0 => Look::Changed,
            Some(now) if encode_stamp(Some(*now)) == then => Look::Same,
            Some(now) if now.changed.max(now.modified) <= pulse => Look::Ours,
            Some(_) => Look::Changed,
        };
        files.zip(now.iter()).map(look).collect()
    }

    fn worst(&self, piece: PieceIndex, files: &[Look]) -> Look {
        let range = self.metainfo.geometry.piece_range(piece);
        let looks = self.layout.segments(range).filter_map(|segment| match segment.source {
            Source::File { file, .. } => Some(files[file.slot()]),
            Source::Zeros => None,
        });
        looks.max().unwrap_or(Look::Same)
    }

    /// The whole file, if it has the right length, head and checksum.
    fn read(&self) -> Result<Said, StateError> {
        let failed = |source| StateError::Io { action: "read", path: self.path.clone(), source };
        let damaged = || StateError::Damaged { path: self.path.clone() };
        let head = head(&self.metainfo);
        let front = head.len() + self.metainfo.files.len() * STAMP_LEN;
        let pieces = self.metainfo.geometry.piece_count();
        let len = front + (pieces as usize).div_ceil(8) + CRC_LEN;
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let file = opened.map_err(failed)?;
        let seen = file.metadata().map_err(failed)?;
        if seen.len() != len as u64 {
            return Err(damaged());
        }
        let mut bytes = Vec::with_capacity(len + 1);
        file.take(len as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let (body, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or_else(damaged)?;
        if bytes.len() != len
            || !bytes.starts_with(&head)
            || *crc != crc32fast::hash(body).to_le_bytes()
        {
            return Err(damaged());
        }
        let claims = Bitfield::from_wire(&body[front..], pieces).ok_or_else(damaged)?;
        let pulse = i128::from(seen.mtime()) * 1_000_000_000 + i128::from(seen.mtime_nsec());
        Ok(Said { front: body[..front].to_vec(), claims, pulse })
    }

    /// Puts the bytes in the file's place, flushed, with its directory.
    fn replace(&self, bytes: &[u8]) -> Result<(), StateError> {
        let fresh = self.path.with_extension("new");
        let write = || {
            self.watch.before(Change::Replace { bytes })?;
            let flags = OFlag::O_NOFOLLOW.bits();
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).custom_flags(flags);
            let mut file = options.open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            self.sync_directory()
        };
        write().map_err(|source| {
            // Half a file helps nobody, and takes room that may be scarce.
            let _ = fs::remove_file(&fresh);
            StateError::Io { action: "write", path: self.path.clone(), source }
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

/// What the file says, and when this program last wrote.
struct Said {
    front: Vec<u8>,
    claims: Bitfield,
    pulse: i128,
}

/// How a file looks beside its record, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// As recorded.
    Same,
    /// Changed since, by this program alone.
    Ours,
    /// Changed by whomever, or not recorded.
    Changed,
    Gone,
}

fn head(metainfo: &Metainfo) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(metainfo.info_hash.0);
    bytes.extend(metainfo.geometry.nominal_piece_len().to_le_bytes());
    bytes.extend(metainfo.geometry.total().to_le_bytes());
    bytes.extend(metainfo.geometry.piece_count().to_le_bytes());
    bytes.extend((metainfo.files.len() as u32).to_le_bytes());
    bytes
}

fn front(metainfo: &Metainfo, stamps: &[Option<Stamp>]) -> Vec<u8> {
    let mut bytes = head(metainfo);
    bytes.extend(stamps.iter().flat_map(|&stamp| encode_stamp(stamp)));
    bytes
}

fn encode(front: &[u8], claims: &Bitfield) -> Vec<u8> {
    let mut bytes = [front, &claims.to_wire()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn encode_stamp(stamp: Option<Stamp>) -> [u8; STAMP_LEN] {
    let mut bytes = [0; STAMP_LEN];
    if let Some(stamp) = stamp {
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&stamp.len.to_le_bytes());
        bytes[9..25].copy_from_slice(&stamp.modified.to_le_bytes());
        bytes[25..].copy_from_slice(&stamp.changed.to_le_bytes());
    }
    bytes
}
