//! A cache that is smaller than what goes through it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::program::until;
use super::relay::{Manner, Relay};
use super::restart::kill;
use super::stage::{Mounted, Stage};

const MIB: u64 = 1 << 20;
const PIECE: u64 = 256 * 1024;

/// Room beyond the budget that the state file and pieces under way to their holes may take for a moment.
const SLACK: u64 = 4 * PIECE;

/// Looks again and again how much a directory takes.
struct Du {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Du {
    fn of(dir: &Path) -> Self {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (dir, seen, end) = (dir.to_path_buf(), most.clone(), over.clone());
        let looking = thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                seen.fetch_max(du(&dir), Ordering::SeqCst);
                thread::yield_now();
            }
        });
        Self { most, over, looking: Some(looking) }
    }

    fn most(mut self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.looking.take().unwrap().join().unwrap();
        self.most.load(Ordering::SeqCst)
    }
}

fn du(path: &Path) -> u64 {
    let Ok(seen) = fs::symlink_metadata(path) else { return 0 };
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let below: u64 = below.map(|entry| du(&entry.path())).sum();
    below + if seen.is_file() { seen.blocks() * 512 } else { 0 }
}

/// Reads here and there, as a viewer who seeks does, and compares every byte.
fn seek_about(mounted: &Mounted, data: &Path) {
    let (file, source) = (File::open(mounted.path("x.bin")).unwrap(), File::open(data).unwrap());
    let size = source.metadata().unwrap().len();
    let (mut read, mut right) = (vec![0; 2 << 20], vec![0; 2 << 20]);
    let places = [0, 40, 4, 44, 60, 0, 20, 21, 59, 1].map(|at| at * MIB);
    for at in places.into_iter().filter(|at| at + 2 * MIB <= size) {
        file.read_exact_at(&mut read, at).unwrap();
        source.read_exact_at(&mut right, at).unwrap();
        assert!(read == right, "at {at}");
    }
}

#[test]
fn a_cache_smaller_than_the_file_serves_all_of_it_and_stays_within_its_budget() {
    for (store, limit) in [("disk", 16 * MIB), ("memory", 16 * MIB)] {
        let stage = Stage::new();
        let data = stage.file("x.bin", 64 * MIB);
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let seed = stage.seed(&torrent, &data);
        let relay = Relay::before(seed.addr, Manner::Honest);
        let args = ["--store", store, "--cache-size", "16MiB", "--memory", "32MiB"];
        let mounted = stage.mount(&torrent, &[relay.addr], &args);
        let du = Du::of(&stage.path("cache"));
        seek_about(&mounted, &data);
        let before = relay.payload();
        let read = fs::read(mounted.path("x.bin")).unwrap();
        assert!(read == fs::read(&data).unwrap(), "{store}");
        let came = relay.payload() - before;
        assert!(came <= 66 * MIB, "{came} bytes came for 64 MiB that are read once");
        seek_about(&mounted, &data);
        until("no more is here than may be", || mounted.here() <= limit);
        let most = du.most();
        match store {
            "memory" => assert_eq!(most, 0),
            _ => assert!((8 * MIB..=limit + SLACK).contains(&most), "{most} bytes on the disk"),
        }
        mounted.unmount();
    }
}

#[test]
fn head_and_tail_of_what_is_played_stay_while_the_rest_goes() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 96 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    let args = ["--no-fill", "--cache-size", "32MiB", "--read-timeout", "30s"];
    let mounted = stage.mount(&torrent, &[relay.addr], &args);
    let (file, source) = (File::open(mounted.path("x.bin")).unwrap(), File::open(&data).unwrap());
    let is_right = |at: u64| {
        let (mut read, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        file.read_exact_at(&mut read, at).unwrap();
        source.read_exact_at(&mut right, at).unwrap();
        assert!(read == right, "at {at}");
    };
    let index = [0, 1, 94, 95].map(|at| at * MIB);
    index.into_iter().for_each(is_right);
    // Twice what the cache has room for.
    (16..80).map(|at| at * MIB).for_each(is_right);
    relay.become_(Manner::Silent);
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    index.into_iter().for_each(is_right);
    assert!(mounted.here() <= 32 * MIB);
    let moved = relay.payload();
    assert!(moved <= 68 * MIB + 8 * MIB, "{moved} bytes for 68 MiB that are read, and a window");
    drop(file);
    mounted.unmount();
}

#[test]
fn kills_while_pieces_come_and_go_show_no_wrong_byte_and_leave_no_room_taken() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 48 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    for part in [10, 30, 47] {
        let mounted = stage.mount(&torrent, &[relay.addr], &["--cache-size", "8MiB"]);
        let file = File::open(mounted.path("x.bin")).unwrap();
        let source = File::open(&data).unwrap();
        let (mut read, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        // From where it stopped, and then all that is before it.
        for at in (part..48).chain(0..part).take(part as usize + 9).map(|at| at * MIB) {
            file.read_exact_at(&mut read, at).unwrap();
            source.read_exact_at(&mut right, at).unwrap();
            assert!(read == right, "at {at}");
        }
        kill(mounted);
        let left = du(&stage.path("cache"));
        assert!(left <= 8 * MIB + SLACK, "{left} bytes are left");
    }
    let mounted = stage.mount(&torrent, &[], &["--cache-size", "8MiB"]);
    // All that was left is found again, less what was under way.
    until("what is here is known", || mounted.here() >= 7 * MIB);
    assert!(mounted.here() <= 8 * MIB);
    mounted.unmount();
}

#[test]
fn fill_stops_at_the_budget_and_evicts_nothing() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 64 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    let args = ["--cache-size", "16MiB", "--read-timeout", "30s"];
    let mounted = stage.mount(&torrent, &[relay.addr], &args);
    until("the budget is used up", || mounted.here() + PIECE > 16 * MIB);
    // Nothing came beyond it, so nothing was thrown out for it.
    assert!(relay.payload() <= 16 * MIB + 2 * PIECE, "{} bytes came", relay.payload());
    // A reader makes room for himself, and fill does not take it from him.
    let file = File::open(mounted.path("x.bin")).unwrap();
    let mut read = vec![0; 2 << 20];
    file.read_exact_at(&mut read, 10 * MIB).unwrap();
    let window = 4 * MIB;
    assert!(relay.payload() <= 16 * MIB + 2 * MIB + window + 2 * PIECE);
    relay.become_(Manner::Silent);
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    file.read_exact_at(&mut read, 10 * MIB).unwrap();
    assert!(mounted.here() <= 16 * MIB);
    drop(file);
    mounted.unmount();
}

#[test]
fn a_cache_that_shrinks_between_two_runs_gives_its_room_back() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 32 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    until("all of it is here", || mounted.here() == 32 * MIB);
    mounted.unmount();
    let mounted = stage.mount(&torrent, &[], &["--cache-size", "8MiB", "--offline"]);
    assert_eq!(mounted.here(), 8 * MIB);
    assert!(du(&stage.path("cache")) <= 8 * MIB + SLACK);
    mounted.unmount();
}
