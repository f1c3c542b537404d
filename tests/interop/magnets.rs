//! Torrents of which nothing but the hash is known: others tell us what they are, and we tell others (BEP 9).

use std::path::Path;

use crate::lan::{Lan, host, peer_at};
use crate::peers::Client;
use crate::stage::{Sample, assert_ends_well, mount_source, seed};

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
