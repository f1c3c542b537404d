//! Every byte of big and of many files is right, whatever the order in which they are read.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha1::{Digest, Sha1};

use super::program::until;
use super::stage::{Stage, write_noise};

/// Longest that the readers of one test may take.
const READING: Duration = Duration::from_secs(300);

/// Bytes that a reader asks for at once.
const STRETCH: u64 = 256 * 1024;

/// A part of a file.
#[derive(Clone, Debug)]
struct Part {
    file: PathBuf,
    offset: u64,
    len: usize,
}

/// How a name stands in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File { len: u64, executable: bool },
    Link(PathBuf),
}

#[test]
fn a_gibibyte_is_right_in_order_backwards_and_at_random_while_it_arrives() {
    let stage = Stage::new();
    let data = stage.file("big.bin", 1 << 30);
    let torrent = stage.torrent(&data, &["--piece-size", "1MiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    let parts = parts(&stage.path(""), &[(PathBuf::from("big.bin"), 1 << 30)]);
    read_by_four(&stage.path(""), &mounted.point, &parts);
    assert_eq!(mounted.here(), 1 << 30);
    mounted.unmount();
}

#[test]
fn five_thousand_files_are_right_in_order_backwards_and_at_random_while_they_arrive() {
    let stage = Stage::new();
    let data = library(&stage, 100);
    let torrent = stage.torrent(&data, &["--piece-size", "64KiB"]);
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    let (source, shown) = (walk(&data), walk(&mounted.path("library")));
    assert_eq!(source.len(), shown.len());
    for (name, node) in &source {
        assert_eq!(Some(node), shown.get(name), "{}", name.display());
    }
    let files: Vec<_> = source
        .into_iter()
        .filter_map(|(name, node)| match node {
            Node::File { len, .. } => Some((name, len)),
            Node::Directory | Node::Link(_) => None,
        })
        .collect();
    assert!(files.len() >= 5000);
    read_by_four(&data, &mounted.path("library"), &parts(&data, &files));
    for link in ["links/to a file", "links/to a directory/file 000.empty"] {
        let through = fs::read(mounted.path("library").join(link)).unwrap();
        assert_eq!(through, fs::read(data.join(link)).unwrap(), "{link}");
    }
    mounted.unmount();
}

#[test]
fn padding_is_not_shown_and_what_shares_pieces_is_right() {
    let stage = Stage::new();
    let data = stage.dir("padded");
    // Two files in one piece, padding to the next, a file of several pieces, one that begins in its last.
    let items = [
        ("a", 5_000, ""),
        ("b", 20_000, ""),
        (".pad/7768", 7_768, "p"),
        ("c", 100_000, ""),
        ("d", 1, "x"),
        ("e", 0, ""),
        (".pad/31071", 31_071, "p"),
        ("f", 40_000, ""),
    ];
    let mut content = Vec::new();
    for (name, len, attr) in items {
        if attr == "p" {
            content.resize(content.len() + len, 0);
        } else {
            write_noise(&data.join(name), len as u64);
            content.extend(fs::read(data.join(name)).unwrap());
        }
    }
    let torrent = stage.path("padded.torrent");
    fs::write(&torrent, described("padded", &items, 32_768, &content)).unwrap();
    let seed = stage.seed(&torrent, &data);
    let mounted = stage.mount(&torrent, &[seed.addr], &[]);
    let shown = walk(&mounted.path("padded"));
    assert_eq!(shown.keys().map(|name| name.to_str().unwrap()).collect::<String>(), "abcdef");
    assert_eq!(shown[Path::new("d")], Node::File { len: 1, executable: true });
    for name in shown.keys().rev() {
        let through = fs::read(mounted.path("padded").join(name)).unwrap();
        assert!(through == fs::read(data.join(name)).unwrap(), "{}", name.display());
    }
    until("all of it is here", || mounted.here() == content.len() as u64);
    mounted.unmount();
}

/// A torrent with these items, as bencode says it.
fn described(name: &str, items: &[(&str, usize, &str)], piece: usize, content: &[u8]) -> Vec<u8> {
    let text = |text: &str| format!("{}:{text}", text.len());
    let files: String = items
        .iter()
        .map(|(path, len, attr)| {
            let elements: String = path.split('/').map(text).collect();
            let attr =
                if attr.is_empty() { String::new() } else { format!("4:attr{}", text(attr)) };
            format!("d{attr}6:lengthi{len}e4:pathl{elements}ee")
        })
        .collect();
    let hashes: Vec<u8> = content.chunks(piece).flat_map(|p| Sha1::digest(p).to_vec()).collect();
    let head = format!(
        "d4:infod5:filesl{files}e4:name{}12:piece lengthi{piece}e6:pieces{}:",
        text(name),
        hashes.len()
    );
    [head.as_bytes(), &hashes, b"ee"].concat()
}

/// The first `each` of a hundred files in each of fifty nested directories, and a few links, below `library`.
pub(crate) fn library(stage: &Stage, each: u64) -> PathBuf {
    const SCRIPTS: [&str; 9] = [
        "plain name",
        "كتاب الطبخ",
        "漢字かな交じり",
        "한국어",
        "🦀🎬 emoji 👩‍👩‍👧",
        "e\u{301}te\u{301} combining",
        "Ελληνικά и кириллица",
        "हिन्दी",
        "-dash 'quote' \"$dollar\" *star? [x]",
    ];
    let root = stage.dir("library");
    for n in (0..5000).filter(|n| n % 100 < each) {
        let (script, deep) = (SCRIPTS[(n / 100) as usize % 9], n / 900);
        let mut dir = root.join(format!("{deep} {script}"));
        for level in 0..(n / 100) % 5 {
            dir.push(format!("{script} {level}"));
        }
        let (len, kind) =
            if n % 7 == 0 { (0, "empty") } else { (n.wrapping_mul(7919) % 20_000, "bin") };
        let path = dir.join(format!("file {:03}.{kind}", n % 100));
        write_noise(&path, len);
        if n % 50 == 1 {
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
    }
    let links = stage.dir("library/links");
    symlink("../0 plain name/file 001.bin", links.join("to a file")).unwrap();
    symlink("../0 plain name", links.join("to a directory")).unwrap();
    root
}

/// What is below a directory.
pub(crate) fn walk(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let seen = fs::symlink_metadata(&path).unwrap();
            let node = if seen.is_dir() {
                left.push(path.clone());
                Node::Directory
            } else if seen.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap())
            } else {
                Node::File { len: seen.len(), executable: seen.permissions().mode() & 0o100 != 0 }
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), node);
        }
    }
    found
}

fn parts(source: &Path, files: &[(PathBuf, u64)]) -> Vec<Part> {
    let of = |(file, len): &(PathBuf, u64)| -> Vec<Part> {
        assert!(source.join(file).is_file());
        let (file, len) = (file.clone(), *len);
        let starts = (0..len.max(1)).step_by(STRETCH as usize);
        starts
            .map(|offset| Part {
                file: file.clone(),
                offset,
                len: STRETCH.min(len - offset) as usize,
            })
            .collect()
    };
    files.iter().flat_map(of).collect()
}

/// Four threads read all parts at once, each in its own order, and compare them with the source.
fn read_by_four(source: &Path, mount: &Path, parts: &[Part]) {
    let mut orders = vec![parts.to_vec(), parts.iter().rev().cloned().collect()];
    for seed in 0..2 {
        let mut order = parts.to_vec();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        orders.push(order);
    }
    let (tell, told) = channel();
    for order in orders {
        let (source, mount, tell) = (source.to_path_buf(), mount.to_path_buf(), tell.clone());
        thread::spawn(move || {
            let wrong = order.iter().find_map(|part| fault(&source, &mount, part));
            tell.send(wrong)
        });
    }
    for _ in 0..4 {
        let wrong = told.recv_timeout(READING).expect("a reader ends");
        assert_eq!(wrong, None);
    }
}

/// What is wrong with a part as the mount shows it.
fn fault(source: &Path, mount: &Path, part: &Part) -> Option<String> {
    let read = |root: &Path| -> std::io::Result<Vec<u8>> {
        let file = File::open(root.join(&part.file))?;
        // One byte more than there should be.
        let mut bytes = vec![0; part.len + 1];
        let (mut at, end) = (0, if part.len < STRETCH as usize { part.len + 1 } else { part.len });
        while at < end {
            match file.read_at(&mut bytes[at..end], part.offset + at as u64)? {
                0 => break,
                read => at += read,
            }
        }
        bytes.truncate(at);
        Ok(bytes)
    };
    match (read(source), read(mount)) {
        (Ok(expected), Ok(found)) if expected == found => None,
        (Ok(_), Ok(_)) => Some(format!("{part:?} differs")),
        (expected, found) => Some(format!("{part:?}: {:?} {:?}", expected.err(), found.err())),
    }
}
