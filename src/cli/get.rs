//! `btfs get`: download a torrent as any other client does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use url::Url;

use super::goals::{GoalArgs, Goals, seed_on};
use super::options::{DEFAULT_MEMORY, NetworkArgs};
use super::progress::{Progress, Reporter, asking, checking};
use super::settings::{self, Network};
use super::source::Source;
use super::start::{self, Endings, Named};
use crate::engine::description;
use crate::engine::handle::Handle;
use crate::engine::home::Home;
use crate::engine::node::{Limits, Node, Options};
use crate::proto::config::Config;
use crate::proto::metainfo::Metainfo;

/// Options of `btfs get`.
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// A .torrent file, a magnet link, an info-hash or a URL
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
    #[command(flatten)]
    goals: GoalArgs,
}

/// What a download was asked for, every value checked.
#[derive(Clone, Debug)]
pub struct GetSettings {
    /// The torrent.
    pub source: Source,
    /// Where its files go: an absolute path, a directory or nothing yet.
    pub dir: PathBuf,
    /// Where what is known of the files is kept between runs.
    pub cache_dir: PathBuf,
    /// Most bytes of cache, assembly and write queue in memory.
    pub memory_bytes: u64,
    /// Whether to upload.
    pub upload: bool,
    /// Whom to talk to.
    pub network: Network,
    /// How long to seed once all is here; not at all without any.
    pub goals: Goals,
}

impl Get {
    /// Downloads the whole torrent.
    ///
    /// # Errors
    /// The torrent is not complete in DIR; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        start::runtime()?.block_on(download(&settings))
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
        let goals = Goals::of(&self.goals, !self.no_upload)?;
        let cache_dir = settings::cache_dir(None)?;
        Ok(GetSettings {
            goals,
            network: Network::of(&self.network)?.kept_in(&cache_dir),
            cache_dir,
            memory_bytes: settings::memory(&self.memory)?,
            upload: !self.no_upload,
            source: Source::parse(&self.source)?,
            dir: settings::absolute("DIR", &self.dir)?,
        })
    }
}

/// Adds the torrent, once it is known what it is; `None` when a signal came before that.
async fn begin(
    node: &Node,
    settings: &GetSettings,
    options: Options,
) -> anyhow::Result<Option<(Handle, Endings)>> {
    let magnet = match start::named(node, &settings.source).await? {
        Named::Torrent(metainfo) => return add(node, metainfo, options).await.map(Some),
        Named::Magnet(magnet) => magnet,
    };
    if let Some(metainfo) = description::load(&options.home, &magnet) {
        return add(node, Arc::new(metainfo), options).await.map(Some);
    }
    let mut endings = Endings::listen()?;
    let tell = asking(&magnet);
    let known = start::introduced(node, magnet, &options, &mut endings, tell).await?;
    let Some(known) = known else { return Ok(None) };
    Ok(Some((start::adopt(node, known, options).await?, endings)))
}

async fn add(
    node: &Node,
    metainfo: Arc<Metainfo>,
    options: Options,
) -> anyhow::Result<(Handle, Endings)> {
    let show = checking(metainfo.geometry.clone(), &metainfo.name);
    let handle = start::add(node, metainfo, options, show).await?;
    // Before, a signal ends the process where it stands: nobody has heard of it, and a check may take long.
    Ok((handle, Endings::listen()?))
}

/// Downloads until all is there or a signal comes; what is there then is taken up by the next run.
async fn download(settings: &GetSettings) -> anyhow::Result<()> {
    let limits = Limits {
        memory_bytes: settings.memory_bytes,
        store_bytes: u64::MAX,
        rates: settings.network.rates,
    };
    let node = start::node(Some(&settings.network), limits)?;
    let options = Options {
        home: Home::Kept { dir: settings.dir.clone(), cache: settings.cache_dir.clone() },
        peers: settings.network.peers.clone(),
        trackers: settings.network.trackers.iter().map(Url::to_string).collect(),
        config: Config { upload: settings.upload, ..settings.network.knobs() },
    };
    let Some((handle, mut endings)) = begin(&node, settings, options).await? else {
        node.stop().await;
        bail!("{}: interrupted before it was known what is in it", settings.source.shown());
    };
    let name = handle.metainfo().name.clone();
    let total = handle.metainfo().geometry.total();
    let mut reporter = Reporter::new(&name);
    let mut status = handle.watch();
    let complete = loop {
        let now = status.borrow_and_update().clone();
        reporter.tick(&Progress::of(&now, total), Instant::now());
        if let Some(trouble) = now.trouble {
            node.stop().await;
            bail!("{name}: {trouble}; make room and run the same command again");
        }
        if now.have_bytes == total {
            break true;
        }
        tokio::select! {
            changed = status.changed() => changed.context("the torrent's task ended")?,
            () = endings.wait() => break false,
        }
    };
    let place = settings.dir.display();
    let reached = if complete && settings.goals.any() {
        reporter.note(&format!("complete in {place}; seeding on"));
        seed_on(&handle, &settings.goals, &mut reporter, &mut endings).await
    } else {
        None
    };
    endings.kill_on_next();
    node.stop().await;
    if !complete {
        reporter.clear();
        bail!("{name}: interrupted; run the same command again to go on");
    }
    let why = reached.map_or_else(String::new, |goal| format!("; {goal}"));
    reporter.finish(&format!("complete in {place}{why}"));
    Ok(())
}
