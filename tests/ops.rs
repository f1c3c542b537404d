//! The operations without a kernel: what is read, clamped, parked, and told.

mod support;

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use btfs::fs::errno::Fault;
use btfs::fs::ops::{AttrKind, Ops, Read};
use btfs::fs::parked::{Parked, Request};
use btfs::fs::source::{FileSpan, Pieces, ReadError, ReadReply, Totals};
use btfs::fs::xattr;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::tree::{FileRef, Ino};
use btfs::proto::units::{ReaderId, TorrentId};
use parking_lot::RwLock;
use proptest::prelude::*;
use support::content::{self, file, link, single, torrent};
use support::fake::{Fake, LIMIT, at, seed};
use support::mount::tree;

fn ops(torrents: &[Metainfo]) -> (Ops, Arc<Fake>) {
    let fake = Fake::of(torrents);
    let tree = Arc::new(RwLock::new(tree(torrents)));
    (Ops::new(tree, Arc::clone(&fake) as _, SystemTime::UNIX_EPOCH), fake)
}

/// The node at a path.
fn ino(ops: &Ops, path: &str) -> Result<Ino, Fault> {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.into_iter().try_fold(Ino::ROOT, |at, name| Ok(ops.lookup(at, OsStr::new(name))?.ino))
}

#[test]
fn names_are_looked_up() {
    let (ops, _) = ops(&[torrent("t", &[file("d/x", 1), link("l", "d")])]);
    let long = "n".repeat(256);
    for (path, expected) in [
        ("", Ok("")),
        ("t/d/x", Ok("t/d/x")),
        ("t/d/..", Ok("t")),
        ("t/./d/.", Ok("t/d")),
        ("..", Ok("")),
        ("t/d/X", Err(Fault::NoEntry)),
        ("t/d/x/y", Err(Fault::NotDirectory)),
        ("t/l/x", Err(Fault::NotDirectory)),
        (long.as_str(), Err(Fault::NameTooLong)),
    ] {
        assert_eq!(ino(&ops, path), expected.and_then(|same| ino(&ops, same)), "{path}");
    }
}

#[test]
fn only_files_are_opened_and_only_to_read() {
    let (ops, fake) = ops(&[torrent("t", &[file("x", 1), link("l", "x")])]);
    for (path, flags, expected) in [
        ("t/x", libc::O_RDONLY, None),
        ("t/x", libc::O_RDONLY | libc::O_NONBLOCK, None),
        ("t/x", libc::O_WRONLY, Some(Fault::ReadOnly)),
        ("t/x", libc::O_RDWR, Some(Fault::ReadOnly)),
        ("t/x", libc::O_RDONLY | libc::O_TRUNC, Some(Fault::ReadOnly)),
        ("t", libc::O_RDONLY, Some(Fault::IsDirectory)),
        ("t/l", libc::O_RDONLY, Some(Fault::Invalid)),
    ] {
        let opened = ops.open(ino(&ops, path).expect("there"), flags);
        assert_eq!(opened.err(), expected, "{path} {flags:o}");
    }
    assert_eq!(ops.open(Ino(77), 0), Err(Fault::NoEntry));
    assert_eq!(fake.seen().opened, 2);
}

#[test]
fn a_closed_handle_is_bad_and_closed_once() {
    let (ops, fake) = ops(&[single("x", 10)]);
    let reader = ops.open(ino(&ops, "x").expect("there"), 0).expect("opened");
    ops.release(reader);
    ops.release(reader);
    assert_eq!(ops.read(reader, 0, 1, &mut Vec::new()), Err(Fault::BadHandle));
    assert_eq!(fake.seen().closed, 1);
    let listing = ops.opendir(Ino::ROOT).expect("opened");
    ops.releasedir(listing);
    assert_eq!(ops.listing(listing).err(), Some(Fault::BadHandle));
}

#[test]
fn a_listing_stays_as_it_was_opened() {
    let torrents = [single("a", 1), single("b", 1)];
    let fake = Fake::of(&torrents);
    let tree = Arc::new(RwLock::new(tree(&torrents)));
    let ops = Ops::new(Arc::clone(&tree), fake, SystemTime::UNIX_EPOCH);
    let handle = ops.opendir(Ino::ROOT).expect("opened");
    tree.write().remove(TorrentId(0)).expect("there");
    assert_eq!(ops.listing(handle).expect("open").entries.len(), 2);
    let after = ops.opendir(Ino::ROOT).expect("opened");
    assert_eq!(ops.listing(after).expect("open").entries.len(), 1);
}

#[test]
fn attributes_follow_what_is_here() {
    let (ops, fake) = ops(&[torrent("t", &[file("x", 10_000), file("zero", 0)])]);
    let attr = |path| ops.attr(ino(&ops, path).expect("there")).expect("there");
    assert_eq!((attr("t/x").blocks, attr("t/x").settled), (20, true));
    assert_eq!((attr("t/zero").blocks, attr("t/zero").settled), (0, true));
    fake.lose(at(0), 0..10_000);
    assert_eq!((attr("t/x").blocks, attr("t/x").settled), (1, false));
    assert_eq!((attr("t/x").size, attr("t/x").kind), (10_000, AttrKind::File));
    assert!(!attr("").settled && attr("t").settled);
}

#[test]
fn times_that_no_clock_has_are_the_mounts() {
    let mut torrents = [single("a", 1), single("b", 1), single("c", 1)];
    torrents[0].created = Some(i64::MIN);
    torrents[1].created = Some(-1);
    torrents[2].created = None;
    let (ops, _) = ops(&torrents);
    let modified = |name| ops.attr(ino(&ops, name).expect("there")).expect("there").modified;
    assert_eq!(modified("b"), SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(modified("c"), SystemTime::UNIX_EPOCH);
    assert!(modified("a") <= SystemTime::UNIX_EPOCH);
}

proptest! {
    /// Against the bytes themselves: all up to the end, or all of it to wait for.
    #[test]
    fn a_read_is_whole_or_waits(
        length in 0_u64..5000,
        gap in (0_u64..5000, 1_u64..500),
        reads in prop::collection::vec((0_u64..6000, 0_u32..6000), 1..20),
    ) {
        let items = [file("x", length), file("rest", 5000)];
        let (ops, fake) = ops(&[torrent("t", &items)]);
        let gap = gap.0..gap.0 + gap.1;
        fake.lose(at(0), gap.clone());
        let reader = ops.open(ino(&ops, "t/x").expect("there"), 0).expect("opened");
        let mut buf = Vec::new();
        for (offset, size) in reads {
            let end = length.min(offset + u64::from(size));
            let len = end.saturating_sub(offset);
            let gone = len > 0 && offset < gap.end && gap.start < end;
            let span = FileSpan { offset, len: len as u32 };
            let expected = if gone { Read::Later(at(0), span) } else { Read::Done(len as usize) };
            prop_assert_eq!(ops.read(reader, offset, size, &mut buf), Ok(expected));
            if !gone {
                prop_assert!(buf[..len as usize] == content::bytes(seed(at(0)), offset, len as usize));
            }
        }
    }
}

/// The answer to a read, sent through a channel.
fn reply() -> (ReadReply, Receiver<Result<Vec<u8>, ReadError>>) {
    let (tell, told) = channel();
    let reply = ReadReply::new(move |result| {
        // The test may have stopped listening.
        let _ = tell.send(result.map(<[u8]>::to_vec));
    });
    (reply, told)
}

fn request(file: FileRef, offset: u64, len: u32, tid: u32) -> Request {
    Request { reader: ReaderId(1), at: file, span: FileSpan { offset, len }, tid }
}

#[test]
fn a_parked_read_is_answered_by_what_comes_first() {
    let fake = Fake::of(&[single("x", 1000), single("y", 1000)]);
    let parked = Parked::new(Arc::clone(&fake) as _, None).expect("a table");
    let (first, arrived) = reply();
    let (second, ended) = reply();
    let other = FileRef { torrent: TorrentId(1), ..at(0) };
    parked.park(request(at(0), 10, 20, 0), first);
    parked.park(request(other, 0, 1, 0), second);
    assert_eq!(parked.len(), 2);
    fake.arrive(at(0));
    assert_eq!(arrived.recv_timeout(LIMIT), Ok(Ok(content::bytes(seed(at(0)), 10, 20))));
    parked.close();
    assert_eq!(ended.recv_timeout(LIMIT), Ok(Err(ReadError::ShuttingDown)));
    assert!(parked.is_empty());
    let (third, refused) = reply();
    parked.park(request(at(0), 0, 1, 0), third);
    assert_eq!(refused.recv_timeout(LIMIT), Ok(Err(ReadError::ShuttingDown)));
    assert_eq!((fake.seen().later, fake.seen().cancelled), (2, 1));
}

#[test]
fn a_caller_that_is_gone_is_not_waited_for() {
    let fake = Fake::of(&[single("x", 1000)]);
    let parked = Parked::new(Arc::clone(&fake) as _, None).expect("a table");
    let mut child = std::process::Command::new("true").spawn().expect("a child");
    let (gone, interrupted) = reply();
    let (alive, waiting) = reply();
    child.wait().expect("it ends");
    parked.park(request(at(0), 0, 1, child.id()), gone);
    parked.park(request(at(0), 0, 1, std::process::id()), alive);
    assert_eq!(interrupted.recv_timeout(LIMIT), Ok(Err(ReadError::Interrupted)));
    assert!(waiting.try_recv().is_err(), "the other waits on");
    parked.close();
}

#[test]
fn time_runs_out_once_for_the_same_bytes() {
    let fake = Fake::of(&[single("x", 9000)]);
    let timeout = Some(Duration::from_millis(1));
    let parked = Parked::new(Arc::clone(&fake) as _, timeout).expect("a table");
    let (first, late) = reply();
    parked.park(request(at(0), 0, 8192, 0), first);
    assert_eq!(late.recv_timeout(LIMIT), Ok(Err(ReadError::TimedOut)));
    let (again, refused) = reply();
    parked.park(request(at(0), 4096, 4096, 0), again);
    assert_eq!(refused.recv_timeout(LIMIT), Ok(Err(ReadError::TimedOut)));
    assert_eq!(fake.seen().later, 1);
    parked.close();
}

#[test]
fn a_source_that_drops_a_reply_has_answered() {
    let (dropped, told) = reply();
    drop(dropped);
    assert_eq!(told.recv_timeout(LIMIT), Ok(Err(ReadError::Abandoned)));
}

#[test]
fn progress_is_rounded_down() {
    for (here, bytes, expected) in [
        (0, 0, "100.0"),
        (0, 1, "0.0"),
        (999_999, 1_000_000, "99.9"),
        (u64::MAX, u64::MAX, "100.0"),
        (1, 3, "33.3"),
    ] {
        let totals = Totals { bytes, here, more: false };
        assert_eq!(xattr::progress(totals), expected, "{here} of {bytes}");
    }
}

#[test]
fn a_map_of_pieces_is_runs_and_never_too_long() {
    let map = |all, here| xattr::pieces(&Pieces { all, here });
    assert_eq!(map(10..20, vec![]), "0/10");
    assert_eq!(map(10..20, vec![10..11, 13..16]), "4/10 0,3-5");
    let many = map(0..2_000_000, (0..1_000_000).map(|n| 2 * n..2 * n + 1).collect());
    assert!(many.len() < 64 * 1024 && many.ends_with('…'), "{}", many.len());
}
