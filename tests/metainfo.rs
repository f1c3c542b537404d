//! Torrents as strangers write them: what is read, what is refused, and where each limit lies.

use btfs::proto::geometry::{GeometryError, MAX_PIECE_LEN, MAX_PIECES};
use btfs::proto::metainfo::{
    File, FileKind, MAX_TORRENT_LEN, MAX_TRACKERS, Metainfo, MetainfoError,
};
use btfs::proto::names::{MAX_DEPTH, MAX_DUPLICATES, NameError};
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
