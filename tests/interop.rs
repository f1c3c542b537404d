//! Swarms with real peers of other projects: they seed to our mount, download from our seed, and meet us at
//! their trackers and ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/content.rs"]
#[allow(dead_code, unreachable_pub)]
mod content;
#[path = "interop/dht.rs"]
mod dht;
#[path = "interop/finding.rs"]
mod finding;
#[path = "support/peers.rs"]
mod peers;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use btfs::proto::metainfo::Metainfo;
use peers::{
    Client, Habit, Lan, Running, host, host6, libtorrent_torrent, opentracker, peer_at, tool,
    tracker_at,
};

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

/// `btfs mount` on this host, in the foreground, without ways of finding others that would hide whether another one
/// works; returns when the mount is there.
#[track_caller]
fn mount<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> (Running<'a>, PathBuf) {
    mount_calling(lan, ip, sample, &[&["--no-dht", "--no-lsd"], more].concat())
}

/// The same with all ways that are not excluded.
#[track_caller]
fn mount_calling<'a>(
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
fn mount_source<'a>(
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
fn seed<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> Running<'a> {
    seed_calling(lan, ip, sample, &[&["--no-dht", "--no-lsd"], more].concat())
}

/// The same with all ways that are not excluded.
#[track_caller]
fn seed_calling<'a>(lan: &'a Lan, ip: IpAddr, sample: &Sample, more: &[&str]) -> Running<'a> {
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
    assert_read_with(client, &[], &[], (theirs, ours));
}

/// The same, with their habits and our options.
#[track_caller]
fn assert_read_with(client: Client, habits: &[Habit], options: &[&str], at: (IpAddr, IpAddr)) {
    let lan = Lan::new();
    let (theirs, ours) = at;
    let sample = Sample::new(&lan, &[]);
    let _seed = client.start_with(habits, &lan, theirs, &sample.torrent, &sample.dir);
    let peer = peer_at(theirs).to_string();
    let (mount, top) = mount(&lan, ours, &sample, &[options, &["--peer", &peer]].concat());
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
    assert_finds_with(client, &[], &[], scheme);
}

/// The same, with their habits and our options.
#[track_caller]
fn assert_finds_with(client: Client, habits: &[Habit], options: &[&str], scheme: &str) {
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

/// A seed by another client tells our mount what a bare info-hash is; the next mount of it asks nobody.
#[track_caller]
fn assert_told_by(client: Client) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let hash = sample.info_hash();
    let _seed = client.start(&lan, host(2), &sample.torrent, &sample.dir);
    let peer = peer_at(host(2)).to_string();
    let (first, point) = mount_source(&lan, host(1), &hash, &["--peer", &peer]);
    lan.until_same(&format!("told by {client:?}"), &point.join(&hash), &sample.hashes);
    assert_ends_well(first);
    let (again, point) = mount_source(&lan, host(1), &hash, &["--offline"]);
    lan.until_same("the next mount is read", &point.join(&hash), &sample.hashes);
    assert_ends_well(again);
}

/// Another client asks our seed what a magnet link is, and downloads it.
#[track_caller]
fn assert_tells(client: Client) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let link = format!("magnet:?xt=urn:btih:{}", sample.info_hash());
    let dir = lan.empty("leech");
    let _leech = client.start(&lan, host(2), Path::new(&link), &dir);
    let seed = seed(&lan, host(1), &sample, &["--peer", &peer_at(host(2)).to_string()]);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(seed);
}

#[test]
fn libtorrent_tells_what_a_hash_is() {
    assert_told_by(Client::Libtorrent);
}

#[test]
fn transmission_tells_what_a_hash_is() {
    assert_told_by(Client::Transmission);
}

#[test]
fn aria2_tells_what_a_hash_is() {
    assert_told_by(Client::Aria2);
}

#[test]
fn libtorrent_learns_of_our_seed_what_a_magnet_is() {
    assert_tells(Client::Libtorrent);
}

#[test]
fn transmission_learns_of_our_seed_what_a_magnet_is() {
    assert_tells(Client::Transmission);
}

#[test]
fn aria2_learns_of_our_seed_what_a_magnet_is() {
    assert_tells(Client::Aria2);
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

/// A client that turns everyone away who does not do as it does: we dial its seed, and it dials ours.
#[track_caller]
fn assert_meets(client: Client, habits: &[Habit], options: &[&str]) {
    assert_read_with(client, habits, options, (host(2), host(1)));
    assert_finds_with(client, habits, options, "http");
}

#[test]
fn libtorrent_that_requires_encryption_is_met() {
    use Habit::{Enciphered, Veiled};
    for habits in [&[Enciphered][..], &[Veiled], &[Enciphered, Veiled]] {
        assert_meets(Client::Libtorrent, habits, &[]);
    }
}

#[test]
fn libtorrent_is_met_where_we_require_encryption() {
    assert_meets(Client::Libtorrent, &[Habit::Enciphered], &["--encryption", "require"]);
}

#[test]
fn transmission_that_requires_encryption_is_met() {
    assert_meets(Client::Transmission, &[Habit::Enciphered], &[]);
}

#[test]
fn aria2_that_requires_encryption_is_met() {
    assert_meets(Client::Aria2, &[Habit::Enciphered], &[]);
    assert_meets(Client::Aria2, &[Habit::Enciphered], &["--encryption", "require"]);
}

/// Nothing is said to a peer in the clear, nor heard from one.
#[test]
fn what_requires_encryption_meets_nobody_in_the_clear() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let _seed = Client::Libtorrent.start(&lan, host(2), &sample.torrent, &sample.dir);
    let peer = peer_at(host(2)).to_string();
    let (mount, _) = mount(&lan, host(1), &sample, &["--encryption", "require", "--peer", &peer]);
    mount.until_says("closed during the handshake");
    assert_eq!(told(&lan, &lan.path("mnt-10.9.0.1"))["downloaded"], 0);
    assert_ends_well(mount);
}

#[test]
fn libtorrent_that_speaks_only_utp_is_met() {
    assert_meets(Client::Libtorrent, &[Habit::Utp], &[]);
    assert_meets(Client::Libtorrent, &[Habit::Utp, Habit::Enciphered], &["--no-tcp"]);
}

/// It cannot do without TCP, so we do.
#[test]
fn transmission_is_met_over_utp() {
    assert_meets(Client::Transmission, &[Habit::Utp], &["--no-tcp"]);
}

/// Two of our seeds whose data is incomplete tell libtorrent so (BEP 21), and give it what they have.
#[test]
fn our_partial_seeds_give_to_libtorrent() {
    let lan = Lan::new();
    let whole = Sample::new(&lan, &[]);
    let part = |n: u8, spoil: &dyn Fn(&Path)| {
        let dir = lan.empty(&format!("part-{n}"));
        lan.run(
            &tool("cp", "coreutils"),
            &["-r", &format!("{}/.", whole.dir.display()), dir.to_str().unwrap()],
        );
        spoil(&dir.join(whole.name));
        Sample { name: whole.name, dir, torrent: whole.torrent.clone(), hashes: String::new() }
    };
    let parts = [
        part(1, &|top| {
            let mut film = fs::read(top.join("film.bin")).unwrap();
            film[..1_000_000].fill(0);
            fs::write(top.join("film.bin"), film).unwrap();
        }),
        part(2, &|top| fs::remove_dir_all(top.join("notes")).unwrap()),
    ];
    let dir = lan.empty("leech");
    let _leech = Client::Libtorrent.start(&lan, host(9), &whole.torrent, &dir);
    let peer = peer_at(host(9)).to_string();
    let seeds: Vec<_> = (1..)
        .zip(&parts)
        .map(|(n, sample)| seed(&lan, host(n), sample, &["--peer", &peer]))
        .collect();
    lan.until_same("libtorrent has all", &dir.join(whole.name), &whole.hashes);
    seeds.into_iter().for_each(assert_ends_well);
}

/// A mount whose pieces may go again names them only when libtorrent has said that it can be told (BEP 54): by a
/// bitfield that comes after other messages.
#[test]
fn a_mount_that_evicts_gives_to_libtorrent_what_it_has() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let _seed = seed(&lan, host(1), &sample, &[]);
    let args = |peer: u8| {
        ["--no-fill", "--cache-size", "3MiB", "--peer", &peer_at(host(peer)).to_string()]
            .map(str::to_owned)
    };
    let run = |peer: u8| {
        let args = args(peer);
        mount(&lan, host(2), &sample, &args.each_ref().map(String::as_str))
    };
    let (first, top) = run(1);
    let film = top.join("film.bin");
    lan.run(&tool("head", "coreutils"), &["-c", "1500000", film.to_str().unwrap()]);
    assert_ends_well(first);
    let dir = lan.empty("leech");
    let _leech = Client::Libtorrent.start(&lan, host(9), &sample.torrent, &dir);
    let (again, _) = run(9);
    let got = dir.join(sample.name).join("film.bin");
    lan.until("libtorrent has what was read", || {
        let bytes = fs::read(&got).unwrap_or_default();
        bytes.get(..1_500_000) == Some(&content::bytes(1, 0, 1_500_000)[..])
    });
    assert_ends_well(again);
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

/// A tracker that is not ours brings our seed and our mount together, whichever comes first.
#[track_caller]
fn assert_meet_at_opentracker(scheme: &str) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url(scheme, host(9))]);
    let _tracker = opentracker(&lan, host(9), &sample.info_hash());
    let (early, early_top) = mount(&lan, host(2), &sample, &[]);
    early.until_says("tracker answered");
    let seed = seed(&lan, host(1), &sample, &[]);
    lan.until_same("the early mount is read", &early_top, &sample.hashes);
    let (late, late_top) = mount(&lan, host(3), &sample, &[]);
    lan.until_same("the late mount is read", &late_top, &sample.hashes);
    assert_scraped(&lan, &sample, Scraped { seeds: 3, downloads: 2 });
    for running in [late, early, seed] {
        assert_ends_well(running);
    }
    assert_scraped(&lan, &sample, Scraped { seeds: 0, downloads: 2 });
}

/// What a tracker counts of a torrent.
struct Scraped {
    seeds: u32,
    downloads: u32,
}

/// The tracker on host 9 comes to count this: everyone told it of the end of the download, and said good-bye.
#[track_caller]
fn assert_scraped(lan: &Lan, sample: &Sample, expected: Scraped) {
    let hash = sample.info_hash();
    let coded: String =
        (0..hash.len()).step_by(2).map(|at| format!("%{}", &hash[at..at + 2])).collect();
    let url = format!("http://{}/scrape?info_hash={coded}", tracker_at(host(9)));
    let Scraped { seeds, downloads } = expected;
    let part = format!("8:completei{seeds}e10:downloadedi{downloads}e10:incompletei0e");
    let curl = tool("curl", "curl");
    lan.until(&format!("{seeds} seeds, {downloads} downloads"), || {
        let answer = lan.run(&curl, &["-sS", "--max-time", "5", &url]);
        String::from_utf8_lossy(&answer.stdout).contains(&part)
    });
}

#[test]
fn seed_and_mounts_meet_at_opentracker_over_http() {
    assert_meet_at_opentracker("http");
}

#[test]
fn seed_and_mounts_meet_at_opentracker_over_udp() {
    assert_meet_at_opentracker("udp");
}

#[test]
fn seed_and_mount_meet_at_our_tracker_over_ipv6() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &["http", "udp"].map(|scheme| url(scheme, host6(9))));
    let _tracker = tracker(&lan, host6(9));
    let seed = seed(&lan, host6(1), &sample, &[]);
    let (mount, top) = mount(&lan, host6(2), &sample, &[]);
    lan.until_same("read over IPv6", &top, &sample.hashes);
    assert_ends_well(mount);
    assert_ends_well(seed);
}

/// What our mount says of a torrent of its own.
fn told(lan: &Lan, top: &Path) -> serde_json::Value {
    let output = lan.run(Path::new(BTFS), &["why", "--json", top.to_str().unwrap()]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    all["torrents"][0].clone()
}

/// One seed of ours with a narrow line; a leech of each client and a mount of ours, all of which find each other. All
/// finish, and our mount gives its share: the line alone would serve them one after the other.
#[test]
fn a_mixed_swarm_completes() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url("http", host(9))]);
    let _tracker = tracker(&lan, host(9));
    let mut leeches = Vec::new();
    for (client, n) in Client::TRACKED.into_iter().chain([Client::Plain]).zip(2..) {
        let dir = lan.empty(&format!("leech-{n}"));
        leeches.push((client, client.start(&lan, host(n), &sample.torrent, &dir), dir));
    }
    let plain = peer_at(host(5)).to_string();
    let (mount, top) = mount(&lan, host(6), &sample, &["--peer", &plain]);
    let seed = seed(&lan, host(1), &sample, &["--max-up", "512KiB/s"]);
    let (begin, mut places) = (Instant::now(), Vec::new());
    let mut finish = |name: &str, done: bool| {
        if done && !places.iter().any(|known| known == name) {
            places.push(name.to_owned());
            eprintln!("{}. {name}, after {:.1} s", places.len(), begin.elapsed().as_secs_f64());
        }
        places.len()
    };
    lan.until("all have all", || {
        for (client, _, dir) in &leeches {
            finish(&format!("{client:?}"), lan.hashes(&dir.join(sample.name)) == sample.hashes);
        }
        let told = told(&lan, &top);
        finish("btfs", told["bytes_here"] == told["bytes"]) == leeches.len() + 1
    });
    lan.until_same("our mount is read", &top, &sample.hashes);
    let told = told(&lan, &top);
    let [bytes, down, up] =
        ["bytes", "downloaded", "uploaded"].map(|key| told[key].as_u64().unwrap());
    eprintln!("btfs: {down} bytes came, {up} went, of {bytes}");
    assert!(up >= bytes / 2, "btfs gave {up} bytes of {bytes} and takes a free ride");
    assert!(down < bytes + bytes / 4, "{down} bytes came for {bytes}");
    assert_ends_well(mount);
    assert_ends_well(seed);
}

/// Who makes a torrent.
#[derive(Clone, Copy, Debug)]
enum Maker {
    Mktorrent,
    Transmission,
    Libtorrent,
}

impl Maker {
    fn make(self, lan: &Lan, data: &Path, torrent: &Path, tracker: &str) {
        let (data, torrent) = (data.to_str().unwrap(), torrent.to_str().unwrap());
        match self {
            Self::Mktorrent => {
                let program = tool("mktorrent", "mktorrent");
                lan.run(&program, &["-a", tracker, "-l", "15", "-o", torrent, data]);
            }
            Self::Transmission => {
                let program = tool("transmission-create", "transmission-cli");
                lan.run(&program, &["-t", tracker, "-s", "32", "-o", torrent, data]);
            }
            Self::Libtorrent => {
                libtorrent_torrent(lan, &["create", data, torrent, tracker]);
            }
        }
    }
}

/// Torrents by others are what our seed serves and our mount shows.
#[test]
fn torrents_by_others_are_mounted() {
    let lan = Lan::new();
    let data = write_data(&lan);
    let _tracker = tracker(&lan, host(9));
    for (maker, n) in
        [Maker::Mktorrent, Maker::Transmission, Maker::Libtorrent].into_iter().zip(1..)
    {
        let torrent = lan.path(format!("{maker:?}.torrent"));
        maker.make(&lan, &data, &torrent, &url("http", host(9)));
        let sample =
            Sample { name: "sample", dir: lan.path("data"), torrent, hashes: lan.hashes(&data) };
        let told = libtorrent_torrent(&lan, &["show", sample.torrent.to_str().unwrap()]);
        assert!(lines(&told).contains(&sample.info_hash()), "{maker:?}");
        let _seed = seed(&lan, host(2 * n), &sample, &[]);
        let (_mount, top) = mount(&lan, host(2 * n + 1), &sample, &[]);
        lan.until_same(&format!("a torrent by {maker:?} is read"), &top, &sample.hashes);
    }
}

/// Torrents by us are read by others, who see the same hash, names and lengths.
#[test]
fn torrents_by_us_are_read_by_others() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url("http", host(9))]);
    let torrent = sample.torrent.to_str().unwrap();
    let readers = [
        ("libtorrent", libtorrent_torrent(&lan, &["show", torrent])),
        ("transmission", lan.run(&tool("transmission-show", "transmission-cli"), &[torrent])),
        ("aria2", lan.run(&tool("aria2c", "aria2"), &["-S", torrent])),
    ];
    for (reader, told) in &readers {
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains(&sample.info_hash()), "{reader}: {told}");
        for (path, length) in FILES {
            assert!(told.contains(&format!("sample/{path}")), "{reader} {path}: {told}");
            let exact =
                *reader != "libtorrent" || told.contains(&format!("{length} sample/{path}"));
            assert!(exact, "{reader} {path}: {told}");
        }
    }
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
