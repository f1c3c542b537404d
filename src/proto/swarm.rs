//! One torrent as a state machine: peers, picker, readers and choker under one roof.
//!
//! Methods are of four kinds: getters; `handle_*` for what happened; commands from the reader's side; `poll_*`
//! for what to do next. After each `handle_*` or command, drain [`Swarm::poll_transmit`],
//! [`Swarm::poll_event`] and [`Swarm::poll_job`] until they return `None`, then sleep until
//! [`Swarm::poll_timeout`]. Time comes in as an argument and must not run backwards; chance comes from the seed.
//!
//! ```text
//! handle_messages ─▶ hear ─┬▶ fetch: picker, assembly, blame ──▶ Request, Job::Verify
//! read, open ──────▶ read ─┘                                     Event::Ready
//!                    serve: choker, upload queues ─────────────▶ Piece, Job::Load
//!                    doubt: what an earlier run left ──────────▶ Job::Check
//! ```
//!
//! Not here: sockets, the clock, hashing, the store (the driver's: `engine::torrent`, or the simulator in tests).

mod awaited;
mod describe;
mod dial;
mod doubt;
mod event;
mod fetch;
mod gossip;
mod hear;
mod holepunch;
mod meet;
mod port;
mod private;
mod read;
mod renew;
mod serve;
mod spread;
mod tell;
mod upload_only;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::assembly::Assembly;
use super::bitfield::Bitfield;
use super::blame::Blame;
use super::candidates::Candidates;
use super::choker::Choker;
use super::config::Config;
use super::dials::Dials;
use super::geometry::Geometry;
use super::metadata::serve::Description;
use super::peer::Peer;
use super::picker::Picker;
use super::readahead::Readers;
use super::spread::Spread;
use super::units::{PeerId, PeerKey, PieceIndex};
use super::welcome::{Guest, Welcome};
use super::wire::message::{Handshake, Message};

pub use super::parting::Parting;
pub use event::{Event, Job};

/// Time between two looks at what may have been forgotten: silence, keep-alives, dials.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// The same while a read waits: late blocks are asked of another peer.
const HOUSEKEEPING_BLOCKED: Duration = Duration::from_millis(50);

/// Silence after which we say that we are there (BEP 3 asks for two minutes).
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// Silence of the peer after which it is gone.
const DEAD: Duration = Duration::from_secs(200);

/// Messages without sense that a peer may send before we part.
const MAX_ODDITIES: u32 = 64;

/// Why a message ends the connection.
type Violation = &'static str;

/// Payload bytes of a torrent since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payload received, all of it.
    pub downloaded: u64,
    /// Payload sent.
    pub uploaded: u64,
    /// Of the received: what was here already.
    pub redundant: u64,
    /// Of the received: what belonged to pieces with a wrong hash.
    pub corrupt: u64,
}

/// What a swarm starts from.
#[derive(Debug)]
pub struct Setup {
    /// The torrent's layout.
    pub geometry: Geometry,
    /// The pieces that are here and verified.
    pub have: Bitfield,
    /// Whether BEP 27 holds.
    pub private: bool,
    /// Our name.
    pub peer_id: PeerId,
    /// Where we take connections, told to peers.
    pub listen_port: u16,
    /// The knobs.
    pub config: Config,
    /// Source of all chance.
    pub seed: u64,
}

/// One torrent: see the module.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    geometry: Geometry,
    peer_id: PeerId,
    listen_port: u16,
    picker: Picker,
    readers: Readers,
    assembly: Assembly,
    blame: Blame,
    /// For peers that do not know what the torrent is.
    description: Option<Description>,
    choker: Choker,
    spread: Spread,
    private: bool,
    /// Which tracker named peers last, of a private torrent.
    tracker: Option<String>,
    dials: Dials,
    peers: BTreeMap<PeerKey, Peer>,
    /// Pieces that are being verified or stored, and take memory until then.
    in_hand: BTreeSet<PieceIndex>,
    /// Doubted pieces that are being checked.
    checking: BTreeSet<PieceIndex>,
    /// Who may help where a dial comes to nothing: whoever named the address.
    helpers: BTreeMap<SocketAddr, PeerKey>,
    totals: Totals,
    /// Peers to be asked for more, since something changed for them.
    idle: BTreeSet<PeerKey>,
    transmit: VecDeque<(PeerKey, Message)>,
    events: VecDeque<Event>,
    jobs: VecDeque<Job>,
    next_housekeeping: Instant,
    next_renewal: Instant,
    /// Until then fill leaves the peers to a reader.
    fill_from: Option<Instant>,
    /// What peers were last told of us (BEP 21).
    told_upload_only: bool,
    rng: StdRng,
}

impl Swarm {
    /// A swarm without peers.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let Setup { geometry, have, private, peer_id, listen_port, config, seed } = setup;
        let picker = Picker::new(geometry.clone(), have, config.fill, config.open_bytes, seed);
        let mut swarm = Self {
            choker: Choker::new(config.upload_slots, now),
            spread: Spread::new((seed >> 7) as u32, &geometry),
            config,
            geometry,
            peer_id,
            listen_port,
            private,
            tracker: None,
            picker,
            readers: Readers::default(),
            assembly: Assembly::default(),
            blame: Blame::default(),
            description: None,
            dials: Dials::new(Candidates::new(listen_port, private, seed)),
            peers: BTreeMap::new(),
            in_hand: BTreeSet::new(),
            checking: BTreeSet::new(),
            helpers: BTreeMap::new(),
            totals: Totals::default(),
            idle: BTreeSet::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            jobs: VecDeque::new(),
            next_housekeeping: now,
            next_renewal: now,
            fill_from: None,
            told_upload_only: false,
            rng: StdRng::seed_from_u64(seed ^ 0x7377_6172_6d00),
        };
        swarm.told_upload_only = swarm.wants_no_more();
        swarm
    }

    /// The pieces that are here and verified.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// The torrent's layout.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Payload so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Every connection, oldest first.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.peers.values()
    }

    /// The connection with this number.
    pub fn peer(&self, key: PeerKey) -> Option<&Peer> {
        self.peers.get(&key)
    }

    /// Connections to peers that have the piece, seeds included.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        self.picker.availability(piece)
    }

    /// Bytes of pieces under way, from their first block until their verdict.
    pub fn assembling_bytes(&self) -> u64 {
        self.assembly.bytes()
    }

    /// Bytes of pieces under way when they are whole: what they may come to.
    pub fn open_bytes(&self) -> u64 {
        self.picker.open() as u64 * u64::from(self.geometry.nominal_piece_len())
    }

    /// Changes [`Config::open_bytes`]; what is under way is finished.
    pub fn set_open_bytes(&mut self, bytes: u64) {
        if bytes != self.config.open_bytes {
            self.config.open_bytes = bytes;
            self.picker.set_open_bytes(bytes);
        }
    }

    /// Reads that wait.
    pub fn waiting_reads(&self) -> usize {
        self.readers.waiting()
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<(PeerKey, Message)> {
        self.transmit.pop_front()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next piece of work.
    pub fn poll_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Instant {
        self.next_housekeeping.min(self.choker.poll_timeout())
    }

    /// A connection is up and the handshakes are exchanged.
    pub fn handle_connected(
        &mut self,
        key: PeerKey,
        addr: SocketAddr,
        incoming: bool,
        said: Handshake,
        now: Instant,
    ) {
        self.dials.arrived(addr);
        let guest = Guest { addr, incoming, id: said.peer_id, since: now };
        match self.welcome(guest) {
            Welcome::Kept => {}
            Welcome::InPlaceOf(twin) => self.part(twin, Parting::Duplicate, now),
            Welcome::Refused(parting) => {
                self.dials.refused(addr, parting, now);
                self.events.push_back(Event::Close(key, parting));
                return;
            }
        }
        let mut peer =
            Peer::new(key, addr, incoming, said.peer_id, self.geometry.piece_count(), now);
        peer.fast = said.reserved.fast;
        peer.extended = said.reserved.extended;
        peer.dht = said.reserved.dht;
        self.greet(&peer);
        self.peers.insert(key, peer);
        self.settle(now);
    }

    /// The peer's answer to a message without payload took so long: it tells the line better than blocks do.
    pub fn handle_round_trip(&mut self, key: PeerKey, time: Duration) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.set_rtt(time);
        }
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, key: PeerKey, now: Instant) {
        self.drop_peer(key, now);
        self.fill_slots(now);
        self.dial(now);
        self.settle(now);
    }

    /// Time has passed: [`Self::poll_timeout`] was reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.choker.poll_timeout() {
            self.choke_round(now);
        }
        if now >= self.next_housekeeping {
            self.keep_house(now);
        }
        self.settle(now);
    }

    fn keep_house(&mut self, now: Instant) {
        let blocked = self.picker.is_blocked();
        self.next_housekeeping = now + if blocked { HOUSEKEEPING_BLOCKED } else { HOUSEKEEPING };
        self.begin_fill(now);
        self.snub_silent(now);
        self.use_line(now);
        for peer in self.peers.values_mut() {
            if peer.forgive(now) {
                self.idle.insert(peer.key);
            }
            for block in peer.take_forgotten(now) {
                self.picker.release(block, peer.key);
                self.idle.insert(peer.key);
            }
        }
        if self.readers.is_active() {
            // Windows that were left come to their end.
            self.take_in_demands(now);
        }
        self.drop_leftovers();
        if blocked {
            self.mark_late(now);
        }
        if self.picker.is_end_game() {
            self.wake_all();
        }
        let dead: Vec<_> = self
            .peers
            .values()
            .filter(|peer| now - peer.heard > DEAD)
            .map(|peer| peer.key)
            .collect();
        for key in dead {
            self.part(key, Parting::Silent, now);
        }
        let quiet: Vec<_> = self
            .peers
            .values()
            .filter(|peer| now - peer.spoke > KEEP_ALIVE)
            .map(|peer| peer.key)
            .collect();
        for key in quiet {
            self.say(key, Message::KeepAlive, now);
        }
        self.part_from_uploaders(now);
        self.renew(now);
        self.gossip(now);
        self.dial(now);
        // Here and not with each message: it looks at every block that is under way.
        debug_assert_eq!(self.invariants(), Ok(()));
    }

    /// Closes the connection from our side.
    fn part(&mut self, key: PeerKey, parting: Parting, now: Instant) {
        if self.peers.contains_key(&key) {
            self.events.push_back(Event::Close(key, parting));
            let contact = self.drop_peer(key, now);
            match (contact, parting) {
                (Some(addr), Parting::BothSeeds) if self.wants_no_more() => {
                    self.dials.candidates.has_all(addr);
                }
                (Some(addr), Parting::BothSeeds | Parting::Useless) => {
                    self.dials.candidates.failed(addr, now);
                }
                _ => {}
            }
        }
    }

    /// Forgets the connection; tells where its peer takes others.
    fn drop_peer(&mut self, key: PeerKey, now: Instant) -> Option<SocketAddr> {
        let mut peer = self.peers.remove(&key)?;
        for asked in peer.take_all() {
            self.picker.release(asked.block, key);
        }
        self.drop_exclusive(key);
        self.picker.disown(key);
        self.picker.peer_left(&peer.pieces);
        self.spread.forget(key);
        let addr = peer.contact();
        if peer.downloaded + peer.uploaded > 0 {
            self.dials.candidates.ended(addr, now);
        } else {
            self.dials.candidates.failed(addr, now);
        }
        self.transmit.retain(|(to, _)| *to != key);
        self.helpers.retain(|_, helper| *helper != key);
        self.idle.remove(&key);
        self.wake_all();
        Some(addr)
    }

    fn say(&mut self, key: PeerKey, message: Message, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.spoke = now;
            self.transmit.push_back((key, message));
        }
    }

    fn wake_all(&mut self) {
        self.idle.extend(self.peers.keys().copied());
    }

    /// Names the rule that does not hold, if any.
    pub fn invariants(&self) -> Result<(), String> {
        self.picker.invariants()?;
        for peer in self.peers.values() {
            if let Some(odd) = peer.outstanding().find(|asked| !peer.pieces.has(asked.block.piece))
            {
                return Err(format!(
                    "{:?} was asked for {:?}, which it lacks",
                    peer.key, odd.block
                ));
            }
        }
        Ok(())
    }
}
