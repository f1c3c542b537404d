//! `btfs seed`: upload a torrent's data that is on disk.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::options::NetworkArgs;
use super::settings::{self, Network};
use super::source::Source;

/// Options of `btfs seed`.
#[derive(Clone, Debug, clap::Args)]
pub struct Seed {
    /// The .torrent file
    #[arg(value_name = "TORRENT")]
    torrent: OsString,
    /// Its data: the file or directory itself, or the directory it is in
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
}

/// What a seed was asked for, every value checked.
#[derive(Clone, Debug)]
pub struct SeedSettings {
    /// The torrent.
    pub source: Source,
    /// Its data, as an absolute path of something that exists.
    pub data: PathBuf,
    /// Whom to talk to.
    pub network: Network,
}

impl Seed {
    /// Checks the data and uploads it until a signal ends it.
    ///
    /// # Errors
    /// The data is not the torrent's, or no peer could ever reach us; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        bail!("{}: seeding is not built yet", settings.source.shown())
    }

    fn settings(self) -> anyhow::Result<SeedSettings> {
        self.data
            .metadata()
            .with_context(|| format!("{}: cannot seed from there", self.data.display()))?;
        Ok(SeedSettings {
            network: Network::of(&self.network)?,
            source: Source::parse(&self.torrent)?,
            data: settings::absolute("DATA", &self.data)?,
        })
    }
}
