//! A store with its state, stopped at each of its changes to the disk in turn, and opened again.
//!
//! Three ways to stop: the process is killed, and what was written stays; the power fails, and what was not
//! flushed is gone; one change fails, and the process goes on. Whatever the way: a byte that is vouched for is
//! right, and what is lost is what could not be helped.

#[path = "support/torrent.rs"]
mod torrent;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use btfs::engine::chunks::Chunks;
use btfs::engine::content::Content;
use btfs::engine::state::StateFile;
use btfs::engine::store::disk::{Access, Place};
use btfs::engine::store::open_files::OpenFiles;
use btfs::engine::store::witness::{Change, Witness};
use btfs::engine::store::{Disk, Store, StoreError};
use btfs::proto::bitfield::Bitfield;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{FileIndex, PieceIndex, TorrentId};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const ID: TorrentId = TorrentId(1);
const PIECE_LEN: usize = 16 * 1024;
const PIECES: u32 = 8;
const SCRIPTS: u64 = 8;
const STEPS: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kill,
    PowerCut,
    Fault,
}

/// What a process and those around it do with a torrent's directory.
#[derive(Clone, Copy, Debug)]
enum Step {
    Store(u32),
    Evict(u32),
    Save,
    /// The process ends and another begins, which checks what is doubted or leaves it.
    Restart {
        check: bool,
    },
    /// While no process is there, somebody else spoils a piece.
    Spoil(u32),
}

fn script(seed: u64) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let step = |_| match rng.random_range(0..20) {
        0..9 => Step::Store(rng.random_range(0..PIECES)),
        9..12 => Step::Evict(rng.random_range(0..PIECES)),
        12..17 => Step::Save,
        17..19 => Step::Restart { check: rng.random() },
        _ => Step::Spoil(rng.random_range(0..PIECES)),
    };
    (0..STEPS).map(step).collect()
}

/// Counts changes, and stops at one of them; knows what is written and not flushed.
struct Fate {
    way: Way,
    stage: Arc<Stage>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Changes until the one that is refused.
    left: usize,
    stopped: bool,
    /// Written since the last flush: file, offset, length.
    unflushed: Vec<(FileIndex, u64, u64)>,
    /// Heard of, and done when the next one is heard of.
    flushing: Option<Option<FileIndex>>,
}

impl Witness for Fate {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let mut seen = self.seen.lock();
        if seen.stopped && self.way != Way::Fault {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match seen.flushing.take() {
            Some(Some(file)) => seen.unflushed.retain(|(written, ..)| *written != file),
            Some(None) => seen.unflushed.clear(),
            None => {}
        }
        if seen.left == 0 && !seen.stopped {
            seen.stopped = true;
            if let (Change::Write { file, offset, len }, Way::Kill | Way::PowerCut) =
                (change, self.way)
            {
                // The kernel had taken a part of it.
                self.stage.write(file, offset, &self.stage.bytes(file, offset, len / 2));
                seen.unflushed.push((file, offset, len));
            }
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        seen.left = seen.left.saturating_sub(1);
        match change {
            Change::Write { file, offset, len } => seen.unflushed.push((file, offset, len)),
            Change::Flush(file) => seen.flushing = Some(Some(file)),
            Change::FlushAll => seen.flushing = Some(None),
            _ => {}
        }
        Ok(())
    }
}

/// The directory and the torrent.
struct Stage {
    dir: TempDir,
    metainfo: Arc<Metainfo>,
    all: Vec<u8>,
}

impl Stage {
    fn new() -> Self {
        let files = [
            ("a", torrent::noise(1, PIECE_LEN + 8192), ""),
            ("b", torrent::noise(2, PIECES as usize * PIECE_LEN - PIECE_LEN - 12288), ""),
            ("c", torrent::noise(3, 4096), ""),
        ];
        let (metainfo, all) = torrent::many(PIECE_LEN, &files);
        // In memory, where there is such a place: nothing here waits for a disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: dir.expect("a temporary directory"), metainfo, all }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn piece(&self, raw: u32) -> PieceIndex {
        self.metainfo.geometry.piece(raw).expect("in range")
    }

    fn bytes(&self, file: FileIndex, offset: u64, len: u64) -> Vec<u8> {
        let start = (self.metainfo.file(file).expect("known").offset + offset) as usize;
        self.all[start..start + len as usize].to_vec()
    }

    fn write(&self, file: FileIndex, offset: u64, bytes: &[u8]) {
        let name = &self.metainfo.file(file).expect("known").path[0];
        let path = self.dir.path().join(self.metainfo.info_hash.to_string()).join("data/top");
        if let Ok(open) = File::options().write(true).open(path.join(name)) {
            open.write_all_at(bytes, offset).expect("written");
        }
    }

    /// The state file's time, and so the last of our own writes.
    fn set_pulse(&self, at: SystemTime) {
        if let Ok(file) = File::options().write(true).open(self.state()) {
            file.set_modified(at).expect("set");
        }
    }

    fn start(&self, fate: Option<&Arc<Fate>>) -> Result<(Content, Bitfield), StoreError> {
        let place = Place::Cache(self.dir.path().to_path_buf());
        let open = Arc::new(OpenFiles::new(3));
        let mut disk = Disk::open(&place, Access::ReadWrite, ID, self.metainfo.clone(), open)?;
        if let Some(fate) = fate {
            disk = disk.watched(fate.clone());
        }
        let (state, recorded) = StateFile::open(&self.state(), self.metainfo.clone(), &disk)?;
        let chunks = Arc::new(Chunks::new(0));
        let store = Store::Disk(disk);
        let content = Content::new(ID, self.metainfo.clone(), store, chunks, Some(state));
        content.have.adopt(&recorded.vouched);
        Ok((content, recorded.doubted))
    }

    /// Every piece that the content would serve is right.
    fn is_honest(&self, content: &Content) -> Result<(), String> {
        for piece in content.have.snapshot().iter() {
            let range = self.metainfo.geometry.piece_range(piece);
            let mut read = vec![0; (range.end - range.start) as usize];
            let here = content.read_resident(range.start, &mut read);
            if !matches!(here, Ok(true)) || read != self.all[range.start as usize..][..read.len()] {
                return Err(format!("{piece:?} is vouched for and wrong: {here:?}"));
            }
        }
        Ok(())
    }
}

/// What must be there after a restart.
#[derive(Debug, Default)]
struct Model {
    stored: BTreeSet<u32>,
    flushed: BTreeSet<u32>,
}

struct Run {
    stage: Arc<Stage>,
    fate: Arc<Fate>,
    model: Model,
    content: Option<Content>,
    doubted: Bitfield,
}

impl Run {
    fn new(way: Way, stop_at: usize) -> Self {
        let stage = Arc::new(Stage::new());
        let seen = Mutex::new(Seen { left: stop_at, ..Seen::default() });
        let fate = Arc::new(Fate { way, stage: stage.clone(), seen });
        let doubted = Bitfield::empty(stage.metainfo.geometry.piece_count());
        let mut run = Self { stage, fate, model: Model::default(), content: None, doubted };
        run.start();
        run
    }

    fn start(&mut self) {
        if let Ok((content, doubted)) = self.stage.start(Some(&self.fate)) {
            (self.content, self.doubted) = (Some(content), doubted);
        }
    }

    /// Whether the process is gone.
    fn is_over(&self) -> bool {
        self.content.is_none() || (self.fate.way != Way::Fault && self.fate.seen.lock().stopped)
    }

    fn do_(&mut self, step: Step) {
        let Some(content) = &self.content else { return };
        match step {
            Step::Store(raw) => {
                let piece = self.stage.piece(raw);
                // As the swarm has it: what is here or may be is not fetched.
                if content.have.has(piece) || self.doubted.has(piece) {
                    return;
                }
                let range = self.stage.metainfo.geometry.piece_range(piece);
                let bytes = &self.stage.all[range.start as usize..range.end as usize];
                if content.store_chunk(piece, &[Bytes::copy_from_slice(bytes)]).is_ok() {
                    self.model.stored.insert(raw);
                }
            }
            Step::Evict(raw) => {
                let piece = self.stage.piece(raw);
                self.doubted.remove(piece);
                self.model.stored.remove(&raw);
                self.model.flushed.remove(&raw);
                let _ = content.evict(piece);
            }
            Step::Save => {
                let here: BTreeSet<_> =
                    content.have.snapshot().iter().map(PieceIndex::raw).collect();
                if content.save().is_ok() {
                    self.model.flushed.extend(here);
                }
            }
            Step::Restart { check } => {
                self.content = None;
                self.start();
                self.is_whole().expect("whole");
                if check {
                    self.check_all();
                }
            }
            Step::Spoil(raw) => {
                self.content = None;
                let range = self.stage.metainfo.geometry.piece_range(self.stage.piece(raw));
                for (file, n) in self.stage.metainfo.files.iter().zip(0..) {
                    let end = range.end.min(file.offset + file.length);
                    let start = range.start.max(file.offset);
                    if start < end {
                        let garbage = vec![0xee; (end - start) as usize];
                        self.stage.write(FileIndex(n), start - file.offset, &garbage);
                    }
                }
                self.model.stored.remove(&raw);
                self.model.flushed.remove(&raw);
                // Our own last write was before that.
                self.stage.set_pulse(SystemTime::now() - Duration::from_secs(3600));
                self.start();
            }
        }
    }

    fn check_all(&mut self) {
        let Some(content) = &self.content else { return };
        for piece in self.doubted.iter() {
            let _ = content.check(piece);
        }
        self.doubted = Bitfield::empty(self.doubted.len());
    }

    /// The power fails: what was not flushed is gone, and to make it worse, the times look right, as far as
    /// the process had come to set them.
    fn lose_unflushed(&self) {
        for &(file, offset, len) in &self.fate.seen.lock().unflushed {
            self.stage.write(file, offset, &vec![0; len as usize]);
        }
        if self.content.is_some() {
            self.stage.set_pulse(SystemTime::now() + Duration::from_secs(3600));
        }
    }

    /// All that is vouched for is right, and what is lost could not be helped.
    fn is_whole(&self) -> Result<(), String> {
        let Some(content) = &self.content else { return Ok(()) };
        self.stage.is_honest(content)?;
        let expected = match self.fate.way {
            Way::PowerCut => &self.model.flushed,
            Way::Kill | Way::Fault => &self.model.stored,
        };
        let lost = expected.iter().map(|&raw| self.stage.piece(raw));
        match lost.filter(|&p| !content.have.has(p) && !self.doubted.has(p)).collect::<Vec<_>>() {
            lost if lost.is_empty() => Ok(()),
            lost => Err(format!("{lost:?} are lost")),
        }
    }
}

/// Runs a script that is stopped at a change; tells whether it got so far.
fn stopped_at(way: Way, steps: &[Step], stop_at: usize) -> Result<bool, String> {
    let mut run = Run::new(way, stop_at);
    for &step in steps {
        run.do_(step);
        if run.is_over() {
            break;
        }
        if let Some(content) = &run.content {
            run.stage.is_honest(content).map_err(|fault| format!("in {step:?}: {fault}"))?;
        }
    }
    let stopped = run.fate.seen.lock().stopped;
    if way == Way::PowerCut {
        run.lose_unflushed();
    }
    run.content = None;
    // Another process, with nothing in its way.
    let (content, doubted) = run.stage.start(None).map_err(|error| error.to_string())?;
    (run.content, run.doubted) = (Some(content), doubted);
    run.is_whole()?;
    run.check_all();
    run.is_whole().map_err(|fault| format!("after a check: {fault}"))?;
    // And one more: what was found right is claimed, and flushed.
    if let Some(content) = run.content.take() {
        content.save().map_err(|error| error.to_string())?;
        let here = content.have.snapshot();
        drop(content);
        let (content, _) = run.stage.start(None).map_err(|error| error.to_string())?;
        if content.have.snapshot() != here {
            return Err("a clean end is not vouched for".to_owned());
        }
    }
    Ok(stopped)
}

fn at_every_change(way: Way) {
    let mut most = 0;
    for seed in 0..SCRIPTS {
        let steps = script(seed);
        for stop_at in 0.. {
            match stopped_at(way, &steps, stop_at) {
                Ok(true) => most = most.max(stop_at),
                Ok(false) => break,
                Err(fault) => {
                    panic!("{way:?}, script {seed} at change {stop_at}: {fault}\n{steps:?}")
                }
            }
        }
    }
    assert!(most > 20, "the scripts make {most} changes");
}

#[test]
fn a_kill_at_any_change_loses_nothing_that_was_stored_and_shows_no_wrong_byte() {
    at_every_change(Way::Kill);
}

#[test]
fn a_power_cut_at_any_change_loses_only_what_was_not_flushed_and_shows_no_wrong_byte() {
    at_every_change(Way::PowerCut);
}

#[test]
fn a_change_that_fails_loses_nothing_that_was_stored_and_shows_no_wrong_byte() {
    at_every_change(Way::Fault);
}

/// The spoiled bytes and the kept ones are told apart by nobody but the hash.
#[test]
fn the_scripts_do_all_there_is_to_do() {
    let all: Vec<_> = (0..SCRIPTS).flat_map(script).collect();
    let some = |is: fn(&Step) -> bool| assert!(all.iter().filter(|step| is(step)).count() > 1);
    some(|step| matches!(step, Step::Store(_)));
    some(|step| matches!(step, Step::Evict(_)));
    some(|step| matches!(step, Step::Save));
    some(|step| matches!(step, Step::Restart { check: true }));
    some(|step| matches!(step, Step::Restart { check: false }));
    some(|step| matches!(step, Step::Spoil(_)));
    let state = Stage::new().state();
    assert!(fs::metadata(state).is_err(), "nothing is left");
}
