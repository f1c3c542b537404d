//! A DHT of thirty nodes, a third of them libtorrent's, in which a torrent without trackers is found.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::peers::{Client, Finder, Lan, Running, host, libtorrent_nodes};
use super::{BTFS, Sample, assert_ends_well, mount_calling, seed_calling, told};

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
    let (file, torrent) = (lan.path("filler"), lan.path("filler.torrent"));
    fs::write(&file, "nobody wants this").unwrap();
    let (file, torrent) = (file.to_str().unwrap(), torrent.to_str().unwrap());
    // A private one is never looked up.
    lan.run(Path::new(BTFS), &["create", file, "--private", "-o", torrent]);
    let entry = node(1).to_string();
    let mut nodes = Vec::new();
    for n in 1..=OURS {
        let listen = node(n).to_string();
        let ways = ["--no-lsd", "--listen", &listen, "--dht-bootstrap", &entry];
        let args = [&["seed", torrent, file, "-vv"], &ways[..]].concat();
        nodes.push(lan.start(&format!("node-{n}"), Path::new(BTFS), &args));
    }
    nodes.iter().for_each(|running| running.until_says("seeding filler"));
    let theirs: Vec<_> = (OURS + 1..=last).map(|n| node(n).ip()).collect();
    nodes.push(libtorrent_nodes(lan, &theirs, node(1)));
    nodes
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
