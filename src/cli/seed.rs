//! `btfs seed`: upload a torrent's data that is on disk.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use url::Url;

use super::goals::{GoalArgs, Goals, seed_on};
use super::options::NetworkArgs;
use super::progress::{Reporter, checking};
use super::settings::{self, Network};
use super::source::Source;
use super::start::{self, Endings};
use crate::engine::home::Home;
use crate::engine::node::{Limits, Options};
use crate::proto::config::Config;
use crate::proto::metainfo::Metainfo;

/// Memory for what is being uploaded.
const MEMORY_BYTES: u64 = 64 << 20;

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
    #[command(flatten)]
    goals: GoalArgs,
}

/// What a seed was asked for, every value checked.
#[derive(Clone, Debug)]
pub struct SeedSettings {
    /// The torrent.
    pub torrent: PathBuf,
    /// Its data, as an absolute path of something that exists.
    pub data: PathBuf,
    /// Whom to talk to.
    pub network: Network,
    /// When it is enough.
    pub goals: Goals,
}

impl Seed {
    /// Checks the data and uploads it until a goal is reached or a signal comes.
    ///
    /// # Errors
    /// The data is not the torrent's, or no peer could ever reach us; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        let metainfo = start::metainfo(&settings.torrent)?;
        start::runtime()?.block_on(upload(&settings, metainfo))
    }

    fn settings(self) -> anyhow::Result<SeedSettings> {
        self.data
            .metadata()
            .with_context(|| format!("{}: cannot seed from there", self.data.display()))?;
        let network = Network::of(&self.network)?;
        let network = match settings::cache_dir(None) {
            Ok(dir) => network.kept_in(&dir),
            // Without a home nothing is kept, and nothing else here needs one.
            Err(_) => network,
        };
        Ok(SeedSettings {
            network,
            goals: Goals::of(&self.goals, true)?,
            torrent: Source::parse_file(&self.torrent)?,
            data: settings::absolute("DATA", &self.data)?,
        })
    }
}

/// Checks the data, then serves until it is enough.
async fn upload(settings: &SeedSettings, metainfo: Arc<Metainfo>) -> anyhow::Result<()> {
    let limits =
        Limits { memory_bytes: MEMORY_BYTES, store_bytes: u64::MAX, rates: settings.network.rates };
    let node = start::node(Some(&settings.network), limits)?;
    let name = metainfo.name.clone();
    let options = Options {
        home: Home::Exact(start::place_of(&metainfo, &settings.data)),
        peers: settings.network.peers.clone(),
        trackers: settings.network.trackers.iter().map(Url::to_string).collect(),
        config: Config { fill: false, reads: false, ..settings.network.knobs() },
    };
    let show = checking(metainfo.geometry.clone(), &name);
    let handle = start::add(&node, metainfo, options, show).await?;
    // Before, a signal ends the process where it stands: nobody has heard of it, and a check may take long.
    let mut endings = Endings::listen()?;
    let here = handle.content().have.count();
    if here == 0 {
        node.stop().await;
        bail!(
            "{}: none of it is the torrent's data; is it the right directory?",
            settings.data.display()
        );
    }
    let pieces = handle.metainfo().geometry.piece_count();
    if here < pieces {
        eprintln!("btfs: {name}: only {here} of {pieces} pieces are right; seeding those");
    }
    match node.port() {
        0 => println!("seeding {name} through the proxy"),
        port => println!("seeding {name} on port {port}"),
    }
    let mut reporter = Reporter::new(&name);
    let reached = seed_on(&handle, &settings.goals, &mut reporter, &mut endings).await;
    endings.kill_on_next();
    node.stop().await;
    reporter
        .finish(&reached.map_or_else(|| "ended by a signal".to_owned(), |goal| goal.to_string()));
    Ok(())
}
