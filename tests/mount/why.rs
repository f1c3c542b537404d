//! `btfs why`: a read that waits, and what is said of it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::program::{Program, until};
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Stage, nowhere};

const PIECE: usize = 256 * 1024;
const PIECES: usize = 16;

fn why(path: &Path) -> String {
    Program::done(Program::btfs().arg("why").arg(path))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&Program::done(Program::btfs().args(["why", "--json"]).arg(path))).unwrap()
}

/// A program that waits for the file's last bytes.
fn tail(mounted: &Mounted) -> Program {
    Program::start(Command::new("tail").args(["-c", "9"]).arg(mounted.path("x.bin")))
}

/// Waits until the answer holds all of this.
#[track_caller]
fn until_says(path: &Path, parts: &[&str]) {
    let mut told = String::new();
    until(&format!("why says {parts:?}"), || {
        told = why(path);
        let all = parts.iter().all(|part| told.contains(part));
        if !all && std::env::var_os("BTFS_SHOW").is_some() {
            eprintln!("{told}");
        }
        all
    });
}

#[test]
fn a_stuck_read_is_explained_by_who_lacks_the_piece_who_chokes_and_what_trackers_said() {
    let stage = Stage::new();
    let data = stage.file("x.bin", (PIECE * PIECES) as u64);
    let dead = format!("http://{}/announce", nowhere());
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB", "--tracker", &dead]);
    // One peer has the first half alone; another has all and serves nobody.
    let half = stage.dir("half").join("x.bin");
    let mut bytes = fs::read(&data).unwrap();
    bytes[PIECE * PIECES / 2..].fill(0);
    fs::write(&half, bytes).unwrap();
    let partial = stage.seed(&torrent, &half);
    let choker = Choker::new(&stage, &torrent, &data);
    let relay = Relay::before(choker.addr, Manner::Holding);
    let mounted = stage.mount(&torrent, &[partial.addr, relay.addr], &["--no-fill"]);
    let file = mounted.path("x.bin");
    let refused = format!("tracker {dead}: failed");
    until_says(
        &file,
        &["0 B of 4.0 MiB are here; nobody reads", &refused, "2 connected (1 serve us"],
    );
    assert!(!why(&file).contains("piece"), "{}", why(&file));
    let mut reader = tail(&mounted);
    let no_peer =
        "piece 15 is waited for: 0 of 16 blocks here, 0 asked for; no connected peer has it";
    until_says(&file, &["waiting reads: ", "the longest for", no_peer, "fill: off"]);
    relay.become_(Manner::Honest);
    until_says(&file, &["15 is waited for", "1 peer has it, 1 choking us", "chokes us; not asked"]);
    let told = json(&file);
    let one = &told["torrents"][0];
    let last = one["pieces"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["index"], &last["state"]), (&15.into(), &"fetching".into()), "{told}");
    assert_eq!((&last["have"], &last["choking"]), (&1.into(), &1.into()), "{told}");
    assert_eq!(one["trackers"][0]["state"], "failed", "{told}");
    assert_eq!(one["peers"]["connected"], 2, "{told}");
    // The file's torrent and the whole mount say the same; another file of the mount would not.
    for place in [mounted.point.clone(), file.clone()] {
        until_says(&place, &["piece 15 is waited for", "choking us"]);
    }
    reader.signal(Signal::SIGKILL);
    reader.ended();
    until_says(&file, &["nobody reads"]);
    drop(choker);
    mounted.unmount();
}

/// A mount that has all and uploads nothing.
struct Choker {
    addr: SocketAddr,
    _mounted: Mounted,
}

impl Choker {
    fn new(stage: &Stage, torrent: &Path, data: &Path) -> Self {
        let kept = stage.dir("choker");
        fs::copy(data, kept.join("x.bin")).unwrap();
        let point = stage.dir("choker-mnt");
        let addr = nowhere();
        let mut command = Program::btfs();
        command.arg("mount").arg(torrent).arg(&point).args(["-f", "--no-upload"]);
        command.arg("--keep").arg(&kept).arg("--cache-dir").arg(stage.path("choker-cache"));
        let mounted = Mounted::start(command.arg("--listen").arg(addr.to_string()), &point);
        Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(data));
        Self { addr, _mounted: mounted }
    }
}

#[test]
fn a_peer_that_falls_silent_is_named_with_what_it_was_asked_for() {
    let stage = Stage::new();
    let data = stage.file("x.bin", (PIECE * PIECES) as u64);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest).after(1 << 20, Manner::Silent);
    let mounted = stage.mount(&torrent, &[relay.addr], &["--no-fill"]);
    let file = mounted.path("x.bin");
    // It reads on, and so has a window.
    let _reader = Program::start(Command::new("cmp").arg(&file).arg(&data));
    let silent = format!("{} was asked and is silent; ", relay.addr);
    let asked = "blocks asked for, the first";
    until_says(&file, &["1 peer has it, 1 silent", &silent, asked, "is next: ", "trackers: none"]);
    mounted.unmount();
}

#[test]
fn what_is_here_and_what_is_offline_is_said_and_what_is_no_mount_is_refused() {
    let stage = Stage::new();
    let data = stage.file("x.bin", (PIECE * PIECES) as u64);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    until_says(&mounted.path("x.bin"), &["0 B of 4.0 MiB are here; nobody reads", "1 serve us"]);
    Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
    let here = "x.bin: all of it is here (4.0 MiB)";
    until("all is here", || why(&mounted.path("x.bin")).trim_end() == here);
    assert_eq!(json(&mounted.point)["torrents"][0]["fill"], "complete");
    mounted.unmount();
    fs::remove_dir_all(stage.path("cache")).unwrap();
    let mut mounted = stage.mount(&torrent, &[], &["--offline"]);
    let told = why(&mounted.point);
    assert!(told.contains("nothing is fetched: the mount is offline"), "{told}");
    mounted.program.signal(Signal::SIGKILL);
    mounted.program.ended();
    let dead = mounted.path("x.bin");
    for (name, path, expected) in [
        ("a file elsewhere", data.as_path(), "is in no mount of btfs; name a file"),
        ("nothing", &stage.path("nothing"), "No such file"),
        ("a dead mount", &dead, "the mount's process has died; 'btfs unmount' clears"),
    ] {
        let (status, said) = Program::outcome(Program::btfs().arg("why").arg(path));
        assert_eq!(status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{name}: {said}");
    }
}

#[test]
fn a_cache_that_is_full_is_named_as_what_fill_waits_for() {
    let stage = Stage::new();
    let data = stage.file("x.bin", (PIECE * PIECES) as u64);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &["--cache-size", "2MiB"]);
    until_says(&mounted.point, &["nobody reads", "fill: waits, the cache is full", "2.0 MiB came"]);
    assert_eq!(json(&mounted.path("x.bin"))["torrents"][0]["fill"], "no-room");
    mounted.unmount();
}
