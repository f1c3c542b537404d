//! How a torrent's bytes fall into files: one run of bytes crosses files, padding and nothing else.
//!
//! Invariant: the stretches ascend without gaps from 0 to `total`, and none is empty; a file without
//! bytes has none.
//!
//! Not here: pieces ([`super::geometry`]), names on a disk.

use std::ops::Range;

use super::metainfo::{FileKind, Metainfo};
use super::units::FileIndex;

/// Which file holds which of a torrent's bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    stretches: Vec<Stretch>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: u64,
    /// `None`: zeros that are stored nowhere.
    file: Option<FileIndex>,
}

/// A run of bytes from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the bytes live.
    pub source: Source,
    /// Bytes in the run, never 0.
    pub len: u64,
}

/// Where a run of a torrent's bytes lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file of the torrent.
    File {
        /// The file.
        file: FileIndex,
        /// Offset of the run in the file.
        offset: u64,
    },
    /// In a padding file (BEP 47): zeros that are never stored.
    Zeros,
}

impl Layout {
    /// The layout of the torrent's files.
    pub fn new(metainfo: &Metainfo) -> Self {
        let stretches = metainfo.files.iter().zip(0..).filter(|(file, _)| file.length > 0).map(
            |(file, index)| Stretch {
                start: file.offset,
                file: matches!(file.kind, FileKind::Regular { .. }).then_some(FileIndex(index)),
            },
        );
        Self { stretches: stretches.collect(), total: metainfo.geometry.total() }
    }

    /// Bytes in the torrent.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The places that hold the range, in order; what lies past the end is left out.
    pub fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let end = range.end.min(self.total);
        let first = self.stretches.partition_point(|s| s.start <= range.start).saturating_sub(1);
        let mut at = range.start;
        let mut index = first;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let stretch = self.stretches.get(index)?;
            let stop = self.stretches.get(index + 1).map_or(self.total, |next| next.start).min(end);
            let segment = Segment {
                source: stretch.file.map_or(Source::Zeros, |file| Source::File {
                    file,
                    offset: at - stretch.start,
                }),
                len: stop - at,
            };
            at = stop;
            index += 1;
            Some(segment)
        })
    }
}
