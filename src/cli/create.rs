//! `btfs create`: a torrent of a file or a directory.
//!
//! Invariant: an existing file is replaced only when asked, and only by a whole torrent.
//!
//! Not here: finding and hashing the data ([`crate::engine::author`]), layout and encoding
//! ([`crate::proto::author`]).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use atomic_write_file::AtomicWriteFile;
use bytesize::ByteSize;
use clap::ValueEnum;

use super::progress::hashing;
use crate::engine::author::{hash, survey};
use crate::proto::author::{MIN_PIECE_LEN, Plan, Terms};
use crate::proto::metainfo::tracker_url;
use crate::proto::names::printable;

/// Make a torrent of a file or a directory
///
/// Hashes the data on all cores and writes a .torrent file. Links inside a directory become links in the torrent;
/// what a torrent cannot hold is an error, except for empty directories, which are named and left out.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The file or directory
    path: PathBuf,

    /// Where to write the torrent [default: NAME.torrent, here]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// A tracker's announce URL; may be repeated
    ///
    /// http, https or udp. Each one is a tier of its own: clients ask the first that answers.
    #[arg(long = "tracker", value_name = "URL", value_parser = legal_tracker)]
    trackers: Vec<String>,

    /// Bytes in a piece: a power of two from 16KiB [default: chosen by size]
    ///
    /// Readers wait for whole pieces, so short ones start faster; every piece costs 20 bytes in the torrent.
    #[arg(long, value_name = "SIZE", value_parser = legal_piece_size)]
    piece_size: Option<u32>,

    /// Version of the torrent format
    #[arg(long, value_enum, default_value_t = Format::V1)]
    format: Format,

    /// Let clients find peers through the trackers only (BEP 27)
    #[arg(long)]
    private: bool,

    /// A text for whoever looks into the torrent
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    /// Name of the torrent [default: that of PATH]
    #[arg(long)]
    name: Option<String>,

    /// Leave out the creation date, so that the same data gives the same torrent
    #[arg(long)]
    no_date: bool,

    /// Overwrite an existing torrent
    #[arg(long)]
    force: bool,
}

/// Versions of the torrent format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// BEP 3: what every client reads
    V1,
    /// BEP 52: not supported yet
    V2,
    /// Both in one: not supported yet
    Hybrid,
}

impl Create {
    /// Makes the torrent and says where it is.
    ///
    /// # Errors
    /// When the data cannot be read or be in a torrent, or the torrent cannot be written.
    pub fn run(self) -> anyhow::Result<()> {
        if self.format != Format::V1 {
            bail!("v2 and hybrid torrents are not supported yet; use --format v1");
        }
        let found = survey(&self.path)?;
        for directory in &found.empty_directories {
            eprintln!("btfs: {} is empty and left out: torrents hold only files", shown(directory));
        }
        let name = self.name.clone().unwrap_or(found.name);
        let output = self.output.clone().unwrap_or_else(|| format!("{name}.torrent").into());
        self.check_free(&output)?;
        let plan = Plan::new(name, found.content, self.piece_size)
            .with_context(|| format!("cannot make a torrent of {}", shown(&self.path)))?;

        let terms = self.terms();
        plan.rehearse(&terms)?;
        let what = format!("hashing {}", shown(&self.path));
        let hashes = hash(&found.root, &plan, hashing(&what, plan.geometry().total()))?;
        let torrent = plan.encode(&hashes, &terms)?;

        self.check_free(&output)?;
        write(&output, &torrent.bytes)
            .with_context(|| format!("cannot write {}", shown(&output)))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "info-hash  {}", torrent.metainfo.info_hash)?;
        writeln!(out, "wrote      {}", shown(&output))?;
        Ok(())
    }

    fn check_free(&self, output: &Path) -> anyhow::Result<()> {
        if !self.force && output.symlink_metadata().is_ok() {
            bail!(
                "{} exists; use --force to overwrite it, or -o to write elsewhere",
                output.display()
            );
        }
        Ok(())
    }

    fn terms(&self) -> Terms {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_secs()).ok();
        Terms {
            trackers: self.trackers.iter().map(|url| vec![url.clone()]).collect(),
            private: self.private,
            comment: self.comment.clone(),
            created_by: Some(concat!("btfs ", env!("CARGO_PKG_VERSION")).to_owned()),
            created: now.filter(|_| !self.no_date),
        }
    }
}

/// All of the torrent or nothing of it, also when the disk is full.
fn write(output: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = AtomicWriteFile::open(output)?;
    file.write_all(bytes)?;
    file.commit()
}

/// A path that may hold anything, as a terminal may see it.
fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn legal_tracker(url: &str) -> Result<String, String> {
    tracker_url(url.as_bytes())
        .ok_or_else(|| "not a tracker's URL: it begins with http://, https:// or udp://".to_owned())
}

fn legal_piece_size(text: &str) -> Result<u32, String> {
    let ByteSize(bytes) = text.parse()?;
    u32::try_from(bytes)
        .ok()
        .filter(|size| size.is_power_of_two() && *size >= MIN_PIECE_LEN)
        .ok_or_else(|| {
            format!("{bytes} bytes are not a power of two from 16KiB, such as 256KiB or 4MiB")
        })
}
