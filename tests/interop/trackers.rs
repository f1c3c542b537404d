//! Peers that meet at a tracker: others at ours, and we at one that is not ours.

use crate::lan::{Lan, host, host6, tool, tracker_at};
use crate::peers::{Client, opentracker};
use crate::stage::{Sample, assert_ends_well, assert_finds_with, mount, seed, tracker, url};

/// Another client hears of our seed from our tracker, dials it, and downloads from it.
#[track_caller]
fn assert_finds_us(client: Client, scheme: &str) {
    assert_finds_with(client, &[], &[], scheme);
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
