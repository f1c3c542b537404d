//! What `mount`, `get`, `seed` and `verify` begin with: the runtime, the node, the torrent's description and
//! place, and signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::proxy::NamedProxy;
use super::settings::Network;
use super::source::{self, Source};
use crate::engine::check::Checked;
use crate::engine::handle::Handle;
use crate::engine::home::HomeError;
use crate::engine::introduction::{self, Known};
use crate::engine::node::{Limits, Node, NodeError, Options, Reach};
use crate::engine::store::lock::LockError;
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::{MAX_TORRENT_LEN, Metainfo};
use crate::proto::names::printable;

/// The runtime that carries the engine.
///
/// # Errors
/// When the system gives no thread.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("btfs-net")
        .enable_all()
        .build()
        .context("cannot start network threads")
}

/// Reads and checks a .torrent file.
///
/// # Errors
/// When it cannot be read or is no torrent.
pub fn metainfo(path: &Path) -> anyhow::Result<Arc<Metainfo>> {
    described(&source::read(path)?, &printable(&path.to_string_lossy()))
}

/// The torrent that these bytes describe. Where a web page is what a user has, the link that he wants is on it.
fn described(bytes: &[u8], shown: &str) -> anyhow::Result<Arc<Metainfo>> {
    match Metainfo::parse(bytes) {
        Ok(metainfo) => Ok(Arc::new(metainfo)),
        Err(_) if bytes.trim_ascii_start().starts_with(b"<") => {
            bail!("{shown}: is a web page, no .torrent file; look there for a link to one")
        }
        Err(error) => Err(error).with_context(|| shown.to_owned()),
    }
}

/// A torrent as far as it is known without asking peers.
#[derive(Clone, Debug)]
pub enum Named {
    /// All of its description.
    Torrent(Arc<Metainfo>),
    /// What a link says.
    Magnet(Magnet),
}

/// Reads the file, or asks the web server; a link is what it is.
///
/// # Errors
/// When there is no torrent.
pub async fn named(node: &Node, source: &Source) -> anyhow::Result<Named> {
    match source {
        Source::File(path) => Ok(Named::Torrent(metainfo(path)?)),
        Source::Magnet(magnet) => Ok(Named::Magnet(magnet.clone())),
        Source::Url(url) => {
            let bytes = node.fetch(url, MAX_TORRENT_LEN).await.with_context(|| source.shown())?;
            Ok(Named::Torrent(described(&bytes, &source.shown())?))
        }
    }
}

/// Asks peers what a link's torrent is, and tells how that goes; `None` when a signal came first.
///
/// # Errors
/// When it is a torrent that cannot be used.
pub async fn introduced(
    node: &Node,
    magnet: Magnet,
    options: &Options,
    endings: &mut Endings,
    mut tell: impl FnMut(&introduction::Status),
) -> anyhow::Result<Option<Known>> {
    let shown = printable(&magnet.directory());
    let mut seeking = node.seek(magnet, options);
    let mut status = seeking.watch();
    loop {
        tell(&status.borrow_and_update());
        tokio::select! {
            known = seeking.known() => return known.transpose().with_context(|| shown),
            Ok(()) = status.changed() => {}
            () = endings.wait() => return Ok(None),
        }
    }
}

/// Starts the process as a peer; `None` for the network means offline. Call it inside the runtime.
///
/// # Errors
/// When the address is taken, or the proxy has none.
pub fn node(network: Option<&Network>, limits: Limits) -> anyhow::Result<Node> {
    let reach = match network {
        None => Reach::Offline,
        Some(Network { proxy: Some(_), .. }) => Reach::Outward,
        Some(Network { listen: None, .. }) => Reach::Anywhere,
        Some(Network { listen: Some(addr), .. }) => Reach::At(*addr),
    };
    let mut ways = network.map(|network| network.ways.clone()).unwrap_or_default();
    let proxy = network.and_then(|network| network.proxy.as_ref());
    ways.egress.proxy = proxy.map(NamedProxy::locate).transpose()?;
    Node::start(reach, &ways, limits).context("cannot take part in the network")
}

/// Adds a torrent to the node; a failure says what to do.
///
/// # Errors
/// When its data cannot be opened or belongs to another process.
pub async fn add(
    node: &Node,
    metainfo: Arc<Metainfo>,
    options: Options,
    progress: impl FnMut(&Checked) + Send + 'static,
) -> anyhow::Result<Handle> {
    let name = metainfo.name.clone();
    added(&name, node.add(metainfo, options, progress).await)
}

/// Adds a torrent that has become known; a failure says what to do.
///
/// # Errors
/// When its data cannot be opened or belongs to another process.
pub async fn adopt(node: &Node, known: Known, options: Options) -> anyhow::Result<Handle> {
    let name = known.metainfo.name.clone();
    added(&name, node.adopt(known, options).await)
}

fn added(name: &str, added: Result<Handle, NodeError>) -> anyhow::Result<Handle> {
    match added {
        Err(NodeError::Home(HomeError::Lock(busy @ LockError::Busy { .. }))) => {
            bail!("{busy}; end that one first, or keep this one's elsewhere")
        }
        Err(foreign @ NodeError::ForeignTracker(_)) => {
            bail!("{name}: {foreign}; leave --tracker out for it")
        }
        added => Ok(added?),
    }
}

/// The torrent's own file or directory, be it DATA or in DATA.
pub fn place_of(metainfo: &Metainfo, data: &Path) -> PathBuf {
    let inside = data.join(&metainfo.name);
    let is_inside = if metainfo.single_file { inside.is_file() } else { inside.is_dir() };
    if is_inside { inside } else { data.to_path_buf() }
}

/// The signals that end a command in good order.
#[derive(Debug)]
pub struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Endings {
    /// Listens from now on; a second signal while the command ends kills it at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// From here on the next signal ends the process where it stands.
    pub fn kill_on_next(mut self) {
        tokio::spawn(async move {
            self.wait().await;
            std::process::exit(1);
        });
    }
}
