//! What leaves the machine, packet by packet, when the user says which way all must take.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/content.rs"]
#[allow(dead_code, unreachable_pub)]
mod content;
#[path = "support/lan.rs"]
#[allow(dead_code)]
mod lan;
#[path = "support/outpost.rs"]
mod outpost;
#[path = "support/peers.rs"]
#[allow(dead_code)]
mod peers;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lan::{Lan, Running, host, peer_at, tool, tracker_at};
use outpost::{NAMESERVER, Outpost};
use peers::nginx;

/// The program under test.
const BTFS: &str = env!("CARGO_BIN_EXE_btfs");

/// A name that only hosts of the Lan can resolve.
const TRACKER_NAME: &str = "tracker.test";

/// The host with the proxy, and what it is asked for there.
const PROXY: u8 = 8;
const PROXY_PORT: u16 = 1080;

/// A tracker, a seed that it knows, and a torrent that names it by address and by name, over HTTP and UDP.
struct World<'a> {
    torrent: PathBuf,
    data: Vec<u8>,
    _tracker: Running<'a>,
    _seed: Running<'a>,
}

impl<'a> World<'a> {
    fn new(lan: &'a Lan) -> Self {
        let hosts = lan.path("hosts");
        fs::write(&hosts, format!("{} {TRACKER_NAME}\n", host(9))).unwrap();
        lan.run(Path::new("mount"), &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]);
        let data = content::bytes(1, 0, 700_001);
        let dir = lan.empty("data");
        fs::write(dir.join("film"), &data).unwrap();
        let torrent = lan.path("film.torrent");
        let at = tracker_at(host(9));
        let port = at.port();
        let urls = [
            format!("udp://{at}/announce"),
            format!("udp://{TRACKER_NAME}:{port}/announce"),
            format!("http://{TRACKER_NAME}:{port}/announce"),
        ];
        let film = dir.join("film");
        let mut args = vec!["create", film.to_str().unwrap(), "-o", torrent.to_str().unwrap()];
        args.extend(urls.iter().flat_map(|url| ["--tracker", url]));
        lan.run(Path::new(BTFS), &args);
        let listen = at.to_string();
        let tracker = lan.start("tracker", Path::new(BTFS), &["tracker", "--listen", &listen]);
        tracker.until_says("listening on");
        let listen = peer_at(host(1)).to_string();
        let args = ["seed", torrent.to_str().unwrap(), film.to_str().unwrap(), "-vv"];
        let args = [&args[..], &["--listen", &listen]].concat();
        let seed = lan.start("seed", Path::new(BTFS), &args);
        seed.until_says("tracker answered");
        Self { torrent, data, _tracker: tracker, _seed: seed }
    }

    /// `btfs get` in the outpost, with these options.
    fn get(&self, lan: &Lan, outpost: &Outpost<'a>, more: &[&str]) -> (Running<'a>, PathBuf) {
        let dir = lan.empty("here");
        let args = ["get", self.torrent.to_str().unwrap(), dir.to_str().unwrap(), "-vv"];
        let get = outpost.start("get", Path::new(BTFS), &[&args[..], more].concat());
        (get, dir.join("film"))
    }

    /// Runs it until the download is complete.
    #[track_caller]
    fn get_all(&self, lan: &Lan, outpost: &Outpost<'a>, more: &[&str]) {
        let (get, film) = self.get(lan, outpost, more);
        assert!(get.ended().success());
        assert_eq!(fs::read(film).unwrap(), self.data);
    }
}

/// Debian's SOCKS5 server, for this name and password.
fn proxy<'a>(lan: &'a Lan, name: &str, password: &str) -> Running<'a> {
    let (ip, port) = (host(PROXY).to_string(), PROXY_PORT.to_string());
    let args = ["-i", &ip, "-p", &port, "-u", name, "-P", password, "-b", &ip];
    let running = lan.start("proxy", &tool("microsocks", "microsocks"), &args);
    lan.until_listening("tcp", (host(PROXY), PROXY_PORT).into());
    running
}

fn proxy_url(login: &str) -> String {
    format!("socks5://{login}@{}:{PROXY_PORT}", host(PROXY))
}

fn set(ways: &[String]) -> BTreeSet<String> {
    ways.iter().cloned().collect()
}

fn to_proxy() -> BTreeSet<String> {
    set(&[format!("tcp {} {PROXY_PORT}", host(PROXY))])
}

/// The other tests see nothing because nothing is there: without a proxy the same watch sees everything.
#[test]
fn without_a_proxy_peers_trackers_and_names_are_asked_directly() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 1);
    let watch = outpost.watch(1);
    world.get_all(&lan, &outpost, &[]);
    let seen = outpost.seen(&watch, 1);
    let tracker = tracker_at(host(9));
    for expected in [
        format!("tcp {} {}", host(1), peer_at(host(1)).port()),
        format!("udp {} {}", tracker.ip(), tracker.port()),
        format!("udp {} 53", host(NAMESERVER)),
    ] {
        assert!(seen.contains(&expected), "{expected}: {seen:?}");
    }
}

#[test]
fn the_router_of_the_default_route_is_asked_to_let_peers_in_unless_it_is_forbidden() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 1);
    for (more, asked) in [
        (&[][..], true),
        (&["--listen", "0.0.0.0:0"], true),
        (&["--listen", "10.8.1.1:0"], false),
        (&["--no-port-map"], false),
    ] {
        let watch = outpost.watch(1);
        world.get_all(&lan, &outpost, more);
        fs::remove_dir_all(lan.path("here")).unwrap();
        let seen = outpost.seen(&watch, 1);
        assert_eq!(seen.contains(&format!("udp {} 5351", Outpost::router(1))), asked, "{more:?}");
    }
}

#[test]
fn with_a_proxy_nothing_goes_beside_it() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 1);
    let _proxy = proxy(&lan, "me", "p@ss word");
    let watch = outpost.watch(1);
    world.get_all(&lan, &outpost, &["--proxy", &proxy_url("me:p%40ss%20word")]);
    assert_eq!(outpost.seen(&watch, 1), to_proxy());
}

#[test]
fn with_a_proxy_web_seeds_are_asked_through_it_by_name() {
    let lan = Lan::new();
    let mut world = World::new(&lan);
    let (_web, url) = nginx(&lan, host(9), &lan.path("data"));
    let url = url.replace(&host(9).to_string(), TRACKER_NAME) + "film";
    world.torrent = lan.path("web.torrent");
    let (film, torrent) = (lan.path("data/film"), world.torrent.to_str().unwrap());
    let args = ["-w", &url, "-o", torrent, film.to_str().unwrap()];
    lan.run(&tool("mktorrent", "mktorrent"), &args);
    let outpost = Outpost::new(&lan, 1);
    let _proxy = proxy(&lan, "me", "password");
    let watch = outpost.watch(1);
    world.get_all(&lan, &outpost, &["--proxy", &proxy_url("me:password")]);
    assert_eq!(outpost.seen(&watch, 1), to_proxy());
}

#[test]
fn while_the_proxy_is_down_or_refuses_nobody_is_reached() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 1);
    let watch = outpost.watch(1);
    let peer = peer_at(host(1)).to_string();
    let url = proxy_url("me:wrong");
    let (get, _) = world.get(&lan, &outpost, &["--proxy", &url, "--peer", &peer]);
    get.until_says("cannot reach the proxy");
    get.until_says("UDP cannot go through the proxy");
    let _proxy = proxy(&lan, "me", "right");
    get.until_says("the proxy: Password auth failure");
    get.until_says("credentials not accepted");
    assert!(!get.stop().success());
    assert_eq!(outpost.seen(&watch, 1), to_proxy());
}

#[test]
fn with_a_device_nothing_but_lookups_goes_by_another() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 2);
    let (first, second) = (outpost.watch(1), outpost.watch(2));
    let port = peer_at(host(1)).port();
    let listen = format!("0.0.0.0:{port}");
    let more = ["--bind-device", "line2", "--listen", &listen, "--seed-time", "1h"];
    let (get, film) = world.get(&lan, &outpost, &more);
    get.until_says("seeding on");
    assert_eq!(fs::read(film).unwrap(), world.data);
    let takes = |n| {
        let dial =
            format!("import socket; socket.create_connection(('{}', {port}), 5)", Outpost::addr(n));
        lan.command(Path::new("python3")).args(["-c", &dial]).output().unwrap().status.success()
    };
    assert!(takes(2) && !takes(1));
    assert!(get.stop().success());
    let tracker = tracker_at(host(9));
    let seen = outpost.seen(&second, 2);
    for expected in
        [format!("tcp {} {port}", host(1)), format!("udp {} {}", tracker.ip(), tracker.port())]
    {
        assert!(seen.contains(&expected), "{expected}: {seen:?}");
    }
    let mut seen = outpost.seen(&first, 1);
    seen.remove(&format!("udp {} 53", host(NAMESERVER)));
    // Refusing whoever knocks at the other door is the kernel's word, not ours; so is what it says (ICMP) of an answer
    // to a lookup that comes late.
    let refused = format!("tcp {} ", Outpost::router(1));
    seen.retain(|way| !way.starts_with(&refused) && !way.starts_with("1 "));
    assert_eq!(seen, BTreeSet::new());
}

#[test]
fn without_its_device_nothing_starts() {
    let lan = Lan::new();
    let world = World::new(&lan);
    let outpost = Outpost::new(&lan, 1);
    let watch = outpost.watch(1);
    let (get, _) = world.get(&lan, &outpost, &["--bind-device", "line9"]);
    get.until_says("cannot use the network interface line9: No such device");
    assert_eq!(get.ended().code(), Some(1));
    assert_eq!(outpost.seen(&watch, 1), BTreeSet::new());
}
