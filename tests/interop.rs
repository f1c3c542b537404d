//! Swarms with real peers of other projects: they seed to our mount, download from our seed, and meet us at
//! their trackers and ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/content.rs"]
#[allow(dead_code, unreachable_pub)]
mod content;
#[path = "support/peers.rs"]
mod peers;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use btfs::proto::metainfo::Metainfo;
use peers::{Client, Lan, Running, host, host6, peer_at, tracker_at};

/// The program under test.
const BTFS: &str = env!("CARGO_BIN_EXE_btfs");

/// Files of the sample: lengths that are no multiple of anything.
const FILES: [(&str, usize); 5] = [
    ("film.bin", 3_000_017),
    ("notes/one.txt", 1),
    ("notes/two words.txt", 70_001),
    ("notes/ünïcode/日本.bin", 400_009),
    ("z", 16_384),
];

/// A directory of data, a torrent of it, and what `sha256sum` says of its files.
struct Sample {
    name: &'static str,
    dir: PathBuf,
    torrent: PathBuf,
    hashes: String,
}

impl Sample {
    /// Made by `btfs create`, for these trackers.
    fn new(lan: &Lan, trackers: &[String]) -> Self {
        let data = write_data(lan);
        let torrent = lan.path("sample.torrent");
        let mut args = vec!["create", data.to_str().unwrap(), "--piece-size", "64KiB", "-o"];
        args.push(torrent.to_str().unwrap());
        args.extend(trackers.iter().flat_map(|url| ["--tracker", url]));
        lan.run(Path::new(BTFS), &args);
        Self { name: "sample", dir: lan.path("data"), torrent, hashes: lan.hashes(&data) }
    }

    fn info_hash(&self) -> String {
        Metainfo::parse(&fs::read(&self.torrent).unwrap()).unwrap().info_hash.to_string()
    }
}

fn write_data(lan: &Lan) -> PathBuf {
    let top = lan.empty("data/sample");
    for ((path, length), seed) in FILES.into_iter().zip(1..) {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content::bytes(seed, 0, length)).unwrap();
    }
    top
}

/// `btfs mount` on this host, in the foreground; returns when the mount is there.
#[track_caller]
fn mount<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> (Running<'a>, PathBuf) {
    let point = lan.empty(&format!("mnt-{ip}"));
    let cache = lan.path(format!("cache-{ip}"));
    let listen = peer_at(ip).to_string();
    let mut args = vec!["mount", sample.torrent.to_str().unwrap(), point.to_str().unwrap()];
    args.extend(["-f", "-vv", "--listen", &listen, "--cache-dir", cache.to_str().unwrap()]);
    args.extend(more);
    let running = lan.start(&format!("mount-{ip}"), Path::new(BTFS), &args);
    lan.until(&format!("mount at {ip}"), || running.has_mounted(&point));
    (running, point.join(sample.name))
}

/// `btfs seed` on this host; returns when it takes connections.
#[track_caller]
fn seed<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> Running<'a> {
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
fn tracker(lan: &Lan, ip: IpAddr) -> Running<'_> {
    let listen = tracker_at(ip).to_string();
    let running = lan.start("tracker", Path::new(BTFS), &["tracker", "--listen", &listen, "-vv"]);
    running.until_says("listening on");
    running
}

fn url(scheme: &str, ip: IpAddr) -> String {
    format!("{scheme}://{}/announce", tracker_at(ip))
}

#[track_caller]
fn assert_ends_well(running: Running<'_>) {
    let status = running.stop();
    assert!(status.success(), "{status}");
}

/// A seed by another client is read through our mount, which dials it.
#[track_caller]
fn assert_read_from(client: Client, theirs: IpAddr, ours: IpAddr) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let _seed = client.start(&lan, theirs, &sample.torrent, &sample.dir);
    let peer = peer_at(theirs).to_string();
    let (mount, top) = mount(&lan, ours, &sample, &["--peer", &peer]);
    lan.until_same(&format!("read from {client:?}"), &top, &sample.hashes);
    assert_ends_well(mount);
}

/// Another client downloads from our seed, which dials it.
#[track_caller]
fn assert_given_to(client: Client) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let dir = lan.empty("leech");
    let _leech = client.start(&lan, host(2), &sample.torrent, &dir);
    let seed = seed(&lan, host(1), &sample, &["--peer", &peer_at(host(2)).to_string()]);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(seed);
}

/// Another client hears of our seed from our tracker, dials it, and downloads from it.
#[track_caller]
fn assert_finds_us(client: Client, scheme: &str) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url(scheme, host(9))]);
    let _tracker = tracker(&lan, host(9));
    let seed = seed(&lan, host(1), &sample, &[]);
    seed.until_says("tracker answered");
    let dir = lan.empty("leech");
    let _leech = client.start(&lan, host(2), &sample.torrent, &dir);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(seed);
}

#[test]
fn a_seed_by_libtorrent_is_read() {
    assert_read_from(Client::Libtorrent, host(2), host(1));
}

#[test]
fn a_seed_by_transmission_is_read() {
    assert_read_from(Client::Transmission, host(2), host(1));
}

#[test]
fn a_seed_by_aria2_is_read() {
    assert_read_from(Client::Aria2, host(2), host(1));
}

#[test]
fn a_seed_without_extensions_that_chokes_is_read() {
    assert_read_from(Client::Plain, host(2), host(1));
}

#[test]
fn a_seed_at_an_ipv6_address_is_read() {
    assert_read_from(Client::Libtorrent, host6(2), host6(1));
}

#[test]
fn our_seed_gives_to_libtorrent() {
    assert_given_to(Client::Libtorrent);
}

#[test]
fn our_seed_gives_to_transmission() {
    assert_given_to(Client::Transmission);
}

#[test]
fn our_seed_gives_to_aria2() {
    assert_given_to(Client::Aria2);
}

#[test]
fn our_seed_gives_to_a_peer_without_extensions() {
    assert_given_to(Client::Plain);
}

#[test]
fn libtorrent_finds_us_at_our_http_tracker() {
    assert_finds_us(Client::Libtorrent, "http");
}

#[test]
fn libtorrent_finds_us_at_our_udp_tracker() {
    assert_finds_us(Client::Libtorrent, "udp");
}

#[test]
fn transmission_finds_us_at_our_http_tracker() {
    assert_finds_us(Client::Transmission, "http");
}

#[test]
fn aria2_finds_us_at_our_http_tracker() {
    assert_finds_us(Client::Aria2, "http");
}
