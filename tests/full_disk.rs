//! A file system without room, which a user namespace of its own provides.

#[path = "support/torrent.rs"]
mod torrent;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use btfs::engine::chunks::Chunks;
use btfs::engine::content::Content;
use btfs::engine::state::StateFile;
use btfs::engine::store::disk::{Access, Place};
use btfs::engine::store::open_files::OpenFiles;
use btfs::engine::store::{Disk, Store, StoreError};
use btfs::proto::units::TorrentId;
use bytes::Bytes;

/// Where the inner test finds the full file system.
const FULL: &str = "BTFS_TEST_FULL";

#[test]
fn a_full_disk_is_named_and_evicting_makes_room_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = r#"mount -t tmpfs -o size=64k none "$BTFS_TEST_FULL""#;
    let within = |script: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .env(FULL, dir.path())
            .env("BTFS_TEST_EXE", std::env::current_exe().expect("we are running"))
            .output()
    };
    if !within(mount).is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: no user namespace in which a tmpfs can be mounted");
        return;
    }
    let inner = format!(r#"{mount} && exec "$BTFS_TEST_EXE" --exact on_a_full_disk --ignored"#);
    let output = within(&inner).expect("it ran a moment ago");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
#[ignore = "run by the test above, in a namespace of its own"]
fn on_a_full_disk() {
    let dir = PathBuf::from(std::env::var_os(FULL).expect("set by the test above"));
    let bytes = torrent::noise(1, 128 * 1024);
    let metainfo = torrent::single(16 * 1024, &bytes);
    let open = Arc::new(OpenFiles::new(4));
    let place = Place::Kept(dir.clone());
    let disk = Disk::open(&place, Access::ReadWrite, TorrentId(0), metainfo.clone(), open);
    let disk = disk.expect("opened");
    let (state, _) = StateFile::open(&dir.join("state"), metainfo.clone(), &disk).expect("opened");
    let chunks = Arc::new(Chunks::new(0));
    let content =
        Content::new(TorrentId(0), metainfo.clone(), Store::Disk(disk), chunks, Some(state));
    let pieces: Vec<_> = metainfo.geometry.pieces().collect();
    let write = |raw: usize| {
        let piece = Bytes::copy_from_slice(&bytes[raw * 16 * 1024..(raw + 1) * 16 * 1024]);
        content.store.write(pieces[raw], &[piece]).inspect(|()| {
            content.have.insert(pieces[raw]);
        })
    };
    let stored = (0..8).take_while(|&raw| write(raw).is_ok()).count();
    assert!((1..=4).contains(&stored), "{stored} pieces fit");
    assert!(matches!(write(stored), Err(StoreError::NoSpace { .. })));
    assert!(content.save().is_err(), "no room for the state either");
    assert!(!Path::new(&dir).join("state").exists(), "nor half of it");

    content.evict(pieces[0]).expect("needs no room");
    write(stored).expect("there is room again");
    let mut read = vec![0; 16 * 1024];
    let at = metainfo.geometry.piece_start(pieces[stored]);
    assert!(content.read_resident(at, &mut read).expect("read"));
    assert_eq!(read, bytes[at as usize..at as usize + read.len()]);
}
