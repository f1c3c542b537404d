//! SOURCE, as a user names a torrent.
//!
//! Invariant: a file that was accepted could be looked at; a link or URL that was accepted can be asked for.
//! Not here: what the bytes mean (`proto::metainfo`), asking the network for them (`start`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use url::Url;

use crate::proto::magnet::{Magnet, MagnetError};
use crate::proto::metainfo::MAX_TORRENT_LEN;
use crate::proto::names::printable;

/// Where a torrent's description is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a .torrent file, by its absolute path.
    File(PathBuf),
    /// With peers: a magnet link or an info-hash.
    Magnet(Magnet),
    /// In a .torrent file on a web server.
    Url(Url),
}

impl Source {
    /// Reads SOURCE as it was typed. A file that is there comes before all else that it may mean.
    ///
    /// # Errors
    /// It is nothing that could name a torrent.
    pub fn parse(typed: &OsStr) -> anyhow::Result<Self> {
        let path = Path::new(typed);
        let shown = || printable(&typed.to_string_lossy());
        match path.metadata() {
            Ok(meta) if meta.is_dir() => bail!(
                "{}: is a directory; SOURCE is a .torrent file, a magnet link, an info-hash or a URL, and the \
                 mount point comes last",
                shown()
            ),
            Ok(_) => Ok(Self::File(std::path::absolute(path).with_context(shown)?)),
            Err(error) => match named(&typed.to_string_lossy()).with_context(shown)? {
                Some(source) => Ok(source),
                None if error.kind() == io::ErrorKind::NotFound => bail!(
                    "{}: cannot find the torrent: no such file, and no magnet link, info-hash or http URL",
                    shown()
                ),
                None => Err(error).with_context(|| format!("{}: cannot find the torrent", shown())),
            },
        }
    }

    /// TORRENT, which is a file.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse_file(typed: &OsStr) -> anyhow::Result<PathBuf> {
        match Self::parse(typed)? {
            Self::File(path) => Ok(path),
            other => Err(anyhow!("{}: TORRENT must be a .torrent file here", other.shown())),
        }
    }

    /// How messages name it.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => printable(&path.to_string_lossy()),
            Self::Magnet(magnet) => printable(&magnet.directory()),
            Self::Url(url) => printable(url.as_str()),
        }
    }
}

/// The bytes of a .torrent file, bounded by [`MAX_TORRENT_LEN`].
///
/// # Errors
/// The file cannot be read or is too large to be a torrent.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown}: cannot open"))?;
    let mut bytes = Vec::new();
    file.take(MAX_TORRENT_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{shown}: cannot read"))?;
    if bytes.len() > MAX_TORRENT_LEN {
        bail!(
            "{shown}: is larger than 16 MiB, so it is no .torrent file; is it the content itself?"
        );
    }
    Ok(bytes)
}

/// What `typed` names when it is no file.
fn named(typed: &str) -> anyhow::Result<Option<Source>> {
    let begins = |scheme: &str| {
        typed.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if begins("http://") || begins("https://") {
        let url = Url::parse(typed).context("is no URL that can be asked")?;
        return Ok(Some(Source::Url(url)));
    }
    match Magnet::parse(typed) {
        Ok(magnet) => Ok(Some(Source::Magnet(magnet))),
        Err(MagnetError::NotMagnet) => Ok(None),
        // A long name of a file that is not there.
        Err(MagnetError::TooLong) if !begins("magnet:") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::one_line;

    #[test]
    fn sources_that_cannot_be_used_say_why() {
        let v2 = "a".repeat(64);
        for (name, typed, expected) in [
            ("magnet", "magnet:?xt=urn:btih:00", "neither 40 hexadecimal digits nor 32"),
            ("empty magnet", "magnet:?dn=x", "names no torrent"),
            ("url", "HTTPS://", "is no URL that can be asked"),
            ("v2 hash", &v2, "v2-only torrents are not supported yet"),
            ("directory", "/", "is a directory"),
            ("nothing there", "/nowhere/x.torrent", "cannot find the torrent"),
            ("39 digits", &v2[..39], "cannot find the torrent: no such file, and no magnet link"),
            (
                "another scheme",
                "ftp://x/x.torrent",
                "no such file, and no magnet link, info-hash or",
            ),
            ("magnet of nothing", "MAGNET:x", "names no torrent"),
        ] {
            let error = Source::parse(OsStr::new(typed)).expect_err(name);
            let line = one_line(&error);
            assert!(line.starts_with(typed) && line.contains(expected), "{name}: {line}");
        }
    }

    #[test]
    fn links_hashes_and_urls_are_told_apart() {
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        let magnet = |text: &str| matches!(Source::parse(OsStr::new(text)), Ok(Source::Magnet(_)));
        assert!(magnet(hash) && magnet(&format!("magnet:?xt=urn:btih:{hash}&dn=x")));
        assert!(magnet("AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH"));
        let url = Source::parse(OsStr::new("http://127.0.0.1:8000/x.torrent")).unwrap();
        assert_eq!(url.shown(), "http://127.0.0.1:8000/x.torrent");
        assert!(Source::parse_file(OsStr::new(hash)).is_err());
    }

    #[test]
    fn a_file_of_any_name_is_a_source_and_its_size_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("magnet:odd name");
        std::fs::write(&path, b"d4:infod4:name1:xee").unwrap();
        assert_eq!(Source::parse_file(path.as_os_str()).unwrap(), path);
        assert_eq!(read(&path).unwrap(), b"d4:infod4:name1:xee");
        File::create(&path).unwrap().set_len(MAX_TORRENT_LEN as u64 + 1).unwrap();
        let line = one_line(&read(&path).unwrap_err());
        assert!(line.contains("larger than 16 MiB"), "{line}");
    }
}
