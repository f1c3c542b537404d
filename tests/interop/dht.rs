//! A DHT of thirty nodes, a third of them libtorrent's, in which a torrent without trackers is found.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::lan::{Lan, Running, host, host6, peer_at};
use crate::peers::{Client, Finder, libtorrent_nodes};
use crate::stage::{BTFS, Sample, assert_ends_well, mount_calling, seed_calling, told};

/// Nodes of ours, which have nothing to do but to be that.
const OURS: u8 = 20;

/// Nodes of libtorrent.
const THEIRS: u8 = 10;

/// Where the node is; ours come first.
fn node(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 9, 1, n], 6881))
}

/// The network; all enter it by the first node.
fn network(lan: &Lan) -> Vec<Running<'_>> {
    let last = OURS + THEIRS;
    let add = format!("for n in $(seq {last}); do ip addr add 10.9.1.$n/32 dev lo || exit; done");
    lan.run(Path::new("sh"), &["-c", &add]);
    let torrent = filler(lan);
    let mut nodes: Vec<_> = (1..=OURS).map(|n| idle(lan, &torrent, node(n), node(1))).collect();
    nodes.iter().for_each(|running| running.until_says("seeding filler"));
    let theirs: Vec<_> = (OURS + 1..=last).map(|n| node(n).ip()).collect();
    nodes.push(libtorrent_nodes(lan, &theirs, node(1)));
    nodes
}

/// A torrent that nobody wants, beside its data; a private one, so that it is never looked up.
fn filler(lan: &Lan) -> PathBuf {
    let (data, torrent) = (lan.path("filler"), lan.path("filler.torrent"));
    fs::write(&data, "nobody wants this").unwrap();
    let paths = [data.to_str().unwrap(), "-o", torrent.to_str().unwrap()];
    lan.run(Path::new(BTFS), &[&["create", "--private"], &paths[..]].concat());
    torrent
}

/// One of ours, which has nothing to do but to be a node.
fn idle<'a>(lan: &'a Lan, torrent: &Path, at: SocketAddr, entry: SocketAddr) -> Running<'a> {
    let (listen, entry, data) = (at.to_string(), entry.to_string(), torrent.with_extension(""));
    let what = ["seed", torrent.to_str().unwrap(), data.to_str().unwrap(), "-vv"];
    let ways = ["--no-lsd", "--listen", &listen, "--dht-bootstrap", &entry];
    lan.start(&format!("node-{}", at.ip()), Path::new(BTFS), &[&what[..], &ways[..]].concat())
}

#[test]
fn a_seed_by_libtorrent_is_found_through_the_dht() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let _network = network(&lan);
    let finders = [Finder::Dht(node(1))];
    let _seed =
        Client::Libtorrent.start_finding(&finders, &lan, host(2), &sample.torrent, &sample.dir);
    // We enter by a node of theirs.
    let entry = node(OURS + 1).to_string();
    let ways = ["--no-lsd", "--no-pex", "--dht-bootstrap", &entry];
    let (mount, top) = mount_calling(&lan, host(1), &sample, &ways);
    lan.until_same("the mount is read", &top, &sample.hashes);
    let dht = told(&lan, &top)["dht"].clone();
    assert!(dht["nodes"].as_u64().unwrap() >= 8, "{dht}");
    assert_ends_well(mount);
}

#[test]
fn our_seed_is_found_through_the_dht() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let _network = network(&lan);
    let entry = node(1).to_string();
    let ways = ["--no-lsd", "--no-pex", "--dht-bootstrap", &entry];
    let seed = seed_calling(&lan, host(1), &sample, &ways);
    let dir = lan.empty("leech");
    let finders = [Finder::Dht(node(OURS + 1))];
    let _leech = Client::Libtorrent.start_finding(&finders, &lan, host(2), &sample.torrent, &dir);
    let (mount, top) = mount_calling(&lan, host(3), &sample, &ways);
    lan.until_same("libtorrent has all", &dir.join(sample.name), &sample.hashes);
    lan.until_same("our mount is read", &top, &sample.hashes);
    assert_ends_well(mount);
    assert_ends_well(seed);
}

#[test]
fn our_seed_is_found_through_the_dht_over_ipv6() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let entry = peer_at(host6(9)).to_string();
    let ways = ["--no-lsd", "--no-pex", "--dht-bootstrap", &entry];
    let _entry = idle(&lan, &filler(&lan), peer_at(host6(9)), peer_at(host6(9)));
    let seed = seed_calling(&lan, host6(1), &sample, &ways);
    let (mount, top) = mount_calling(&lan, host6(2), &sample, &ways);
    lan.until_same("our mount is read", &top, &sample.hashes);
    assert_ends_well(mount);
    assert_ends_well(seed);
}
