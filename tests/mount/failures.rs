//! Peers and trackers that fail: what is read comes all the same while one honest source is left.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::program::{Program, until};
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Stage};

/// Longest that a whole file may take while peers fail.
const READING: Duration = Duration::from_secs(120);

/// Reads a file of the mount on a thread of its own, and compares it with the source.
struct Reading(std::sync::mpsc::Receiver<Result<bool, String>>);

impl Reading {
    fn start(mounted: &Mounted, name: &str, source: &Path) -> Self {
        let (tell, told) = channel();
        let (file, source) = (mounted.path(name), source.to_path_buf());
        thread::spawn(move || {
            let found = fs::read(file).map_err(|error| error.to_string());
            tell.send(found.map(|bytes| bytes == fs::read(source).unwrap()))
        });
        Self(told)
    }

    #[track_caller]
    fn is_right(&self) {
        let found = self.0.recv_timeout(READING).expect("the read ends");
        assert_eq!(found, Ok(true));
    }
}

#[test]
fn a_seed_that_dies_is_replaced_by_the_other() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 64 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let (doomed, other) = (stage.seed(&torrent, &data), stage.seed(&torrent, &data));
    let held = Relay::before(other.addr, Manner::Holding);
    let mounted = stage.mount(&torrent, &[doomed.addr, held.addr], &[]);
    let reading = Reading::start(&mounted, "x.bin", &data);
    until("a part is here", || mounted.here() > 4 << 20);
    doomed.program.signal(Signal::SIGKILL);
    held.become_(Manner::Honest);
    reading.is_right();
    mounted.unmount();
}

#[test]
fn a_lone_seed_that_dies_and_returns_is_taken_up_again() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 32 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let first = stage.seed(&torrent, &data);
    let (tracker, url) = stage.tracker();
    let gate = Relay::before(first.addr, Manner::Honest).after(8 << 20, Manner::Silent);
    let mounted = stage.mount(&torrent, &[gate.addr], &["--tracker", &url]);
    let reading = Reading::start(&mounted, "x.bin", &data);
    until("a part is here", || gate.payload() >= 8 << 20);
    first.program.signal(Signal::SIGKILL);
    let mut command = Program::btfs();
    command.arg("seed").arg(&torrent).arg(&data);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &url]);
    let mut returned = Program::start(&mut command);
    reading.is_right();
    assert!(returned.is_running());
    mounted.unmount();
    drop(tracker);
}

#[test]
fn a_peer_that_corrupts_blocks_is_banned_and_not_dialled_again() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 48 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let (bad, good) = (stage.seed(&torrent, &data), stage.seed(&torrent, &data));
    let liar = Relay::before(bad.addr, Manner::Lying);
    let mounted = stage.mount(&torrent, &[liar.addr, good.addr], &["-v"]);
    let reading = Reading::start(&mounted, "x.bin", &data);
    reading.is_right();
    mounted.program.await_line("banned for false data");
    let dialled = liar.connections();
    // Long enough for the next dial of an address that the user named.
    thread::sleep(Duration::from_secs(6));
    assert_eq!(liar.connections(), dialled, "the liar was dialled again");
    let lied = liar.payload();
    assert!(lied < 16 << 20, "{lied} bytes were taken from the liar");
    mounted.unmount();
}

#[test]
fn a_peer_that_goes_silent_holds_nobody_up() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 48 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let (bad, good) = (stage.seed(&torrent, &data), stage.seed(&torrent, &data));
    let mute = Relay::before(bad.addr, Manner::Honest).after(4 << 20, Manner::Silent);
    // The other begins when the first has fallen silent, so that all depends on the change.
    let late = Relay::before(good.addr, Manner::Holding);
    let mounted = stage.mount(&torrent, &[mute.addr, late.addr], &[]);
    let reading = Reading::start(&mounted, "x.bin", &data);
    until("it has fallen silent", || mute.payload() >= 4 << 20);
    late.become_(Manner::Honest);
    reading.is_right();
    mounted.unmount();
}

#[test]
fn a_tracker_that_hangs_costs_nothing_beside_a_good_one() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 8 << 20);
    // It takes connections, by the kernel's own hand, and never says a word.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}/announce", hanging.local_addr().unwrap());
    let (tracker, good) = stage.tracker();
    let torrent = stage.torrent(&data, &["--tracker", &dead, "--tracker", &good]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[], &[]);
    Reading::start(&mounted, "x.bin", &data).is_right();
    mounted.unmount();
    drop((seed, tracker));
}

#[test]
fn a_swarm_without_seeds_serves_what_it_has_and_the_rest_waits() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 4 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    // Half of it is wrong: that seed has the other half alone.
    let half = stage.dir("half").join("x.bin");
    let mut bytes = fs::read(&data).unwrap();
    bytes[2 << 20..].fill(0);
    fs::write(&half, bytes).unwrap();
    let partial = stage.seed(&torrent, &half);
    partial.program.await_line("only 8 of 16 pieces");
    let mounted = stage.mount(&torrent, &[partial.addr], &["--read-timeout", "2s"]);
    let head = mounted.path("x.bin");
    let mut command = std::process::Command::new("head");
    Program::done(command.args(["-c", "2097152"]).arg(&head));
    let (status, said) =
        Program::outcome(std::process::Command::new("tail").args(["-c", "9"]).arg(&head));
    assert!(!status.success() && said.contains("timed out"), "{said}");
    assert_eq!(mounted.here(), 2 << 20);
    mounted.unmount();
}

#[test]
fn stored_files_that_vanish_or_change_are_fetched_again() {
    let stage = Stage::new();
    let data = stage.dir("many");
    for n in 0..20 {
        stage.file(format!("many/{n:02}.bin"), 300_000);
    }
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--memory", "8MiB"]);
    until("all of it is here", || mounted.here() == 20 * 300_000);
    mounted.unmount();
    // What the store has is cut short while nobody looks at it, but after it was believed.
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    let stored: Vec<_> = walkdir(&stage.path("cache"), "bin");
    assert_eq!(stored.len(), 20);
    for (n, file) in stored.iter().enumerate() {
        match n % 2 {
            0 => fs::remove_file(file).unwrap(),
            _ => fs::File::options().write(true).open(file).unwrap().set_len(1000).unwrap(),
        }
    }
    for n in 0..20 {
        let name = format!("many/{n:02}.bin");
        Reading::start(&mounted, &name, &stage.path(&name)).is_right();
    }
    mounted.unmount();
}

#[test]
fn offline_what_the_store_lost_fails_until_it_is_back() {
    let stage = Stage::new();
    let data = stage.dir("many");
    for name in ["cut", "gone", "whole"] {
        stage.file(format!("many/{name}.bin"), 300_000);
    }
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    until("all of it is here", || mounted.here() == 3 * 300_000);
    mounted.unmount();
    let mounted = stage.mount(&torrent, &[], &["--offline"]);
    for file in walkdir(&stage.path("cache"), "bin") {
        match file.file_name().unwrap().to_str().unwrap() {
            "cut.bin" => fs::File::options().write(true).open(file).unwrap().set_len(1000).unwrap(),
            "gone.bin" => fs::rename(&file, file.with_extension("away")).unwrap(),
            _ => {}
        }
    }
    for (name, expected) in [("cut", Some(libc::EIO)), ("gone", Some(libc::EIO)), ("whole", None)] {
        let name = format!("many/{name}.bin");
        let failed = fs::read(mounted.path(&name)).err().and_then(|error| error.raw_os_error());
        assert_eq!(failed, expected, "{name}");
    }
    for file in walkdir(&stage.path("cache"), "away") {
        fs::rename(&file, file.with_extension("bin")).unwrap();
    }
    Reading::start(&mounted, "many/gone.bin", &stage.path("many/gone.bin")).is_right();
    assert!(mounted.unmount().contains("cannot read what is here"));
}

/// Files below a directory whose names end so.
fn walkdir(root: &Path, end: &str) -> Vec<std::path::PathBuf> {
    let all = super::content::walk(root).into_keys();
    all.filter(|path| path.extension().is_some_and(|e| e == end)).map(|p| root.join(p)).collect()
}
