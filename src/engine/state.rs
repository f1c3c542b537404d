//! What a torrent's directory is vouched to hold, kept between runs.
//!
//! ```text
//! magic and version | trust | info-hash | piece length | total | pieces | files |
//! a stamp for each file | one bit for each piece | CRC-32 of all before
//! ```
//!
//! Invariant: the file on disk vouches only for bytes that were flushed before it was written, in files
//! that nobody else has changed since: before the first hole is punched after a save, the file is marked
//! as no longer to be trusted, and stamps are taken only after our own writes and before a check.
//! So a kill or a power cut at any instant costs pieces that were not flushed, or a check, never a wrong byte.
//!
//! Not here: when it is saved (the torrent's task), the have-map in use ([`super::have_map`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atomic_write_file::AtomicWriteFile;
use nix::fcntl::OFlag;
use parking_lot::Mutex;

use crate::proto::bitfield::Bitfield;
use crate::proto::layout::{Layout, Source};
use crate::proto::metainfo::Metainfo;
use crate::proto::units::{FileIndex, PieceIndex};

use super::have_map::HaveMap;
use super::store::StoreError;
use super::store::disk::{Disk, Stamp};

const MAGIC: &[u8; 12] = b"btfs state 1";
const TRUST_AT: usize = MAGIC.len();
const VOUCHED: u8 = 1;
const TO_CHECK: u8 = 0;
const STAMP_LEN: usize = 1 + 8 + 16 + 16;
const CRC_LEN: usize = 4;

/// The state file of one torrent.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    metainfo: Arc<Metainfo>,
    layout: Layout,
    /// Held through a save, so that there is one at a time.
    stamps: Mutex<Vec<Option<Stamp>>>,
    on_disk: Mutex<OnDisk>,
}

/// What the file on disk claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    /// Nothing, or only what is to be checked.
    Harmless,
    /// Pieces that are trusted unread.
    Vouching,
}

/// What an earlier run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Pieces whose bytes are on the disk, unchanged: to be taken as verified.
    pub vouched: Bitfield,
    /// Pieces that may be here, in files that changed since: to be checked before they are used. After a
    /// kill these are also the ones that were written and no longer recorded.
    pub recheck: Bitfield,
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
    /// The state at `path` for the torrent's files in `disk`, and what is recorded there.
    ///
    /// The record is an error when it is damaged; nothing is then known of the data.
    pub fn open(
        path: &Path,
        metainfo: Arc<Metainfo>,
        disk: &Disk,
    ) -> (Self, Result<Recorded, StateError>) {
        let stamps = disk.stamps((0..metainfo.files.len() as u32).map(FileIndex));
        let state = Self {
            path: path.to_path_buf(),
            layout: Layout::new(&metainfo),
            metainfo,
            stamps: Mutex::new(stamps),
            on_disk: Mutex::new(OnDisk::Vouching),
        };
        let recorded = state.load();
        (state, recorded)
    }

    /// Flushes the data and records the have-map.
    ///
    /// # Errors
    /// When either failed. After a failed flush the state is written without the files concerned.
    pub(super) fn save(&self, disk: &Disk, have: &HaveMap) -> Result<(), StateError> {
        let mut stamps = self.stamps.lock();
        let epoch = have.epoch();
        let pieces = have.snapshot();
        let (touched, flushed) = disk.flush();
        let seen = disk.stamps(touched.iter().copied());
        for (file, stamp) in touched.into_iter().zip(seen) {
            stamps[file.slot()] = stamp;
        }
        let mut on_disk = self.on_disk.lock();
        // A piece that left meanwhile is still in the snapshot: let the next run check.
        let trust = if have.epoch() == epoch { VOUCHED } else { TO_CHECK };
        self.replace(&encode(&self.metainfo, trust, &stamps, &pieces))?;
        *on_disk = if trust == VOUCHED { OnDisk::Vouching } else { OnDisk::Harmless };
        flushed.map_err(StateError::Flush)
    }

    /// To be called after a piece left the have-map and before its bytes are touched.
    pub(super) fn before_punch(&self) -> Result<(), StoreError> {
        let mut on_disk = self.on_disk.lock();
        if *on_disk == OnDisk::Vouching {
            self.distrust()?;
            *on_disk = OnDisk::Harmless;
        }
        Ok(())
    }

    /// Marks the file as to be checked, or removes it when there is no room even for that.
    fn distrust(&self) -> Result<(), StoreError> {
        let marked = self.read().and_then(|mut bytes| {
            bytes[TRUST_AT] = TO_CHECK;
            seal(&mut bytes);
            self.replace(&bytes)
        });
        if marked.is_ok() {
            return Ok(());
        }
        let gone = match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()),
        };
        gone.map_err(|error| StoreError::io("remove", &self.path, error))
    }

    fn load(&self) -> Result<Recorded, StateError> {
        let pieces = self.metainfo.geometry.piece_count();
        let mut recorded =
            Recorded { vouched: Bitfield::empty(pieces), recheck: Bitfield::empty(pieces) };
        let bytes = match self.read() {
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                *self.on_disk.lock() = OnDisk::Harmless;
                return Ok(recorded);
            }
            read => read?,
        };
        let head = head(&self.metainfo, TO_CHECK).len();
        let (stamps, rest) = bytes[head..].split_at(self.metainfo.files.len() * STAMP_LEN);
        let had = Bitfield::from_wire(&rest[..rest.len() - CRC_LEN], pieces)
            .ok_or_else(|| StateError::Damaged { path: self.path.clone() })?;
        let trusted = bytes[TRUST_AT] == VOUCHED;
        let files = self.compare(stamps);
        for piece in self.metainfo.geometry.pieces() {
            match (self.worst(piece, &files), had.has(piece)) {
                (Change::None, true) if trusted => recorded.vouched.insert(piece),
                (Change::None, true) | (Change::Changed, _) => recorded.recheck.insert(piece),
                (Change::None, false) | (Change::Gone, _) => false,
            };
        }
        Ok(recorded)
    }

    /// What became of each file since its stamp was recorded.
    fn compare(&self, recorded: &[u8]) -> Vec<Change> {
        let now = self.stamps.lock();
        let files = self.metainfo.files.iter().zip(recorded.chunks_exact(STAMP_LEN));
        files
            .zip(now.iter())
            .map(|((file, then), now)| match now {
                None => Change::Gone,
                Some(now) if now.len == file.length && encode_stamp(Some(*now)) == then => {
                    Change::None
                }
                Some(_) => Change::Changed,
            })
            .collect()
    }

    fn worst(&self, piece: PieceIndex, files: &[Change]) -> Change {
        let range = self.metainfo.geometry.piece_range(piece);
        let changes = self.layout.segments(range).filter_map(|segment| match segment.source {
            Source::File { file, .. } => Some(files[file.slot()]),
            Source::Zeros => None,
        });
        changes.max().unwrap_or(Change::None)
    }

    /// The whole file, if it has the right length, head and checksum.
    fn read(&self) -> Result<Vec<u8>, StateError> {
        let failed = |source| StateError::Io { action: "read", path: self.path.clone(), source };
        let damaged = || StateError::Damaged { path: self.path.clone() };
        let vouched = head(&self.metainfo, VOUCHED);
        let pieces = (self.metainfo.geometry.piece_count() as usize).div_ceil(8);
        let len = vouched.len() + self.metainfo.files.len() * STAMP_LEN + pieces + CRC_LEN;
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let file = opened.map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != len as u64 {
            return Err(damaged());
        }
        let mut bytes = Vec::with_capacity(len + 1);
        file.take(len as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let mut sealed = bytes.clone();
        let right = bytes.len() == len
            && (bytes.starts_with(&vouched) || bytes.starts_with(&head(&self.metainfo, TO_CHECK)))
            && {
                seal(&mut sealed);
                sealed == bytes
            };
        if right { Ok(bytes) } else { Err(damaged()) }
    }

    /// Puts the bytes in the file's place, flushed, with its directory.
    fn replace(&self, bytes: &[u8]) -> Result<(), StateError> {
        let write = || {
            let mut file = AtomicWriteFile::open(&self.path)?;
            file.write_all(bytes)?;
            file.commit()
        };
        write().map_err(|source| StateError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}

/// What became of a file, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Changed,
    Gone,
}

fn head(metainfo: &Metainfo, trust: u8) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(trust);
    bytes.extend(metainfo.info_hash.0);
    bytes.extend(metainfo.geometry.nominal_piece_len().to_le_bytes());
    bytes.extend(metainfo.geometry.total().to_le_bytes());
    bytes.extend(metainfo.geometry.piece_count().to_le_bytes());
    bytes.extend((metainfo.files.len() as u32).to_le_bytes());
    bytes
}

fn encode(metainfo: &Metainfo, trust: u8, stamps: &[Option<Stamp>], pieces: &Bitfield) -> Vec<u8> {
    let mut bytes = head(metainfo, trust);
    bytes.extend(stamps.iter().flat_map(|&stamp| encode_stamp(stamp)));
    bytes.extend(pieces.to_wire());
    bytes.extend([0; CRC_LEN]);
    seal(&mut bytes);
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

/// Sets the checksum at the end.
fn seal(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<CRC_LEN>() {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
}
