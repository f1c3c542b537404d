//! What is known of a torrent's files from one run to the next, whatever became of them between.

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use btfs::engine::chunks::Chunks;
use btfs::engine::content::Content;
use btfs::engine::state::{Recorded, StateFile};
use btfs::engine::store::disk::{Access, Place};
use btfs::engine::store::open_files::OpenFiles;
use btfs::engine::store::witness::{Change, Witness};
use btfs::engine::store::{Disk, Store};
use btfs::proto::bitfield::Bitfield;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{PieceIndex, TorrentId};
use bytes::Bytes;
use tempfile::TempDir;

const ID: TorrentId = TorrentId(1);

/// So that each piece has pages of its own, and holes are seen.
const PIECE_LEN: usize = 16 * 1024;

/// A torrent on disk with a state file beside it:
///
/// ```text
/// piece  0  1  2  3  4  5  6  7  8  9
/// file   a  ab b  b  b  b  b  b  b  bc
/// ```
struct Run {
    dir: TempDir,
    metainfo: Arc<Metainfo>,
    all: Vec<u8>,
}

impl Run {
    fn new() -> Self {
        let files = [
            ("a", torrent::noise(1, PIECE_LEN + 8192), ""),
            ("sub/b", torrent::noise(2, 8 * PIECE_LEN - 4096), ""),
            ("c", torrent::noise(3, PIECE_LEN - 4096), ""),
        ];
        let (metainfo, all) = torrent::many(PIECE_LEN, &files);
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, metainfo, all }
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn top(&self) -> std::path::PathBuf {
        self.dir.path().join(self.metainfo.info_hash.to_string()).join("data/top")
    }

    fn disk(&self, metainfo: &Arc<Metainfo>) -> Disk {
        let place = Place::Cache(self.dir.path().to_path_buf());
        let open = Arc::new(OpenFiles::new(3));
        Disk::open(&place, Access::ReadWrite, ID, metainfo.clone(), open).expect("opened")
    }

    fn start(&self) -> (Content, Recorded) {
        self.begin(self.disk(&self.metainfo))
    }

    fn begin(&self, disk: Disk) -> (Content, Recorded) {
        let (state, recorded) =
            StateFile::open(&self.state(), self.metainfo.clone(), &disk).expect("opened");
        let chunks = Arc::new(Chunks::new(0));
        let store = Store::Disk(disk);
        let content = Content::new(ID, self.metainfo.clone(), store, chunks, Some(state));
        content.have.adopt(&recorded.vouched);
        (content, recorded)
    }

    fn piece(&self, raw: u32) -> PieceIndex {
        self.metainfo.geometry.piece(raw).expect("in range")
    }

    fn fetch(&self, content: &Content, pieces: &[u32]) {
        for &raw in pieces {
            let piece = self.piece(raw);
            let range = self.metainfo.geometry.piece_range(piece);
            let bytes = &self.all[range.start as usize..range.end as usize];
            content.store_chunk(piece, &[Bytes::copy_from_slice(bytes)]).expect("stored");
        }
    }

    /// Pieces vouched for and pieces doubted, after whatever happened.
    fn recorded(&self) -> (Vec<u32>, Vec<u32>) {
        let recorded = self.start().1;
        let raw = |field: &Bitfield| field.iter().map(PieceIndex::raw).collect();
        (raw(&recorded.vouched), raw(&recorded.doubted))
    }

    /// The state file's time, and so the last write of this program, is well in the past.
    fn long_ago(&self) {
        let file = fs::File::options().write(true).open(self.state()).expect("there");
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set");
    }
}

#[test]
fn what_was_saved_is_vouched_for_and_what_came_after_is_doubted() {
    let run = Run::new();
    let (content, recorded) = run.start();
    assert!(recorded.vouched.is_empty() && recorded.doubted.is_empty(), "nothing is there");
    run.fetch(&content, &[0, 1, 4]);
    content.save().expect("saved");
    drop(content);
    assert_eq!(run.recorded(), (vec![0, 1, 4], vec![]));

    let (content, _) = run.start();
    content.save().expect("saved again, with nothing touched");
    run.fetch(&content, &[9, 3]);
    drop(content);
    assert_eq!(run.recorded(), (vec![0, 1, 4], vec![3, 9]));
}

#[test]
fn without_a_record_all_that_lies_there_is_doubted() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[1, 2, 8]);
    drop(content);
    assert_eq!(run.recorded(), (vec![], vec![1, 2, 8]));
}

#[test]
fn a_piece_that_was_thrown_out_is_not_vouched_for_and_its_neighbours_are_doubted_at_most() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[2, 3, 4, 9]);
    content.save().expect("saved");
    content.evict(run.piece(3)).expect("evicted");
    drop(content);
    assert_eq!(run.recorded(), (vec![], vec![2, 4, 9]));

    let (content, recorded) = run.start();
    for piece in recorded.doubted.iter() {
        assert!(content.check(piece).expect("read"), "{piece:?}");
    }
    content.save().expect("saved");
    drop(content);
    assert_eq!(run.recorded(), (vec![2, 4, 9], vec![]));
}

/// Throws a piece out while a file is being flushed, and stores it again.
struct Meddler {
    run: Arc<Run>,
    content: OnceLock<Content>,
    met: AtomicBool,
}

impl Witness for Meddler {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        if let (Change::Flush(_), Some(content)) = (change, self.content.get())
            && !self.met.swap(true, Ordering::SeqCst)
        {
            content.evict(self.run.piece(5)).expect("evicted");
            self.run.fetch(content, &[5]);
        }
        Ok(())
    }
}

#[test]
fn what_leaves_and_comes_back_while_it_is_saved_is_claimed_by_the_next_save_only() {
    let run = Arc::new(Run::new());
    let (content, met) = (OnceLock::new(), AtomicBool::new(true));
    let meddler = Arc::new(Meddler { run: run.clone(), content, met });
    let (content, _) = run.begin(run.disk(&run.metainfo).watched(meddler.clone()));
    let content = meddler.content.get_or_init(|| content);
    run.fetch(content, &[5, 6]);
    meddler.met.store(false, Ordering::SeqCst);
    content.save().expect("saved");
    assert!(meddler.met.load(Ordering::SeqCst));
    assert_eq!(run.recorded(), (vec![6], vec![5]));
    run.fetch(content, &[7]);
    content.save().expect("saved");
    assert_eq!(run.recorded(), (vec![5, 6, 7], vec![]));
}

#[test]
fn a_file_that_changed_or_went_is_no_longer_vouched_for() {
    type Happening = fn(&Run);
    let garbage = |run: &Run| {
        let path = run.top().join("a");
        let mut bytes = fs::read(&path).expect("read");
        bytes[7] ^= 1;
        fs::write(&path, bytes).expect("written");
    };
    let touched = |run: &Run| {
        let file = fs::File::options().write(true).open(run.top().join("a")).expect("there");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
    };
    // (what, before, vouched, doubted)
    let rows: [(&str, Happening, Vec<u32>, Vec<u32>); 5] = [
        ("nothing", |_| {}, vec![0, 1, 5, 9], vec![]),
        ("other bytes", garbage, vec![5, 9], vec![0, 1]),
        ("another time", touched, vec![5, 9], vec![0, 1]),
        (
            "cut short",
            |run| {
                let path = run.top().join("c");
                let file = fs::File::options().write(true).open(path).expect("there");
                file.set_len(3).expect("cut");
            },
            vec![0, 1, 5],
            vec![9],
        ),
        ("gone", |run| fs::remove_file(run.top().join("sub/b")).expect("removed"), vec![0], vec![]),
    ];
    for (name, happening, vouched, doubted) in rows {
        let run = Run::new();
        let (content, _) = run.start();
        run.fetch(&content, &[0, 1, 5, 9]);
        content.save().expect("saved");
        drop(content);
        run.long_ago();
        happening(&run);
        assert_eq!(run.recorded(), (vouched, doubted), "{name}");
    }
}

#[test]
fn after_a_kill_a_change_by_another_hand_is_told_from_our_own() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[0, 5]);
    content.save().expect("saved");
    run.fetch(&content, &[1, 6]);
    drop(content);
    assert_eq!(run.recorded(), (vec![0, 5], vec![1, 6]));
    // Whoever comes after our last write is not us.
    run.long_ago();
    assert_eq!(run.recorded(), (vec![], vec![0, 1, 5, 6]));
}

#[test]
fn what_is_doubted_stays_so_until_it_is_checked_however_many_runs_come_between() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[0, 5]);
    content.save().expect("saved");
    drop(content);
    run.long_ago();
    let path = run.top().join("a");
    let mut bytes = fs::read(&path).expect("read");
    bytes[7] ^= 1;
    fs::write(&path, bytes).expect("written");
    // This run writes to the same file, so that it looks as if all changes were ours.
    let (content, recorded) = run.start();
    assert!(recorded.doubted.has(run.piece(0)));
    run.fetch(&content, &[1]);
    drop(content);
    assert_eq!(run.recorded(), (vec![5], vec![0, 1]));
    let (content, _) = run.start();
    assert!(!content.check(run.piece(0)).expect("read"));
    assert!(content.check(run.piece(1)).expect("read"));
}

#[test]
fn a_piece_found_wrong_is_no_longer_claimed() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[5, 6]);
    content.save().expect("saved");
    let range = run.metainfo.geometry.piece_range(run.piece(5));
    content
        .store
        .write(run.piece(5), &[vec![0; (range.end - range.start) as usize].into()])
        .expect("written");
    assert!(!content.check(run.piece(5)).expect("read"));
    drop(content);
    let (vouched, doubted) = run.recorded();
    assert!(!vouched.contains(&5), "{vouched:?}");
    assert_eq!(doubted, [6], "the room of what is wrong is given back");
}

#[test]
fn a_state_cut_anywhere_or_with_any_bit_flipped_vouches_for_nothing() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[0, 1, 5]);
    content.save().expect("saved");
    drop(content);
    let whole = fs::read(run.state()).expect("there");
    let damaged = |bytes: &[u8]| {
        fs::write(run.state(), bytes).expect("written");
        run.recorded() == (vec![], vec![0, 1, 5])
    };
    for len in 0..whole.len() {
        assert!(damaged(&whole[..len]), "cut to {len}");
    }
    assert!(damaged(&[whole.as_slice(), &[0]].concat()), "one byte more");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(damaged(&flipped), "bit {bit}");
    }
    fs::write(run.state(), &whole).expect("written");
    assert_eq!(run.recorded(), (vec![0, 1, 5], vec![]));
}

#[test]
fn a_state_of_another_torrent_says_nothing() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[0]);
    content.save().expect("saved");
    let mut bytes = run.all.clone();
    bytes[0] ^= 1;
    let (other, _) = torrent::many(PIECE_LEN, &[("a", bytes, "")]);
    let disk = run.disk(&other);
    let (_, recorded) = StateFile::open(&run.state(), other, &disk).expect("opened");
    assert!(recorded.vouched.is_empty());
}

#[test]
fn a_damaged_state_does_not_stop_an_eviction() {
    let run = Run::new();
    let (content, _) = run.start();
    run.fetch(&content, &[4]);
    content.save().expect("saved");
    fs::write(run.state(), b"garbage").expect("written");
    content.evict(run.piece(4)).expect("evicted");
    drop(content);
    assert_eq!(run.recorded(), (vec![], vec![]));
}

#[test]
fn what_is_planted_where_the_state_belongs_is_not_followed() {
    let run = Run::new();
    let precious = run.dir.path().join("precious");
    fs::write(&precious, b"precious").expect("written");
    std::os::unix::fs::symlink(&precious, run.dir.path().join("state.new")).expect("linked");
    let (content, _) = run.start();
    run.fetch(&content, &[4]);
    // It may fail, or put its own file there: the other's stays.
    let _ = content.save();
    assert_eq!(fs::read(Path::new(&precious)).expect("read"), b"precious");
}
