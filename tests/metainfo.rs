//! Torrents as strangers write them: what is read, what is refused, and where each limit lies.

use btfs::proto::geometry::{GeometryError, MAX_PIECE_LEN, MAX_PIECES};
use btfs::proto::metainfo::{
    File, FileKind, MAX_TORRENT_LEN, MAX_TRACKERS, Metainfo, MetainfoError,
};
use btfs::proto::names::{MAX_DEPTH, MAX_DUPLICATES, NameError};
use proptest::prelude::*;
use sha1::{Digest, Sha1};

/// A bencoded string.
fn s(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// A bencoded integer.
fn i(number: i64) -> Vec<u8> {
    format!("i{number}e").into_bytes()
}

/// A bencoded list.
fn l(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<Vec<u8>> = items.into_iter().collect();
    [b"l".as_slice(), &items.concat(), b"e"].concat()
}

/// A bencoded dictionary, its keys in the order that is given.
fn d(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Vec<u8>> =
        entries.iter().map(|(key, value)| [s(key), value.clone()].concat()).collect();
    [b"d".as_slice(), &entries.concat(), b"e"].concat()
}

/// Hashes for `count` pieces, each its own.
fn hashes(count: usize) -> Vec<u8> {
    s((0..count).flat_map(|n| [n as u8; 20]).collect::<Vec<u8>>())
}

/// A single-file info dictionary: 100,000 bytes in seven pieces, with `changes` in place of entries.
fn single(changes: &[(&'static str, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut entries = vec![
        ("length", i(100_000)),
        ("name", s("a.bin")),
        ("piece length", i(16_384)),
        ("pieces", hashes(7)),
    ];
    for (key, value) in changes {
        entries.retain(|(present, _)| present != key);
        entries.extend(value.clone().map(|value| (*key, value)));
    }
    d(&entries)
}

/// A multi-file info dictionary of these files, with as many hashes as their lengths ask for.
fn many(total: usize, files: Vec<Vec<u8>>) -> Vec<u8> {
    d(&[
        ("files", l(files)),
        ("name", s("top")),
        ("piece length", i(16_384)),
        ("pieces", hashes(total.div_ceil(16_384))),
    ])
}

/// One element of `files`.
fn file(length: i64, path: &str) -> Vec<u8> {
    d(&[("length", i(length)), ("path", l(path.split('/').map(s)))])
}

fn torrent(info: Vec<u8>) -> Vec<u8> {
    d(&[("info", info)])
}

#[track_caller]
fn parse(bytes: &[u8]) -> Metainfo {
    Metainfo::parse(bytes).expect("a legal torrent")
}

#[track_caller]
fn refused(info: Vec<u8>) -> MetainfoError {
    Metainfo::parse(&torrent(info)).expect_err("a torrent that must be refused")
}

fn shown(torrent: &Metainfo) -> Vec<(String, u64, u64)> {
    torrent.files.iter().map(|f| (f.path.join("/"), f.offset, f.length)).collect()
}

const REGULAR: FileKind = FileKind::Regular { executable: false };

#[test]
fn a_single_file() {
    let info = single(&[]);
    let torrent = parse(&torrent(info.clone()));
    assert_eq!(torrent.info_hash.0, <[u8; 20]>::from(Sha1::digest(&info)));
    assert_eq!(torrent.info, info);
    assert_eq!(
        (torrent.name.as_str(), torrent.single_file, torrent.private),
        ("a.bin", true, false)
    );
    assert_eq!((torrent.geometry.total(), torrent.geometry.piece_count()), (100_000, 7));
    let whole = File { path: vec!["a.bin".into()], offset: 0, length: 100_000, kind: REGULAR };
    assert_eq!(torrent.files, [whole]);
    for piece in torrent.geometry.pieces() {
        assert_eq!(torrent.piece_hash(piece), [piece.raw() as u8; 20]);
    }
}

#[test]
fn many_files_lie_end_to_end() {
    let torrent = parse(&torrent(many(
        40_000,
        vec![file(10_000, "a"), file(0, "dir/empty"), file(30_000, "dir/sub/b")],
    )));
    assert!(!torrent.single_file);
    assert_eq!(
        shown(&torrent),
        [
            ("a".to_owned(), 0, 10_000),
            ("dir/empty".to_owned(), 10_000, 0),
            ("dir/sub/b".to_owned(), 10_000, 30_000),
        ]
    );
}

#[test]
fn the_info_hash_is_of_the_bytes_as_they_came() {
    let odd = d(&[
        ("zzz", l([i(1), s("x")])),
        ("pieces", hashes(1)),
        ("piece length", i(16_384)),
        ("name", s("a")),
        ("length", i(1)),
        ("aaa", d(&[("n", i(-1))])),
    ]);
    let binary_key = single(&[("pieces", None)]);
    let binary_key =
        [&binary_key[..binary_key.len() - 1], &s("pieces"), &hashes(7), b"2:\xff\xfele", b"e"]
            .concat();
    for info in [single(&[]), odd, binary_key] {
        let expected = <[u8; 20]>::from(Sha1::digest(&info));
        let read = parse(&d(&[("zz", i(0)), ("info", info.clone()), ("announce", s("udp://a"))]));
        assert_eq!(read.info_hash.0, expected, "{}", info.escape_ascii());
        assert_eq!(Metainfo::from_info(info.into()).expect("legal").info_hash.0, expected);
    }
}

#[test]
fn limits_of_one_file() {
    use MetainfoError::{FileLength, Hashes, Layout};
    let longest = i64::from(MAX_PIECE_LEN);
    let most = i64::from(MAX_PIECES) * 16_384;
    let length = |n| ("length", Some(i(n)));
    let piece = |n| ("piece length", Some(i(n)));
    let count = |n| ("pieces", Some(hashes(n)));
    let bytes = |n| ("pieces", Some(s(vec![0; n])));
    let geometry = |error| Some(MetainfoError::Geometry(error));
    for (name, changes, expected) in [
        ("one byte", vec![length(1), count(1)], None),
        ("empty", vec![length(0), count(0)], geometry(GeometryError::Empty)),
        ("negative", vec![length(-1)], Some(FileLength(0))),
        ("piece of one byte", vec![length(2), piece(1), count(2)], None),
        ("piece of nothing", vec![piece(0)], geometry(GeometryError::PieceLength(0))),
        ("negative piece", vec![piece(-1)], geometry(GeometryError::PieceLength(-1))),
        ("almost the longest piece", vec![piece(longest - 1), count(1)], None),
        ("the longest piece", vec![piece(longest), count(1)], None),
        (
            "too long a piece",
            vec![piece(longest + 1)],
            geometry(GeometryError::PieceLength(longest + 1)),
        ),
        (
            "the most pieces, without their hashes",
            vec![length(most)],
            Some(Hashes { expected: MAX_PIECES as usize * 20, found: 140 }),
        ),
        (
            "too many pieces",
            vec![length(most + 1)],
            geometry(GeometryError::TooManyPieces(u64::from(MAX_PIECES) + 1)),
        ),
        (
            "the longest length",
            vec![length(i64::MAX)],
            geometry(GeometryError::TooManyPieces((i64::MAX as u64).div_ceil(16_384))),
        ),
        ("a hash too few", vec![count(6)], Some(Hashes { expected: 140, found: 120 })),
        ("a hash too many", vec![count(8)], Some(Hashes { expected: 140, found: 160 })),
        ("a byte too few", vec![bytes(139)], Some(Hashes { expected: 140, found: 139 })),
        ("a byte too many", vec![bytes(141)], Some(Hashes { expected: 140, found: 141 })),
        ("hashes of no type", vec![("pieces", Some(i(0)))], Some(MetainfoError::Field("pieces"))),
        ("no hashes", vec![("pieces", None)], Some(MetainfoError::Field("pieces"))),
        (
            "no piece length",
            vec![("piece length", None)],
            Some(MetainfoError::Field("piece length")),
        ),
        ("no length", vec![("length", None)], Some(Layout)),
        ("both layouts", vec![("files", Some(l([file(1, "a")])))], Some(Layout)),
    ] {
        assert_eq!(Metainfo::parse(&torrent(single(&changes))).err(), expected, "{name}");
    }
}

#[test]
fn limits_of_many_files() {
    let pathless = d(&[("length", i(1))]);
    let lengthless = d(&[("path", l([s("a")]))]);
    let deep = |n: usize| file(1, &vec!["d"; n].join("/"));
    let copies = |n: usize| vec![file(1, "a"); n + 1];
    assert!(Metainfo::parse(&torrent(many(1, vec![deep(MAX_DEPTH - 1)]))).is_ok());
    assert!(Metainfo::parse(&torrent(many(1, vec![deep(MAX_DEPTH)]))).is_ok());
    assert!(Metainfo::parse(&torrent(many(501, copies(MAX_DUPLICATES)))).is_ok());
    for (name, files, expected) in [
        ("too deep", vec![deep(MAX_DEPTH + 1)], NameError::TooDeep(0).into()),
        ("too many alike", copies(MAX_DUPLICATES + 1), NameError::TooManyDuplicates.into()),
        (
            "no elements",
            vec![d(&[("length", i(1)), ("path", l([]))])],
            NameError::EmptyPath(0).into(),
        ),
        ("negative", vec![file(5, "a"), file(-1, "b")], MetainfoError::FileLength(1)),
        ("no length", vec![lengthless], MetainfoError::FileLength(0)),
        ("63 bits", vec![file(i64::MAX, "a"), file(1, "b")], MetainfoError::TotalLength),
        ("nothing in them", vec![file(0, "a"), file(0, "b")], GeometryError::Empty.into()),
        ("no files", vec![], GeometryError::Empty.into()),
    ] {
        assert_eq!(refused(many(0, files)), expected, "{name}");
    }
    let bad_element = d(&[("length", i(1)), ("path", l([i(1)]))]);
    for files in [pathless, bad_element, s("a")] {
        let error = refused(many(1, vec![files]));
        assert!(matches!(error, MetainfoError::Shape { key: "files", .. }), "{error}");
    }
    assert!(matches!(refused(d(&[("files", d(&[]))])), MetainfoError::Shape { key: "files", .. }));
}

#[test]
fn a_torrent_is_one_dictionary_of_limited_size() {
    use btfs::proto::bencode::BencodeError;
    for (name, bytes, expected) in [
        ("empty", vec![], BencodeError::Truncated(0).into()),
        (
            "a page of the web",
            b"<html>".to_vec(),
            BencodeError::Unexpected { at: 0, byte: b'<' }.into(),
        ),
        ("a list", b"le".to_vec(), BencodeError::Shape("not a dictionary".into()).into()),
        ("no info", b"de".to_vec(), MetainfoError::Field("info")),
        ("info of no type", torrent(i(1)), BencodeError::Shape("not a dictionary".into()).into()),
        ("more after it", [torrent(single(&[])), vec![b'\n']].concat(), {
            BencodeError::Trailing(torrent(single(&[])).len()).into()
        }),
        ("nested too deep", torrent([vec![b'l'; 1_000_000], vec![b'e'; 1_000_000]].concat()), {
            BencodeError::Depth(164).into()
        }),
    ] {
        assert_eq!(Metainfo::parse(&bytes).err(), Some(expected), "{name}");
    }
    let of_len = |len: usize| {
        let frame = d(&[("info", single(&[])), ("x", s(vec![0; 16_000_000]))]).len() - 16_000_000;
        d(&[("info", single(&[])), ("x", s(vec![0; len - frame]))])
    };
    assert!(Metainfo::parse(&of_len(MAX_TORRENT_LEN - 1)).is_ok());
    assert!(Metainfo::parse(&of_len(MAX_TORRENT_LEN)).is_ok());
    let long = of_len(MAX_TORRENT_LEN + 1);
    assert_eq!(Metainfo::parse(&long).err(), Some(MetainfoError::TooLong(MAX_TORRENT_LEN + 1)));
}

#[test]
fn a_v2_torrent_is_told_apart_and_a_hybrid_is_read_as_v1() {
    let tree = ("file tree", Some(d(&[("a.bin", d(&[("", d(&[("length", i(100_000))]))]))])));
    let version = ("meta version", Some(i(2)));
    let v2 = single(&[tree.clone(), version.clone(), ("pieces", None), ("length", None)]);
    assert_eq!(refused(v2), MetainfoError::V2Only);
    assert_eq!(MetainfoError::V2Only.to_string(), "v2-only torrents are not supported yet");
    let hybrid = parse(&torrent(single(&[tree, version])));
    assert!(hybrid.has_v2 && hybrid.single_file);
    assert!(!parse(&torrent(single(&[]))).has_v2);
}

#[test]
fn attributes() {
    let with = |length: i64, path: &str, more: &[(&str, Vec<u8>)]| {
        let path = ("path", l(path.split('/').map(s)));
        d(&[&[("length", i(length)), path], more].concat())
    };
    let link = |path: &str, target: &str| {
        let target = ("symlink path", l(target.split('/').map(s)));
        with(7, path, &[("attr", s("l")), target])
    };
    let torrent = parse(&torrent(many(
        32,
        vec![
            with(10, "run", &[("attr", s("hx"))]),
            with(6, ".pad/6", &[("attr", s("p"))]),
            with(3, "d/a", &[("attr", s("h"))]),
            with(6, ".pad/6", &[("attr", s("p"))]),
            with(2, "_____padding_file_0_if you see this_", &[]),
            with(5, ".pad/5", &[]),
            link("d/to file", "d/a"),
            link("to directory", "d/./x/.."),
            link("out", "../d/a"),
            link("nowhere", "d/b"),
            link("to all", "."),
            with(0, "no target", &[("attr", s("l"))]),
        ],
    )));
    let regular = |executable| FileKind::Regular { executable };
    let to =
        |target: &[&str]| FileKind::Symlink { target: target.iter().map(|&e| e.into()).collect() };
    let found: Vec<(String, u64, FileKind)> =
        torrent.files.iter().map(|f| (f.path.join("/"), f.length, f.kind.clone())).collect();
    let expected = [
        ("run", 10, regular(true)),
        (".pad/1", 6, FileKind::Padding),
        ("d/a", 3, regular(false)),
        (".pad/3", 6, FileKind::Padding),
        (".pad/4", 2, FileKind::Padding),
        (".pad/5", 5, regular(false)),
        ("d/to file", 0, to(&["d", "a"])),
        ("to directory", 0, to(&["d"])),
        ("out", 0, regular(false)),
        ("nowhere", 0, regular(false)),
        ("to all", 0, regular(false)),
        ("no target", 0, regular(false)),
    ];
    assert_eq!(found, expected.map(|(path, length, kind)| (path.to_owned(), length, kind)));
    assert_eq!(torrent.geometry.total(), 32);
}

#[test]
fn names_prefer_utf8_where_it_is_valid() {
    let path = |raw: &[u8], utf8: &[u8]| {
        d(&[("length", i(1)), ("path", l([s(raw)])), ("path.utf-8", l([s(utf8)]))])
    };
    let read = parse(&torrent(many(
        3,
        vec![
            path(b"caf\xe9", "café".as_bytes()),
            path(b"plain", b"bad\xff"),
            d(&[("length", i(1)), ("path", l([s("kept")])), ("path.utf-8", l([]))]),
        ],
    )));
    let paths: Vec<String> = read.files.iter().map(|f| f.path.join("/")).collect();
    assert_eq!(paths, ["café", "plain", "kept"]);
    for (name, utf8, expected) in [
        (Some(s("plain")), Some(s("naïve")), "naïve"),
        (Some(s("plain")), Some(s(b"\xff")), "plain"),
        (Some(s(b"a\xff/")), None, "a__"),
        (Some(s("plain")), Some(i(1)), "plain"),
    ] {
        let read = parse(&torrent(single(&[("name", name), ("name.utf-8", utf8)])));
        assert_eq!(read.name, expected);
        assert_eq!(read.files[0].path, [expected]);
    }
    for nothing in [None, Some(s("")), Some(s("..")), Some(s("\u{202E}")), Some(i(1))] {
        let read = parse(&torrent(single(&[("name", nothing)])));
        assert_eq!(read.name, read.info_hash.to_string());
    }
}

/// A torrent with these entries beside its info.
fn with(entries: &[(&str, Vec<u8>)]) -> Metainfo {
    parse(&d(&[entries, &[("info", single(&[]))]].concat()))
}

#[test]
fn trackers() {
    let tiers =
        |tiers: &[&[&str]]| ("announce-list", l(tiers.iter().map(|tier| l(tier.iter().map(s)))));
    let announce = |url: &str| ("announce", s(url));
    for (name, entries, expected) in [
        ("none", vec![], vec![]),
        ("one", vec![announce("http://a/announce")], vec![vec!["http://a/announce"]]),
        (
            "tiers win",
            vec![announce("http://a"), tiers(&[&["udp://b:1", "HTTPS://c"], &["http://d"]])],
            vec![vec!["udp://b:1", "HTTPS://c"], vec!["http://d"]],
        ),
        (
            "empty tiers do not",
            vec![announce("http://a"), tiers(&[&[], &[]])],
            vec![vec!["http://a"]],
        ),
        (
            "nor useless ones",
            vec![announce("http://a"), tiers(&[&["wss://b"]])],
            vec![vec!["http://a"]],
        ),
        (
            "nor those of no type",
            vec![announce("http://a"), ("announce-list", l([s("x")]))],
            vec![vec!["http://a"]],
        ),
        (
            "twice is once",
            vec![tiers(&[&["http://a", "http://a"], &["http://a"], &["http://b"]])],
            vec![vec!["http://a"], vec!["http://b"]],
        ),
        (
            "what cannot be a URL",
            vec![tiers(&[
                &["file:///etc/passwd", "http://", "http:///x", "http://:80", "dht://x", ""],
                &["http://a b", "http://a\nb", "http://a\u{7f}", " http://c\r\n", "ftp://x"],
            ])],
            vec![vec!["http://c"]],
        ),
        ("no type", vec![("announce", i(1))], vec![]),
    ] {
        assert_eq!(with(&entries).trackers, expected, "{name}");
    }
    for count in [MAX_TRACKERS - 1, MAX_TRACKERS, MAX_TRACKERS + 1] {
        let urls: Vec<String> = (0..count).map(|n| format!("udp://tracker:{n}")).collect();
        let tiers: Vec<[&str; 1]> = urls.iter().map(|url| [url.as_str()]).collect();
        let list = ("announce-list", l(tiers.iter().map(|tier| l(tier.iter().map(s)))));
        assert_eq!(with(&[list]).trackers.len(), count.min(MAX_TRACKERS));
    }
}

#[test]
fn remarks_and_sources_never_spoil_a_torrent() {
    let read = with(&[
        ("comment", s("two\nlines\u{1b}[2J")),
        ("created by", s(b"caf\xe9\n")),
        ("creation date", i(1_700_000_000)),
        ("nodes", l([l([s("router"), i(6881)]), l([s("x"), i(0)]), l([s("y"), i(65_536)])])),
        ("url-list", l([s("https://seed/a/"), s("ftp://seed"), s("http://seed/b")])),
    ]);
    assert_eq!(read.comment.as_deref(), Some("two\nlines_[2J"));
    assert_eq!(read.created_by.as_deref(), Some("caf\u{FFFD}_"));
    assert_eq!(read.created, Some(1_700_000_000));
    assert_eq!(read.nodes, [("router".to_owned(), 6881)]);
    assert_eq!(read.web_seeds, ["https://seed/a/", "http://seed/b"]);
    assert_eq!(with(&[("url-list", s("http://one"))]).web_seeds, ["http://one"]);

    let odd = with(&[
        ("comment", l([])),
        ("created by", d(&[])),
        ("creation date", s("today")),
        ("nodes", i(1)),
        ("url-list", s("")),
    ]);
    assert_eq!((odd.comment, odd.created_by, odd.created), (None, None, None));
    assert!(odd.nodes.is_empty() && odd.web_seeds.is_empty());

    for (value, expected) in
        [(None, false), (Some(i(0)), false), (Some(i(1)), true), (Some(s("1")), false)]
    {
        let read = parse(&torrent(single(&[("private", value), ("source", Some(s("X")))])));
        assert_eq!((read.private, read.source.as_deref()), (expected, Some("X")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_garbled_torrent_never_panics(flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4), cut in any::<prop::sample::Index>()) {
        let mut bytes = torrent(many(40_000, vec![file(10_000, "a"), file(30_000, "d/b")]));
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = Metainfo::parse(&bytes) {
            let total: u64 = read.files.iter().map(|f| f.length).sum();
            prop_assert_eq!(total, read.geometry.total());
            let hashes: Vec<[u8; 20]> = read.geometry.pieces().map(|p| read.piece_hash(p)).collect();
            prop_assert_eq!(hashes.len(), read.geometry.piece_count() as usize);
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Metainfo::parse(&bytes).is_err());
    }
}
