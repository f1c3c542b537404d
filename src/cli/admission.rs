//! Which torrents a mount shows: what is known at once, and what links name as soon as peers have told what it is.
//!
//! Invariant: a link is shown as a directory, named as the link says or else by its info-hash, with the torrent's
//! files in it; the same at its first mount, when they come later, and at each that follows.
//!
//! Not here: the kernel's side (`fs`), asking peers (`engine::introduction`).

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use parking_lot::RwLock;
use tracing::warn;

use super::content_source::Torrents;
use super::exit::one_line;
use super::goals::{Goals, end_upload_when_reached};
use super::start::{self, Named};
use crate::engine::description;
use crate::engine::handle::Handle;
use crate::engine::introduction::Seeking;
use crate::engine::node::{Node, Options};
use crate::proto::magnet::Magnet;
use crate::proto::metainfo::Metainfo;
use crate::proto::names::printable;
use crate::proto::tree::Tree;
use crate::proto::units::InfoHash;

/// What torrents are added to, and how.
#[derive(Debug)]
pub struct Admission {
    /// The process as a peer.
    pub node: Arc<Node>,
    /// What the mount shows.
    pub tree: Arc<RwLock<Tree>>,
    /// Where its bytes come from.
    pub source: Arc<Torrents>,
    /// How a torrent is added; `evicts` is set for each.
    pub options: Options,
    /// Bytes of pieces that stores may hold.
    pub store_bytes: u64,
    /// When a torrent has been uploaded enough.
    pub goals: Goals,
    /// Whether nobody is asked for anything.
    pub offline: bool,
}

/// A torrent on its way in.
enum Entrant {
    Known { metainfo: Arc<Metainfo>, link: Option<Magnet> },
    Sought(Magnet),
}

impl Entrant {
    fn info_hash(&self) -> InfoHash {
        match self {
            Self::Known { metainfo, .. } => metainfo.info_hash,
            Self::Sought(magnet) => magnet.info_hash,
        }
    }

    /// Bytes of the torrent; without end while nobody knows.
    fn bytes(&self) -> u64 {
        match self {
            Self::Known { metainfo, .. } => metainfo.geometry.total(),
            Self::Sought(_) => u64::MAX,
        }
    }
}

impl Admission {
    /// Takes these torrents in, each once. Those that are not known yet follow by themselves.
    ///
    /// # Errors
    /// When one cannot be shown, now or ever.
    pub async fn admit(self: &Arc<Self>, named: Vec<Named>) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        let entrants: Vec<_> = named
            .into_iter()
            .map(|named| self.entrant(named))
            .filter(|entrant| seen.insert(entrant.info_hash()))
            .collect();
        let total = entrants.iter().map(Entrant::bytes).fold(0, u64::saturating_add);
        for entrant in entrants {
            match entrant {
                Entrant::Known { metainfo, link } => self.add(metainfo, link, total).await?,
                Entrant::Sought(magnet) if self.offline => bail!(
                    "{}: what is in it is not known here; mount it once without --offline",
                    printable(&magnet.directory())
                ),
                Entrant::Sought(magnet) => self.seek(magnet)?,
            }
        }
        Ok(())
    }

    fn entrant(&self, named: Named) -> Entrant {
        match named {
            Named::Torrent(metainfo) => Entrant::Known { metainfo, link: None },
            Named::Magnet(magnet) => match description::load(&self.options.home, &magnet) {
                Some(metainfo) => {
                    Entrant::Known { metainfo: Arc::new(metainfo), link: Some(magnet) }
                }
                None => Entrant::Sought(magnet),
            },
        }
    }

    /// Options for a torrent beside which there are so many bytes, its own counted.
    fn options(&self, total: u64) -> Options {
        let mut options = self.options.clone();
        options.config.evicts = total > self.store_bytes;
        options
    }

    async fn add(
        &self,
        metainfo: Arc<Metainfo>,
        link: Option<Magnet>,
        total: u64,
    ) -> anyhow::Result<()> {
        let mut options = self.options(total);
        options.peers.extend(link.iter().flat_map(|link| &link.peers));
        let handle = start::add(&self.node, metainfo.clone(), options, |_| {}).await?;
        self.source.add(&handle);
        let mut tree = self.tree.write();
        let shown = match link {
            None => tree.add(handle.id(), &metainfo).map(|_| ()),
            Some(link) => tree
                .expect(handle.id(), link.info_hash, &link.directory())
                .and_then(|_| tree.fill(handle.id(), &metainfo)),
        };
        drop(tree);
        shown.with_context(|| metainfo.name.clone())?;
        self.watch_goals(handle);
        Ok(())
    }

    fn seek(self: &Arc<Self>, magnet: Magnet) -> anyhow::Result<()> {
        let name = magnet.directory();
        let seeking = self.node.seek(magnet, &self.options);
        self.source.expect(&seeking);
        let info_hash = seeking.magnet.info_hash;
        self.tree.write().expect(seeking.id, info_hash, &name).with_context(|| name)?;
        tokio::spawn(Arc::clone(self).await_known(seeking));
        Ok(())
    }

    /// Shows what is in an expected torrent once that is known.
    async fn await_known(self: Arc<Self>, mut seeking: Seeking) {
        // Without an answer the mount ends; an error tells itself where it happened.
        let Some(Ok(known)) = seeking.known().await else { return };
        let metainfo = known.metainfo.clone();
        let options = self.options(metainfo.geometry.total());
        match start::adopt(&self.node, known, options).await {
            Ok(handle) => {
                self.source.add(&handle);
                if let Err(error) = self.tree.write().fill(seeking.id, &metainfo) {
                    warn!(%error, "cannot show the torrent");
                }
                self.watch_goals(handle);
            }
            Err(error) => {
                let why = one_line(&error);
                warn!(why, "cannot show the torrent");
                self.source.give_up(seeking.id, why);
            }
        }
    }

    fn watch_goals(&self, handle: Handle) {
        if self.goals.any() {
            tokio::spawn(end_upload_when_reached(handle, self.goals));
        }
    }
}
