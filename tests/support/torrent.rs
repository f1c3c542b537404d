//! Small torrents with known bytes, as bencode says them.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::sync::Arc;

use btfs::proto::metainfo::Metainfo;
use sha1::{Digest, Sha1};

/// One file: its path, its bytes, its BEP 47 attributes.
pub(crate) type Entry<'a> = (&'a str, Vec<u8>, &'a str);

/// Bytes without a pattern that repeats.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A torrent named `top` of several files, and its bytes in order.
pub(crate) fn many(piece_len: usize, entries: &[Entry<'_>]) -> (Arc<Metainfo>, Vec<u8>) {
    let all: Vec<u8> = entries.iter().flat_map(|(_, bytes, _)| bytes.iter().copied()).collect();
    let files: Vec<String> = entries.iter().map(file).collect();
    (parse(&format!("5:filesl{}e", files.concat()), piece_len, &all), all)
}

/// A torrent named `top` of one file with these bytes.
pub(crate) fn single(piece_len: usize, bytes: &[u8]) -> Arc<Metainfo> {
    parse(&format!("6:lengthi{}e", bytes.len()), piece_len, bytes)
}

fn file((path, bytes, attr): &Entry<'_>) -> String {
    let text = |text: &str| format!("{}:{text}", text.len());
    let elements: String = path.split('/').map(text).collect();
    let attr = if attr.is_empty() { String::new() } else { format!("4:attr{}", text(attr)) };
    let target = if attr.ends_with('l') { "12:symlink pathl1:ae" } else { "" };
    format!("d{attr}6:lengthi{}e4:pathl{elements}e{target}e", bytes.len())
}

fn parse(files: &str, piece_len: usize, bytes: &[u8]) -> Arc<Metainfo> {
    let hashes: Vec<u8> =
        bytes.chunks(piece_len).flat_map(|piece| Sha1::digest(piece).to_vec()).collect();
    let mut torrent =
        format!("d4:infod{files}4:name3:top12:piece lengthi{piece_len}e6:pieces{}:", hashes.len())
            .into_bytes();
    torrent.extend(hashes);
    torrent.extend(b"ee");
    Arc::new(Metainfo::parse(&torrent).expect("a legal torrent"))
}
