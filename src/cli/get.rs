//! `btfs get`: download a torrent as any other client does.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::options::{DEFAULT_MEMORY, NetworkArgs};
use super::settings::{self, Network};
use super::source::Source;

/// Options of `btfs get`.
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// The .torrent file
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Where the torrent's files go; made when it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Hold at most this much in memory
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_MEMORY)]
    memory: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// Upload nothing
    #[arg(long, help_heading = "Network")]
    no_upload: bool,
}

/// What a download was asked for, every value checked.
#[derive(Clone, Debug)]
pub struct GetSettings {
    /// The torrent.
    pub source: Source,
    /// Where its files go: an absolute path, a directory or nothing yet.
    pub dir: PathBuf,
    /// Most bytes of cache, assembly and write queue in memory.
    pub memory_bytes: u64,
    /// Whether to upload.
    pub upload: bool,
    /// Whom to talk to.
    pub network: Network,
}

impl Get {
    /// Downloads the whole torrent.
    ///
    /// # Errors
    /// The torrent is not complete in DIR; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        bail!("{}: downloading is not built yet", settings.source.shown())
    }

    fn settings(self) -> anyhow::Result<GetSettings> {
        let shown = self.dir.display();
        match self.dir.metadata() {
            Ok(meta) if !meta.is_dir() => bail!("{shown}: is not a directory; DIR comes last"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{shown}: cannot download there"));
            }
        }
        Ok(GetSettings {
            memory_bytes: settings::memory(&self.memory)?,
            network: Network::of(&self.network)?,
            upload: !self.no_upload,
            source: Source::parse(&self.source)?,
            dir: settings::absolute("DIR", &self.dir)?,
        })
    }
}
