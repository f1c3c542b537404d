//! Peers that talk encrypted only, or over uTP only.

use crate::lan::{Lan, host, peer_at};
use crate::peers::{Client, Habit};
use crate::stage::{Sample, assert_ends_well, assert_finds_with, assert_read_with, mount, told};

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
