//! What options promise, seen through a mount, and what `btfs get` leaves.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use btfs::proto::metainfo::Metainfo;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::content::{Node, library, walk};
use super::program::{Program, until};
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Stage};

/// A byte of a file, or the number of the error.
fn byte_at(file: &Path, offset: u64) -> Result<u8, i32> {
    let mut byte = [0];
    let read = File::open(file).and_then(|file| file.read_exact_at(&mut byte, offset));
    read.map(|()| byte[0]).map_err(|error| error.raw_os_error().unwrap())
}

#[track_caller]
fn same(left: &Path, right: &Path) {
    Program::done(Command::new("diff").args(["-r", "--no-dereference"]).args([left, right]));
}

#[test]
fn kept_files_are_ordinary_and_right() {
    let stage = Stage::new();
    let data = library(&stage, 20);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let kept = stage.path("kept");
    let mounted = stage.mount(&torrent, &[seed.addr], &["--keep", kept.to_str().unwrap()]);
    same(&data, &mounted.path("library"));
    mounted.unmount();
    same(&data, &kept.join("library"));
    assert_eq!(walk(&data), walk(&kept.join("library")));
    // What is kept is a seed's data, and is taken up where it is.
    let mounted = stage.mount(&torrent, &[], &["--offline", "--keep", kept.to_str().unwrap()]);
    same(&data, &mounted.path("library"));
    mounted.unmount();
    stage.seed(&torrent, &kept);
}

#[test]
fn a_store_in_memory_leaves_nothing_and_holds_to_its_budget() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 96 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--store", "memory", "--memory", "16MiB"]);
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    let here = mounted.here();
    assert!(here > 0 && here <= 16 << 20, "{here} bytes are here");
    assert_eq!(byte_at(&mounted.path("x.bin"), 5), byte_at(&data, 5), "what went comes again");
    assert!(!stage.path("cache").exists(), "nothing is on disk");
    mounted.unmount();
}

#[test]
fn a_small_cache_holds_to_its_budget_on_disk() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 48 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--cache-size", "16MiB"]);
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    until("what is over the budget is gone", || mounted.here() <= 16 << 20);
    let used = Program::done(Command::new("du").args(["-sB1"]).arg(stage.path("cache")));
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(used <= 17 << 20, "{used} bytes on disk");
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    mounted.unmount();
}

#[test]
fn without_fill_nothing_moves_but_what_is_read() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 32 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    let mounted = stage.mount(&torrent, &[relay.addr], &["--no-fill"]);
    let file = mounted.path("x.bin");
    let why = || mounted.attribute("x.bin", "user.btfs.why");
    until("the peer would serve", || why().contains("1 connected (1 serve us"));
    // Several rounds of everything that happens by itself.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(relay.payload(), 0);
    Program::done(Command::new("ls").arg("-lR").arg(&mounted.point));
    assert_eq!(relay.payload(), 0);
    assert_eq!(byte_at(&file, 20 << 20), byte_at(&data, 20 << 20));
    std::thread::sleep(Duration::from_secs(1));
    // The kernel reads 128 KiB ahead, which touches at most four pieces.
    assert!(relay.payload() <= 4 << 16, "{} bytes for one", relay.payload());
    mounted.unmount();
}

#[test]
fn a_read_that_timed_out_can_be_tried_again() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 2 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Holding);
    let mounted = stage.mount(&torrent, &[relay.addr], &["--no-fill", "--read-timeout", "500ms"]);
    let file = mounted.path("x.bin");
    assert_eq!(byte_at(&file, 1 << 20), Err(libc::ETIMEDOUT));
    relay.become_(Manner::Honest);
    until("the read comes through", || byte_at(&file, 1 << 20) == byte_at(&data, 1 << 20));
    mounted.unmount();
}

#[test]
fn offline_serves_what_is_here_and_fails_the_rest_at_once() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 8 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    assert_eq!(byte_at(&mounted.path("x.bin"), 0), byte_at(&data, 0));
    mounted.unmount();
    let mounted = stage.mount(&torrent, &[seed.addr], &["--offline"]);
    let file = mounted.path("x.bin");
    assert_eq!(byte_at(&file, 0), byte_at(&data, 0));
    assert_eq!(byte_at(&file, 6 << 20), Err(libc::ENODATA));
    assert_eq!(fs::metadata(&file).unwrap().len(), 8 << 20);
    mounted.unmount();
}

#[test]
fn a_read_timeout_ends_a_wait_and_what_comes_later_is_read() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 4 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Holding);
    let mounted = stage.mount(&torrent, &[relay.addr], &["--read-timeout", "1s"]);
    let file = mounted.path("x.bin");
    assert_eq!(byte_at(&file, 1 << 20), Err(libc::ETIMEDOUT));
    relay.become_(Manner::Honest);
    until("it is read", || byte_at(&file, 1 << 20) == byte_at(&data, 1 << 20));
    mounted.unmount();
}

#[test]
fn several_torrents_share_a_mount_and_names_that_clash_are_told_apart() {
    let stage = Stage::new();
    let (mut torrents, mut seeds) = (Vec::new(), Vec::new());
    for (n, name) in ["same", "same", "other"].into_iter().enumerate() {
        let data = stage.file(format!("{n}/{name}"), 300_000 + n as u64);
        let torrent = stage.path(format!("{n}.torrent"));
        let mut create = Program::btfs();
        Program::done(create.arg("create").arg(&data).arg("-o").arg(&torrent));
        seeds.push(stage.seed(&torrent, &data));
        torrents.push(torrent);
    }
    let peers: Vec<_> = seeds.iter().map(|seed| seed.addr).collect();
    let point = stage.dir("mnt");
    let sources: Vec<&Path> = torrents.iter().map(PathBuf::as_path).collect();
    let mut command = stage.mount_command(&sources, &point, &peers);
    let mounted = Mounted::start(command.arg("-f"), &point);
    let shown = walk(&point);
    let named = |len: u64| {
        let is = |node: &Node| matches!(node, Node::File { len: l, .. } if *l == len);
        shown.iter().find(|(_, node)| is(node)).map(|(name, _)| name.to_str().unwrap()).unwrap()
    };
    assert_eq!((shown.len(), named(300_000), named(300_002)), (3, "same", "other"));
    assert!(named(300_001).starts_with("same") && named(300_001) != "same", "{shown:?}");
    same(&mounted.path(named(300_000)), &stage.path("0/same"));
    same(&mounted.path(named(300_001)), &stage.path("1/same"));
    same(&mounted.path("other"), &stage.path("2/other"));
    mounted.unmount();
    // The same torrent twice is there once.
    let mut command = stage.mount_command(&[sources[0], sources[0]], &point, &peers);
    let mounted = Mounted::start(command.arg("-f"), &point);
    assert_eq!(walk(&point).len(), 1);
    mounted.unmount();
}

/// `btfs get` with this stage's cache.
fn get(stage: &Stage, torrent: &Path, dir: &Path, peer: std::net::SocketAddr) -> Command {
    let mut command = Program::btfs();
    command.env("XDG_CACHE_HOME", stage.path("xdg")).arg("get").arg(torrent).arg(dir);
    command.args(["--listen", "127.0.0.1:0", "--peer", &peer.to_string()]);
    command
}

#[test]
fn a_download_that_is_interrupted_or_killed_goes_on_where_it_was() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let stage = Stage::new();
        let data = stage.file("x.bin", 64 << 20);
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let seed = stage.seed(&torrent, &data);
        let relay = Relay::before(seed.addr, Manner::Honest).after(40 << 20, Manner::Silent);
        let dir = stage.path("got");
        let mut first = Program::start(&mut get(&stage, &torrent, &dir, relay.addr));
        until("a part has come", || relay.payload() >= 40 << 20);
        first.signal(signal);
        let status = first.ended();
        assert!(!status.success(), "{status}: {}", first.said());
        if signal == Signal::SIGINT {
            assert!(first.said().contains("run the same command again"), "{}", first.said());
        }
        relay.become_(Manner::Honest);
        Program::done(&mut get(&stage, &torrent, &dir, relay.addr));
        same(&data, &dir.join("x.bin"));
        // What was under way when it ended comes again.
        assert!(relay.payload() < (64 + 34) << 20, "{signal}: {} bytes came", relay.payload());
        let before = relay.payload();
        Program::done(&mut get(&stage, &torrent, &dir, relay.addr));
        assert_eq!(relay.payload(), before, "a complete download downloads nothing");
    }
}

#[test]
fn a_download_has_empty_files_links_and_run_bits() {
    let stage = Stage::new();
    let data = library(&stage, 20);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let dir = stage.path("got");
    Program::done(&mut get(&stage, &torrent, &dir, seed.addr));
    assert_eq!(walk(&data), walk(&dir.join("library")));
    same(&data, &dir.join("library"));
}

/// A small filesystem in memory, where that may be mounted.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn of(point: &Path, size: &str) -> Option<Self> {
        let made = Self::put(point, size, MsFlags::empty());
        made.inspect_err(|error| eprintln!("skipped: no tmpfs can be mounted here: {error}"))
            .ok()?;
        Some(Self(point.to_path_buf()))
    }

    fn put(point: &Path, size: &str, flags: MsFlags) -> nix::Result<()> {
        let options = format!("size={size}");
        mount(Some("none"), point, Some("tmpfs"), flags, Some(options.as_str()))
    }

    fn resize(&self, size: &str) {
        Self::put(&self.0, size, MsFlags::MS_REMOUNT).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_told_once_and_readers_go_on_until_there_is_room_again() {
    let stage = Stage::new();
    let cache = stage.dir("cache");
    let Some(tmpfs) = Tmpfs::of(&cache, "8m") else { return };
    let data = stage.file("x.bin", 40 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    let mut mounted = stage.mount(&torrent, &[relay.addr], &["--memory", "16MiB"]);
    mounted.program.await_line("the store takes no more pieces");
    until("why names the disk", || {
        let why = mounted.attribute("x.bin", "user.btfs.why");
        why.contains("fill: waits, the store") && why.contains("store: takes no pieces: ")
    });
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    let mut file = File::open(mounted.path("x.bin")).unwrap();
    file.seek(SeekFrom::Start(11 << 20)).unwrap();
    file.read_exact(&mut [0; 4096]).unwrap();
    assert!(relay.payload() < 100 << 20, "{} bytes for 40 MiB", relay.payload());
    let warnings = mounted.program.said();
    assert!(warnings.lines().count() <= 2, "{warnings}");
    assert_eq!(warnings.matches("the store takes no more pieces").count(), 1, "{warnings}");
    tmpfs.resize("64m");
    // Nobody reads: the fill tries again by itself, after as long as the disk was full at most.
    mounted.program.await_line("the store takes pieces again");
    until("the rest is filled", || mounted.here() == 40 << 20);
    mounted.unmount();
}

#[test]
fn what_keeps_a_mount_from_beginning_is_one_line() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 100_000);
    let torrent = stage.torrent(&data, &[]);
    let point = stage.dir("mnt");
    let garbled = stage.path("garbled.torrent");
    let mut bytes = fs::read(&torrent).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&garbled, bytes).unwrap();
    let page = stage.path("page.torrent");
    fs::write(&page, "\n<!doctype html><a href=x.torrent>").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let file = data.to_str().unwrap();
    let table: &[(&str, &Path, &[&str], i32, &str)] = &[
        ("a garbled torrent", &garbled, &[], 1, "not a torrent"),
        ("a port in use", &torrent, &["--listen", &taken], 1, "Address already in use"),
        ("a file for a cache", &torrent, &["--cache-dir", file], 1, "x.bin"),
        ("a file to keep in", &torrent, &["--keep", file], 1, "x.bin"),
        ("a log in no directory", &torrent, &["--log-file", "/none/log"], 1, "--log-file"),
        ("an unknown mount option", &torrent, &["-o", "rwx"], 2, "-o rwx: unknown"),
        ("a contradiction", &torrent, &["--keep", "k", "--store", "memory"], 2, "contradicts"),
        ("a web page", &page, &[], 1, "is a web page, no .torrent file"),
        (
            "a mount to keep in",
            &torrent,
            &["--keep", point.to_str().unwrap()],
            2,
            "the mount itself",
        ),
    ];
    for foreground in [false, true] {
        for (name, torrent, args, code, expected) in table {
            if foreground && args.contains(&"--log-file") {
                continue;
            }
            let mut command = Program::btfs();
            command.arg("mount").arg(torrent).arg(&point).args(*args);
            if !args.contains(&"--cache-dir") {
                command.arg("--cache-dir").arg(stage.path("cache"));
            }
            if !args.contains(&"--listen") {
                command.args(["--listen", "127.0.0.1:0"]);
            }
            command.args(foreground.then_some("-f"));
            let (status, said) = Program::outcome(&mut command);
            assert_eq!(status.code(), Some(*code), "{name}: {said}");
            assert!(said.starts_with("btfs: ") && said.contains(expected), "{name}: {said}");
            assert_eq!(said.lines().count(), 1, "{name}: {said}");
        }
    }
}

/// A download that ends as soon as it is complete: its tracker hears of both, in that order.
#[test]
fn a_download_counts_at_its_tracker() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 1 << 20);
    let (_tracker, url) = stage.tracker();
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB", "--tracker", &url]);
    let seed = stage.seed(&torrent, &data);
    until("the seed is known", || scrape(&url, &torrent).contains("8:completei1e"));
    let mut get = Program::btfs();
    get.args(["get", "--listen", "127.0.0.1:0", "--max-down", "4MiB/s"]).arg(&torrent);
    Program::done(get.arg(stage.path("got")).env("XDG_CACHE_HOME", stage.path("other")));
    let counted = scrape(&url, &torrent);
    assert!(counted.contains("8:completei1e10:downloadedi1e10:incompletei0e"), "{counted}");
    drop(seed);
}

/// What the tracker counts of the torrent.
fn scrape(url: &str, torrent: &Path) -> String {
    let metainfo = Metainfo::parse(&fs::read(torrent).unwrap()).unwrap();
    let hash: String = metainfo.info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect();
    let host = url.trim_start_matches("http://").trim_end_matches("/announce");
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!(
        "GET /scrape?info_hash={hash} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_mount_uploads_up_to_its_ratio_and_is_read_on() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 2 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let (_tracker, url) = stage.tracker();
    let args = ["--tracker", &url, "--ratio", "1", "-v"];
    let mounted = stage.mount(&torrent, &[seed.addr], &args);
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    drop(seed);
    let mut get = Program::btfs();
    get.args(["get", "--listen", "127.0.0.1:0", "--tracker", &url]).arg(&torrent);
    Program::done(get.arg(stage.path("got")).env("XDG_CACHE_HOME", stage.path("other")));
    let told = mounted.program.await_line("no longer uploading");
    assert!(told.contains("x.bin") && told.contains("as --ratio asked"), "{told}");
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    mounted.unmount();
}
