//! `btfs tracker`: a tracker of one's own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER_PERMISSIVE;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::tracker_server::TrackerServer;
use crate::proto::registry::{Config, Registry};
use crate::proto::units::InfoHash;

/// Run a tracker, over HTTP and UDP
///
/// Peers find each other through http://HOST:PORT/announce or udp://HOST:PORT/announce. All is kept in
/// memory: peers announce again after a restart, and the tracker knows them again. It runs until it is
/// interrupted or terminated.
#[derive(Debug, clap::Args)]
pub struct Tracker {
    /// Listen on this address and port, over TCP and UDP
    ///
    /// May be given several times. [::] takes IPv4 too. With port 0 the system chooses one, and the line
    /// printed when the tracker is ready tells which.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:6969")]
    listen: Vec<SocketAddr>,

    /// Ask peers to announce this often
    ///
    /// A peer that has not announced for twice that long is forgotten.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = interval)]
    interval: Duration,

    /// Remember at most so many torrents
    ///
    /// The one not announced for the longest time goes first.
    #[arg(long, value_name = "COUNT", default_value_t = Config::default().max_torrents)]
    max_torrents: usize,

    /// Serve only the torrent with this info-hash
    ///
    /// 40 hex digits. May be given several times; without it every torrent is served.
    #[arg(long, value_name = "INFOHASH", value_parser = info_hash)]
    only: Vec<InfoHash>,
}

impl Tracker {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let registry = Registry::new(self.config());
        let server = TrackerServer::bind(&self.listen, registry).with_context(|| {
            format!("cannot listen on {}: choose others with --listen", joined(&self.listen))
        })?;
        println!("listening on {}", joined(server.addrs()));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        server.stop().await;
        Ok(())
    }

    fn config(&self) -> Config {
        let only: BTreeSet<InfoHash> = self.only.iter().copied().collect();
        let default = Config::default();
        Config {
            interval: self.interval,
            min_interval: default.min_interval.min(self.interval),
            max_torrents: self.max_torrents,
            only: (!only.is_empty()).then_some(only),
            ..default
        }
    }
}

fn joined(addrs: &[SocketAddr]) -> String {
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn interval(text: &str) -> anyhow::Result<Duration> {
    const SANE: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(10)..=Duration::from_secs(86_400);
    let interval = humantime::parse_duration(text)?;
    if !SANE.contains(&interval) {
        bail!("the interval must lie between 10s and 1day");
    }
    Ok(interval)
}

fn info_hash(text: &str) -> anyhow::Result<InfoHash> {
    let bytes =
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(InfoHash).context("an info-hash has 40 hex digits")
}
