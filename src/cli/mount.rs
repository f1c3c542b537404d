//! `btfs mount`: torrents as files below a directory.
//!
//! Not here: the filesystem (`fs`), the swarm (`engine`), going to the background (`daemon`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::RwLock;
use tokio::task::spawn_blocking;
use url::Url;

use super::admission::Admission;
use super::content_source::Torrents;
use super::daemon::{self, Ready};
use super::goals::{GoalArgs, Goals};
use super::mount_options::MountOptions;
use super::mountpoint;
use super::options::{NetworkArgs, StorageArgs};
use super::settings::{self, Network, Place, Storage};
use super::source::Source;
use super::start::{self, Endings};
use crate::engine::home::Home;
use crate::engine::node::{Limits, Node, Options};
use crate::fs::attach;
use crate::fs::session::{self, Ended};
use crate::proto::config::Config;
use crate::proto::tree::Tree;

/// Options of `btfs mount`.
#[derive(Clone, Debug, clap::Args)]
pub struct Mount {
    /// .torrent files, magnet links, info-hashes, URLs
    ///
    /// A link is shown as a directory, named as it says or else by the info-hash; it fills once peers have told
    /// what is in it, and that is kept for the next mount. An http or https URL is that of a .torrent file.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// An empty directory to show them in
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Stay in the foreground
    ///
    /// Without it btfs returns once the mount is there, and goes on in the background.
    #[arg(short, long)]
    foreground: bool,
    /// Mount options as in fstab: allow_other, noexec, …
    ///
    /// A list with commas. allow_other lets every user look into the mount, allow_root only root (other
    /// users than root need user_allow_other in /etc/fuse.conf for both); nonempty mounts over a directory
    /// that has entries; noexec lets nothing be executed. ro, nosuid and nodev always hold. What speaks to
    /// mount(8) is ignored: defaults, auto, noauto, _netdev, nofail, user, x-*.
    #[arg(short, value_name = "OPTS")]
    options: Vec<String>,
    /// Append messages to FILE once in the background
    ///
    /// Without it nothing is told after the mount is there.
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log_file: Option<PathBuf>,
    /// Fail a read that waits longer [default: none]
    ///
    /// A time such as 30s or 5min, or none. A read that waits longer fails with ETIMEDOUT.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "none",
        hide_default_value = true,
        help_heading = "Reading"
    )]
    read_timeout: String,
    /// Fetch only what is read
    ///
    /// Otherwise btfs goes on to download the rest of the torrent, behind every read.
    #[arg(long, help_heading = "Reading")]
    no_fill: bool,
    /// Talk to nobody; what is not here fails at once
    #[arg(long, help_heading = "Reading")]
    offline: bool,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Upload nothing
    #[arg(long, help_heading = "Network")]
    no_upload: bool,
    #[command(flatten)]
    goals: GoalArgs,
}

/// What a mount was asked for, every value checked.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// The torrents; at least one.
    pub sources: Vec<Source>,
    /// An absolute path that can be mounted upon.
    pub mountpoint: PathBuf,
    /// Not to return before the mount ends.
    pub foreground: bool,
    /// Where messages go once in the background.
    pub log_file: Option<PathBuf>,
    /// `-o`.
    pub options: MountOptions,
    /// After how long a waiting read fails; `None`: never.
    pub read_timeout: Option<Duration>,
    /// Whether to download what nobody reads.
    pub fill: bool,
    /// Whether to stay away from the network.
    pub offline: bool,
    /// Whether to upload.
    pub upload: bool,
    /// When a torrent has been uploaded enough.
    pub goals: Goals,
    /// Where pieces are kept.
    pub storage: Storage,
    /// Whom to talk to.
    pub network: Network,
}

impl Mount {
    /// Mounts, and serves until the mount ends.
    ///
    /// # Errors
    /// The mount is not there; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        if settings.foreground {
            return serve(&settings, Ready::foreground());
        }
        let log = settings.log_file.clone();
        daemon::background(log.as_deref(), |ready| serve(&settings, ready))
    }

    fn settings(self) -> anyhow::Result<MountSettings> {
        let options = MountOptions::parse(self.options.iter().map(String::as_str))?;
        let read_timeout = settings::read_timeout(&self.read_timeout)?;
        let goals = Goals::of(&self.goals, !self.no_upload)?;
        let storage = Storage::of(&self.storage)?;
        let network = Network::of(&self.network)?;
        let network = match storage.place {
            Place::Memory => network,
            Place::Cache | Place::Keep(_) => network.kept_in(&storage.cache_dir),
        };
        let sources =
            self.sources.iter().map(|typed| Source::parse(typed)).collect::<Result<_, _>>()?;
        let log_file =
            self.log_file.map(|file| settings::absolute("--log-file", &file)).transpose()?;
        let mountpoint = mountpoint::check(&self.mountpoint, options.nonempty)?;
        storage.keep_off(&mountpoint)?;
        mountpoint::check_fuse(mountpoint::FUSE_DEVICE.as_ref())?;
        Ok(MountSettings {
            sources,
            mountpoint,
            foreground: self.foreground,
            log_file,
            options,
            read_timeout,
            fill: !self.no_fill,
            offline: self.offline,
            upload: !self.no_upload,
            goals,
            storage,
            network,
        })
    }
}

/// Mounts, says so, and serves until a signal or an unmount ends it.
fn serve(settings: &MountSettings, ready: Ready) -> anyhow::Result<()> {
    let runtime = start::runtime()?;
    let ended = runtime.block_on(async {
        let network = (!settings.offline).then_some(&settings.network);
        let node = Arc::new(start::node(network, limits(settings))?);
        let tree = Arc::new(RwLock::new(Tree::new()));
        let source = Arc::new(Torrents::new(settings.offline));
        admit(settings, &node, &tree, &source).await?;
        // Before, a signal ends the process where it stands: nothing is mounted, and a check may take long.
        let mut endings = Endings::listen()?;
        let mount = Arc::new(mount(settings, tree, source)?);
        let gone = {
            let mount = mount.clone();
            spawn_blocking(move || mount.wait())
        };
        ready.mounted().context("whoever asked for the mount is gone")?;
        let ended = tokio::select! {
            ended = gone => ended.context("the mount's watcher failed")?,
            () = endings.wait() => {
                let unmounted = spawn_blocking(move || mount.unmount());
                unmounted.await.context("unmounting failed")??
            }
        };
        endings.kill_on_next();
        node.stop().await;
        anyhow::Ok(ended)
    })?;
    // Readers that never let go, and the system calls they are in, must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ended::Cleanly | Ended::InUse => Ok(()),
        Ended::Failed(why) => bail!("{}: the mount failed: {why}", settings.mountpoint.display()),
    }
}

fn limits(settings: &MountSettings) -> Limits {
    let all = settings.storage.memory_bytes;
    let (memory_bytes, store_bytes) = match settings.storage.place {
        Place::Keep(_) => (all, u64::MAX),
        Place::Cache => (all, settings.storage.cache_bytes),
        // The store is memory too: half for it, half for what is under way.
        Place::Memory => (all / 2, all / 2),
    };
    Limits { memory_bytes, store_bytes, rates: settings.network.rates }
}

/// Takes in what is to be shown.
async fn admit(
    settings: &MountSettings,
    node: &Arc<Node>,
    tree: &Arc<RwLock<Tree>>,
    source: &Arc<Torrents>,
) -> anyhow::Result<()> {
    let cache = &settings.storage.cache_dir;
    let home = match &settings.storage.place {
        Place::Cache => Home::Cache(cache.clone()),
        Place::Keep(dir) => Home::Kept { dir: dir.clone(), cache: cache.clone() },
        Place::Memory => Home::Memory,
    };
    let options = Options {
        home,
        peers: settings.network.peers.clone(),
        trackers: settings.network.trackers.iter().map(Url::to_string).collect(),
        config: Config { fill: settings.fill, upload: settings.upload, ..settings.network.knobs() },
    };
    let mut named = Vec::new();
    for source in &settings.sources {
        named.push(start::named(node, source).await?);
    }
    let admission = Admission {
        node: node.clone(),
        tree: tree.clone(),
        source: source.clone(),
        options,
        store_bytes: limits(settings).store_bytes,
        goals: settings.goals,
        offline: settings.offline,
    };
    Arc::new(admission).admit(named).await
}

fn mount(
    settings: &MountSettings,
    tree: Arc<RwLock<Tree>>,
    source: Arc<Torrents>,
) -> anyhow::Result<session::Mount> {
    let options = attach::Options {
        access: settings.options.access,
        nonempty: settings.options.nonempty,
        noexec: settings.options.noexec,
        read_timeout: settings.read_timeout,
        ..attach::Options::default()
    };
    Ok(session::Mount::new(&settings.mountpoint, tree, source, &options)?)
}
