//! SOURCE, as a user names a torrent.
//!
//! Invariant: a source that was accepted names a regular file that could be read when it was looked at.
//! Not here: what the bytes mean (`proto::metainfo`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Bytes that a .torrent may have; more is refused unread.
pub const TORRENT_MAX_BYTES: u64 = 16 << 20;

/// Where a torrent's description is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A .torrent file, by its absolute path.
    File(PathBuf),
}

impl Source {
    /// Reads SOURCE as it was typed.
    ///
    /// # Errors
    /// It is not a file, or a kind of source that this version does not know.
    pub fn parse(typed: &OsStr) -> anyhow::Result<Self> {
        let path = Path::new(typed);
        let shown = path.display();
        match path.metadata() {
            Ok(meta) if meta.is_dir() => {
                bail!(
                    "{shown}: is a directory; SOURCE is a .torrent file, and the mount point comes last"
                )
            }
            Ok(_) => Ok(Self::File(std::path::absolute(path).with_context(|| format!("{shown}"))?)),
            Err(error) => match foreign(&typed.to_string_lossy()) {
                Some(kind) => {
                    bail!("{shown}: {kind} is not supported yet; give the path of a .torrent file")
                }
                None => Err(error).with_context(|| format!("{shown}: cannot find the torrent")),
            },
        }
    }

    /// The bytes of the .torrent file, bounded by [`TORRENT_MAX_BYTES`].
    ///
    /// # Errors
    /// The file cannot be read or is too large to be a torrent.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        let Self::File(path) = self;
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("{shown}: cannot open"))?;
        let mut bytes = Vec::new();
        file.take(TORRENT_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{shown}: cannot read"))?;
        if bytes.len() as u64 > TORRENT_MAX_BYTES {
            bail!(
                "{shown}: is larger than 16 MiB, so it is no .torrent file; is it the content itself?"
            );
        }
        Ok(bytes)
    }

    /// How messages name it.
    pub fn shown(&self) -> String {
        let Self::File(path) = self;
        path.display().to_string()
    }
}

/// What kind of source `typed` would be, were it not a file.
fn foreign(typed: &str) -> Option<&'static str> {
    let lower = typed.to_ascii_lowercase();
    let is_hex = matches!(lower.len(), 40 | 64) && lower.bytes().all(|b| b.is_ascii_hexdigit());
    match () {
        () if lower.starts_with("magnet:") => Some("a magnet link"),
        () if lower.starts_with("http://") || lower.starts_with("https://") => Some("a URL"),
        () if is_hex => Some("an info-hash"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::one_line;

    #[test]
    fn sources_that_cannot_be_used_say_why() {
        let table = [
            ("magnet", "magnet:?xt=urn:btih:00", "a magnet link is not supported yet"),
            ("url", "HTTPS://example.org/x.torrent", "a URL is not supported yet"),
            (
                "hash",
                "0123456789abcdef0123456789ABCDEF01234567",
                "an info-hash is not supported yet",
            ),
            ("directory", "/", "is a directory"),
            ("nothing there", "/nowhere/x.torrent", "cannot find the torrent"),
        ];
        for (name, typed, expected) in table {
            let error = Source::parse(OsStr::new(typed)).expect_err(name);
            let line = one_line(&error);
            assert!(line.starts_with(typed) && line.contains(expected), "{name}: {line}");
        }
    }

    #[test]
    fn a_file_of_any_name_is_a_source_and_its_size_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("magnet:odd name");
        std::fs::write(&path, b"d4:infod4:name1:xee").unwrap();
        let source = Source::parse(path.as_os_str()).unwrap();
        assert_eq!(source.read().unwrap(), b"d4:infod4:name1:xee");
        File::create(&path).unwrap().set_len(TORRENT_MAX_BYTES + 1).unwrap();
        let line = one_line(&source.read().unwrap_err());
        assert!(line.contains("larger than 16 MiB"), "{line}");
    }
}
