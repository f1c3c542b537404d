//! One connection, after its handshakes, as we see it.
//!
//! Invariant: `outstanding` holds each block that the peer was asked for and has neither brought, refused nor
//! lost by choking us, in the order asked.
//!
//! Not here: what to do about any of it ([`crate::proto::swarm`]).

mod line;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bencode::BencodeError;
use super::bitfield::Bitfield;
use super::config::Config;
use super::gossip::Gossip;
use super::metadata::serve::Allowance;
use super::rate::Rate;
use super::ration::Ration;
use super::units::{BlockRef, PeerId, PeerKey, PieceIndex};
use super::upload::UploadQueue;
use super::welcome::Guest;
use super::wire::extension::ExtensionHandshake;
use super::wire::pex::Traits;
use line::{Line, Mark};

/// Time over which the choker averages.
const CHOKER_SPAN: Duration = Duration::from_secs(20);

/// Requests that a peer takes which does not say how many, as libtorrent assumes too.
const DEFAULT_REQQ: usize = 250;

/// Rejects in a row after which a peer is snubbed.
const MANY_REJECTS: u32 = 16;

/// Time after its last reject in which a peer is asked again for what it rejected.
const FORGIVEN: Duration = Duration::from_secs(10);

/// Time beyond its due in which a request that was taken back must be rejected.
const LONGEST_REJECT: Duration = Duration::from_secs(10);

/// The same for a peer that has not yet rejected anything that we took back: some, like Transmission 3, never do.
const FIRST_REJECT: Duration = Duration::from_millis(500);

/// What comes so soon after our handshake is no answer to it.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Weight of the latest cancel in how a peer heeds them.
const HEED_WEIGHT: f64 = 0.1;

/// Longest silence of a peer that was asked, before it is snubbed: while somebody reads, and otherwise.
const SNUB: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(20));

/// Bytes that a peer gets before it must give any to keep a regular slot.
const FREE_RIDE: u64 = 1 << 20;

/// Of so many bytes that a peer takes, it must give one to keep a regular slot: a home line gives far less than it
/// takes.
const FREE_RATIO: u64 = 32;

/// Messages of BEP 55 that a peer may send in a minute: as many as peers that it may name then.
pub const MAX_PUNCHES: u32 = 50;

/// A block that the peer was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    /// The block.
    pub block: BlockRef,
    /// When it was asked for.
    pub at: Instant,
    /// Whether others may be asked meanwhile; it is still welcome.
    pub released: bool,
    /// Whether we took the request back.
    pub cancelled: bool,
    /// Whether that was in time for a peer that sends what it is asked for one by one.
    in_time: bool,
    mark: Mark,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// Its number.
    pub key: PeerKey,
    /// The socket's far end.
    pub addr: SocketAddr,
    /// Whether it dialled us.
    pub incoming: bool,
    /// Its name.
    pub id: PeerId,
    /// Whether it speaks BEP 6.
    pub fast: bool,
    /// Whether it speaks BEP 10.
    pub extended: bool,
    /// Whether it has a node of the DHT (BEP 5).
    pub dht: bool,
    /// Whether it has told where that is.
    pub named_node: bool,
    /// What it told of itself (BEP 10).
    pub said: ExtensionHandshake,
    /// What the connection itself shows of it, for others (BEP 11).
    pub traits: Traits,
    /// Where it takes connections, as far as known.
    pub listens_at: Option<SocketAddr>,
    /// What it has.
    pub pieces: Bitfield,
    /// Whether we serve it not.
    pub am_choking: bool,
    /// Whether we told it that we want something.
    pub am_interested: bool,
    /// Whether it serves us not.
    pub peer_choking: bool,
    /// Whether it wants something.
    pub peer_interested: bool,
    /// Pieces that it gives even while it chokes us (BEP 6).
    pub allowed_fast: BTreeSet<PieceIndex>,
    /// Pieces that it would have us take first (BEP 6), oldest first.
    pub suggested: VecDeque<PieceIndex>,
    /// Pieces that it rejected although it serves us; not asked for again for a while.
    pub refused: BTreeSet<PieceIndex>,
    /// When it last rejected one.
    refused_at: Instant,
    /// Rejects since it last brought a block.
    rejects: u32,
    /// Whether it has rejected a request that we took back, as BEP 6 asks.
    pub obeys_cancels: bool,
    /// Whether it left us waiting for too long.
    pub snubbed: bool,
    /// When it connected.
    pub since: Instant,
    /// Since when we serve it, or when we last stopped.
    pub choke_changed: Instant,
    /// When it last said anything.
    pub heard: Instant,
    /// When we last said anything.
    pub spoke: Instant,
    /// How much of the info dictionary it may still ask for.
    pub metadata: Allowance,
    /// What it asks of us.
    pub upload: UploadQueue,
    /// Payload bytes that it gave.
    pub down: Rate,
    /// Payload bytes that we gave.
    pub up: Rate,
    /// All payload bytes that it gave.
    pub downloaded: u64,
    /// All payload bytes that we gave.
    pub uploaded: u64,
    /// What it and we have told each other of other peers.
    pub gossip: Gossip,
    /// Messages of BEP 55 that it may still send us.
    pub punches: Ration,
    /// Messages that made no sense but do no harm; too many end the connection.
    pub oddities: u32,
    outstanding: VecDeque<Outstanding>,
    line: Line,
    /// How often it heeded of late what we took back in time, of 1.
    heed: f64,
}

impl Peer {
    /// A fresh connection to a torrent of `pieces` pieces.
    pub fn new(
        key: PeerKey,
        addr: SocketAddr,
        incoming: bool,
        id: PeerId,
        pieces: u32,
        now: Instant,
    ) -> Self {
        Self {
            key,
            addr,
            incoming,
            id,
            fast: false,
            extended: false,
            dht: false,
            named_node: false,
            said: ExtensionHandshake::default(),
            traits: Traits::default(),
            listens_at: (!incoming).then_some(addr),
            pieces: Bitfield::empty(pieces),
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            allowed_fast: BTreeSet::new(),
            suggested: VecDeque::new(),
            refused: BTreeSet::new(),
            refused_at: now,
            rejects: 0,
            obeys_cancels: false,
            snubbed: false,
            since: now,
            choke_changed: now,
            heard: now,
            spoke: now,
            metadata: Allowance::full(now),
            upload: UploadQueue::default(),
            down: Rate::new(CHOKER_SPAN, now),
            up: Rate::new(CHOKER_SPAN, now),
            downloaded: 0,
            uploaded: 0,
            gossip: Gossip::new(now),
            punches: Ration::new(MAX_PUNCHES, now),
            oddities: 0,
            outstanding: VecDeque::new(),
            line: Line::new(now),
            heed: 1.0,
        }
    }

    /// As whom it was met.
    pub fn guest(&self) -> Guest {
        let Self { addr, incoming, id, since, .. } = *self;
        Guest { addr, incoming, id, since }
    }

    /// Where the peer takes connections, or else where it calls from.
    pub fn contact(&self) -> SocketAddr {
        self.listens_at.unwrap_or(self.addr)
    }

    /// The peer tells of itself (BEP 10).
    ///
    /// # Errors
    /// When what it says is no bencoded dictionary.
    pub fn learn(&mut self, payload: &[u8]) -> Result<(), BencodeError> {
        self.said.update(payload)?;
        if let (true, Some(port)) = (self.incoming, self.said.port) {
            self.listens_at = Some(SocketAddr::new(self.addr.ip(), port));
        }
        Ok(())
    }

    /// Whether the peer has all, or told that it wants nothing more (BEP 21).
    pub fn wants_no_more(&self) -> bool {
        self.pieces.is_full() || self.said.upload_only == Some(true)
    }

    /// Everything that the peer was asked for, oldest first.
    pub fn outstanding(&self) -> impl ExactSizeIterator<Item = &Outstanding> {
        self.outstanding.iter()
    }

    /// The round trip of the line when it is empty, and a guess before it is known.
    pub fn rtt(&self) -> Duration {
        self.line.rtt()
    }

    /// The peer has said something. Who dials waits for our handshake before it says more, so the first of it tells
    /// the round trip; what was under way already, tells none.
    pub fn hears(&mut self, now: Instant) {
        let first = now.saturating_duration_since(self.since);
        if self.incoming && self.heard == self.since && first > AT_ONCE {
            self.line.set_rtt(first);
        }
        self.heard = now;
    }

    /// The round trip is known from messages without payload.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.line.set_rtt(rtt);
    }

    /// When a block should be here that is asked for now, after so many others.
    pub fn eta(&self, others: usize, now: Instant) -> Instant {
        let blocks = (self.waiting() + others) as f64 + 1.0;
        let due =
            self.outstanding.iter().filter(|asked| !asked.cancelled).map(|asked| asked.mark.due);
        // Who is behind is thought to stay behind by as much again.
        let behind = due.min().map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        now + behind + self.rtt() + self.line.time_of_blocks(blocks)
    }

    /// Requests that will be answered with bytes, as far as we know.
    fn waiting(&self) -> usize {
        let heeds = self.heeds_cancels();
        self.outstanding.iter().filter(|asked| !asked.cancelled || !heeds).count()
    }

    /// Whether it pays to take requests back. Some peers have all of them in a buffer at once, where nothing can be
    /// taken back any more.
    fn heeds_cancels(&self) -> bool {
        self.heed > 0.5
    }

    /// Requests that may be added now. `reading`: somebody waits or will, so the queue is kept short; `first`: what a
    /// peer is asked for that has brought nothing yet.
    pub fn free_requests(&self, reading: bool, first: usize, config: &Config) -> usize {
        if self.snubbed {
            return usize::from(self.outstanding.is_empty());
        }
        let depth = if reading { config.reading_depth } else { config.filling_depth };
        let reqq = self.said.requests.map_or(DEFAULT_REQQ, usize::from).max(1);
        let limit = reqq.min(config.max_outstanding);
        let by_depth = self.line.queue(depth, first).saturating_sub(self.waiting());
        by_depth.min(limit.saturating_sub(self.outstanding.len()))
    }

    /// The peer is asked for the block; false when it still stands from before and nothing is to be said.
    pub fn ask(&mut self, block: BlockRef, now: Instant) -> bool {
        let again = self.outstanding.iter_mut().find(|asked| asked.block == block);
        if let Some(asked) = again {
            asked.released = false;
            return false;
        }
        let mark = self.line.ask(self.waiting(), self.outstanding.is_empty(), now);
        let asked =
            Outstanding { block, at: now, released: false, cancelled: false, in_time: false, mark };
        self.outstanding.push_back(asked);
        true
    }

    /// The peer has brought the block; true when it was asked for it.
    pub fn brought(&mut self, block: BlockRef, bytes: u64, now: Instant) -> bool {
        self.downloaded += bytes;
        self.down.add(bytes, now);
        self.line.came(bytes, now);
        self.snubbed = false;
        self.rejects = 0;
        let Some(asked) = self.take_out(block) else { return false };
        if asked.in_time {
            self.heed *= 1.0 - HEED_WEIGHT;
        }
        self.line.answered(&asked.mark, self.outstanding.len(), now);
        true
    }

    /// The peer will not bring the block; tells how it stood.
    pub fn take_out(&mut self, block: BlockRef) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|asked| asked.block == block)?;
        self.outstanding.remove(at)
    }

    /// The request is taken back; the peer still answers or rejects it (BEP 6).
    pub fn cancel(&mut self, block: BlockRef) {
        let sent = self.on_their_way();
        if let Some(nth) = self.outstanding.iter().position(|asked| asked.block == block) {
            self.outstanding[nth].cancelled = true;
            self.outstanding[nth].in_time = nth > sent;
        }
    }

    /// The peer rejects what it was asked for.
    pub fn rejected(&mut self, asked: &Outstanding) {
        self.obeys_cancels |= asked.cancelled;
        if asked.in_time {
            self.heed += HEED_WEIGHT * (1.0 - self.heed);
        }
    }

    /// The peer rejects a piece although it serves us; true when it has done so too often to be trusted with more
    /// than one request at a time.
    pub fn refuse(&mut self, piece: PieceIndex, now: Instant) -> bool {
        self.refused.insert(piece);
        self.refused_at = now;
        self.rejects += 1;
        self.rejects >= MANY_REJECTS && !self.snubbed
    }

    /// Forgives rejects that are long past: a full queue rejects too. True when there were any.
    pub fn forgive(&mut self, now: Instant) -> bool {
        let past = now.saturating_duration_since(self.refused_at) > FORGIVEN;
        let any = past && !self.refused.is_empty();
        if any {
            self.refused.clear();
        }
        any
    }

    /// Requests that were taken back and neither rejected nor answered for too long, against BEP 6.
    pub fn take_forgotten(&mut self, now: Instant) -> Vec<BlockRef> {
        let limit = if self.obeys_cancels { LONGEST_REJECT } else { FIRST_REJECT };
        let gone =
            |a: &Outstanding| a.cancelled && now.saturating_duration_since(a.mark.due) > limit;
        let forgotten = self.outstanding.iter().filter(|a| gone(a)).map(|a| a.block).collect();
        self.outstanding.retain(|asked| !gone(asked));
        forgotten
    }

    /// Nothing that was asked will come.
    pub fn take_all(&mut self) -> Vec<Outstanding> {
        self.outstanding.drain(..).collect()
    }

    /// Whether the peer has been silent for too long about what it was asked.
    pub fn is_silent(&self, reading: bool, now: Instant) -> bool {
        let limit = if reading { SNUB.0.max(4 * self.rtt()) } else { SNUB.1 };
        !self.outstanding.is_empty()
            && now.saturating_duration_since(self.line.last_block()) > limit
    }

    /// Gives up on what the peer was asked: it is still welcome, but others are asked now.
    pub fn snub(&mut self) -> Vec<BlockRef> {
        self.snubbed = true;
        self.line.restart();
        let held = self.outstanding.iter_mut().filter(|asked| !asked.released);
        held.map(|asked| {
            asked.released = true;
            asked.block
        })
        .collect()
    }

    /// Blocks that have taken longer than they should: by a round trip, or by four times what the peer is late on
    /// average, over the time that they were expected to take as they were asked for.
    pub fn late(&self, now: Instant) -> impl Iterator<Item = BlockRef> {
        let stands = |asked: &&Outstanding| !asked.released;
        self.outstanding.iter().filter(stands).filter(move |a| now > a.mark.due).map(|a| a.block)
    }

    /// What the peer should still bring, and when; what is late counts as far away.
    pub fn expected(&self, now: Instant) -> impl Iterator<Item = (Instant, BlockRef)> {
        let stands = |asked: &&Outstanding| !asked.released && !asked.cancelled;
        self.outstanding.iter().filter(stands).map(move |asked| {
            let at = if now > asked.mark.due { now + LONGEST_REJECT } else { asked.mark.expected };
            (at, asked.block)
        })
    }

    /// What the peer should still bring in time, and when, by its rate now; nothing of one that has brought nothing.
    pub fn arrivals(&self, now: Instant) -> impl Iterator<Item = (Instant, BlockRef)> {
        let each = self.line.time_of_blocks(1.0);
        let proven = self.line.is_proven();
        let nth = (1u32..).zip(&self.outstanding);
        let stands = move |asked: &Outstanding| {
            proven && !asked.released && !asked.cancelled && now <= asked.mark.due
        };
        nth.filter(move |(_, asked)| stands(asked))
            .map(move |(nth, asked)| (now.max(asked.at + self.rtt()) + nth * each, asked.block))
    }

    /// Blocks that stand in the way of a new request: those that can be taken back before the peer sends them.
    pub fn in_the_way(&self) -> Vec<BlockRef> {
        if !self.heeds_cancels() {
            return Vec::new();
        }
        let waiting = self.outstanding.iter().filter(|asked| !asked.cancelled);
        waiting.skip(self.on_their_way()).map(|asked| asked.block).collect()
    }

    /// Blocks that the peer will have sent before it hears of a cancel.
    fn on_their_way(&self) -> usize {
        let each = self.line.time_of_blocks(1.0).as_secs_f64();
        (self.rtt().as_secs_f64() / each).ceil() as usize
    }

    /// Whether it has taken much from us and given next to nothing.
    pub fn rides_free(&self) -> bool {
        self.uploaded > FREE_RIDE.max(self.downloaded.saturating_mul(FREE_RATIO))
    }

    /// Worth of what the peer gives, for the choker: its rate, less for a slow answer and for silence.
    pub fn score(&self, now: Instant) -> f64 {
        let response = 1.0 / (1.0 + self.rtt().as_secs_f64());
        let silence =
            if self.outstanding.is_empty() { Duration::ZERO } else { now - self.line.last_block() };
        self.down.per_second(now) * response / (1.0 + silence.as_secs_f64() / 10.0)
    }
}
