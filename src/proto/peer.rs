//! One connection, after its handshakes, as we see it.
//!
//! Invariant: `outstanding` holds each block that the peer was asked for and has neither brought, refused nor
//! lost by choking us, in the order asked.
//!
//! Not here: what to do about any of it ([`crate::proto::swarm`]).

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bencode::BencodeError;
use super::bitfield::Bitfield;
use super::config::Config;
use super::rate::{Rate, Throughput};
use super::units::{BLOCK_LEN, BlockRef, PeerId, PeerKey, PieceIndex};
use super::upload::UploadQueue;
use super::wire::extension::ExtensionHandshake;

/// Time over which the choker averages.
const CHOKER_SPAN: Duration = Duration::from_secs(20);

/// Requests that a peer takes which does not say how many, as libtorrent assumes too.
const DEFAULT_REQQ: usize = 250;

/// Requests to a peer that has brought nothing yet: about what a home line holds in one round trip.
const FIRST_DEPTH: f64 = 8.0;

/// Round trip that is assumed until one is seen.
const FIRST_RTT: Duration = Duration::from_millis(200);

/// Longest silence of a peer that was asked, before it is snubbed: while somebody reads, and otherwise.
const SNUB: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(20));

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
    /// Whether nothing else was outstanding then: its delay tells the round trip.
    alone: bool,
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
    /// What it told of itself (BEP 10).
    pub said: ExtensionHandshake,
    /// Where it takes connections, as far as known.
    pub listens_at: Option<SocketAddr>,
    /// What it has.
    pub pieces: Bitfield,
    /// Whether it has said what it has.
    pub told_pieces: bool,
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
    /// Pieces that it rejected although it serves us; not asked for again until it unchokes us anew.
    pub refused: BTreeSet<PieceIndex>,
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
    /// Messages that made no sense but do no harm; too many end the connection.
    pub oddities: u32,
    outstanding: VecDeque<Outstanding>,
    throughput: Throughput,
    ramp: f64,
    rtt: Duration,
    last_block: Instant,
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
            said: ExtensionHandshake::default(),
            listens_at: (!incoming).then_some(addr),
            pieces: Bitfield::empty(pieces),
            told_pieces: false,
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            allowed_fast: BTreeSet::new(),
            refused: BTreeSet::new(),
            snubbed: false,
            since: now,
            choke_changed: now,
            heard: now,
            spoke: now,
            upload: UploadQueue::default(),
            down: Rate::new(CHOKER_SPAN, now),
            up: Rate::new(CHOKER_SPAN, now),
            downloaded: 0,
            uploaded: 0,
            oddities: 0,
            outstanding: VecDeque::new(),
            throughput: Throughput::default(),
            ramp: FIRST_DEPTH,
            rtt: FIRST_RTT,
            last_block: now,
        }
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

    /// Everything that the peer was asked for, oldest first.
    pub fn outstanding(&self) -> impl ExactSizeIterator<Item = &Outstanding> {
        self.outstanding.iter()
    }

    /// Bytes per second that the peer brings while asked, and a guess before it has brought any.
    pub fn bytes_per_second(&self) -> Option<f64> {
        self.throughput.per_second()
    }

    /// The shortest round trip seen of late.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Requests that may be added now. `reading`: somebody waits or will, so the queue is kept short.
    pub fn free_requests(&self, reading: bool, config: &Config) -> usize {
        if self.snubbed {
            return usize::from(self.outstanding.is_empty());
        }
        let depth = if reading {
            config.reading_depth.max(self.rtt.mul_f64(1.5))
        } else {
            config.filling_depth
        };
        let by_rate = self
            .throughput
            .per_second()
            .map(|rate| rate * depth.as_secs_f64() / f64::from(BLOCK_LEN));
        let wanted = by_rate.map_or(self.ramp, |blocks| blocks.max(2.0).min(self.ramp));
        let reqq = self.said.requests.map_or(DEFAULT_REQQ, usize::from).max(1);
        let limit = reqq.min(config.max_outstanding);
        (wanted as usize).min(limit).saturating_sub(self.outstanding.len())
    }

    /// The peer is asked for the block.
    pub fn ask(&mut self, block: BlockRef, now: Instant) {
        let alone = self.outstanding.is_empty();
        if alone {
            self.throughput.begin(now);
            self.last_block = now;
        }
        self.outstanding.push_back(Outstanding {
            block,
            at: now,
            released: false,
            cancelled: false,
            alone,
        });
    }

    /// The peer has brought the block; true when it was asked for it.
    pub fn brought(&mut self, block: BlockRef, bytes: u64, now: Instant) -> bool {
        self.downloaded += bytes;
        self.down.add(bytes, now);
        self.throughput.add(bytes, now);
        self.last_block = now;
        self.snubbed = false;
        let Some(asked) = self.take_out(block, now) else { return false };
        if asked.alone {
            let seen = now.saturating_duration_since(asked.at);
            self.rtt =
                if seen < self.rtt { seen } else { self.rtt.mul_f64(0.9) + seen.mul_f64(0.1) };
        }
        let rate = self.throughput.per_second().unwrap_or(0.0);
        let enough = 4.0 * rate / f64::from(BLOCK_LEN) + FIRST_DEPTH;
        self.ramp = if self.ramp < enough { self.ramp + 1.0 } else { self.ramp };
        true
    }

    /// The peer will not bring the block; tells how it stood.
    pub fn take_out(&mut self, block: BlockRef, now: Instant) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|asked| asked.block == block)?;
        let asked = self.outstanding.remove(at);
        if self.outstanding.is_empty() {
            self.throughput.end(now);
        }
        asked
    }

    /// The request is taken back; the peer still answers or rejects it (BEP 6).
    pub fn cancel(&mut self, block: BlockRef) {
        for asked in self.outstanding.iter_mut().filter(|asked| asked.block == block) {
            asked.cancelled = true;
        }
    }

    /// Nothing that was asked will come.
    pub fn take_all(&mut self, now: Instant) -> Vec<Outstanding> {
        self.throughput.end(now);
        self.outstanding.drain(..).collect()
    }

    /// Whether the peer has been silent for too long about what it was asked.
    pub fn is_silent(&self, reading: bool, now: Instant) -> bool {
        let limit = if reading { SNUB.0.max(4 * self.rtt) } else { SNUB.1 };
        !self.outstanding.is_empty() && now.saturating_duration_since(self.last_block) > limit
    }

    /// Gives up on what the peer was asked: it is still welcome, but others are asked now.
    pub fn snub(&mut self) -> Vec<BlockRef> {
        self.snubbed = true;
        self.ramp = FIRST_DEPTH;
        let held = self.outstanding.iter_mut().filter(|asked| !asked.released);
        held.map(|asked| {
            asked.released = true;
            asked.block
        })
        .collect()
    }

    /// Blocks that have taken longer than they should: twice the round trip beyond the time that the peer's rate
    /// gives for what stood before them.
    pub fn late(&self, now: Instant) -> Vec<BlockRef> {
        let rate = self.throughput.per_second().unwrap_or(f64::from(BLOCK_LEN)).max(1024.0);
        let each = Duration::from_secs_f64(f64::from(BLOCK_LEN) / rate);
        let mut expected = 2 * self.rtt.max(Duration::from_millis(25));
        let mut late = Vec::new();
        for asked in &self.outstanding {
            expected += each;
            if now.saturating_duration_since(asked.at) > expected {
                late.push(asked.block);
            }
        }
        late
    }

    /// Worth of what the peer gives, for the choker: its rate, less for a slow answer and for silence.
    pub fn score(&self, now: Instant) -> f64 {
        let response = 1.0 / (1.0 + self.rtt.as_secs_f64());
        let silence =
            if self.outstanding.is_empty() { Duration::ZERO } else { now - self.last_block };
        self.down.per_second(now) * response / (1.0 + silence.as_secs_f64() / 10.0)
    }
}
