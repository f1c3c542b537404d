//! The filesystem through the kernel, where nothing waits: what is read, what is refused, what is told.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use btfs::proto::units::TorrentId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Timespec,
    Timestamps, UTIME_NOW, XattrFlags,
};
use rustix::io::Errno;
use support::content::{self, Item, file, link, single, torrent};
use support::fake::{at, seed};
use support::mount::{Reader, TestMount, fuse, within};

/// A small torrent with one of everything.
fn zoo() -> TestMount {
    let mut run = file("bin/run", 20);
    run.attr = "x";
    let items = [
        file("data", 300_000),
        file("empty", 0),
        run,
        link("bin/to", "data"),
        file("näme/日本/ file", 7),
    ];
    TestMount::of(&[torrent("zoo", &items)])
}

type Outcome = Result<(), Errno>;

fn none<T>(result: Result<T, Errno>) -> Outcome {
    result.map(drop)
}

#[test]
fn every_call_has_the_errno_of_a_read_only_filesystem() {
    if !fuse() {
        return;
    }
    let mount = zoo();
    let (root, data) = (mount.point(), mount.path("zoo/data"));
    let new = mount.path("zoo/new");
    let bin = mount.path("zoo/bin");
    let outside = tempfile::tempdir().expect("a directory");
    let mode = Mode::from_raw_mode(0o644);
    let open = |path: &Path, flags| none(rustix::fs::open(path, flags, mode));
    let fd = File::open(&data).expect("readable");
    let dir = File::open(&root).expect("a directory");
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let long = mount.path(&"n".repeat(256));
    let rows: Vec<(&str, Outcome, Outcome)> = vec![
        ("open to read", open(&data, OFlags::RDONLY), Ok(())),
        ("open without following", open(&data, OFlags::NOFOLLOW), Ok(())),
        ("open, no atime", open(&data, OFlags::NOATIME), Ok(())),
        ("open, direct", open(&data, OFlags::DIRECT), Ok(())),
        ("open, non-blocking", open(&data, OFlags::NONBLOCK), Ok(())),
        ("open to write", open(&data, OFlags::WRONLY), Err(Errno::ROFS)),
        ("open to read and write", open(&data, OFlags::RDWR), Err(Errno::ROFS)),
        ("open to truncate", open(&data, OFlags::TRUNC), Err(Errno::ROFS)),
        ("open to append", open(&data, OFlags::WRONLY | OFlags::APPEND), Err(Errno::ROFS)),
        ("create", open(&new, OFlags::CREATE | OFlags::WRONLY), Err(Errno::ROFS)),
        ("create what is there", open(&data, OFlags::CREATE | OFlags::EXCL), Err(Errno::EXIST)),
        ("temporary file", open(&root, OFlags::TMPFILE | OFlags::RDWR), Err(Errno::ROFS)),
        ("open nothing", open(&new, OFlags::RDONLY), Err(Errno::NOENT)),
        ("open below a file", open(&data.join("x"), OFlags::RDONLY), Err(Errno::NOTDIR)),
        ("a file as a directory", open(&data, OFlags::DIRECTORY), Err(Errno::NOTDIR)),
        ("a directory to write", open(&bin, OFlags::WRONLY), Err(Errno::ISDIR)),
        ("a long name", open(&long, OFlags::RDONLY), Err(Errno::NAMETOOLONG)),
        ("mkdir", rustix::fs::mkdir(&new, mode), Err(Errno::ROFS)),
        ("mkdir what is there", rustix::fs::mkdir(&bin, mode), Err(Errno::EXIST)),
        ("rmdir", rustix::fs::rmdir(&bin), Err(Errno::ROFS)),
        ("unlink", rustix::fs::unlink(&data), Err(Errno::ROFS)),
        ("unlink nothing", rustix::fs::unlink(&new), Err(Errno::ROFS)),
        ("rename", rustix::fs::rename(&data, &new), Err(Errno::ROFS)),
        (
            "exchange",
            rustix::fs::renameat_with(CWD, &data, CWD, &bin, RenameFlags::EXCHANGE),
            Err(Errno::ROFS),
        ),
        ("link", rustix::fs::link(&data, &new), Err(Errno::ROFS)),
        ("link out", rustix::fs::link(&data, outside.path().join("x")), Err(Errno::XDEV)),
        ("symlink", rustix::fs::symlink("x", &new), Err(Errno::ROFS)),
        ("mknod", rustix::fs::mknodat(CWD, &new, FileType::Fifo, mode, 0), Err(Errno::ROFS)),
        ("chmod", rustix::fs::chmod(&data, mode), Err(Errno::ROFS)),
        ("chown", rustix::fs::chown(&data, None, None), Err(Errno::ROFS)),
        ("utime", rustix::fs::utimensat(CWD, &data, &times, AtFlags::empty()), Err(Errno::ROFS)),
        ("truncate an open file", rustix::fs::ftruncate(&fd, 0), Err(Errno::INVAL)),
        ("write to it", none(rustix::io::write(&fd, b"x")), Err(Errno::BADF)),
        ("allocate", rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 1), Err(Errno::BADF)),
        ("sync it", rustix::fs::fsync(&fd), Ok(())),
        ("sync a directory", rustix::fs::fsync(&dir), Ok(())),
        ("sync the filesystem", rustix::fs::syncfs(&fd), Ok(())),
        ("lock it", rustix::fs::flock(&fd, FlockOperation::LockShared), Ok(())),
        (
            "read a directory as a file",
            none(rustix::io::read(&dir, &mut [0_u8; 1])),
            Err(Errno::ISDIR),
        ),
        ("readlink of a file", none(rustix::fs::readlink(&data, Vec::new())), Err(Errno::INVAL)),
        (
            "setxattr",
            rustix::fs::setxattr(&data, "user.x", b"1", XattrFlags::empty()),
            Err(Errno::ROFS),
        ),
        ("removexattr", rustix::fs::removexattr(&data, "user.btfs.have"), Err(Errno::ROFS)),
        (
            "getxattr of nothing",
            none(rustix::fs::getxattr(&data, "user.x", &mut [0_u8; 9])),
            Err(Errno::NODATA),
        ),
        (
            "getxattr into too little",
            none(rustix::fs::getxattr(&data, "user.btfs.infohash", &mut [0_u8; 9])),
            Err(Errno::RANGE),
        ),
        ("ioctl", none(rustix::fs::ioctl_getflags(&fd)), Err(Errno::NOTTY)),
        (
            "access to write",
            rustix::fs::access(&data, rustix::fs::Access::WRITE_OK),
            Err(Errno::ROFS),
        ),
        ("access to read", rustix::fs::access(&data, rustix::fs::Access::READ_OK), Ok(())),
        (
            "access to run",
            rustix::fs::access(&data, rustix::fs::Access::EXEC_OK),
            Err(Errno::ACCESS),
        ),
        (
            "access to run a program",
            rustix::fs::access(mount.path("zoo/bin/run"), rustix::fs::Access::EXEC_OK),
            Ok(()),
        ),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn stat_tells_what_the_torrent_says() {
    if !fuse() {
        return;
    }
    let mount = zoo();
    for (path, mode, links, size) in [
        ("", 0o40_555, 3, 0),
        ("zoo", 0o40_555, 4, 0),
        ("zoo/näme", 0o40_555, 3, 0),
        ("zoo/bin", 0o40_555, 2, 0),
        ("zoo/data", 0o100_444, 1, 300_000),
        ("zoo/empty", 0o100_444, 1, 0),
        ("zoo/bin/run", 0o100_555, 1, 20),
        ("zoo/bin/to", 0o120_777, 1, 7),
        ("zoo/näme/日本/ file", 0o100_444, 1, 7),
    ] {
        let stat = fs::symlink_metadata(mount.path(path)).expect("stat");
        assert_eq!((stat.mode(), stat.nlink(), stat.size()), (mode, links, size), "{path}");
        assert_eq!(
            stat.mtime() == 1_000_000_000,
            !path.is_empty(),
            "{path}: made with the torrent"
        );
    }
    assert_eq!(fs::read_link(mount.path("zoo/bin/to")).expect("a link"), Path::new("../data"));
    assert_eq!(fs::read(mount.path("zoo/bin/to")).expect("followed").len(), 300_000);
    assert_eq!(fs::read(mount.path("zoo/empty")).expect("empty"), b"");
}

#[test]
fn numbers_stay_over_a_remount() {
    if !fuse() {
        return;
    }
    let numbers = || {
        let mount = zoo();
        ["zoo", "zoo/data", "zoo/näme/日本"]
            .map(|path| fs::metadata(mount.path(path)).expect("stat").ino())
    };
    assert_eq!(numbers(), numbers());
}

#[test]
fn blocks_are_what_is_here_and_a_gap_is_no_hole() {
    if !fuse() {
        return;
    }
    let mount = TestMount::of(&[single("data", 1_000_000), single("gone", 1_000_000)]);
    let gone = btfs::proto::tree::FileRef { torrent: TorrentId(1), ..at(0) };
    mount.fake.lose(at(0), 200_000..900_000);
    mount.fake.lose(gone, 0..1_000_000);
    let blocks = |name| fs::metadata(mount.path(name)).expect("stat").blocks();
    assert_eq!(blocks("data"), 300_000_u64.div_ceil(512));
    assert_eq!(blocks("gone"), 1, "tar takes a file without blocks for zeros");
    for name in ["data", "gone"] {
        let fd = File::open(mount.path(name)).expect("readable");
        let seek = |to| rustix::fs::seek(fd.as_fd(), to);
        for (to, expected) in [
            (rustix::fs::SeekFrom::Data(0), Ok(0)),
            (rustix::fs::SeekFrom::Data(500_000), Ok(500_000)),
            (rustix::fs::SeekFrom::Hole(0), Ok(1_000_000)),
            (rustix::fs::SeekFrom::Hole(999_999), Ok(1_000_000)),
            (rustix::fs::SeekFrom::Data(1_000_000), Err(Errno::NXIO)),
            (rustix::fs::SeekFrom::Hole(1_000_000), Err(Errno::NXIO)),
        ] {
            assert_eq!(seek(to), expected, "{name} {to:?}");
        }
    }
}

/// cp and tar skip holes; what is not here must not look like one.
#[test]
fn a_copy_of_a_file_with_gaps_is_whole() {
    if !fuse() {
        return;
    }
    let mount = TestMount::of(&[single("data", 1_000_000)]);
    mount.fake.lose(at(0), 0..1_000_000);
    let outside = tempfile::tempdir().expect("a directory");
    let copy = outside.path().join("copy");
    let (from, to) = (mount.path("data"), copy.to_string_lossy().into_owned());
    let mut cp = Reader::start("cp", &[&from.to_string_lossy(), &to]);
    mount.fake.until("cp asks for what is missing", |seen| seen.later > 0);
    mount.fake.arrive(at(0));
    assert!(cp.ended().success());
    assert_eq!(fs::read(&copy).expect("a copy"), content::bytes(seed(at(0)), 0, 1_000_000));
}

#[test]
fn five_thousand_entries_are_listed_once_each() {
    if !fuse() {
        return;
    }
    let items: Vec<Item> = (0..5000).map(|n| file(format!("d/{n:04}-ünïcödé"), n)).collect();
    let mount = TestMount::of(&[torrent("many", &items)]);
    for round in ["first", "cached"] {
        let listed: Vec<(String, u64)> = fs::read_dir(mount.path("many/d"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry"))
            .map(|e| (e.file_name().into_string().expect("UTF-8"), e.ino()))
            .collect();
        let names: Vec<&String> = listed.iter().map(|(name, _)| name).collect();
        let expected: Vec<String> = (0..5000).map(|n| format!("{n:04}-ünïcödé")).collect();
        assert_eq!(names, expected.iter().collect::<Vec<_>>(), "{round}");
        let (name, ino) = &listed[4321];
        let stat = fs::metadata(mount.path("many/d").join(name)).expect("stat");
        assert_eq!((stat.ino(), stat.size()), (*ino, 4321), "{round}");
    }
}

#[test]
fn random_reads_by_four_threads_are_right_and_sizes_stay() {
    if !fuse() {
        return;
    }
    let items = [file("a", 3_000_001), file("b", 777_777)];
    let mount = TestMount::of(&[torrent("t", &items)]);
    let lengths = [3_000_001_u64, 777_777];
    thread::scope(|scope| {
        for reader in 0..4_u64 {
            let mount = &mount;
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(reader);
                for _ in 0..300 {
                    let which = rng.random_range(0..2_usize);
                    let length = lengths[which];
                    let fd = File::open(mount.path(["t/a", "t/b"][which])).expect("readable");
                    let offset = rng.random_range(0..length + 1000);
                    let mut buf = vec![0; rng.random_range(1..200_000)];
                    let left = length.saturating_sub(offset).min(buf.len() as u64) as usize;
                    let mut got = 0;
                    while got < left {
                        let more = fd.read_at(&mut buf[got..], offset + got as u64).expect("read");
                        assert!(more > 0, "short at {offset} + {got} of {left}");
                        got += more;
                    }
                    assert_eq!(fd.read_at(&mut [0], length).expect("read at the end"), 0);
                    let file = at(which as u32);
                    assert!(buf[..left] == content::bytes(seed(file), offset, left)[..]);
                    assert_eq!(fd.metadata().expect("stat").size(), length);
                }
            });
        }
    });
}

#[test]
fn sequential_backward_and_direct_reads_are_right() {
    if !fuse() {
        return;
    }
    const LEN: usize = 1_000_003;
    let mount = TestMount::of(&[single("data", LEN as u64)]);
    let expected = content::bytes(seed(at(0)), 0, LEN);
    assert!(fs::read(mount.path("data")).expect("read") == expected, "in order");
    let mut fd = File::open(mount.path("data")).expect("readable");
    for start in (0..LEN).step_by(50_000).rev() {
        let mut buf = vec![0; 50_000.min(LEN - start)];
        fd.seek(SeekFrom::Start(start as u64)).expect("seek");
        fd.read_exact(&mut buf).expect("read");
        assert!(buf == expected[start..start + buf.len()], "backwards at {start}");
    }
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(mount.path("data"))
        .expect("readable");
    let mut buf = vec![0; LEN + 10];
    let mut got = 0;
    while let more @ 1.. = direct.read_at(&mut buf[got..], got as u64).expect("read") {
        got += more;
    }
    assert!(got == LEN && buf[..LEN] == expected[..], "direct");
}

#[test]
fn a_mapped_file_has_the_same_bytes() {
    if !fuse() {
        return;
    }
    let mount = TestMount::of(&[single("data", 500_000)]);
    let program = "import mmap, sys, zlib\n\
        with open(sys.argv[1], 'rb') as f:\n    \
            m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n    \
            print(len(m), zlib.crc32(m[::-1]))\n";
    let path = mount.path("data");
    let mut python = Reader::start("python3", &["-c", program, &path.to_string_lossy()]);
    let (status, out, err) = python.output();
    assert!(status.success(), "{err}");
    let mut expected = content::bytes(seed(at(0)), 0, 500_000);
    expected.reverse();
    assert_eq!(out.trim(), format!("500000 {}", crc32fast::hash(&expected)));
}

#[test]
fn a_second_reading_needs_no_request() {
    if !fuse() {
        return;
    }
    let mount = TestMount::of(&[single("data", 1_000_000)]);
    let read = || fs::read(mount.path("data")).expect("read").len();
    assert_eq!(read(), 1_000_000);
    let first = mount.fake.seen();
    assert_eq!(read(), 1_000_000);
    let second = mount.fake.seen();
    assert_eq!((second.opened, second.now), (first.opened + 1, first.now), "the cache is kept");
    mount.fake.until("both are closed", |seen| seen.closed == 2);
}

#[test]
fn attributes_tell_what_is_here() {
    if !fuse() {
        return;
    }
    let meta = torrent("t", &[file("data", 1000), file("d/rest", 1000)]);
    let hash = meta.info_hash.to_string();
    let mount = TestMount::of(&[meta]);
    mount.fake.lose(at(0), 0..334);
    let pid = std::process::id().to_string();
    for (path, name, expected) in [
        ("", "is_btfs", Some("1")),
        ("", "pid", Some(pid.as_str())),
        ("", "have", Some("1666")),
        ("", "progress", Some("83.3")),
        ("", "infohash", None),
        ("t", "infohash", Some(hash.as_str())),
        ("t", "progress", Some("83.3")),
        ("t", "pieces", None),
        ("t/data", "infohash", Some(hash.as_str())),
        ("t/data", "have", Some("666")),
        ("t/data", "progress", Some("66.6")),
        ("t/data", "pieces", Some("3/8 0-1,7")),
        ("", "why", Some("why All Text")),
        ("t", "why", Some("why Torrent(TorrentId(0)) Text")),
        ("t/data", "why.json", Some("why File 0 Json")),
        ("t/data", "why", Some("why File 0 Text")),
        ("t/d/rest", "progress", Some("100.0")),
        ("t/d/rest", "pieces", Some("8/8 0-7")),
        ("t/data", "pid", None),
    ] {
        let mut buf = [0_u8; 200];
        let found = rustix::fs::getxattr(mount.path(path), format!("user.btfs.{name}"), &mut buf);
        let text = found.map(|len| String::from_utf8_lossy(&buf[..len]).into_owned());
        let expected = expected.map(str::to_owned).ok_or(Errno::NODATA);
        assert_eq!(text, expected, "{name} of {path:?}");
    }
    let mut buf = [0_u8; 400];
    let len = rustix::fs::listxattr(mount.path("t/d"), &mut buf).expect("a list");
    let list = String::from_utf8_lossy(&buf[..len]).into_owned();
    assert_eq!(
        list,
        "user.btfs.infohash\0user.btfs.metadata\0user.btfs.have\0user.btfs.progress\0user.btfs.why\0user.btfs.why.json\0"
    );
}

#[test]
fn statvfs_tells_what_is_missing() {
    if !fuse() {
        return;
    }
    let mount = TestMount::of(&[single("data", 40_960_000)]);
    mount.fake.lose(at(0), 0..4_096_000);
    let stat = rustix::fs::statvfs(mount.point()).expect("statvfs");
    assert_eq!((stat.f_blocks, stat.f_bfree, stat.f_bavail), (10_000, 1000, 1000));
    assert_eq!((stat.f_frsize, stat.f_namemax, stat.f_files), (4096, 255, 2));
    assert!(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn torrents_come_and_go_while_mounted() {
    if !fuse() {
        return;
    }
    let torrents = [single("a", 10), torrent("b", &[file("x", 1)])];
    let mount = TestMount::of(&torrents);
    let list = || {
        let all = fs::read_dir(mount.point()).expect("the root");
        all.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    };
    let both: Vec<String> = list();
    assert_eq!(both, ["a", "b"]);
    assert!(mount.path("b/x").exists());
    let name = mount.tree.write().remove(TorrentId(1)).expect("it was there");
    let point = mount.point();
    mount.mount.forget(name.as_ref().as_ref());
    assert!(!within("a look at what is gone", move || point.join("b/x").exists()));
    let one: Vec<String> = list();
    assert_eq!(one, ["a"]);
    mount.tree.write().add(TorrentId(1), &torrents[1]).expect("once more");
    mount.mount.forget("b".as_ref());
    let both: Vec<String> = list();
    assert_eq!(both, ["a", "b"]);
    assert_eq!(fs::metadata(mount.path("b/x")).expect("stat").size(), 1);
}
