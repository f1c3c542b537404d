//! Blocklists: what lines mean, and the list against a naive one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use btfs::proto::blocklist::{Blocklist, Draft};
use proptest::prelude::*;

fn list(text: &str) -> (Blocklist, usize) {
    let mut draft = Draft::default();
    text.lines().for_each(|line| draft.line(line.as_bytes()));
    let unreadable = draft.unreadable;
    (draft.finish(), unreadable)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Name, line, some who are blocked by it, some who are not.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[test]
fn lines_mean_what_they_say() {
    let table: &[Row] = &[
        (
            "p2p",
            "Bad & Co:192.0.2.3-192.0.2.9",
            &["192.0.2.3", "192.0.2.9"],
            &["192.0.2.2", "192.0.2.10"],
        ),
        ("colons", "a: b:c:192.0.2.3-192.0.2.3", &["192.0.2.3"], &["192.0.2.4"]),
        ("marks", "#1, Ltd; x-y/z:192.0.2.3-192.0.2.3 ", &[], &["192.0.2.3"]),
        ("marks inside", "The #1, Ltd; x-y/z:192.0.2.3-192.0.2.3 ", &["192.0.2.3"], &["192.0.2.4"]),
        (
            "p2p of IPv6",
            "some:2001:db8::-2001:db8::ff",
            &["2001:db8::", "2001:db8::ff"],
            &["2001:db8::100", "::1"],
        ),
        (
            "DAT",
            "192.000.002.008 - 192.000.002.010 , 000 , Some",
            &["192.0.2.8", "192.0.2.10"],
            &["192.0.2.7"],
        ),
        ("DAT, tight", "192.0.2.8-192.0.2.10,127,a:b", &["192.0.2.9"], &["192.0.2.11"]),
        ("DAT that allows", "192.0.2.8 - 192.0.2.10 , 128 , Some", &[], &["192.0.2.9"]),
        ("range", " 192.0.2.8 - 192.0.2.10 ", &["192.0.2.8"], &["192.0.2.11"]),
        (
            "range of IPv6",
            "2001:db8::1-2001:db8::2",
            &["2001:db8::1", "2001:db8::2"],
            &["2001:db8::3"],
        ),
        ("CIDR", "192.0.2.77/24", &["192.0.2.0", "192.0.2.255"], &["192.0.1.255", "192.0.3.0"]),
        ("CIDR of IPv6", "2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::"]),
        (
            "CIDR of mapped",
            "::ffff:192.0.2.0/120",
            &["192.0.2.9", "::ffff:192.0.2.9"],
            &["192.0.3.0"],
        ),
        ("all of IPv4", "0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]),
        ("one", "192.0.2.1", &["192.0.2.1", "::ffff:192.0.2.1"], &["192.0.2.2"]),
        ("one of IPv6", "2001:db8::1", &["2001:db8::1"], &["2001:db8::2"]),
        ("/32 and a comment", "192.0.2.1/32 ; SBL1", &["192.0.2.1"], &["192.0.2.2"]),
        ("a comment", "192.0.2.1 # since 2001", &["192.0.2.1"], &["192.0.2.2"]),
        ("byte order mark", "\u{feff}192.0.2.1", &["192.0.2.1"], &["192.0.2.2"]),
    ];
    for (name, line, blocked, free) in table {
        let (list, unreadable) = list(line);
        assert_eq!(unreadable, 0, "{name}");
        for addr in *blocked {
            assert!(list.contains(ip(addr)), "{name}: {addr} is free");
        }
        for addr in *free {
            assert!(!list.contains(ip(addr)), "{name}: {addr} is blocked");
        }
    }
}

#[test]
fn what_says_nothing_and_what_cannot_be_read_are_two_things() {
    for nothing in ["", "  ", "# 192.0.2.1", "; 192.0.2.1", "// 192.0.2.1"] {
        let (list, unreadable) = list(nothing);
        assert!(list.is_empty() && unreadable == 0, "{nothing:?}");
    }
    for odd in [
        "some words",
        "192.0.2.9-192.0.2.3",
        "192.0.2.1-2001:db8::1",
        "192.0.2.0/33",
        "2001:db8::/129",
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.256",
        "192.0.2.0001",
        "+1.0.0.0",
        "name:192.0.2.1",
        "1.2.3.4 - 1.2.3.5 , high , x",
        "::::::::::::::::::::::::::::::::",
        "-",
        "\u{1f8b}\0",
    ] {
        let (list, unreadable) = list(odd);
        assert!(list.is_empty() && unreadable == 1, "{odd:?}");
    }
    let mut draft = Draft::default();
    draft.line(b"Soci\xe9t\xe9:192.0.2.1-192.0.2.2");
    draft.line(b"\xff\xfe");
    assert_eq!((draft.read, draft.unreadable), (1, 1));
}

#[test]
fn ranges_that_touch_are_one() {
    let (list, _) = list(
        "0.0.0.5-0.0.0.9\n0.0.0.0-0.0.0.4\n0.0.0.2-0.0.0.3\n255.255.255.255\n255.255.255.0/24\n::1\n::3",
    );
    assert_eq!(list.len(), 4);
    assert_eq!(format!("{list:?}"), "Blocklist(4 ranges)");
}

/// The addresses of a small world: the first of all IPv4, the last of all IPv6.
fn addr(n: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(u128::MAX - 255 + u128::from(n)).into()
    } else {
        Ipv4Addr::from_bits(n.into()).into()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_list_holds_whom_a_naive_one_holds(
        ranges in prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..12),
        allowed in prop::collection::vec((any::<u8>(), any::<bool>()), 0..6),
    ) {
        let ranges: Vec<_> = ranges.into_iter().map(|(a, b, v6)| (a.min(b), a.max(b), v6)).collect();
        let mut draft = Draft::default();
        for (first, last, v6) in &ranges {
            draft.line(format!("x:{}-{}", addr(*first, *v6), addr(*last, *v6)).as_bytes());
        }
        prop_assert_eq!(draft.read, ranges.len());
        let mut list = draft.finish();
        for (n, v6) in &allowed {
            list.allow(addr(*n, *v6));
        }
        for v6 in [false, true] {
            for n in 0..=255 {
                let inside = ranges.iter().any(|(first, last, of)| *of == v6 && (*first..=*last).contains(&n));
                let expected = inside && !allowed.contains(&(n, v6));
                prop_assert_eq!(list.contains(addr(n, v6)), expected, "{}", addr(n, v6));
            }
        }
    }

    #[test]
    fn no_line_is_too_odd(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut draft = Draft::default();
        draft.line(&line);
        prop_assert!(draft.read + draft.unreadable <= 1);
    }
}
