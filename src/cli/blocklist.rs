//! `--blocklist`: the files, plain or in gzip.
//!
//! Invariant: of a file at most 256 MiB are read, inflated ones counted, and of a line 4 KiB are held at once.
//!
//! Not here: what the lines mean ([`crate::proto::blocklist`]).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;

use crate::proto::blocklist::{Blocklist, Draft};

/// Bytes of a file; the largest lists in use have a tenth.
const MAX_BYTES: u64 = 256 << 20;

/// Bytes of a line; what is longer is read as several.
const MAX_LINE: u64 = 4096;

const GZIP: &[u8] = b"\x1f\x8b";

/// Reads all these files as one list, and tells of each how many lines make no sense.
///
/// # Errors
/// A file cannot be read, is too large, or has nothing in it that makes sense.
pub fn read(files: &[PathBuf]) -> anyhow::Result<Blocklist> {
    let mut draft = Draft::default();
    for file in files {
        let before = (draft.read, draft.unreadable);
        append(&mut draft, file).with_context(|| format!("--blocklist {}", file.display()))?;
        let (read, unreadable) = (draft.read - before.0, draft.unreadable - before.1);
        if read == 0 {
            bail!(
                "--blocklist {}: no line of it names an address or a range; p2p, DAT and CIDR lists are understood",
                file.display()
            );
        }
        if unreadable > 0 {
            let all = read + unreadable;
            eprintln!(
                "btfs: --blocklist {}: left out {unreadable} of {all} lines, which name no range",
                file.display()
            );
        }
    }
    Ok(draft.finish())
}

fn append(draft: &mut Draft, file: &Path) -> anyhow::Result<()> {
    let mut stored = BufReader::new(File::open(file)?);
    if stored.fill_buf()?.starts_with(GZIP) {
        append_text(draft, BufReader::new(MultiGzDecoder::new(stored)), MAX_BYTES)
    } else {
        append_text(draft, stored, MAX_BYTES)
    }
}

fn append_text(draft: &mut Draft, mut text: impl BufRead, limit: u64) -> anyhow::Result<()> {
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        line.clear();
        let len = text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if len == 0 {
            return Ok(());
        }
        total += len as u64;
        if total > limit {
            bail!("is larger than 256 MiB");
        }
        draft.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::cli::exit::one_line;

    fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn files_add_up_plain_or_packed() {
        let dir = tempfile::tempdir().unwrap();
        let plain = file(dir.path(), "a", b"x:192.0.2.1-192.0.2.2\r\nodd\r\n");
        // Members one after the other are one file, as gzip has it.
        let packed = [gzip(b"192.0.2.9\n"), gzip(b"2001:db8::/32")].concat();
        let packed = file(dir.path(), "b.gz", &packed);
        let list = read(&[plain, packed]).unwrap();
        for ip in ["192.0.2.2", "192.0.2.9", "2001:db8::1"] {
            assert!(list.contains(ip.parse().unwrap()), "{ip}");
        }
        assert_eq!(list.len(), 3);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn files_that_block_nobody_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let mut cut = gzip(&b"192.0.2.1\n".repeat(1000));
        cut.truncate(20);
        let table = [
            ("empty", Vec::new(), "no line of it"),
            ("comments", b"# nothing\n".to_vec(), "no line of it"),
            ("page", b"<html>\n404".to_vec(), "no line of it"),
            ("cut", cut, "incomplete deflate stream"),
        ];
        for (name, bytes, expected) in table {
            let line = one_line(&read(&[file(dir.path(), name, &bytes)]).unwrap_err());
            assert!(line.contains(name) && line.contains(expected), "{name}: {line}");
        }
        let line = one_line(&read(&[dir.path().join("missing")]).unwrap_err());
        assert!(line.contains("No such file"), "{line}");
    }

    #[test]
    fn a_file_without_end_is_given_up() {
        let endless = BufReader::new(std::io::repeat(b'.'));
        let error = append_text(&mut Draft::default(), endless, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("larger than 256 MiB"), "{error}");
    }
}
