//! Content that is a pure function of its place, and torrents of any layout around it.

use btfs::proto::metainfo::Metainfo;

/// The byte at an offset of the content with this seed.
pub fn byte(seed: u64, offset: u64) -> u8 {
    let mut x = (offset / 8).wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).to_le_bytes()[(offset % 8) as usize]
}

/// Fills a buffer with the content from an offset on.
pub fn fill(seed: u64, offset: u64, buf: &mut [u8]) {
    for (at, b) in (offset..).zip(buf) {
        *b = byte(seed, at);
    }
}

/// The content as a vector.
pub fn bytes(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    fill(seed, offset, &mut buf);
    buf
}

/// A file of a torrent to be: its path, length, BEP 47 attributes and link target.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: String,
    pub length: u64,
    pub attr: &'static str,
    pub target: Option<&'static str>,
}

/// An ordinary file.
pub fn file(path: impl Into<String>, length: u64) -> Item {
    Item { path: path.into(), length, attr: "", target: None }
}

/// A symbolic link.
pub fn link(path: &str, target: &'static str) -> Item {
    Item { path: path.to_owned(), length: 0, attr: "l", target: Some(target) }
}

/// A padding file.
pub fn padding(length: u64) -> Item {
    Item { path: format!(".pad/{length}"), length, attr: "p", target: None }
}

/// A torrent in a directory, made in 2001, its hashes invented.
pub fn torrent(name: &str, items: &[Item]) -> Metainfo {
    let total: u64 = items.iter().map(|item| item.length).sum();
    let files: Vec<u8> = items.iter().flat_map(encoded).collect();
    parsed(&[b"5:filesl".as_slice(), &files, b"e"].concat(), name, total)
}

/// A torrent of one file.
pub fn single(name: &str, length: u64) -> Metainfo {
    parsed(format!("6:lengthi{length}e").as_bytes(), name, length)
}

fn parsed(files: &[u8], name: &str, total: u64) -> Metainfo {
    let piece_len = 16_384_u64.max(total.div_ceil(4096).next_power_of_two());
    let hashes = vec![7; total.div_ceil(piece_len) as usize * 20];
    let head = b"d13:creation datei1000000000e4:infod";
    let rest =
        format!("{}12:piece lengthi{piece_len}e6:pieces{}:", text("4:name", name), hashes.len());
    let whole = [head.as_slice(), files, rest.as_bytes(), &hashes, b"ee"].concat();
    Metainfo::parse(&whole).expect("a legal torrent")
}

fn encoded(item: &Item) -> Vec<u8> {
    let list = |path: &str| -> String {
        path.split('/').map(|element| format!("{}:{element}", element.len())).collect()
    };
    let attr = if item.attr.is_empty() { String::new() } else { text("4:attr", item.attr) };
    let target = item.target.map(|t| format!("12:symlink pathl{}e", list(t))).unwrap_or_default();
    format!("d{attr}6:lengthi{}e4:pathl{}e{target}e", item.length, list(&item.path)).into_bytes()
}

fn text(key: &str, value: &str) -> String {
    format!("{key}{}:{value}", value.len())
}
