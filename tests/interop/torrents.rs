//! Torrents that others make and read.

use std::path::Path;
use std::process::Output;

use crate::lan::{Lan, host, tool};
use crate::peers::libtorrent_torrent;
use crate::stage::{FILES, Sample, mount, seed, tracker, url, write_data};

/// Who makes a torrent.
#[derive(Clone, Copy, Debug)]
enum Maker {
    Mktorrent,
    Transmission,
    Libtorrent,
}

impl Maker {
    fn make(self, lan: &Lan, data: &Path, torrent: &Path, tracker: &str) {
        let (data, torrent) = (data.to_str().unwrap(), torrent.to_str().unwrap());
        match self {
            Self::Mktorrent => {
                let program = tool("mktorrent", "mktorrent");
                lan.run(&program, &["-a", tracker, "-l", "15", "-o", torrent, data]);
            }
            Self::Transmission => {
                let program = tool("transmission-create", "transmission-cli");
                lan.run(&program, &["-t", tracker, "-s", "32", "-o", torrent, data]);
            }
            Self::Libtorrent => {
                libtorrent_torrent(lan, &["create", data, torrent, tracker]);
            }
        }
    }
}

/// Torrents by others are what our seed serves and our mount shows.
#[test]
fn torrents_by_others_are_mounted() {
    let lan = Lan::new();
    let data = write_data(&lan);
    let _tracker = tracker(&lan, host(9));
    for (maker, n) in
        [Maker::Mktorrent, Maker::Transmission, Maker::Libtorrent].into_iter().zip(1..)
    {
        let torrent = lan.path(format!("{maker:?}.torrent"));
        maker.make(&lan, &data, &torrent, &url("http", host(9)));
        let sample =
            Sample { name: "sample", dir: lan.path("data"), torrent, hashes: lan.hashes(&data) };
        let told = libtorrent_torrent(&lan, &["show", sample.torrent.to_str().unwrap()]);
        assert!(lines(&told).contains(&sample.info_hash()), "{maker:?}");
        let _seed = seed(&lan, host(2 * n), &sample, &[]);
        let (_mount, top) = mount(&lan, host(2 * n + 1), &sample, &[]);
        lan.until_same(&format!("a torrent by {maker:?} is read"), &top, &sample.hashes);
    }
}

/// Torrents by us are read by others, who see the same hash, names and lengths.
#[test]
fn torrents_by_us_are_read_by_others() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[url("http", host(9))]);
    let torrent = sample.torrent.to_str().unwrap();
    let readers = [
        ("libtorrent", libtorrent_torrent(&lan, &["show", torrent])),
        ("transmission", lan.run(&tool("transmission-show", "transmission-cli"), &[torrent])),
        ("aria2", lan.run(&tool("aria2c", "aria2"), &["-S", torrent])),
    ];
    for (reader, told) in &readers {
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.contains(&sample.info_hash()), "{reader}: {told}");
        for (path, length) in FILES {
            assert!(told.contains(&format!("sample/{path}")), "{reader} {path}: {told}");
            let exact =
                *reader != "libtorrent" || told.contains(&format!("{length} sample/{path}"));
            assert!(exact, "{reader} {path}: {told}");
        }
    }
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
