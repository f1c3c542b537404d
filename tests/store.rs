//! Stores against a plain vector of bytes; what is planted in their way.

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use btfs::engine::store::disk::{Access, Place};
use btfs::engine::store::lock::{LockError, TorrentLock};
use btfs::engine::store::open_files::OpenFiles;
use btfs::engine::store::{Disk, Memory, Store, StoreError};
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{FileIndex, PieceIndex, TorrentId};
use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

const ID: TorrentId = TorrentId(1);

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn kept(dir: &Path, metainfo: &Arc<Metainfo>) -> Result<Disk, StoreError> {
    let place = Place::Kept(dir.to_path_buf());
    Disk::open(&place, Access::ReadWrite, ID, metainfo.clone(), Arc::new(OpenFiles::new(3)))
}

fn write(
    store: &Store,
    metainfo: &Metainfo,
    all: &[u8],
    piece: PieceIndex,
) -> Result<(), StoreError> {
    let range = metainfo.geometry.piece_range(piece);
    let bytes = &all[range.start as usize..range.end as usize];
    let blocks: Vec<Bytes> = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    store.write(piece, &blocks)
}

fn piece(metainfo: &Metainfo, raw: u32) -> PieceIndex {
    metainfo.geometry.piece(raw % metainfo.geometry.piece_count()).expect("in range")
}

/// Files that share pieces, with padding and without bytes.
fn shared() -> (Arc<Metainfo>, Vec<u8>) {
    torrent::many(
        64,
        &[
            ("a", torrent::noise(1, 100), ""),
            ("sub/b", torrent::noise(2, 3), ""),
            ("none", vec![], ""),
            (".pad/25", vec![0; 25], "p"),
            ("sub/deep/c", torrent::noise(3, 500), "x"),
            ("sub/link", vec![], "l"),
            ("d", torrent::noise(4, 11), ""),
        ],
    )
}

#[derive(Clone, Debug)]
enum Op {
    Write(u32),
    Punch(u32),
    Read(u64, u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        any::<u32>().prop_map(Op::Write),
        any::<u32>().prop_map(Op::Punch),
        (0u64..639, 0u64..200).prop_map(|(at, len)| Op::Read(at, len)),
    ];
    prop::collection::vec(op, 1..60)
}

/// Where `holes` is false, what was never written must be refused; else it reads as zeros.
fn agrees(store: &Store, ops: &[Op], holes: bool) -> Result<(), TestCaseError> {
    let (metainfo, all) = shared();
    let mut model = vec![0u8; all.len()];
    let mut there = vec![false; all.len()];
    for op in ops {
        match *op {
            Op::Write(raw) => {
                let piece = piece(&metainfo, raw);
                let range = metainfo.geometry.piece_range(piece);
                let range = range.start as usize..range.end as usize;
                write(store, &metainfo, &all, piece).expect("written");
                model[range.clone()].copy_from_slice(&all[range.clone()]);
                there[range].fill(true);
                prop_assert!(!store.is_hole(piece));
            }
            Op::Punch(raw) => {
                let piece = piece(&metainfo, raw);
                let range = metainfo.geometry.piece_range(piece);
                let range = range.start as usize..range.end as usize;
                store.punch(piece).expect("punched");
                model[range.clone()].fill(0);
                there[range].fill(false);
            }
            Op::Read(at, len) => {
                let len = len.min(all.len() as u64 - at);
                let range = at as usize..(at + len) as usize;
                let mut buf = vec![0xaa; len as usize];
                let read = store.read(at, &mut buf);
                if holes || there[range.clone()].iter().all(|&there| there) {
                    prop_assert!(read.is_ok(), "{:?}", read);
                    prop_assert_eq!(&buf, &model[range]);
                } else {
                    let refused = matches!(read, Err(StoreError::Missing { .. }));
                    prop_assert!(refused, "{:?}", read);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn files_hold_what_a_vector_holds(ops in ops()) {
        let (metainfo, _) = shared();
        let dir = dir();
        let disk = kept(dir.path(), &metainfo).expect("opened");
        disk.materialise().expect("made");
        agrees(&Store::Disk(disk), &ops, true)?;
    }

    #[test]
    fn memory_holds_what_a_vector_holds(ops in ops()) {
        let (metainfo, _) = shared();
        agrees(&Store::Memory(Memory::new(metainfo.geometry.clone())), &ops, false)?;
    }
}

#[test]
fn kept_files_are_the_torrents_files_and_padding_is_none() {
    let (metainfo, all) = shared();
    let dir = dir();
    let disk = kept(dir.path(), &metainfo).expect("opened");
    disk.materialise().expect("made");
    disk.materialise().expect("all there already");
    let store = Store::Disk(disk);
    for piece in metainfo.geometry.pieces() {
        write(&store, &metainfo, &all, piece).expect("written");
    }
    let read = |name: &str| fs::read(dir.path().join("top").join(name)).expect(name);
    assert_eq!(read("a"), all[..100]);
    assert_eq!(read("sub/b"), all[100..103]);
    assert!(read("none").is_empty());
    assert_eq!(read("sub/deep/c"), all[128..628]);
    assert_eq!(read("d"), all[628..]);
    assert!(!dir.path().join("top/.pad").exists());
    assert_eq!(read("sub/link"), all[..100], "a link to a");
    let mode = |name: &str| fs::metadata(dir.path().join("top").join(name)).expect(name).mode();
    assert_eq!((mode("a") & 0o100, mode("sub/deep/c") & 0o100), (0, 0o100));
}

#[test]
fn a_first_write_makes_a_sparse_file_of_its_final_length_and_no_other() {
    let bytes = torrent::noise(5, 1 << 20);
    let (metainfo, all) =
        torrent::many(1 << 16, &[("big", bytes, ""), ("other", torrent::noise(6, 9), "")]);
    let dir = dir();
    let place = Place::Cache(dir.path().to_path_buf());
    let open = Arc::new(OpenFiles::new(3));
    let disk = Disk::open(&place, Access::ReadWrite, ID, metainfo.clone(), open).expect("opened");
    let store = Store::Disk(disk);
    let mut buf = [0; 9];
    assert!(matches!(store.read(0, &mut buf), Err(StoreError::Missing { .. })));
    assert!(store.is_hole(piece(&metainfo, 5)));
    store.punch(piece(&metainfo, 5)).expect("nothing to punch");

    write(&store, &metainfo, &all, piece(&metainfo, 5)).expect("written");
    let data = dir.path().join(metainfo.info_hash.to_string()).join("data/top");
    let seen = fs::metadata(data.join("big")).expect("made");
    assert_eq!(seen.len(), 1 << 20);
    assert_eq!(seen.blocks() * 512, 1 << 16);
    assert!(!data.join("other").exists());
    assert!(store.is_hole(piece(&metainfo, 4)) && !store.is_hole(piece(&metainfo, 5)));

    store.punch(piece(&metainfo, 5)).expect("punched");
    let seen = fs::metadata(data.join("big")).expect("still there");
    assert_eq!((seen.len(), seen.blocks()), (1 << 20, 0));
    assert!(store.is_hole(piece(&metainfo, 5)));
}

#[test]
fn what_is_planted_in_the_way_is_refused_and_nothing_outside_is_touched() {
    let (metainfo, all) = shared();
    let outside = dir();
    fs::write(outside.path().join("a"), b"precious").expect("written");
    fs::create_dir(outside.path().join("sub")).expect("made");
    type Plant = fn(&Path, &Path);
    type Expected = fn(&StoreError) -> bool;
    let rows: [(&str, Plant, u32, Expected); 6] = [
        (
            "a link for a file",
            |top, outside| symlink(outside.join("a"), top.join("a")).expect("linked"),
            0,
            |e| matches!(e, StoreError::NotAFile { .. }),
        ),
        (
            "a link for a directory",
            |top, outside| symlink(outside.join("sub"), top.join("sub")).expect("linked"),
            1,
            |e| matches!(e, StoreError::NotADirectory { .. }),
        ),
        (
            "a file for a directory",
            |top, _| fs::write(top.join("sub"), b"x").expect("written"),
            1,
            |e| matches!(e, StoreError::NotADirectory { .. }),
        ),
        (
            "a directory for a file",
            |top, _| fs::create_dir(top.join("a")).expect("made"),
            0,
            |e| matches!(e, StoreError::NotAFile { .. }),
        ),
        (
            "a FIFO for a file",
            |top, _| {
                let mode = nix::sys::stat::Mode::S_IRWXU;
                nix::unistd::mkfifo(&top.join("a"), mode).expect("made");
            },
            0,
            |e| matches!(e, StoreError::NotAFile { .. }),
        ),
        (
            "a longer file",
            |top, _| fs::write(top.join("a"), [7; 101]).expect("written"),
            0,
            |e| matches!(e, StoreError::TooLong { found: 101, expected: 100, .. }),
        ),
    ];
    for (name, plant, raw, expected) in rows {
        let dir = dir();
        let top = dir.path().join("top");
        fs::create_dir(&top).expect("made");
        plant(&top, outside.path());
        let store = Store::Disk(kept(dir.path(), &metainfo).expect("opened"));
        let refused = write(&store, &metainfo, &all, piece(&metainfo, raw)).expect_err(name);
        assert!(expected(&refused), "{name}: {refused:?}");
        assert!(store.read(0, &mut [0; 103]).is_err(), "{name}");
    }
    assert_eq!(fs::read(outside.path().join("a")).expect("still there"), b"precious");
    assert_eq!(fs::read_dir(outside.path().join("sub")).expect("still there").count(), 0);
}

#[test]
fn the_top_directory_itself_may_not_be_a_planted_link() {
    let (metainfo, all) = shared();
    let (dir, outside) = (dir(), dir());
    symlink(outside.path(), dir.path().join("top")).expect("linked");
    let store = Store::Disk(kept(dir.path(), &metainfo).expect("opened"));
    let refused = write(&store, &metainfo, &all, piece(&metainfo, 0)).expect_err("refused");
    assert!(matches!(refused, StoreError::NotADirectory { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(outside.path()).expect("still there").count(), 0);
}

#[test]
fn data_under_another_name_is_read_and_never_changed() {
    let bytes = torrent::noise(9, 300);
    let metainfo = torrent::single(64, &bytes);
    let dir = dir();
    let path = dir.path().join("renamed.bin");
    fs::write(&path, &bytes).expect("written");
    let open = Arc::new(OpenFiles::new(3));
    let disk =
        Disk::open(&Place::Exact(path.clone()), Access::ReadOnly, ID, metainfo.clone(), open);
    let store = Store::Disk(disk.expect("opened"));
    let mut buf = [0; 100];
    store.read(150, &mut buf).expect("read");
    assert_eq!(buf, bytes[150..250]);
    assert!(write(&store, &metainfo, &vec![0; 300], piece(&metainfo, 0)).is_err());
    assert_eq!(fs::read(&path).expect("still there"), bytes);
    assert!(store.backing(FileIndex(0)).is_some());
}

#[test]
fn five_thousand_files_need_few_descriptors() {
    let names: Vec<String> = (0..5000).map(|n| format!("d{}/f{n}", n % 50)).collect();
    let entries: Vec<_> =
        names.iter().zip(0..).map(|(name, n)| (name.as_str(), torrent::noise(n, 5), "")).collect();
    let (metainfo, all) = torrent::many(1024, &entries);
    let dir = dir();
    let open = Arc::new(OpenFiles::new(16));
    let place = Place::Kept(dir.path().to_path_buf());
    let disk = Disk::open(&place, Access::ReadWrite, ID, metainfo.clone(), open.clone());
    let store = Store::Disk(disk.expect("opened"));
    for piece in metainfo.geometry.pieces() {
        write(&store, &metainfo, &all, piece).expect("written");
        assert!(open.len() <= 16);
    }
    let mut read = vec![0; all.len()];
    store.read(0, &mut read).expect("read");
    assert!(read == all);
    assert_eq!(open.len(), 16);
    drop(store);
    assert!(open.is_empty());
}

#[test]
fn one_at_a_time_may_use_a_torrents_directory() {
    let dir = dir();
    let path = dir.path().join("torrent");
    let first = TorrentLock::take(&path).expect("free");
    let refused = TorrentLock::take(&path).expect_err("taken");
    assert!(matches!(refused, LockError::Busy { .. }));
    assert!(refused.to_string().starts_with("another btfs is using this torrent's data in "));
    drop(first);
    TorrentLock::take(&path).expect("free again");
}
