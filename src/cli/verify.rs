//! `btfs verify`: what lies on disk, against its torrent.
//!
//! Invariant: nothing on disk is changed, so a signal may end it anywhere.
//!
//! Not here: hashing ([`crate::engine::check`]), and what the pieces say of a file
//! ([`crate::proto::inspect`]).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;

use super::progress::checking;
use super::source::Source;
use super::start;
use crate::engine::check::{Inspection, inspect_place};
use crate::engine::workers::Workers;
use crate::proto::inspect::FileState;
use crate::proto::metainfo::{File, FileKind, Metainfo};
use crate::proto::names::printable;

/// Options of `btfs verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct Verify {
    /// The .torrent file
    #[arg(value_name = "TORRENT")]
    torrent: OsString,
    /// Its data: the file or directory itself, or the directory it is in
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Print JSON
    ///
    /// One object with the keys name, info_hash (hexadecimal), right (whether all of it is), pieces,
    /// right_pieces, and files (each with path, size, state, and bytes). A state is right, missing, short, long,
    /// wrong or unproven; bytes is the length found of a file that is short or long, what is not right of one
    /// that is wrong or unproven, and else null.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Checks the data and prints what is not right.
    ///
    /// # Errors
    /// Some of it is not right, or could not be looked at.
    pub fn run(self) -> anyhow::Result<()> {
        let metainfo = start::metainfo(&Source::parse_file(&self.torrent)?)?;
        let shown = printable(&self.data.display().to_string());
        self.data.metadata().with_context(|| format!("{shown}: cannot verify that"))?;
        let place = start::place_of(&metainfo, &self.data);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = Workers::start(cores).context("cannot start worker threads")?;
        let progress = checking(metainfo.geometry.clone(), &printable(&metainfo.name));
        let found = inspect_place(&metainfo, &place, &workers, progress)
            .with_context(|| format!("{shown}: cannot verify that"))?;
        let report = Report::new(&metainfo, &found);
        print(&if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            report.to_text()
        })?;
        if let Some(error) = found.error {
            let error = anyhow::Error::new(error).context("some of it could not be read");
            return Err(error.context(shown));
        }
        if !report.right {
            let bad = report.files.iter().filter(|file| file.state != "right").count();
            bail!("{shown}: {bad} of {} files are not right", report.files.len());
        }
        Ok(())
    }
}

/// What was found, as `--json` prints it. Names and meanings of keys are stable; keys may be added.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    info_hash: String,
    right: bool,
    pieces: u32,
    right_pieces: u32,
    files: Vec<Shown>,
}

/// One file, link or empty file; padding is not shown.
#[derive(Debug, Serialize)]
struct Shown {
    path: String,
    size: u64,
    state: &'static str,
    bytes: Option<u64>,
}

impl Shown {
    fn new(file: &File, state: FileState) -> Option<Self> {
        if file.kind == FileKind::Padding {
            return None;
        }
        let (state, bytes) = match state {
            FileState::Right => ("right", None),
            FileState::Missing => ("missing", None),
            FileState::Short { found } => ("short", Some(found)),
            FileState::Long { found } => ("long", Some(found)),
            FileState::Wrong { bytes } => ("wrong", Some(bytes)),
            FileState::Unproven { bytes } => ("unproven", Some(bytes)),
        };
        Some(Self { path: file.path.join("/"), size: file.length, state, bytes })
    }

    /// What is not right about it.
    fn complaint(&self) -> Option<String> {
        let (bytes, size) = (self.bytes.unwrap_or(0), self.size);
        match self.state {
            "right" => None,
            "short" | "long" => Some(format!("{bytes} bytes instead of {size}")),
            "wrong" => Some(format!("{bytes} of {size} bytes are in pieces that are not right")),
            "unproven" => {
                Some(format!("{bytes} of {size} bytes share pieces with what is missing"))
            }
            _ => Some(String::new()),
        }
    }
}

impl Report {
    fn new(metainfo: &Arc<Metainfo>, found: &Inspection) -> Self {
        let states = metainfo.files.iter().zip(&found.files);
        let files: Vec<Shown> =
            states.filter_map(|(file, &state)| Shown::new(file, state)).collect();
        let right = found.right.is_full() && files.iter().all(|file| file.state == "right");
        Self {
            name: metainfo.name.clone(),
            info_hash: metainfo.info_hash.to_string(),
            right,
            pieces: metainfo.geometry.piece_count(),
            right_pieces: found.right.count(),
            files,
        }
    }

    /// A line for each file that is not right, and one for all.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let Some(complaint) = file.complaint() else { continue };
            let path = printable(&file.path);
            let colon = if complaint.is_empty() { "" } else { ": " };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<9} {path}{colon}{complaint}", file.state);
        }
        let right = self.files.iter().filter(|file| file.state == "right").count();
        let _ = writeln!(
            text,
            "{}: {right} of {} files and {} of {} pieces are right",
            printable(&self.name),
            self.files.len(),
            self.right_pieces,
            self.pieces,
        );
        text
    }
}

fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
