//! `btfs info`: what is in a torrent.
//!
//! Invariant: nothing that a stranger wrote reaches the terminal with control or bidirectional characters in it.
//!
//! Not here: reading the torrent ([`crate::proto::metainfo`]).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;
use bytesize::ByteSize;
use serde::Serialize;
use url::Url;

use super::options::NetworkArgs;
use super::progress::asking;
use super::settings::{self, Network};
use super::source::Source;
use super::start::{self, Endings, Named};
use crate::engine::description;
use crate::engine::home::Home;
use crate::engine::node::{Limits, Options};
use crate::proto::metainfo::{self, FileKind, Metainfo};
use crate::proto::names::printable;

/// Last second of the year 9999, the last that we can write as a date.
const LAST_DATE: i64 = 253_402_300_799;

/// Show what is in a torrent
#[derive(Debug, clap::Args)]
pub struct Info {
    /// A .torrent file, a magnet link, an info-hash or a URL
    ///
    /// Of a link, peers are asked for the description, unless an earlier mount has kept it; Ctrl-C ends the wait.
    source: OsString,

    /// Print JSON
    ///
    /// One object with the keys name, info_hash (hexadecimal), size (bytes, padding not counted), single_file,
    /// piece_length, pieces, private, hybrid, created (seconds since 1970), created_by, comment, source, trackers (a
    /// list of tiers, each a list of URLs), web_seeds, nodes (each with host and port), and files (each with path,
    /// offset, size, executable, and symlink: where a link points). What the torrent does not say is null.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    network: NetworkArgs,
}

impl Info {
    /// Prints the torrent.
    ///
    /// # Errors
    /// When the source cannot be read or is no torrent.
    pub fn run(self) -> anyhow::Result<()> {
        let torrent = match Source::parse(&self.source)? {
            Source::File(path) => start::metainfo(&path)?,
            source => {
                let network = Network::of(&self.network)?;
                start::runtime()?.block_on(learn(&source, &network))?
            }
        };
        let report = Report::new(&torrent);
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            report.to_text()
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

/// The torrent as `--json` prints it. Names and meanings of keys are stable; keys may be added.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    info_hash: String,
    size: u64,
    single_file: bool,
    piece_length: u32,
    pieces: u32,
    private: bool,
    hybrid: bool,
    created: Option<i64>,
    created_by: Option<&'a str>,
    comment: Option<&'a str>,
    source: Option<&'a str>,
    trackers: &'a [Vec<String>],
    web_seeds: &'a [String],
    nodes: Vec<Node<'a>>,
    files: Vec<Shown>,
}

/// One DHT node.
#[derive(Debug, Serialize)]
struct Node<'a> {
    host: &'a str,
    port: u16,
}

/// One file; its path's elements hold no slash.
#[derive(Debug, Serialize)]
struct Shown {
    path: String,
    offset: u64,
    size: u64,
    executable: bool,
    symlink: Option<String>,
}

impl Shown {
    /// Nothing for padding.
    fn new(file: &metainfo::File) -> Option<Self> {
        let (executable, symlink) = match &file.kind {
            FileKind::Padding => return None,
            FileKind::Regular { executable } => (*executable, None),
            FileKind::Symlink { target } => (false, Some(target.join("/"))),
        };
        let (path, offset, size) = (file.path.join("/"), file.offset, file.length);
        Some(Self { path, offset, size, executable, symlink })
    }
}

impl<'a> Report<'a> {
    fn new(torrent: &'a Metainfo) -> Self {
        let files: Vec<Shown> = torrent.files.iter().filter_map(Shown::new).collect();
        Self {
            name: &torrent.name,
            info_hash: torrent.info_hash.to_string(),
            size: files.iter().map(|file| file.size).sum(),
            single_file: torrent.single_file,
            piece_length: torrent.geometry.nominal_piece_len(),
            pieces: torrent.geometry.piece_count(),
            private: torrent.private,
            hybrid: torrent.has_v2,
            created: torrent.created,
            created_by: torrent.created_by.as_deref(),
            comment: torrent.comment.as_deref(),
            source: torrent.source.as_deref(),
            trackers: &torrent.trackers,
            web_seeds: &torrent.web_seeds,
            nodes: torrent.nodes.iter().map(|(host, port)| Node { host, port: *port }).collect(),
            files,
        }
    }

    fn to_text(&self) -> String {
        let piece = ByteSize(self.piece_length.into());
        let mut lines = vec![
            ("name", self.name.to_owned()),
            ("info-hash", self.info_hash.clone()),
            ("size", format!("{} ({} bytes)", ByteSize(self.size), self.size)),
            ("pieces", format!("{} of {piece}", self.pieces)),
            ("private", if self.private { "yes" } else { "no" }.to_owned()),
        ];
        lines.extend(self.created.map(|at| ("created", date(at))));
        let remarks =
            [("created by", self.created_by), ("source", self.source), ("comment", self.comment)];
        lines.extend(remarks.into_iter().filter_map(|(key, text)| Some((key, text?.to_owned()))));
        lines.extend(self.trackers.iter().map(|tier| ("trackers", tier.join(", "))));
        lines.extend(self.web_seeds.iter().map(|url| ("web seed", url.clone())));
        lines.extend(
            self.nodes.iter().map(|node| ("DHT node", format!("{} {}", node.host, node.port))),
        );
        lines.push(("files", self.files.len().to_string()));

        let mut text = String::new();
        for (key, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key:<11} {}", printable(&value.replace('\n', " ")));
        }
        for file in &self.files {
            let link =
                file.symlink.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
            let _ =
                writeln!(text, "{:>15}  {}", file.size, printable(&format!("{}{link}", file.path)));
        }
        text
    }
}

/// Asks the network what the torrent is.
async fn learn(source: &Source, network: &Network) -> anyhow::Result<Arc<Metainfo>> {
    // Nothing is kept and nothing uploaded.
    let limits = Limits { memory_bytes: 0, store_bytes: 0, rates: network.rates };
    let options = Options {
        home: Home::Cache(settings::cache_dir(None)?),
        peers: network.peers.clone(),
        trackers: network.trackers.iter().map(Url::to_string).collect(),
        config: network.knobs(),
    };
    if let Source::Magnet(magnet) = source
        && let Some(metainfo) = description::load(&options.home, magnet)
    {
        return Ok(Arc::new(metainfo));
    }
    let node = start::node(Some(network), limits)?;
    let magnet = match start::named(&node, source).await? {
        Named::Torrent(metainfo) => return Ok(metainfo),
        Named::Magnet(magnet) => magnet,
    };
    let mut endings = Endings::listen()?;
    let tell = asking(&magnet);
    let known = start::introduced(&node, magnet, &options, &mut endings, tell).await?;
    endings.kill_on_next();
    let Some(known) = known else {
        node.stop().await;
        bail!("{}: interrupted before it was known what is in it", source.shown());
    };
    Ok(node.decline(known).await)
}

/// Seconds since 1970 as a date, if they are one.
fn date(at: i64) -> String {
    match u64::try_from(at) {
        Ok(seconds) if at <= LAST_DATE => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
        }
        _ => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One piece: two files with padding between, and text that tries to steer the terminal.
    fn torrent() -> Metainfo {
        let bytes = b"d8:announce13:http://a/\xe2\x80\xae/7:comment7:a\x1b[2J\nb13:creation datei1700000000e4:infod5:files\
            ld6:lengthi3e4:pathl3:x\x07yeed4:attr1:p6:lengthi1e4:pathl4:.pad1:1eed6:lengthi4e4:pathl1:d1:zee\
            d4:attr1:l4:pathl2:lne12:symlink pathl1:deee4:name3:top12:piece lengthi16384e6:pieces20:\
            aaaaaaaaaaaaaaaaaaaaee";
        Metainfo::parse(bytes).expect("a legal torrent")
    }

    #[test]
    fn text_is_safe_and_hides_padding() {
        let text = Report::new(&torrent()).to_text();
        let expected = "\
name        top
info-hash   HASH
size        7 B (7 bytes)
pieces      1 of 16.0 KiB
private     no
created     2023-11-14T22:13:20Z
comment     a_[2J b
trackers    http://a//
files       3
              3  x_y
              4  d/z
              0  ln -> d
";
        assert_eq!(text, expected.replace("HASH", &torrent().info_hash.to_string()));
    }

    #[test]
    fn json_has_its_documented_keys() {
        let json = serde_json::to_value(Report::new(&torrent())).expect("serialisable");
        let keys: Vec<&str> =
            json.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "comment",
                "created",
                "created_by",
                "files",
                "hybrid",
                "info_hash",
                "name",
                "nodes",
                "piece_length",
                "pieces",
                "private",
                "single_file",
                "size",
                "source",
                "trackers",
                "web_seeds",
            ]
        );
        let link = serde_json::json!({
            "path": "ln", "offset": 8, "size": 0, "executable": false, "symlink": "d"
        });
        assert_eq!(json["files"][2], link);
    }

    #[test]
    fn dates() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (LAST_DATE, "9999-12-31T23:59:59Z"),
            (LAST_DATE + 1, "253402300800"),
            (-1, "-1"),
            (i64::MAX, "9223372036854775807"),
        ] {
            assert_eq!(date(at), expected);
        }
    }
}
