//! Bencode from strangers: what the scan refuses, and that nothing gets past it that serde would choke on.

use std::collections::BTreeMap;

use btfs::proto::bencode::{self, BencodeError, Dict, Keys, Limits};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

fn check(bytes: &[u8]) -> Result<IgnoredAny, BencodeError> {
    bencode::parse(bytes, &Limits::MESSAGE)
}

/// `open` n times, a value, and as many ends.
fn nested(open: &str, n: usize) -> Vec<u8> {
    [open.repeat(n), "0:".to_owned(), "e".repeat(n)].concat().into_bytes()
}

#[test]
fn legal_values() {
    for input in [
        "0:",
        "3:abc",
        "i0e",
        "i-1e",
        "i9223372036854775807e",
        "i-9223372036854775808e",
        "le",
        "de",
        "l0:i7ee",
        "d1:ai1e1:bl1:xee",
        "d0:0:e",
        "d1:b0:1:a0:e",
    ] {
        assert!(check(input.as_bytes()).is_ok(), "{input}");
    }
}

#[test]
fn hostile_values() {
    use BencodeError::{
        Depth, DuplicateKey, Integer, Key, Length, Trailing, Truncated, Unexpected,
    };
    for (input, expected) in [
        ("", Truncated(0)),
        ("e", Unexpected { at: 0, byte: b'e' }),
        ("x", Unexpected { at: 0, byte: b'x' }),
        ("-1:a", Unexpected { at: 0, byte: b'-' }),
        ("i", Truncated(0)),
        ("i5", Truncated(0)),
        ("ie", Integer(0)),
        ("i-e", Integer(0)),
        ("i-0e", Integer(0)),
        ("i00e", Integer(0)),
        ("i03e", Integer(0)),
        ("i+5e", Integer(0)),
        ("i 5e", Integer(0)),
        ("i5.0e", Integer(0)),
        ("i--5e", Integer(0)),
        ("i9223372036854775808e", Integer(0)),
        ("i-9223372036854775809e", Integer(0)),
        ("i18446744073709551616e", Integer(0)),
        ("i99999999999999999999999e", Integer(0)),
        ("1", Truncated(0)),
        ("1:", Truncated(0)),
        ("4:abc", Truncated(0)),
        ("01:a", Length(0)),
        ("00:", Length(0)),
        ("1x:a", Unexpected { at: 1, byte: b'x' }),
        ("4294967295:", Truncated(0)),
        ("4294967296:", Length(0)),
        ("99999999999:", Length(0)),
        ("18446744073709551615:", Length(0)),
        ("l", Truncated(1)),
        ("l0:", Truncated(3)),
        ("d", Truncated(1)),
        ("d1:a", Truncated(4)),
        ("d1:ae", Unexpected { at: 4, byte: b'e' }),
        ("di1e0:e", Key(1)),
        ("dle0:e", Key(1)),
        ("dxe", Unexpected { at: 1, byte: b'x' }),
        ("d1:a0:1:a0:e", DuplicateKey(11)),
        ("d1:a0:1:b0:1:a0:e", DuplicateKey(16)),
        ("ld1:a0:1:a0:ee", DuplicateKey(12)),
        ("0:0:", Trailing(2)),
        ("dee", Trailing(2)),
        ("i1ee", Trailing(3)),
    ] {
        assert_eq!(check(input.as_bytes()), Err(expected), "{input}");
    }
    for open in ["l", "d1:a"] {
        assert!(check(&nested(open, 64)).is_ok(), "{open}");
        for depth in [65, 1_000_000] {
            assert_eq!(check(&nested(open, depth)), Err(Depth(64)), "{open} {depth}");
            assert_eq!(check(open.repeat(depth).as_bytes()), Err(Depth(64)), "{open} {depth}");
        }
    }
    let mut long = vec![b'i'];
    long.resize(10_000_000, b'7');
    assert_eq!(check(&long), Err(Integer(0)));
}

#[test]
fn values_are_counted() {
    let limits = Limits { tokens: 5, ..Limits::MESSAGE };
    let parse = |input: &str| bencode::parse::<IgnoredAny>(input.as_bytes(), &limits);
    assert!(parse("d1:al0:i1eee").is_ok(), "one dictionary, one key, one list, two values");
    assert_eq!(parse("d1:al0:i1e0:ee"), Err(BencodeError::Tokens(5)));

    let list = |n: usize| ["l", &"le".repeat(n), "e"].concat();
    assert!(check(list(1_999_999).as_bytes()).is_ok());
    assert_eq!(check(list(2_000_000).as_bytes()), Err(BencodeError::Tokens(2_000_000)));
}

#[derive(Debug, PartialEq, Deserialize)]
struct Pair {
    a: i64,
    b: Option<ByteBuf>,
}

#[test]
fn a_key_that_is_no_text_is_left_out() {
    for input in [
        b"d1:ai1e1:b1:xe".as_slice(),
        b"d1:ai1e1:b1:x2:\xff\xfei5ee",
        b"d2:\xff\xfed1:\xff0:e1:ai1e1:b1:xe",
        b"d1:ai1e1:b1:x1:zd1:\x80d1:\x81le1:y1:\x90e1:ai2e1:\xf0leee",
    ] {
        let read = bencode::parse(input, &Limits::MESSAGE);
        let expected = Pair { a: 1, b: Some(ByteBuf::from("x")) };
        assert_eq!(read, Ok(expected), "{}", input.escape_ascii());
    }
}

#[test]
fn keys_as_bytes_are_kept_on_request() {
    let limits = Limits { keys: Keys::Bytes, ..Limits::MESSAGE };
    let read: BTreeMap<ByteBuf, i64> =
        bencode::parse(b"d2:\xff\xfei5e1:ai1ee", &limits).expect("legal bencode");
    let expected = [(ByteBuf::from(b"\xff\xfe"), 5), (ByteBuf::from(b"a"), 1)];
    assert_eq!(read, BTreeMap::from(expected));
}

#[test]
fn a_wrong_type_is_told_from_a_wrong_form() {
    let read = bencode::parse::<Pair>(b"d1:a1:xe", &Limits::MESSAGE);
    assert!(matches!(read, Err(BencodeError::Shape(_))), "{read:?}");
}

#[test]
fn a_payload_may_follow_a_header() {
    let input = b"d8:msg_typei1e5:piecei0eeee raw \xff";
    let (header, rest): (BTreeMap<String, i64>, _) =
        bencode::parse_prefix(input, &Limits::MESSAGE).expect("a legal header");
    assert_eq!(header["msg_type"], 1);
    assert_eq!(rest, b"ee raw \xff");
}

#[test]
fn a_top_level_key_is_found_byte_for_byte() {
    let input = b"d4:infod4:infoi1e1:b0:1:a0:e3:zzzlee";
    let span = bencode::span_of(input, "info").expect("the key is there");
    assert_eq!(&input[span], b"d4:infoi1e1:b0:1:a0:e");
    assert_eq!(bencode::span_of(input, "b"), None);
    assert_eq!(bencode::span_of(b"l4:info0:e", "info"), None);
    assert_eq!(bencode::span_of(b"d4:info", "info"), None);
}

#[test]
fn a_dictionary_is_read_key_by_key() {
    let dict = Dict::scan(b"d1:c3:abc1:ai7e1:bl1:xee", &Limits::MESSAGE).expect("legal bencode");
    assert!(!dict.is_sorted());
    assert_eq!(dict.string("c"), Some(b"abc".as_slice()));
    assert_eq!(dict.string("a"), None);
    assert_eq!(dict.raw("b"), Some(b"l1:xe".as_slice()));
    assert_eq!(dict.read("a"), Ok(Some(7)));
    assert_eq!(dict.read::<i64>("d"), Ok(None));
    assert!(dict.read::<i64>("c").is_err());
    assert!(Dict::scan(b"d1:a0:1:b0:e", &Limits::MESSAGE).is_ok_and(|dict| dict.is_sorted()));
    assert!(Dict::scan(b"le", &Limits::MESSAGE).is_err());
    assert_eq!(Dict::scan(b"dei", &Limits::MESSAGE).err(), Some(BencodeError::Trailing(2)));
}

#[test]
fn what_we_write_is_sorted_and_leaves_nothing_empty() {
    #[derive(Serialize)]
    struct Out {
        zebra: Option<i64>,
        #[serde(rename = "a b")]
        ab: Vec<&'static str>,
        m: Option<i64>,
    }
    let out = bencode::encode(&Out { zebra: Some(-1), ab: vec!["", "x"], m: None });
    assert_eq!(out, Ok(b"d3:a bl0:1:xe5:zebrai-1ee".to_vec()));
    assert!(matches!(bencode::encode(&1.5), Err(BencodeError::Shape(_))));
}

/// Any bencode, canonical or with keys in any order and twice.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let string = prop::collection::vec(any::<u8>(), 0..4)
        .prop_map(|s| [format!("{}:", s.len()).as_bytes(), &s].concat());
    let integer = any::<i64>().prop_map(|n| format!("i{n}e").into_bytes());
    prop_oneof![string.clone(), integer].prop_recursive(6, 40, 6, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6)
            .prop_map(|items| [b"l".as_slice(), &items.concat(), b"e"].concat());
        let entry = (string.clone(), inner).prop_map(|(key, value)| [key, value].concat());
        let dict = prop::collection::vec(entry, 0..6)
            .prop_map(|items| [b"d".as_slice(), &items.concat(), b"e"].concat());
        prop_oneof![list, dict]
    })
}

/// Whatever the scan takes, serde reads to its end: with text keys cut, and with all keys.
fn accepted_is_readable(input: &[u8]) {
    for keys in [Keys::Text, Keys::Bytes] {
        let read = bencode::parse::<IgnoredAny>(input, &Limits { keys, ..Limits::MESSAGE });
        let shape = matches!(read, Err(BencodeError::Shape(_)));
        assert!(!shape, "{}: {read:?}", input.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn serde_reads_what_the_scan_accepts(input in value(), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3)) {
        accepted_is_readable(&input);
        let mut garbled = input;
        for (at, byte) in flips {
            let at = at.index(garbled.len());
            garbled[at] = byte;
        }
        accepted_is_readable(&garbled);
    }

    #[test]
    fn random_bytes_never_panic(input in "[dlie0-9:a\\-]{0,40}", raw in prop::collection::vec(any::<u8>(), 0..64)) {
        accepted_is_readable(input.as_bytes());
        accepted_is_readable(&raw);
    }
}
