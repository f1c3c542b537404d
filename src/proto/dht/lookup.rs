//! One search for the nodes nearest to an id, and for what they know.
//!
//! Nodes are asked for nodes that are nearer, several at once, until the [`BUCKET`] nearest have answered. Any of
//! them may be dead or lie, so there are two rankings of those not yet found silent: all of them, and those whose
//! ids fit their addresses (BEP 42), which nobody can choose at will. Both are followed to their end. Where all
//! are honest they are one; where somebody invents ids around the target, the second still leads there.
//!
//! Invariant: of one [`Host`] one candidate, of one [`Net`] at most [`PER_NET`]; at most [`MAX_CANDIDATES`] in
//! all, and [`MAX_ASKED`] queries.
//!
//! Not here: datagrams and their timeouts ([`super::queries`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::contact::{Contact, Host, Net};
use super::node_id::{Distance, NodeId};
use super::table::BUCKET;
use crate::proto::announce::udp::Family;

/// Queries under way that are not late yet.
const AT_ONCE: usize = 6;

/// Nodes that are taken from one answer, the nearest of them.
const PER_ANSWER: usize = BUCKET;

/// Candidates of one [`Net`].
pub const PER_NET: u32 = 2;

/// Candidates of one lookup; the farthest that was not asked makes room.
pub const MAX_CANDIDATES: usize = 256;

/// Queries of one lookup; one without liars takes some 30.
pub const MAX_ASKED: usize = 200;

/// Peers that one lookup finds.
const MAX_PEERS: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    /// Asked, and later than most: another is asked beside it.
    Late,
    Answered {
        token: Option<Vec<u8>>,
    },
    Silent,
}

#[derive(Clone, Debug)]
struct Candidate {
    id: NodeId,
    fits: bool,
    state: State,
}

/// Where a candidate stands in the order of distance. Somebody may name the right id with a wrong address.
type Place = (Distance, SocketAddr);

/// See the module.
#[derive(Clone, Debug)]
pub struct Lookup {
    target: NodeId,
    family: Family,
    /// Nodes whose ids are not known: the ways in.
    entries: VecDeque<SocketAddr>,
    entries_asked: BTreeSet<SocketAddr>,
    candidates: BTreeMap<Place, Candidate>,
    hosts: BTreeMap<Host, Place>,
    nets: BTreeMap<Net, u32>,
    in_time: usize,
    asked: usize,
    answered: usize,
    peers: BTreeSet<SocketAddr>,
}

impl Lookup {
    /// Begins with these nodes, and with those at `entries`, whose names are not known.
    pub fn new(
        target: NodeId,
        family: Family,
        known: &[Contact],
        entries: Vec<SocketAddr>,
    ) -> Self {
        let mut lookup = Self {
            target,
            family,
            entries: entries.into(),
            entries_asked: BTreeSet::new(),
            candidates: BTreeMap::new(),
            hosts: BTreeMap::new(),
            nets: BTreeMap::new(),
            in_time: 0,
            asked: 0,
            answered: 0,
            peers: BTreeSet::new(),
        };
        known.iter().for_each(|contact| lookup.consider(*contact));
        lookup
    }

    /// What is looked for.
    pub fn target(&self) -> NodeId {
        self.target
    }

    /// Whose nodes are asked.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Nodes that have answered.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Different peers that were named.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Whether nothing is left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        let waits = |candidate: &Candidate| matches!(candidate.state, State::Asked | State::Late);
        if self.asked >= MAX_ASKED {
            return self.entries_asked.is_empty() && !self.candidates.values().any(waits);
        }
        let entered =
            self.answered >= BUCKET || self.entries.is_empty() && self.entries_asked.is_empty();
        let is_answered =
            |(_, candidate): (_, &Candidate)| matches!(candidate.state, State::Answered { .. });
        entered && [false, true].into_iter().all(|fitting| self.nearest(fitting).all(is_answered))
    }

    /// Whom to ask now, if anybody; it counts as asked.
    pub fn poll_ask(&mut self) -> Option<SocketAddr> {
        if self.in_time >= AT_ONCE || self.asked >= MAX_ASKED {
            return None;
        }
        let addr = self.next_entry().or_else(|| self.next_candidate())?;
        self.in_time += 1;
        self.asked += 1;
        Some(addr)
    }

    fn next_entry(&mut self) -> Option<SocketAddr> {
        let entry = self.entries.pop_front()?;
        self.entries_asked.insert(entry);
        Some(entry)
    }

    /// By turns of one ranking and of the other, so that neither starves.
    fn next_candidate(&mut self) -> Option<SocketAddr> {
        let fitting = self.asked.is_multiple_of(2);
        let place = self.next_of(fitting).or_else(|| self.next_of(!fitting))?;
        self.candidates.get_mut(&place)?.state = State::Asked;
        Some(place.1)
    }

    fn next_of(&self, fitting: bool) -> Option<Place> {
        let in_time = self.ranking(fitting).filter(|(_, candidate)| candidate.state != State::Late);
        let mut front = in_time.take(BUCKET);
        front.find(|(_, candidate)| candidate.state == State::Fresh).map(|(place, _)| *place)
    }

    /// The node has not answered in the usual time; told once for each time that it was asked.
    pub fn handle_late(&mut self, addr: &SocketAddr) {
        self.in_time = self.in_time.saturating_sub(1);
        if let Some(candidate) = self.at(addr)
            && candidate.state == State::Asked
        {
            candidate.state = State::Late;
        }
    }

    /// The node will not answer any more; it was told to be late before.
    pub fn handle_silent(&mut self, addr: &SocketAddr) {
        if !self.entries_asked.remove(addr)
            && let Some(candidate) = self.at(addr)
            && candidate.state == State::Late
        {
            candidate.state = State::Silent;
        }
    }

    /// The node has answered, `in_time` or late, with these nodes of the lookup's family.
    pub fn handle_answer(
        &mut self,
        from: Contact,
        token: Option<Vec<u8>>,
        mut nodes: Vec<Contact>,
        in_time: bool,
    ) {
        self.in_time = self.in_time.saturating_sub(usize::from(in_time));
        self.answered += 1;
        self.entries_asked.remove(&from.addr);
        let host = Host::of(&from.addr);
        // Perhaps somebody else gave it a name that it does not bear.
        if let Some(place) = self.hosts.get(&host).copied()
            && self.candidates.get(&place).is_some_and(|candidate| candidate.id != from.id)
        {
            self.drop(place);
        }
        self.consider(from);
        if let Some(candidate) = self.at(&from.addr) {
            candidate.state = State::Answered { token };
        }
        nodes.sort_unstable_by_key(|node| node.id.distance(&self.target));
        nodes.truncate(PER_ANSWER);
        nodes.into_iter().for_each(|node| self.consider(node));
    }

    /// Peers were named; those that are new.
    pub fn add_peers(&mut self, addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let room = MAX_PEERS - self.peers.len();
        addrs.into_iter().take(room).filter(|addr| self.peers.insert(*addr)).collect()
    }

    /// Takes a node up among those to be asked.
    pub fn consider(&mut self, contact: Contact) {
        let (host, net) = (Host::of(&contact.addr), Net::of(contact.addr.ip()));
        let crowded = net.is_some_and(|net| self.nets.get(&net).is_some_and(|n| *n >= PER_NET));
        if crowded || self.hosts.contains_key(&host) {
            return;
        }
        if self.candidates.len() >= MAX_CANDIDATES && !self.make_room() {
            return;
        }
        let place = (contact.id.distance(&self.target), contact.addr);
        let fits = contact.id.fits(contact.addr.ip());
        self.hosts.insert(host, place);
        if let Some(net) = net {
            *self.nets.entry(net).or_default() += 1;
        }
        self.candidates.insert(place, Candidate { id: contact.id, fits, state: State::Fresh });
    }

    /// Those to announce to, with what they want to be shown.
    pub fn holders(&self) -> BTreeMap<SocketAddr, Vec<u8>> {
        let both = self.nearest(false).chain(self.nearest(true));
        both.filter_map(|(place, candidate)| match &candidate.state {
            State::Answered { token: Some(token) } => Some((place.1, token.clone())),
            _ => None,
        })
        .collect()
    }

    /// Everyone but the silent, nearest first; or only those whose ids fit their addresses.
    fn ranking(&self, fitting: bool) -> impl Iterator<Item = (&Place, &Candidate)> {
        let ranked =
            self.candidates.iter().filter(|(_, candidate)| candidate.state != State::Silent);
        ranked.filter(move |(_, candidate)| candidate.fits || !fitting)
    }

    fn nearest(&self, fitting: bool) -> impl Iterator<Item = (&Place, &Candidate)> {
        self.ranking(fitting).take(BUCKET)
    }

    fn at(&mut self, addr: &SocketAddr) -> Option<&mut Candidate> {
        let place = self.hosts.get(&Host::of(addr)).filter(|place| place.1 == *addr)?;
        self.candidates.get_mut(place)
    }

    /// Drops the farthest that was not asked; `false` when all were.
    fn make_room(&mut self) -> bool {
        let fresh = |(_, candidate): &(&Place, &Candidate)| candidate.state == State::Fresh;
        let farthest = self.candidates.iter().rev().find(fresh).map(|(place, _)| *place);
        farthest.is_some_and(|place| {
            self.drop(place);
            true
        })
    }

    fn drop(&mut self, place: Place) {
        self.candidates.remove(&place);
        self.hosts.remove(&Host::of(&place.1));
        if let Some(count) = Net::of(place.1.ip()).and_then(|net| self.nets.get_mut(&net)) {
            *count -= 1;
        }
    }
}
