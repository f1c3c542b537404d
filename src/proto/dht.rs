//! A node of the DHT (BEP 5, 32, 42, 43) as a state machine: finds peers of torrents, makes ours known, and does
//! the same for others.
//!
//! Methods are of four kinds, as those of [`crate::proto::swarm::Swarm`]: getters; `handle_*` for what happened;
//! commands; `poll_*` for what to do next. After each `handle_*` or command, drain [`Dht::poll_transmit`] and
//! [`Dht::poll_event`], then sleep until [`Dht::poll_timeout`].
//!
//! ```text
//! torrents ─ due ─▶ lookup ─ whom to ask ─▶ queries ─▶ datagrams out
//!    ▲                ▲  └─ peers ─▶ events    │
//!    └──── ended ─────┘ answers, silence ◀─────┤◀─ krpc ◀─ datagrams in
//!                                   table ◀────┘    └─▶ answer: store, tokens, flood
//! upkeep: silent nodes are asked, buckets searched, secrets rotated
//! ```
//!
//! IPv4 and IPv6 are two networks with a table each (BEP 32), at one port and with one store of peers; nodes of
//! one are asked for nodes of the other as well.
//!
//! Invariant: memory is bounded, whatever comes in: each room names its bounds, the queues below have theirs.
//!
//! Not here: sockets, names of hosts, files ([`crate::engine::dht`]); whether a torrent may be known here at all
//! ([`crate::proto::origin`], BEP 27).

mod answer;
pub mod contact;
pub mod flood;
pub mod krpc;
pub mod lookup;
pub mod node_id;
pub mod queries;
pub mod saved;
mod search;
pub mod store;
pub mod table;
pub mod tokens;
pub mod torrents;
mod upkeep;
pub mod vantage;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::announce::udp::Family;
use super::blocklist::Blocklist;
use super::units::InfoHash;
use contact::{Contact, Host};
use flood::Flood;
use krpc::{Body, Message, Query};
use lookup::Lookup;
use node_id::NodeId;
use queries::{MAX_OPEN, Overdue, Queries};
use saved::{Saved, SavedTable};
use store::PeerStore;
use table::{Standing, Table};
use tokens::Tokens;
use torrents::Torrents;
use vantage::Vantage;

/// Lookups under way at once; further ones wait.
const MAX_LOOKUPS: usize = 16;

/// Ways in that are remembered.
const MAX_ROUTERS: usize = 64;

/// Datagrams and events that wait for the driver. It drains them after each call; what is beyond is dropped.
const MAX_WAITING: usize = 1024;

/// What a node begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This machine's addresses with the port of our socket; a family without any is not used.
    pub own: Vec<SocketAddr>,
    /// What an earlier run left.
    pub saved: Saved,
    /// Who is neither asked, answered nor kept, whoever names him.
    pub blocklist: Arc<Blocklist>,
    /// Source of all chance, and of secrets: must not be known to others.
    pub seed: [u8; 32],
}

/// What has come of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody has named peers of the torrent; none is told twice by one lookup.
    Peers {
        /// The torrent.
        info_hash: InfoHash,
        /// At least one.
        addrs: Vec<SocketAddr>,
    },
    /// A lookup of the torrent has ended.
    Searched {
        /// The torrent.
        info_hash: InfoHash,
        /// Which network was asked.
        family: Family,
        /// Nodes that answered.
        answered: usize,
        /// Different peers that were found.
        peers: usize,
        /// Nodes that we announced ourselves to.
        told: usize,
    },
}

/// One network of the two.
#[derive(Debug)]
struct Side {
    family: Family,
    table: Table,
    vantage: Vantage,
    joining: upkeep::Joining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LookupId(u64);

/// What a question is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To see whether somebody is there.
    Check,
    /// For a lookup.
    Lookup(LookupId),
    /// To make ourselves known.
    Announce,
}

/// What a lookup is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Nodes for the table.
    Nodes,
    /// Peers, and if there is a port, to be found there ourselves.
    Peers { info_hash: InfoHash, port: Option<u16> },
}

/// See the module.
#[derive(Debug)]
pub struct Dht {
    /// In the order of families; those that are used.
    sides: Vec<Side>,
    routers: Vec<SocketAddr>,
    lookups: BTreeMap<LookupId, (Goal, Lookup)>,
    next_lookup: u64,
    queries: Queries<Purpose>,
    torrents: Torrents,
    store: PeerStore,
    tokens: Tokens,
    flood: Flood,
    blocklist: Arc<Blocklist>,
    next_upkeep: Instant,
    transmit: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    rng: StdRng,
}

impl Dht {
    /// A node that knows whom it knew before, and has asked nobody yet.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let Setup { own, mut saved, blocklist, seed } = setup;
        let mut rng = StdRng::from_seed(seed);
        let families = [(Family::V4, saved.v4.take()), (Family::V6, saved.v6.take())];
        let sides = families.into_iter().filter_map(|(family, saved)| {
            let own: Vec<_> =
                own.iter().filter(|addr| Family::of(addr) == family).copied().collect();
            let saved = saved.map(|saved| saved.without(&blocklist));
            (!own.is_empty()).then(|| Side::new(family, own, saved, &mut rng, now))
        });
        let sides = sides.collect();
        Self {
            sides,
            routers: Vec::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            queries: Queries::default(),
            torrents: Torrents::default(),
            store: PeerStore::default(),
            tokens: Tokens::new(&mut rng, now),
            flood: Flood::new(now),
            blocklist,
            next_upkeep: now,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            rng,
        }
    }

    /// Our id in this network, if we are in it.
    pub fn id(&self, family: Family) -> Option<NodeId> {
        self.side(family).map(|side| side.table.own())
    }

    /// Nodes of both networks that are not known to be gone.
    pub fn nodes(&self, now: Instant) -> usize {
        self.sides.iter().map(|side| side.table.count(Standing::Questionable, now)).sum()
    }

    /// Whether nobody in this network is known to reach us unasked (BEP 43).
    pub fn is_read_only(&self, family: Family) -> bool {
        self.side(family).is_none_or(|side| side.vantage.is_read_only())
    }

    /// Peers that others have announced to us.
    pub fn stored_peers(&self) -> usize {
        self.store.peers()
    }

    /// What to begin with next time.
    pub fn save(&self) -> Saved {
        let table = |family| {
            self.side(family).map(|side| SavedTable {
                id: side.table.own(),
                nodes: side.table.contacts().collect(),
            })
        };
        Saved { v4: table(Family::V4), v6: table(Family::V6) }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmit.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Instant {
        let free = self.lookups.len() < MAX_LOOKUPS;
        let torrent = self.torrents.poll_timeout().filter(|_| free);
        let soonest = [self.queries.poll_timeout(), torrent].into_iter().flatten().min();
        soonest.map_or(self.next_upkeep, |soonest| soonest.min(self.next_upkeep))
    }

    /// Finds peers of the torrent at once and again, and if there is a port, makes us known as one.
    pub fn enlist(&mut self, info_hash: InfoHash, port: Option<u16>, now: Instant) {
        let families = self.sides.iter().map(|side| side.family);
        self.torrents.enlist(info_hash, port, families, now);
        self.advance(now);
    }

    /// Ends what [`Self::enlist`] began; what others know of us fades by itself.
    pub fn forget(&mut self, info_hash: InfoHash) {
        self.torrents.forget(info_hash);
    }

    /// The torrent has too few peers; may be said as often as it is true.
    pub fn need_peers(&mut self, info_hash: InfoHash, now: Instant) {
        self.torrents.need_peers(info_hash, now);
        self.advance(now);
    }

    /// Somebody says that there is a node.
    pub fn add_node(&mut self, addr: SocketAddr, now: Instant) {
        self.check(addr, now);
        self.advance(now);
    }

    /// Ways into the network, to be asked whenever too few nodes are known.
    pub fn add_routers(&mut self, addrs: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        for addr in addrs {
            let is_new = !self.routers.contains(&addr) && !self.blocklist.contains(addr.ip());
            if self.routers.len() < MAX_ROUTERS && is_new {
                self.routers.push(addr);
                self.torrents.wake(Family::of(&addr), now);
            }
        }
        self.advance(now);
    }

    /// A datagram has come.
    pub fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let host = Host::of(&from);
        let is_ours_to_read = self.side(Family::of(&from)).is_some() && from.port() != 0;
        if !is_ours_to_read || self.blocklist.contains(from.ip()) {
            return;
        }
        match Message::parse(datagram) {
            Ok(Message { transaction, body: Body::Query { id, query, read_only } }) => {
                if self.flood.hears(host, now) {
                    let from = Contact { id, addr: from };
                    self.handle_query(transaction, from, query, read_only, now);
                }
            }
            Ok(Message { transaction, body }) => {
                match self.queries.answered(&transaction, from, now) {
                    Some(open) => self.handle_answer(&open, body, now),
                    None => self.flood.counts(host, now),
                }
            }
            Err(_) => self.flood.counts(host, now),
        }
        self.advance(now);
    }

    /// Time has passed: [`Self::poll_timeout`] was reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        for overdue in self.queries.overdue(now) {
            match overdue {
                Overdue::Late(open) => self.handle_late(&open),
                Overdue::Lost(open) => self.handle_lost(&open, now),
            }
        }
        self.keep_house(now);
        self.advance(now);
    }

    /// An answered question makes its node one of the table.
    fn meet(&mut self, from: Contact, seen_at: Option<SocketAddr>, now: Instant) {
        let family = Family::of(&from.addr);
        let Some(side) = self.sides.iter_mut().find(|side| side.family == family) else { return };
        let is_first = side.table.is_empty();
        side.table.answered(from, now);
        let was_read_only = side.vantage.is_read_only();
        if let Some(seen) = seen_at.filter(|seen| Family::of(seen) == family) {
            side.vantage.was_seen(Host::of(&from.addr), seen);
        }
        if was_read_only && !side.vantage.is_read_only() {
            // Those that we asked so far took us for nobody.
            side.joining.again(now);
        }
        if let Some(ip) = side.vantage.external_ip().filter(|ip| !side.table.own().fits(*ip)) {
            side.table.rebase(NodeId::of_ip(ip, &mut self.rng), now);
            side.joining.again(now);
        }
        if is_first {
            self.torrents.wake(family, now);
        }
    }

    /// Asks whether somebody is there, unless that is known or too much is asked already.
    fn check(&mut self, addr: SocketAddr, now: Instant) {
        let ours = self.side(Family::of(&addr)).is_some_and(|side| side.vantage.is_own(&addr));
        // The rest is for lookups: strangers that ask us something must not hold them up.
        let has_room = self.queries.len() < MAX_OPEN / 2;
        let may_be = addr.port() != 0 && !ours && !self.blocklist.contains(addr.ip());
        if has_room && may_be {
            self.ask(addr, Query::Ping, Purpose::Check, now);
        }
    }

    fn ask(&mut self, addr: SocketAddr, query: Query, purpose: Purpose, now: Instant) {
        let family = Family::of(&addr);
        let Some(side) = self.sides.iter_mut().find(|side| side.family == family) else { return };
        side.vantage.writes_to(Host::of(&addr), now);
        side.table.asks(&addr, now);
        let (id, read_only) = (side.table.own(), side.vantage.is_read_only());
        let transaction = self.queries.open(addr, purpose, &mut self.rng, now).bytes();
        let message = Message { transaction, body: Body::Query { id, query, read_only } };
        self.send(addr, message.encode());
    }

    fn send(&mut self, addr: SocketAddr, datagram: Vec<u8>) {
        if self.transmit.len() < MAX_WAITING {
            self.transmit.push_back((addr, datagram));
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < MAX_WAITING {
            self.events.push_back(event);
        }
    }

    fn is_ourselves(&self, contact: &Contact) -> bool {
        self.side(Family::of(&contact.addr)).is_some_and(|side| {
            side.table.own() == contact.id || side.vantage.is_own(&contact.addr)
        })
    }

    fn side(&self, family: Family) -> Option<&Side> {
        self.sides.iter().find(|side| side.family == family)
    }

    fn side_mut(&mut self, family: Family) -> Option<&mut Side> {
        self.sides.iter_mut().find(|side| side.family == family)
    }
}

impl Side {
    fn new(
        family: Family,
        own: Vec<SocketAddr>,
        saved: Option<SavedTable>,
        rng: &mut StdRng,
        now: Instant,
    ) -> Self {
        let SavedTable { id, nodes } =
            saved.unwrap_or_else(|| SavedTable { id: NodeId::random(rng), nodes: Vec::new() });
        let mut table = Table::new(id);
        nodes.into_iter().for_each(|node| table.remember(node, now));
        debug_assert_eq!(table.invariants(), Ok(()));
        let joining = upkeep::Joining::new(now);
        Self { family, table, vantage: Vantage::new(own), joining }
    }
}
