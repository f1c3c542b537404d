//! What the tests of this program play with: a sample of data, and our programs on hosts of a [`Lan`].

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use btfs::proto::metainfo::Metainfo;

use crate::content;
use crate::lan::{Lan, Running, host, peer_at, tracker_at};
use crate::peers::{Client, Habit};

/// The program under test.
pub(crate) const BTFS: &str = env!("CARGO_BIN_EXE_btfs");

/// Files of the sample: lengths that are no multiple of anything.
pub(crate) const FILES: [(&str, usize); 5] = [
    ("film.bin", 3_000_017),
    ("notes/one.txt", 1),
    ("notes/two words.txt", 70_001),
    ("notes/ünïcode/日本.bin", 400_009),
    ("z", 16_384),
];

/// A directory of data, a torrent of it, and what `sha256sum` says of its files.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) torrent: PathBuf,
    pub(crate) hashes: String,
}

impl Sample {
    /// Made by `btfs create`, for these trackers.
    pub(crate) fn new(lan: &Lan, trackers: &[String]) -> Self {
        let data = write_data(lan);
        let torrent = lan.path("sample.torrent");
        let mut args = vec!["create", data.to_str().unwrap(), "--piece-size", "64KiB", "-o"];
        args.push(torrent.to_str().unwrap());
        args.extend(trackers.iter().flat_map(|url| ["--tracker", url]));
        lan.run(Path::new(BTFS), &args);
        Self { name: "sample", dir: lan.path("data"), torrent, hashes: lan.hashes(&data) }
    }

    pub(crate) fn info_hash(&self) -> String {
        Metainfo::parse(&fs::read(&self.torrent).unwrap()).unwrap().info_hash.to_string()
    }
}

pub(crate) fn write_data(lan: &Lan) -> PathBuf {
    let top = lan.empty("data/sample");
    for ((path, length), seed) in FILES.into_iter().zip(1..) {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content::bytes(seed, 0, length)).unwrap();
    }
    top
}

/// `btfs mount` on this host, in the foreground, without ways of finding others that would hide whether another one
/// works; returns when the mount is there.
#[track_caller]
pub(crate) fn mount<'a>(
    lan: &'a Lan,
    ip: IpAddr,
    sample: &Sample,
    more: &[&str],
) -> (Running<'a>, PathBuf) {
    mount_calling(lan, ip, sample, &[&["--no-dht", "--no-lsd"], more].concat())
}

/// The same with all ways that are not excluded.
#[track_caller]
pub(crate) fn mount_calling<'a>(
    lan: &'a Lan,
    ip: IpAddr,
    sample: &Sample,
    more: &[&str],
) -> (Running<'a>, PathBuf) {
    let (running, point) = mount_source(lan, ip, sample.torrent.to_str().unwrap(), more);
    (running, point.join(sample.name))
}

/// The same of whatever names a torrent, and its mount point.
#[track_caller]
pub(crate) fn mount_source<'a>(
    lan: &'a Lan,
    ip: IpAddr,
    source: &str,
    more: &[&str],
) -> (Running<'a>, PathBuf) {
    let point = lan.empty(&format!("mnt-{ip}"));
    let cache = lan.path(format!("cache-{ip}"));
    let listen = peer_at(ip).to_string();
    let mut args = vec!["mount", source, point.to_str().unwrap()];
    args.extend(["-f", "-vv", "--listen", &listen, "--cache-dir", cache.to_str().unwrap()]);
    args.extend(more);
    let running = lan.start(&format!("mount-{ip}"), Path::new(BTFS), &args);
    lan.until(&format!("mount at {ip}"), || running.has_mounted(&point));
    (running, point)
}

/// `btfs seed` on this host, as `mount` is; returns when it takes connections.
#[track_caller]
pub(crate) fn seed<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> Running<'a> {
    seed_calling(lan, ip, sample, &[&["--no-dht", "--no-lsd"], more].concat())
}

/// The same with all ways that are not excluded.
#[track_caller]
pub(crate) fn seed_calling<'a>(
    lan: &'a Lan,
    ip: IpAddr,
    sample: &Sample,
    more: &[&str],
) -> Running<'a> {
    let listen = peer_at(ip).to_string();
    let mut args = vec!["seed", sample.torrent.to_str().unwrap(), sample.dir.to_str().unwrap()];
    args.extend(["-vv", "--listen", &listen]);
    args.extend(more);
    let running = lan.start(&format!("seed-{ip}"), Path::new(BTFS), &args);
    running.until_says("seeding sample");
    running
}

/// `btfs tracker` on this host.
#[track_caller]
pub(crate) fn tracker(lan: &Lan, ip: IpAddr) -> Running<'_> {
    let listen = tracker_at(ip).to_string();
    let running = lan.start("tracker", Path::new(BTFS), &["tracker", "--listen", &listen, "-vv"]);
    running.until_says("listening on");
    running
}

pub(crate) fn url(scheme: &str, ip: IpAddr) -> String {
    format!("{scheme}://{}/announce", tracker_at(ip))
}

#[track_caller]
pub(crate) fn assert_ends_well(running: Running<'_>) {
    let status = running.stop();
    assert!(status.success(), "{status}");
}

/// What our mount says of a torrent of its own.
pub(crate) fn told(lan: &Lan, top: &Path) -> serde_json::Value {
    let output = lan.run(Path::new(BTFS), &["why", "--json", top.to_str().unwrap()]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    all["torrents"][0].clone()
}

/// A seed by another client with these habits is read through our mount, which dials it.
#[track_caller]
pub(crate) fn assert_read_with(
    client: Client,
    habits: &[Habit],
    options: &[&str],
    at: (IpAddr, IpAddr),
) {
    let lan = Lan::new();
    let (theirs, ours) = at;
    let sample = Sample::new(&lan, &[]);
    let _seed = client.start_with(habits, &lan, theirs, &sample.torrent, &sample.dir);
    let peer = peer_at(theirs).to_string();
    let (mount, top) = mount(&lan, ours, &sample, &[options, &["--peer", &peer]].concat());
    lan.until_same(&format!("read from {client:?}"), &top, &sample.hashes);
    assert_ends_well(mount);
}

/// Another client with these habits hears of our seed from our tracker, dials it, and downloads from it.
#[track_caller]
pub(crate) fn assert_finds_with(client: Client, habits: &[Habit], options: &[&str], scheme: &str) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url(scheme, host(9))]);
    let _tracker = tracker(&lan, host(9));
    let seed = seed(&lan, host(1), &sample, options);
    seed.until_says("tracker answered");
    let dir = lan.empty("leech");
    let _leech = client.start_with(habits, &lan, host(2), &sample.torrent, &dir);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(seed);
}
