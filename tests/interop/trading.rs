//! Data that passes between our seeds and mounts and the peers of others, both ways.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use crate::content;
use crate::lan::{Lan, host, host6, peer_at, tool};
use crate::peers::Client;
use crate::stage::{Sample, assert_ends_well, assert_read_with, mount, seed, told, tracker, url};

/// A seed by another client is read through our mount, which dials it.
#[track_caller]
fn assert_read_from(client: Client, theirs: IpAddr, ours: IpAddr) {
    assert_read_with(client, &[], &[], (theirs, ours));
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
