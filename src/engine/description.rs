//! What peers told a torrent is, kept beside its pieces as a .torrent file for the next time its hash is named.
//!
//! Invariant: what is loaded has the info-hash that was asked for, whatever lies there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use atomic_write_file::AtomicWriteFile;
use tracing::{debug, warn};

use super::home::Home;
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::{MAX_TORRENT_LEN, Metainfo};

/// Name of the file in the torrent's directory below the cache.
const NAME: &str = "description.torrent";

/// The torrent that the link names, if it was described before; with the link's own trackers and web seeds beside
/// those that it had then. Blocks.
pub fn load(home: &Home, magnet: &Magnet) -> Option<Metainfo> {
    let bytes = read(&path(home, magnet)?).ok()?;
    let mut metainfo = match Metainfo::parse(&bytes) {
        Ok(metainfo) if metainfo.info_hash == magnet.info_hash => metainfo,
        Ok(_) | Err(_) => {
            warn!(hash = %magnet.info_hash, "the kept description is damaged, and is sought again");
            return None;
        }
    };
    // A private torrent has the trackers that it came with.
    if metainfo.private && !metainfo.trackers.is_empty() {
        return Some(metainfo);
    }
    let known = metainfo.trackers.concat();
    let fresh = magnet.trackers.iter().filter(|url| !known.contains(url));
    metainfo.trackers.extend(fresh.map(|url| vec![url.clone()]));
    let fresh = magnet.web_seeds.iter().filter(|url| !metainfo.web_seeds.contains(url));
    let fresh: Vec<_> = fresh.cloned().collect();
    metainfo.web_seeds.extend(fresh);
    Some(metainfo)
}

/// Keeps what the torrent is, if its home keeps anything. Blocks.
pub(super) fn save(home: &Home, magnet: &Magnet, info: &[u8]) {
    let Some(path) = path(home, magnet) else { return };
    let written = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        let mut file = AtomicWriteFile::open(&path)?;
        file.write_all(&magnet.torrent(info))?;
        file.commit()
    };
    match written() {
        Ok(()) => debug!(path = %path.display(), "kept the description"),
        // The next mount asks peers again.
        Err(error) => warn!(path = %path.display(), %error, "cannot keep the description"),
    }
}

fn path(home: &Home, magnet: &Magnet) -> Option<PathBuf> {
    let cache = match home {
        Home::Cache(cache) | Home::Kept { cache, .. } => cache,
        Home::Exact(_) | Home::Memory => return None,
    };
    Some(cache.join(magnet.info_hash.to_string()).join(NAME))
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TORRENT_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
