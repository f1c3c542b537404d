//! A torrent of which nothing but the info-hash is known: meets peers until one has told what it is (BEP 9), then
//! hands them over to its [`Swarm`](super::swarm::Swarm).
//!
//! Methods are of the same kinds as those of a swarm: `handle_*` for what happened, `poll_*` for what to do; after
//! each of the first, drain the others, and sleep until [`Introduction::poll_timeout`]. What peers say meanwhile of
//! their pieces means nothing yet; it is kept, word for word, so that the swarm hears it from the beginning.
//!
//! Invariant: of what a peer says at most [`MAX_KEPT`] bytes are kept beside one bitfield; who says more is left.
//! Invariant: nothing is asked for but the info dictionary, and nothing is uploaded.
//!
//! Not here: whom to ask for which block ([`super::metadata::fetch`]).

mod acquaintance;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::announce::reach::Reach;
use super::candidates::{Candidates, culprit};
use super::config::Config;
use super::dials::Dials;
use super::gossip::Hearing;
use super::metadata::Word;
use super::metadata::fetch::{Fetch, Outcome, Standing};
use super::origin::Origin;
use super::parting::Parting;
use super::units::{InfoHash, PeerId, PeerKey};
use super::welcome::{Guest, Welcome, hello};
use super::wire::extension::{Extension, HANDSHAKE_ID};
use super::wire::message::{Handshake, Message};
use super::wire::pex::Exchange;

pub use acquaintance::{Acquaintance, MAX_KEPT};

/// Time between two looks at what may have been forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Silence after which we say that we are there.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// Silence of the peer after which it is gone.
const DEAD: Duration = Duration::from_secs(200);

/// Time in which a peer has told that it has the dictionary, if others wait to be met.
const TELLING: Duration = Duration::from_secs(20);

/// What the driver should do, beside sending messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Connect to this address; answer with `handle_connected` or `handle_dial_failed`.
    Dial(SocketAddr),
    /// Close this connection; no `handle_disconnected` is needed.
    Close(PeerKey, Parting),
    /// Too few peers are known that could help.
    NeedPeers,
    /// The info dictionary, of the right hash. It is the last event.
    Known(Bytes),
}

/// What an introduction starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our name.
    pub peer_id: PeerId,
    /// Where we take connections, told to peers.
    pub listen_port: u16,
    /// The knobs; of them those about connections count.
    pub config: Config,
    /// Source of all chance.
    pub seed: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Introduction {
    setup: Setup,
    dials: Dials,
    peers: BTreeMap<PeerKey, Acquaintance>,
    fetch: Fetch,
    transmit: VecDeque<(PeerKey, Message)>,
    events: VecDeque<Event>,
    next_housekeeping: Instant,
}

/// What an introduction leaves to the swarm.
#[derive(Debug)]
pub struct Company {
    /// Everyone who is connected, in the order in which they came.
    pub peers: BTreeMap<PeerKey, Acquaintance>,
    /// Addresses known, and dials under way.
    pub dials: Dials,
}

impl Introduction {
    /// Nobody is known yet.
    pub fn new(setup: Setup, now: Instant) -> Self {
        Self {
            dials: Dials::new(Candidates::new(setup.listen_port, false, setup.seed)),
            fetch: Fetch::new(setup.info_hash, setup.seed),
            setup,
            peers: BTreeMap::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            next_housekeeping: now,
        }
    }

    /// How far the dictionary is.
    pub fn standing(&self) -> Standing {
        self.fetch.standing()
    }

    /// Everyone who is connected.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &Acquaintance> {
        self.peers.values()
    }

    /// Addresses known.
    pub fn known_addresses(&self) -> usize {
        self.dials.candidates.len()
    }

    /// Dials under way.
    pub fn dials(&self) -> usize {
        self.dials.len()
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<(PeerKey, Message)> {
        self.transmit.pop_front()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Instant {
        self.fetch
            .poll_timeout()
            .map_or(self.next_housekeeping, |at| at.min(self.next_housekeeping))
    }

    /// Hands everyone over.
    pub fn into_company(self) -> Company {
        Company { peers: self.peers, dials: self.dials }
    }

    /// Addresses of peers.
    pub fn handle_candidates(
        &mut self,
        addrs: impl IntoIterator<Item = SocketAddr>,
        origin: Origin,
        now: Instant,
    ) {
        self.dials.add(addrs, origin, &self.setup.config, now);
        self.dial(now);
    }

    /// Somebody sees us there.
    pub fn handle_seen_at(&mut self, ip: IpAddr) {
        self.dials.candidates.seen_at(ip.to_canonical());
    }

    /// A dial came to nothing.
    pub fn handle_dial_failed(&mut self, addr: SocketAddr, now: Instant) {
        self.dials.failed(addr, now);
        self.dial(now);
    }

    /// A dial came to our own listener.
    pub fn handle_dialled_ourselves(&mut self, addr: SocketAddr, now: Instant) {
        self.dials.forget(addr);
        self.dial(now);
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
        match self.welcome(Guest { addr, incoming, id: said.peer_id, since: now }) {
            Welcome::Kept => {}
            Welcome::InPlaceOf(twin) => self.part(twin, Parting::Duplicate, now),
            Welcome::Refused(parting) => {
                self.dials.refused(addr, parting, now);
                self.events.push_back(Event::Close(key, parting));
                return;
            }
        }
        if said.reserved.extended {
            self.transmit.push_back((key, self.hello(addr)));
        }
        self.peers.insert(key, Acquaintance::new(addr, incoming, said, now));
        self.settle(now);
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, key: PeerKey, now: Instant) {
        self.forget(key, now);
        self.settle(now);
    }

    /// The peer has said this, in this order.
    pub fn handle_messages(&mut self, key: PeerKey, batch: Vec<Message>, now: Instant) {
        for message in batch {
            let Some(peer) = self.peers.get_mut(&key) else { break };
            peer.heard = now;
            let extension = match &message {
                Message::Extended { id, payload } => {
                    Extension::from_local_id(*id).zip(Some(payload.clone()))
                }
                _ => None,
            };
            match extension {
                Some((Extension::Metadata, payload)) => self.hear_word(key, &payload, now),
                Some((Extension::Pex, payload)) => self.hear_gossip(key, &payload, now),
                _ => self.hear(key, message, now),
            }
        }
        self.settle(now);
    }

    /// Time has passed: [`Self::poll_timeout`] was reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fetch.handle_timeout(now);
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now);
        }
        self.settle(now);
    }

    fn hear(&mut self, key: PeerKey, message: Message, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Message::Extended { id: HANDSHAKE_ID, payload } = &message
            && peer.learn(payload).is_ok()
        {
            // Who cannot be asked has none for us.
            let asked_by = peer.said.ids.of(Extension::Metadata);
            let total = peer.said.metadata_len.filter(|_| asked_by.is_some());
            self.fetch.handle_told(key, total, now);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        // Whoever has anything has what we lack; to be unchoked takes a round trip that need not be waited for.
        if peer.first_offer(&message) {
            self.say(key, Message::Interested, now);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.keep(message) {
            self.part(key, Parting::Violation("more words than can be kept"), now);
        }
    }

    fn hear_word(&mut self, key: PeerKey, payload: &Bytes, now: Instant) {
        match Word::parse(payload) {
            Some(Word::Data { block, total, data }) => {
                self.fetch.handle_data(key, block, total, &data, now);
            }
            Some(Word::Reject(block)) => self.fetch.handle_reject(key, block, now),
            Some(Word::Request(block)) => self.say_word(key, &Word::Reject(block), now),
            None => self.part(key, Parting::Violation("a message that BEP 9 does not know"), now),
        }
    }

    /// The peer names others (BEP 11).
    fn hear_gossip(&mut self, key: PeerKey, payload: &Bytes, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.gossip.hear(now) {
            Hearing::Timely => {}
            Hearing::TooSoon => return,
            Hearing::Flood => {
                return self.part(key, Parting::Violation("too many exchanges of peers"), now);
            }
        }
        let reach = Reach::of_neighbour(peer.addr.ip());
        let Ok(exchange) = Exchange::parse(payload) else { return };
        let named = exchange.added.into_iter().map(|(addr, _)| addr);
        let named: Vec<_> = named.filter(|addr| reach.allows(addr.ip())).collect();
        self.handle_candidates(named, Origin::Pex, now);
    }

    /// Does what follows from what was heard.
    fn settle(&mut self, now: Instant) {
        while let Some(outcome) = self.fetch.poll_outcome() {
            match outcome {
                Outcome::Done(info) => self.events.push_back(Event::Known(info)),
                Outcome::Liar(key) => self.ban(key, now),
            }
        }
        while let Some((key, block)) = self.fetch.poll_request() {
            self.say_word(key, &Word::Request(block), now);
        }
        self.dial(now);
    }

    fn say_word(&mut self, key: PeerKey, word: &Word, now: Instant) {
        let id = self.peers.get(&key).and_then(|peer| peer.said.ids.of(Extension::Metadata));
        if let Some(id) = id {
            self.say(key, Message::Extended { id, payload: word.encode() }, now);
        }
    }

    fn say(&mut self, key: PeerKey, message: Message, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.spoke = now;
            self.transmit.push_back((key, message));
        }
    }

    fn hello(&self, addr: SocketAddr) -> Message {
        let mut spoken = vec![Extension::Metadata, Extension::DontHave, Extension::UploadOnly];
        spoken.extend(self.setup.config.exchange.then_some(Extension::Pex));
        let hello = hello(&spoken, self.setup.listen_port, &self.setup.config, addr.ip());
        Message::Extended { id: HANDSHAKE_ID, payload: hello.encode() }
    }

    fn welcome(&self, guest: Guest) -> Welcome {
        if self.dials.candidates.is_banned(guest.addr, guest.since) {
            return Welcome::Refused(Parting::Banned);
        }
        let Config { target_peers, max_peers, many_per_ip, .. } = self.setup.config;
        // Those who come by themselves find a few places more than we dial for.
        let most = (2 * target_peers).min(max_peers);
        let here = self.peers.iter().map(|(key, peer)| (*key, peer.guest()));
        guest.welcome(self.setup.peer_id, here, most, many_per_ip)
    }

    fn keep_house(&mut self, now: Instant) {
        let dead = self.keys(|peer| silent_for(peer.heard, now) > DEAD);
        dead.into_iter().for_each(|key| self.part(key, Parting::Silent, now));
        let quiet = self.keys(|peer| silent_for(peer.spoke, now) > KEEP_ALIVE);
        quiet.into_iter().for_each(|key| self.say(key, Message::KeepAlive, now));
        let full = self.dials.are_enough(self.peers.len(), &self.setup.config, now);
        if full && self.dials.candidates.has_fresh(false, now) {
            let of_no_use = self.keys(|peer| {
                peer.said.metadata_len.is_none() && silent_for(peer.since, now) > TELLING
            });
            of_no_use.into_iter().for_each(|key| self.part(key, Parting::Useless, now));
        }
    }

    fn keys(&self, chosen: impl Fn(&Acquaintance) -> bool) -> Vec<PeerKey> {
        self.peers.iter().filter(|(_, peer)| chosen(peer)).map(|(key, _)| *key).collect()
    }

    fn dial(&mut self, now: Instant) {
        let (connected, config) = (self.peers.len(), &self.setup.config);
        let listens = |peer: &Acquaintance, addr| peer.addr == addr || peer.contact() == addr;
        let is_met = |addr| self.peers.values().any(|peer| listens(peer, addr));
        while let Some(addr) = self.dials.next(connected, config, false, is_met, now) {
            self.events.push_back(Event::Dial(addr));
        }
        let is_of_use = self.fetch.standing().tellers > 0;
        if self.dials.call(connected, is_of_use, now) {
            self.events.push_back(Event::NeedPeers);
        }
    }

    /// The peer's address is left for an hour.
    fn ban(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get(&key) {
            self.dials.candidates.ban(culprit(peer.contact()), now);
            self.part(key, Parting::Banned, now);
        }
    }

    fn part(&mut self, key: PeerKey, parting: Parting, now: Instant) {
        if self.forget(key, now) {
            self.events.push_back(Event::Close(key, parting));
        }
    }

    fn forget(&mut self, key: PeerKey, now: Instant) -> bool {
        let Some(peer) = self.peers.remove(&key) else { return false };
        self.fetch.handle_gone(key, now);
        self.dials.candidates.failed(peer.contact(), now);
        self.transmit.retain(|(to, _)| *to != key);
        true
    }
}

fn silent_for(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}
