//! Magnet links and bare info-hashes: what is read, what is left out, what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use btfs::proto::magnet::{MAX_LINK_LEN, MAX_PEERS, MAX_SELECTED, Magnet, MagnetError};
use btfs::proto::metainfo::{MAX_TRACKERS, Metainfo};
use btfs::proto::units::InfoHash;
use proptest::prelude::*;

const HEX: &str = "0123456789abcdef0123456789ABCDEF01234567";
const BASE32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";
const V2: &str = "urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";

fn hash() -> InfoHash {
    Magnet::parse(HEX).unwrap().info_hash
}

#[test]
fn a_torrent_is_named_in_each_of_these_ways() {
    let all = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    assert_eq!(hash().0[..8], all);
    for (name, text) in [
        ("hex", HEX.to_owned()),
        ("base 32", BASE32.to_owned()),
        ("small base 32", BASE32.to_lowercase()),
        ("link", format!("magnet:?xt=urn:btih:{HEX}")),
        ("link in base 32", format!("magnet:?xt=urn:btih:{BASE32}")),
        ("shouted", format!("MAGNET:?xt=URN:BTIH:{}", HEX.to_uppercase())),
        ("escaped", format!("magnet:?xt=urn%3Abtih%3A{HEX}")),
        ("numbered", format!("magnet:?xt.1=urn:btih:{HEX}&xt.2={V2}")),
        ("hybrid", format!("magnet:?xt={V2}&xt=urn:btih:{HEX}")),
        ("twice the same", format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{BASE32}")),
        ("among others", format!("magnet:?xl=5&xt=urn:sha1:X&xt=urn:btih:{HEX}&kt=a+b&&=&x")),
    ] {
        assert_eq!(Magnet::parse(&text).map(|magnet| magnet.info_hash), Ok(hash()), "{name}");
    }
}

#[test]
fn what_names_no_torrent_says_why() {
    let other = HEX.replace('0', "1");
    for (name, text, expected) in [
        ("nothing", String::new(), MagnetError::NotMagnet),
        ("a link of nothing", "magnet:".into(), MagnetError::NoHash),
        ("a hash for a link", format!("magnet:{HEX}"), MagnetError::NoHash),
        ("a word", "film.torrent".into(), MagnetError::NotMagnet),
        ("39 digits", HEX[1..].into(), MagnetError::NotMagnet),
        ("no digits", "g".repeat(40), MagnetError::NotMagnet),
        ("v2 hash", "a".repeat(64), MagnetError::V2Only),
        ("no xt", "magnet:?dn=x".into(), MagnetError::NoHash),
        ("other topic", "magnet:?xt=urn:sha1:abc".into(), MagnetError::NoHash),
        ("short hash", format!("magnet:?xt=urn:btih:{}", &HEX[1..]), MagnetError::BadHash),
        ("long hash", format!("magnet:?xt=urn:btih:{HEX}0"), MagnetError::BadHash),
        ("bad base 32", format!("magnet:?xt=urn:btih:{}", "1".repeat(32)), MagnetError::BadHash),
        (
            "two torrents",
            format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}"),
            MagnetError::TwoTorrents,
        ),
        ("v2 alone", format!("magnet:?xt={V2}"), MagnetError::V2Only),
        ("too long", format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAX_LINK_LEN)), {
            MagnetError::TooLong
        }),
    ] {
        assert_eq!(Magnet::parse(&text), Err(expected), "{name}");
    }
}

#[test]
fn names_are_as_legal_as_those_of_torrents() {
    let hex = hash().to_string();
    for (name, dn, expected) in [
        ("plain", "dn=film", "film"),
        ("escaped", "dn=a%20film+%2B%E2%82%AC", "a film +€"),
        ("separators", "dn=..%2F..%2Fetc%5Cpasswd", ".._.._etc_passwd"),
        ("control", "dn=a%00b%0Ac", "a_b_c"),
        ("bidi", "dn=a%E2%80%AEb", "ab"),
        ("not UTF-8", "dn=a%ff", "a_"),
        ("dots", "dn=..", &hex),
        ("empty", "dn=", &hex),
        ("none", "", &hex),
        ("two", "dn=first&dn=second", "first"),
        ("bad escape", "dn=100%25%2", "100%%2"),
    ] {
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&{dn}")).unwrap();
        assert_eq!(magnet.directory(), expected, "{name}");
    }
    let long = format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(1000));
    assert_eq!(Magnet::parse(&long).unwrap().directory().len(), 240);
}

#[test]
fn trackers_peers_seeds_and_files_are_kept_where_they_make_sense() {
    let magnet = Magnet::parse(&format!(
        "magnet:?xt=urn:btih:{HEX}&tr=http%3A%2F%2Fa%3A1%2Fann%3Fk%3D1&tr.2=udp://b:2&tr=udp://b:2&\
         tr=wss://c&tr=http:///x&tr=no%0Aturl&x.pe=192.0.2.1:6881&x.pe=[2001:db8::1]:2&x.pe=name:3&\
         x.pe=192.0.2.1:0&x.pe=0.0.0.0:5&x.pe=192.0.2.1&ws=http://w/f&ws=ftp://w/f&so=0,2,4-6,9-8,x,-1"
    ))
    .unwrap();
    assert_eq!(magnet.trackers, ["http://a:1/ann?k=1", "udp://b:2"]);
    let peers = magnet.peers.iter().map(ToString::to_string);
    assert_eq!(peers.collect::<Vec<_>>(), ["192.0.2.1:6881", "[2001:db8::1]:2"]);
    assert_eq!(magnet.web_seeds, ["http://w/f"]);
    assert_eq!(magnet.selected, [0..=0, 2..=2, 4..=6]);
}

#[test]
fn nobody_makes_us_keep_more_than_this() {
    let repeated = |part: &dyn Fn(usize) -> String| {
        let link = (0..600).map(part).fold(format!("magnet:?xt=urn:btih:{HEX}"), |a, b| a + &b);
        Magnet::parse(&link[..link.len().min(MAX_LINK_LEN)]).unwrap()
    };
    assert_eq!(repeated(&|n| format!("&tr=udp://{n}:1")).trackers.len(), MAX_TRACKERS);
    assert_eq!(repeated(&|n| format!("&x.pe=1.1.1.1:{}", n + 1)).peers.len(), MAX_PEERS);
    let all = format!("magnet:?xt=urn:btih:{HEX}&so=0-4294967295{}", ",1-4000000000".repeat(200));
    assert_eq!(Magnet::parse(&all).unwrap().selected.len(), MAX_SELECTED);
}

#[test]
fn a_torrent_file_of_it_has_its_trackers_and_seeds() {
    let info = b"d6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789e";
    for link in ["", "&tr=http://a/announce&tr=udp://b:1&ws=http://w/"] {
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}{link}")).unwrap();
        let torrent = Metainfo::parse(&magnet.torrent(info)).unwrap();
        assert_eq!(torrent.info, &info[..]);
        assert_eq!(torrent.trackers.concat(), magnet.trackers);
        assert!(torrent.trackers.iter().all(|tier| tier.len() == 1));
        assert_eq!(torrent.web_seeds, magnet.web_seeds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_that_is_typed_breaks_it(rest in "[&=%+.\\-,:/?a-z0-9\\[\\]\u{202e}é]{0,200}") {
        let _ = Magnet::parse(&rest);
        let link = format!("magnet:?xt=urn:btih:{HEX}&{rest}");
        if let Ok(magnet) = Magnet::parse(&link) {
            prop_assert_eq!(magnet.info_hash, hash());
            prop_assert_eq!(Magnet::parse(&magnet.to_string()).map(|m| m.info_hash), Ok(hash()));
        }
    }
}
