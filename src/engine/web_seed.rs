//! A web seed (BEP 19) as a connection: it has everything, serves at once, and answers REQUEST with ranges of files.
//!
//! ```text
//! torrent ─ REQUEST, CANCEL ─▶ Queue ─ Run ─▶ fetch, up to six ──▶ GET, Range ─▶ server
//!    ▲                                           │
//!    └────────────── PIECE, REJECT ──────────────┘
//! ```
//!
//! Invariant: each REQUEST is answered by PIECE or REJECT, unless the connection closes.
//! Invariant: a server can make us hold no more than one block for each fetch beyond what the torrent takes.
//!
//! Not here: where a web seed may lead ([`crate::proto::announce::reach`]), when one is tried again (the swarm: it is
//! a peer that closed), whether its bytes are right (the swarm bans it as it bans any peer).

mod fetch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tracing::debug;
use url::Url;

use super::message::{FromPeer, Hello, TO_PEER_CAPACITY};
use super::network::{Door, Network};
use super::tracker::Dialer;
use crate::proto::announce::udp::Family;
use crate::proto::layout::Layout;
use crate::proto::metainfo::Metainfo;
use crate::proto::units::{FileIndex, PeerId, PeerKey};
use crate::proto::web_seed::{Queue, address};
use crate::proto::wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID, encode_dont_have,
};
use crate::proto::wire::message::{Handshake, Message, Request, Reserved};
use crate::proto::wire::pex::Traits;
use fetch::{Failure, Fetch, Fetched};

/// Ranges under way at once, as many connections as a browser makes: so many that the line is not idle while one is
/// asked for, though a range is no longer than a piece where the next one is not wanted yet.
const AT_ONCE: usize = 6;

/// Time in which requests come that belong together, when none is under way: sent for one by one, the first of them
/// would take every place, and the rest wait a round trip longer.
const GATHER: Duration = Duration::from_millis(1);

/// Requests that may be queued, as we tell the swarm.
const MAX_QUEUED: u16 = 500;

/// Fetches in a row that may fail before the server is left alone for a while.
const MAX_FAILURES: u32 = 3;

/// Time after which a silent connection says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// Pieces that are said to be missing in one batch.
const MISSING_BATCH: usize = 256;

/// Which web seed of which torrent.
#[derive(Clone, Debug)]
pub struct WebSeed {
    /// Its place among the torrent's.
    pub index: u16,
    /// What is served there.
    pub metainfo: Arc<Metainfo>,
}

/// Serves the torrent from its web seed until either side closes. To be spawned, in the place of a dial.
pub async fn serve(network: Arc<Network>, dialer: Arc<Dialer>, door: Door, seed: WebSeed) {
    let addr = address(seed.index);
    let url = seed.metainfo.web_seeds.get(usize::from(seed.index)).cloned();
    let (Some(_place), Some(url)) = (network.place(), url) else {
        let reason = "no place among the connections".to_owned();
        // An error means that the torrent is gone, and with it everyone who would care.
        let _ = door.to_torrent.send(FromPeer::DialFailed { addr, reason }).await;
        return;
    };
    let key = network.next_key();
    let (sender, messages) = mpsc::channel(TO_PEER_CAPACITY);
    let reserved = Reserved { extended: true, fast: true, dht: false };
    let peer_id = PeerId(rand::random());
    let handshake = Handshake { reserved, info_hash: door.info_hash, peer_id };
    let traits = Traits::default();
    let hello = Hello { addr, incoming: false, handshake, round_trip: None, traits };
    let connected = FromPeer::Connected { key, hello, sender };
    let greeting = FromPeer::Messages { key, batch: greeting(&url) };
    for event in [connected, greeting] {
        if door.to_torrent.send(event).await.is_err() {
            return;
        }
    }
    let layout = Layout::new(&seed.metainfo);
    let fetch = Fetch {
        key,
        url: url.into(),
        metainfo: seed.metainfo,
        layout: layout.into(),
        family: Family::V4,
        network: network.clone(),
        dialer,
        to_torrent: door.to_torrent.clone(),
    };
    let session = Session {
        key,
        fetch,
        queue: Queue::default(),
        under_way: JoinSet::new(),
        failures: 0,
        to_torrent: door.to_torrent.clone(),
    };
    let reason = session.carry(messages).await;
    debug!(%addr, reason, "web seed closed");
    let _ = door.to_torrent.send(FromPeer::Closed { key, reason }).await;
}

/// What a seed says first, and its host as its name.
fn greeting(url: &str) -> Vec<Message> {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let hello = ExtensionHandshake {
        client: Some(format!("web seed {host}")),
        requests: Some(MAX_QUEUED),
        ..ExtensionHandshake::default()
    };
    let hello = Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() };
    vec![hello, Message::HaveAll, Message::Unchoke]
}

/// The torrent is gone.
struct Gone;

struct Session {
    key: PeerKey,
    fetch: Fetch,
    queue: Queue,
    under_way: JoinSet<Fetched>,
    failures: u32,
    to_torrent: mpsc::Sender<FromPeer>,
}

impl Session {
    /// Carries until it ends, and says why.
    async fn carry(mut self, mut messages: mpsc::Receiver<Message>) -> String {
        loop {
            self.send_for();
            let went_on = tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.hear_all(message, &mut messages).await,
                    None => return "we closed the connection".to_owned(),
                },
                Some(fetched) = self.under_way.join_next() => match self.finish(fetched).await {
                    Ok(Some(reason)) => return reason,
                    Ok(None) => Ok(()),
                    Err(gone) => Err(gone),
                },
                () = sleep(KEEP_ALIVE) => self.say(vec![Message::KeepAlive]).await,
            };
            if let Err(Gone) = went_on {
                return "the torrent is gone".to_owned();
            }
        }
    }

    fn send_for(&mut self) {
        while self.under_way.len() < AT_ONCE
            && let Some(run) = self.queue.take_run(&self.fetch.metainfo.geometry)
        {
            self.under_way.spawn(self.fetch.clone().carry(run));
        }
    }

    /// Hears one message, and those that come with it.
    async fn hear_all(
        &mut self,
        first: Message,
        messages: &mut mpsc::Receiver<Message>,
    ) -> Result<(), Gone> {
        self.hear(first).await?;
        if self.under_way.is_empty() {
            sleep(GATHER).await;
        }
        while let Ok(message) = messages.try_recv() {
            self.hear(message).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, message: Message) -> Result<(), Gone> {
        match message {
            Message::Request(request) => self.queue.push(request),
            Message::Cancel(request) if self.queue.cancel(request) => {
                return self.reject([request]).await;
            }
            // A server wants nothing and hears nothing.
            _ => {}
        }
        Ok(())
    }

    /// A fetch has ended; tells why the connection should end too, if it should.
    async fn finish(
        &mut self,
        fetched: Result<Fetched, JoinError>,
    ) -> Result<Option<String>, Gone> {
        let Ok(Fetched { family, left, outcome }) = fetched else {
            return Ok(Some("a fetch ended early".to_owned()));
        };
        self.fetch.family = family;
        let Err(failure) = outcome else {
            self.failures = 0;
            return Ok(None);
        };
        debug!(url = %self.fetch.url, %failure, "web seed failed");
        self.reject(left).await?;
        self.failures += 1;
        let lacks = match &failure {
            Failure::Missing { file, .. } => self.lack(*file).await?,
            _ => false,
        };
        if lacks {
            self.failures = 0;
            return Ok(None);
        }
        let ends = failure.is_final() || self.failures >= MAX_FAILURES;
        Ok(ends.then(|| failure.to_string()))
    }

    /// The server lacks this file: says so of its pieces. False when it is all there is.
    async fn lack(&mut self, index: FileIndex) -> Result<bool, Gone> {
        let metainfo = self.fetch.metainfo.clone();
        let Some(file) = metainfo.file(index).filter(|_| metainfo.files.len() > 1) else {
            return Ok(false);
        };
        let id = ExtensionIds::local(&[Extension::DontHave]).of(Extension::DontHave);
        let id = id.expect("it was just named");
        let pieces: Vec<_> =
            metainfo.geometry.pieces_in(&(file.offset..file.offset + file.length)).collect();
        for some in pieces.chunks(MISSING_BATCH) {
            let words = some.iter().map(|piece| encode_dont_have(piece.raw()));
            self.say(words.map(|payload| Message::Extended { id, payload }).collect()).await?;
        }
        let lost: Vec<Request> = self.queue.take_all().collect();
        self.reject(lost).await?;
        Ok(true)
    }

    async fn reject(&self, requests: impl IntoIterator<Item = Request>) -> Result<(), Gone> {
        let batch: Vec<_> = requests.into_iter().map(Message::Reject).collect();
        if batch.is_empty() { Ok(()) } else { self.say(batch).await }
    }

    async fn say(&self, batch: Vec<Message>) -> Result<(), Gone> {
        let said = FromPeer::Messages { key: self.key, batch };
        self.to_torrent.send(said).await.map_err(|_| Gone)
    }
}
