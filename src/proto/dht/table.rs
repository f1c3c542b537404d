//! The nodes that we know, near ones in more detail (BEP 5).
//!
//! A bucket holds those that share exactly so many leading bits with our own id, so nothing is ever split.
//!
//! Invariant: whoever stands here has answered us, in this run or in the one before; at most [`BUCKET`] nodes and as
//! many spares a bucket; one node a [`Host`], and one of each [`Net`] a bucket.
//! Invariant: a good node goes only when its place is asked for by one whose id fits its address (BEP 42), and
//! its own does not.
//!
//! Not here: asking them ([`super::lookup`], [`super`]).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::contact::{Contact, Host, Net};
use super::node_id::{ID_BITS, NodeId};

/// Nodes in a bucket, and nodes that a reply names.
pub const BUCKET: usize = 8;

/// Silence after which it is questionable whether a node is there.
pub const GOOD_FOR: Duration = Duration::from_secs(15 * 60);

/// Queries in a row without an answer after which a node is bad.
const BAD_AFTER: u32 = 2;

/// The same after which it goes, unless nobody answers: then it is we who are cut off.
const GONE_AFTER: u32 = 5;

/// How much is to be thought of a node, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Has answered of late.
    Good,
    /// Has not been heard for long.
    Questionable,
    /// Does not answer.
    Bad,
}

#[derive(Clone, Debug)]
struct Node {
    contact: Contact,
    /// Last sign of life in this run.
    heard: Option<Instant>,
    /// Last query, so that one that is silent is not asked without pause.
    asked: Option<Instant>,
    failures: u32,
}

impl Node {
    fn standing(&self, now: Instant) -> Standing {
        let fresh = |heard: Instant| now.saturating_duration_since(heard) < GOOD_FOR;
        match self.heard {
            _ if self.failures >= BAD_AFTER => Standing::Bad,
            Some(heard) if fresh(heard) => Standing::Good,
            _ => Standing::Questionable,
        }
    }

    fn fits(&self) -> bool {
        self.contact.id.fits(self.contact.addr.ip())
    }
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    nodes: Vec<Node>,
    /// Would stand in `nodes` if there were room; the one heard of last is last.
    spares: Vec<Contact>,
    /// When it was last looked for nodes of this bucket.
    sought: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
}

impl Table {
    /// A table without nodes, around our own id.
    pub fn new(own: NodeId) -> Self {
        Self { own, buckets: vec![Bucket::default(); ID_BITS] }
    }

    /// Our own id.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// Nodes, bad ones included.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.nodes.len()).sum()
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every node, the farthest first.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.nodes().map(|node| node.contact)
    }

    /// Nodes of at least this standing.
    pub fn count(&self, worst: Standing, now: Instant) -> usize {
        self.nodes().filter(|node| node.standing(now) <= worst).count()
    }

    /// The nodes nearest to the target, nearest first, of at least this standing.
    pub fn closest(
        &self,
        target: &NodeId,
        most: usize,
        worst: Standing,
        now: Instant,
    ) -> Vec<Contact> {
        let fit = self.nodes().filter(|node| node.standing(now) <= worst);
        let mut near: Vec<_> =
            fit.map(|node| (node.contact.id.distance(target), node.contact)).collect();
        near.sort_unstable();
        near.truncate(most);
        near.into_iter().map(|(_, contact)| contact).collect()
    }

    /// The node has answered: it is taken in, if there is a place for it.
    pub fn answered(&mut self, contact: Contact, now: Instant) {
        self.take_in(contact, Some(now), now);
        debug_assert_eq!(self.invariants(), Ok(()));
    }

    /// The node was here when an earlier run ended; it is questionable until it answers.
    pub fn remember(&mut self, contact: Contact, now: Instant) {
        self.take_in(contact, None, now);
    }

    /// A node has asked us something. If it is one of the table it is there; tells whether it is not and there may
    /// be a place for it, so that it is worth asking.
    pub fn was_asked_by(&mut self, contact: Contact, now: Instant) -> bool {
        if let Some(node) = self.node_mut(&contact.addr) {
            // Without ever having answered, it proves nothing: anybody can write a sender.
            if node.contact == contact && node.heard.is_some() {
                node.heard = Some(now);
            }
            return false;
        }
        let Some(bucket) = self.place(&contact) else { return false };
        let improves = |node: &Node| node.standing(now) != Standing::Good;
        self.buckets[bucket].nodes.len() < BUCKET || self.buckets[bucket].nodes.iter().any(improves)
    }

    /// The node is being asked.
    pub fn asks(&mut self, addr: &SocketAddr, now: Instant) {
        if let Some(node) = self.node_mut(addr) {
            node.asked = Some(now);
        }
    }

    /// The node has not answered: a bad one makes room for a spare.
    pub fn failed(&mut self, addr: &SocketAddr, now: Instant) {
        let Some(node) = self.node_mut(addr) else { return };
        node.failures += 1;
        let (failures, contact) = (node.failures, node.contact);
        let bucket = self.own.shared_bits(&contact.id);
        if failures >= BAD_AFTER
            && let Some(spare) = self.buckets[bucket].spares.pop()
        {
            self.remove(&contact);
            self.take_in(spare, None, now);
        } else if failures >= GONE_AFTER && self.count(Standing::Good, now) > 0 {
            self.remove(&contact);
        }
    }

    /// The questionable node that was heard of and asked the longest ago, if it may be asked again.
    pub fn stalest(&self, now: Instant) -> Option<Contact> {
        let long_ago = |at: Option<Instant>| {
            at.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(60))
        };
        let due = self
            .nodes()
            .filter(|node| node.standing(now) != Standing::Good && long_ago(node.asked));
        due.min_by_key(|node| (node.asked, node.heard)).map(|node| node.contact)
    }

    /// A bucket in which it is time to look for nodes, which counts as done: each that may have some, once in 15
    /// minutes.
    pub fn next_search(&mut self, now: Instant) -> Option<usize> {
        let deepest = self.buckets.iter().rposition(|bucket| !bucket.nodes.is_empty())?;
        let due = |bucket: &Bucket| {
            bucket.sought.is_none_or(|at| now.saturating_duration_since(at) >= GOOD_FOR)
        };
        let bucket = self.buckets[..=deepest].iter().position(due)?;
        self.buckets[bucket].sought = Some(now);
        Some(bucket)
    }

    /// The same nodes around another id.
    pub fn rebase(&mut self, own: NodeId, now: Instant) {
        let before = std::mem::replace(self, Self::new(own));
        for node in before.buckets.into_iter().flat_map(|bucket| bucket.nodes) {
            self.take_in(node.contact, node.heard, now);
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.buckets.iter().flat_map(|bucket| &bucket.nodes)
    }

    fn node_mut(&mut self, addr: &SocketAddr) -> Option<&mut Node> {
        let mut nodes = self.buckets.iter_mut().flat_map(|bucket| &mut bucket.nodes);
        nodes.find(|node| node.contact.addr == *addr)
    }

    /// The bucket that the node belongs to; `None` for ourselves.
    fn place(&self, contact: &Contact) -> Option<usize> {
        Some(self.own.shared_bits(&contact.id)).filter(|shared| *shared < ID_BITS)
    }

    fn take_in(&mut self, contact: Contact, heard: Option<Instant>, now: Instant) {
        let Some(at) = self.place(&contact) else { return };
        if let Some(node) = self.node_mut(&contact.addr)
            && node.contact == contact
        {
            (node.heard, node.failures) = (heard.or(node.heard), 0);
            return;
        }
        if !self.displace_twins(&contact, now) {
            return;
        }
        let bucket = &mut self.buckets[at];
        bucket.spares.retain(|spare| Host::of(&spare.addr) != Host::of(&contact.addr));
        let net = Net::of(contact.addr.ip());
        let crowded =
            net.is_some() && bucket.nodes.iter().any(|node| Net::of(node.contact.addr.ip()) == net);
        if crowded {
            return;
        }
        let node = Node { contact, heard, asked: None, failures: 0 };
        if bucket.nodes.len() < BUCKET {
            bucket.nodes.push(node);
        } else if let Some(loser) = loser(&bucket.nodes, &node, now) {
            bucket.nodes[loser] = node;
        } else {
            if bucket.spares.len() == BUCKET {
                bucket.spares.remove(0);
            }
            bucket.spares.push(contact);
        }
    }

    /// Removes what stands here under the newcomer's id or host; `false` when that is good, and stays.
    fn displace_twins(&mut self, contact: &Contact, now: Instant) -> bool {
        let host = Host::of(&contact.addr);
        let is_twin =
            |node: &&Node| node.contact.id == contact.id || Host::of(&node.contact.addr) == host;
        let twins: Vec<_> = self.nodes().filter(is_twin).cloned().collect();
        if twins.iter().any(|twin| twin.standing(now) == Standing::Good) {
            return false;
        }
        twins.iter().for_each(|twin| self.remove(&twin.contact));
        true
    }

    fn remove(&mut self, contact: &Contact) {
        let bucket = self.own.shared_bits(&contact.id);
        self.buckets[bucket].nodes.retain(|node| node.contact != *contact);
    }

    /// Names the rule that does not hold, if any.
    pub fn invariants(&self) -> Result<(), String> {
        for (shared, bucket) in self.buckets.iter().enumerate() {
            if bucket.nodes.len() > BUCKET || bucket.spares.len() > BUCKET {
                return Err(format!("bucket {shared} is too full"));
            }
            if bucket.nodes.iter().any(|node| self.own.shared_bits(&node.contact.id) != shared) {
                return Err(format!("bucket {shared} holds a node of another"));
            }
            let mut nets: Vec<_> =
                bucket.nodes.iter().filter_map(|node| Net::of(node.contact.addr.ip())).collect();
            nets.sort_unstable();
            if nets.windows(2).any(|two| two[0] == two[1]) {
                return Err(format!("bucket {shared} holds two nodes of one network"));
            }
        }
        let mut hosts: Vec<_> = self.nodes().map(|node| Host::of(&node.contact.addr)).collect();
        hosts.sort_unstable();
        match hosts.windows(2).any(|two| two[0] == two[1]) {
            true => Err("two nodes of one host".to_owned()),
            false => Ok(()),
        }
    }
}

/// Which node of a full bucket makes room for this one, if any.
fn loser(nodes: &[Node], newcomer: &Node, now: Instant) -> Option<usize> {
    if let Some(bad) = nodes.iter().position(|node| node.standing(now) == Standing::Bad) {
        return Some(bad);
    }
    if !newcomer.fits() || newcomer.heard.is_none() {
        return None;
    }
    // The youngest: those that have been here for long are the likeliest to stay.
    nodes.iter().rposition(|node| !node.fits())
}
