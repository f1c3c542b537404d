//! What workers reply and in which order, and that readers never see a byte that was not verified.

#[path = "support/torrent.rs"]
mod torrent;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use btfs::engine::check::check_all;
use btfs::engine::chunks::Chunks;
use btfs::engine::content::Content;
use btfs::engine::store::disk::{Access, Place};
use btfs::engine::store::open_files::OpenFiles;
use btfs::engine::store::{Disk, Memory, Store};
use btfs::engine::workers::{Done, LANE_CAPACITY, Verdict, Work, Workers};
use btfs::proto::geometry::Span;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{PeerKey, PieceIndex, TorrentId};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::mpsc;

const PIECE_LEN: usize = 40_000;
const KEY: PeerKey = PeerKey(7);

/// A torrent of five pieces in three files, its store, and workers.
struct Scene {
    content: Arc<Content>,
    all: Vec<u8>,
    workers: Workers,
    reply: mpsc::Sender<Done>,
    replies: mpsc::Receiver<Done>,
    _dir: TempDir,
}

impl Scene {
    fn new(memory: u64, place: fn(&TempDir, &Arc<Metainfo>) -> Store) -> Self {
        let (metainfo, all) = torrent::many(
            PIECE_LEN,
            &[
                ("a", torrent::noise(1, 70_000), ""),
                ("b", torrent::noise(2, 5), ""),
                ("c", torrent::noise(3, 100_000), ""),
            ],
        );
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = place(&dir, &metainfo);
        let chunks = Arc::new(Chunks::new(memory));
        let content = Arc::new(Content::new(TorrentId(0), metainfo, store, chunks, None));
        let (reply, replies) = mpsc::channel(256);
        let workers = Workers::start(2).expect("threads");
        Self { content, all, workers, reply, replies, _dir: dir }
    }

    fn piece(&self, raw: u32) -> PieceIndex {
        self.content.metainfo.geometry.piece(raw).expect("five pieces")
    }

    fn bytes(&self, raw: u32) -> &[u8] {
        let range = self.content.metainfo.geometry.piece_range(self.piece(raw));
        &self.all[range.start as usize..range.end as usize]
    }

    fn blocks(&self, raw: u32) -> Vec<Bytes> {
        self.bytes(raw).chunks(16_384).map(Bytes::copy_from_slice).collect()
    }

    fn verify(&self, raw: u32, blocks: Vec<Bytes>) {
        let (content, reply) = (self.content.clone(), self.reply.clone());
        let work = Work::Verify { content, piece: self.piece(raw), blocks, reply };
        self.workers.submit(work).expect("room");
    }

    fn load(&mut self, spans: &[(u32, u32, u32)]) -> (Vec<(Span, Bytes)>, Vec<Span>) {
        let span = |&(p, b, l): &(u32, u32, u32)| self.content.metainfo.geometry.span(p, b, l);
        let spans = spans.iter().map(|row| span(row).expect("inside a piece")).collect();
        let (content, reply) = (self.content.clone(), self.reply.clone());
        self.workers.submit(Work::Load { content, key: KEY, spans, reply }).expect("room");
        match self.next() {
            Done::Loaded { key: KEY, spans, missing } => (spans, missing),
            other => panic!("{other:?}"),
        }
    }

    fn next(&mut self) -> Done {
        self.replies.blocking_recv().expect("we hold a sender")
    }

    fn store(&mut self, raw: u32) {
        self.verify(raw, self.blocks(raw));
        assert!(matches!(self.next(), Done::Verified { verdict: Verdict::Good, .. }));
        assert!(matches!(self.next(), Done::Stored { result: Ok(()), .. }));
    }
}

fn on_disk(dir: &TempDir, metainfo: &Arc<Metainfo>) -> Store {
    let place = Place::Kept(dir.path().to_path_buf());
    let open = Arc::new(OpenFiles::new(8));
    let disk = Disk::open(&place, Access::ReadWrite, TorrentId(0), metainfo.clone(), open);
    Store::Disk(disk.expect("opened"))
}

fn in_memory(_: &TempDir, metainfo: &Arc<Metainfo>) -> Store {
    Store::Memory(Memory::new(metainfo.geometry.clone()))
}

/// A directory stands where the first file belongs, so that it can never be written.
fn broken(dir: &TempDir, metainfo: &Arc<Metainfo>) -> Store {
    std::fs::create_dir_all(dir.path().join("top/a")).expect("made");
    on_disk(dir, metainfo)
}

#[test]
fn a_right_piece_is_verified_then_stored_and_readable_from_the_first_word_on() {
    for (name, memory, place) in [
        ("disk", 1 << 20, on_disk as fn(&TempDir, &Arc<Metainfo>) -> Store),
        ("disk without memory", 0, on_disk),
        ("memory", 1 << 20, in_memory),
        ("memory without a cache", 0, in_memory),
    ] {
        let mut scene = Scene::new(memory, place);
        let mut buf = vec![0; PIECE_LEN];
        assert!(!scene.content.read_resident(PIECE_LEN as u64, &mut buf).expect(name), "{name}");
        scene.verify(1, scene.blocks(1));
        let first = scene.next();
        assert!(
            matches!(&first, Done::Verified { verdict: Verdict::Good, .. }),
            "{name} {first:?}"
        );
        assert!(scene.content.read_resident(PIECE_LEN as u64, &mut buf).expect(name), "{name}");
        assert_eq!(buf, scene.bytes(1), "{name}");
        let second = scene.next();
        assert!(matches!(&second, Done::Stored { result: Ok(()), .. }), "{name} {second:?}");
        assert!(scene.content.have.has(scene.piece(1)), "{name}");
        assert_eq!(scene.content.chunks.unstored(), 0, "{name}");
    }
}

#[test]
fn a_wrong_piece_is_told_and_is_nowhere() {
    let mut scene = Scene::new(1 << 20, on_disk);
    let mut blocks = scene.blocks(0);
    blocks[1] = Bytes::from(vec![0; 16_384]);
    scene.verify(0, blocks);
    let told = scene.next();
    assert!(matches!(told, Done::Verified { verdict: Verdict::Bad, .. }), "{told:?}");
    assert_eq!(scene.content.have.count(), 0);
    assert_eq!(scene.content.chunks.used(), 0);
    scene.store(0);
}

#[test]
fn a_piece_that_the_disk_refuses_is_served_from_memory_and_not_vouched_for() {
    let mut scene = Scene::new(1 << 20, broken);
    scene.verify(0, scene.blocks(0));
    assert!(matches!(scene.next(), Done::Verified { verdict: Verdict::Good, .. }));
    assert!(matches!(scene.next(), Done::Stored { result: Err(_), .. }));
    assert!(!scene.content.have.has(scene.piece(0)));
    assert_eq!(scene.content.chunks.unstored(), 0);
    let mut buf = vec![0; 100];
    assert!(scene.content.read_resident(50, &mut buf).expect("in memory"));
    assert_eq!(buf, scene.all[50..150]);
}

#[test]
fn uploads_come_from_memory_and_from_the_store_in_the_order_asked_for() {
    for memory in [0, 1 << 20] {
        let mut scene = Scene::new(memory, on_disk);
        scene.store(1);
        scene.store(4);
        let (found, missing) = scene.load(&[
            (1, 0, 16_384),
            (1, 16_384, 16_384),
            (1, 32_768, 7_232),
            (2, 0, 16_384),
            (4, 9_990, 15),
            (1, 16_000, 1_000),
        ]);
        let asked: Vec<_> = found.iter().map(|(span, _)| (span.piece.raw(), span.begin)).collect();
        assert_eq!(asked, [(1, 0), (1, 16_384), (1, 32_768), (4, 9_990), (1, 16_000)]);
        for (span, bytes) in &found {
            let begin = span.begin as usize;
            assert_eq!(bytes, &scene.bytes(span.piece.raw())[begin..begin + span.len as usize]);
        }
        assert_eq!(missing.iter().map(|span| span.piece.raw()).collect::<Vec<_>>(), [2]);
    }
}

#[test]
fn an_evicted_piece_is_gone_and_its_neighbours_stay() {
    let mut scene = Scene::new(0, on_disk);
    (0..5).for_each(|raw| scene.store(raw));
    assert!(scene.content.have.is_full());
    let (content, reply) = (scene.content.clone(), scene.reply.clone());
    let piece = scene.piece(1);
    scene.workers.submit(Work::Evict { content, piece, reply }).expect("room");
    assert!(matches!(scene.next(), Done::Evicted { result: Ok(()), .. }));
    let mut buf = vec![0; PIECE_LEN];
    assert!(!scene.content.read_resident(PIECE_LEN as u64, &mut buf).expect("no error"));
    for raw in [0, 2, 3, 4] {
        let at = scene.content.metainfo.geometry.piece_start(scene.piece(raw));
        let mut buf = vec![0; scene.bytes(raw).len()];
        assert!(scene.content.read_resident(at, &mut buf).expect("there"));
        assert_eq!(buf, scene.bytes(raw));
    }
}

#[test]
fn a_check_of_everything_finds_what_is_right_on_the_disk() {
    let scene = Scene::new(0, on_disk);
    for raw in [0, 2, 4] {
        scene.content.store.write(scene.piece(raw), &scene.blocks(raw)).expect("written");
    }
    let mut wrong = scene.blocks(3);
    wrong[0] = Bytes::from(vec![1; 16_384]);
    scene.content.store.write(scene.piece(3), &wrong).expect("written");
    let mut steps = Vec::new();
    let checked = check_all(&scene.content, &scene.workers, |so_far| steps.push(so_far.pieces));
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    assert_eq!((checked.pieces, checked.right), (5, 3));
    assert!(checked.error.is_none());
    let have: Vec<u32> = scene.content.have.snapshot().iter().map(PieceIndex::raw).collect();
    assert_eq!(have, [0, 2, 4]);
}

#[test]
fn what_a_store_has_lost_is_told_before_it_is_missing_in_an_upload() {
    let mut scene = Scene::new(0, on_disk);
    (0..5).for_each(|raw| scene.store(raw));
    let files = walk(scene._dir.path());
    let longest = files.iter().max_by_key(|file| file.metadata().expect("there").len());
    std::fs::File::options()
        .write(true)
        .open(longest.expect("three files"))
        .and_then(|file| file.set_len(60_000))
        .expect("cut");
    let (content, reply) = (scene.content.clone(), scene.reply.clone());
    let span = scene.content.metainfo.geometry.span(4, 0, 10_000).expect("in the torrent");
    scene.workers.submit(Work::Load { content, key: KEY, spans: vec![span], reply }).expect("room");
    assert!(matches!(scene.next(), Done::Lost { pieces } if pieces == [scene.piece(4)]));
    let Done::Loaded { spans, missing, .. } = scene.next() else { panic!("not loaded") };
    assert!(spans.is_empty() && missing == [span]);
    assert!(scene.content.have.has(scene.piece(0)) && !scene.content.have.has(scene.piece(4)));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_job_that_panics_ends_no_thread() {
    let mut scene = Scene::new(1 << 20, on_disk);
    for _ in 0..4 {
        scene.workers.submit(Work::Deliver(Box::new(|| panic!("on purpose")))).expect("room");
    }
    scene.store(0);
}

#[test]
fn a_full_lane_gives_the_job_back_and_nothing_is_lost() {
    let scene = Scene::new(1 << 20, on_disk);
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let ran = Arc::new(AtomicU32::new(0));
    let closed = gate.lock();
    let mut taken = 0;
    let back = loop {
        let (gate, ran) = (gate.clone(), ran.clone());
        let work = Work::Deliver(Box::new(move || {
            drop(gate.lock());
            ran.fetch_add(1, Ordering::SeqCst);
        }));
        match scene.workers.submit(work) {
            Ok(()) => taken += 1,
            Err(busy) => break busy,
        }
        assert!(taken <= LANE_CAPACITY as u32 + 2, "bounded");
    };
    assert!(matches!(*back.0, Work::Deliver(_)));
    drop(closed);
    scene.workers.finish();
    assert_eq!(ran.load(Ordering::SeqCst), taken);
}

#[test]
fn a_reader_never_sees_bytes_that_pass_while_a_piece_leaves_and_comes_back() {
    for place in [on_disk as fn(&TempDir, &Arc<Metainfo>) -> Store, in_memory] {
        let mut scene = Scene::new(0, place);
        (0..5).for_each(|raw| scene.store(raw));
        let (stop, seen) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let read = || {
                let mut buf = vec![0; PIECE_LEN + 100];
                while !stop.load(Ordering::SeqCst) {
                    let here = scene.content.read_resident(30_000, &mut buf).expect("no error");
                    if here {
                        assert!(buf == scene.all[30_000..30_000 + buf.len()], "an unverified byte");
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                }
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            let wrong = scene.blocks(2);
            let right = scene.blocks(1);
            let mut rounds = 0;
            while (rounds < 300 || seen.load(Ordering::SeqCst) < 100)
                && !readers.iter().any(|reader| reader.is_finished())
            {
                let piece = scene.piece(1);
                scene.content.evict(piece).expect("evicted");
                scene.content.store.write(piece, &wrong).expect("written");
                scene.content.store.write(piece, &right).expect("written");
                scene.content.have.insert(piece);
                std::thread::yield_now();
                rounds += 1;
            }
            stop.store(true, Ordering::SeqCst);
        });
    }
}
