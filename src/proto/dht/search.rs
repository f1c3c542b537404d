//! Lookups: begun for torrents and for the table, fed with answers, and what is done when they end.

use std::net::SocketAddr;
use std::time::Instant;

use super::contact::{Contact, may_name};
use super::krpc::{Body, Query, Reply, Want};
use super::lookup::Lookup;
use super::node_id::NodeId;
use super::queries::Open;
use super::table::{BUCKET, Standing};
use super::torrents::Outcome;
use super::{Dht, Event, Family, Goal, LookupId, MAX_LOOKUPS, Purpose};

impl Dht {
    /// A question has been answered, be it by a refusal.
    pub(super) fn handle_answer(&mut self, open: &Open<Purpose>, body: Body, now: Instant) {
        match body {
            Body::Reply { id, reply, seen_at } => {
                let from = Contact { id, addr: open.addr };
                self.handle_reply(open, from, reply, now);
                self.meet(from, seen_at, now);
            }
            Body::Error(_) | Body::Query { .. } => {
                // It is there, and of no use for this.
                if open.in_time {
                    self.handle_late(open);
                }
                if let Some(lookup) = self.lookup_of(open) {
                    lookup.handle_silent(&open.addr);
                }
            }
        }
    }

    pub(super) fn handle_late(&mut self, open: &Open<Purpose>) {
        if let Some(lookup) = self.lookup_of(open) {
            lookup.handle_late(&open.addr);
        }
    }

    pub(super) fn handle_lost(&mut self, open: &Open<Purpose>, now: Instant) {
        if let Some(lookup) = self.lookup_of(open) {
            lookup.handle_silent(&open.addr);
        }
        if let Some(side) = self.side_mut(Family::of(&open.addr)) {
            side.table.failed(&open.addr, now);
        }
    }

    fn handle_reply(&mut self, open: &Open<Purpose>, from: Contact, reply: Reply, now: Instant) {
        let Reply { mut nodes, mut peers, token } = reply;
        let may_be = |addr: &SocketAddr| {
            may_name(from.addr.ip(), addr.ip()) && !self.blocklist.contains(addr.ip())
        };
        nodes.retain(|node| may_be(&node.addr) && !self.is_ourselves(node));
        peers.retain(may_be);
        let family = Family::of(&from.addr);
        let (ours, others): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| Family::of(&node.addr) == family);
        if let Some(lookup) = self.lookup_of(open) {
            lookup.handle_answer(from, token, ours, open.in_time);
            let fresh = lookup.add_peers(peers);
            self.tell_peers(open, fresh);
        }
        self.pass_on(open, others, now);
    }

    fn tell_peers(&mut self, open: &Open<Purpose>, addrs: Vec<SocketAddr>) {
        let goal = match open.purpose {
            Purpose::Lookup(id) => self.lookups.get(&id).map(|(goal, _)| *goal),
            Purpose::Check | Purpose::Announce => None,
        };
        if let Some(Goal::Peers { info_hash, .. }) = goal.filter(|_| !addrs.is_empty()) {
            self.tell(Event::Peers { info_hash, addrs });
        }
    }

    /// Nodes of the other network help the same search there; while few are known there, all help.
    fn pass_on(&mut self, open: &Open<Purpose>, nodes: Vec<Contact>, now: Instant) {
        let Some(first) = nodes.first() else { return };
        let family = Family::of(&first.addr);
        let Some(target) = self.lookup_of(open).map(|lookup| lookup.target()) else { return };
        let Some(side) = self.side(family) else { return };
        let few = side.table.len() < BUCKET;
        let same = |lookup: &Lookup| lookup.family() == family && lookup.target() == target;
        match self.lookups.values_mut().find(|(_, lookup)| same(lookup)) {
            Some((_, lookup)) => nodes.into_iter().for_each(|node| lookup.consider(node)),
            None if few => nodes.iter().for_each(|node| self.check(node.addr, now)),
            None => {}
        }
    }

    /// Begins what is due, goes on with what is under way, and ends what is done.
    pub(super) fn advance(&mut self, now: Instant) {
        self.join(now);
        while self.lookups.len() < MAX_LOOKUPS
            && let Some((info_hash, family, port)) = self.torrents.begin(now)
        {
            let goal = Goal::Peers { info_hash, port };
            let any = self.look_up(info_hash.into(), family, goal, now);
            self.torrents.begun(info_hash, family, any, now);
        }
        let ids: Vec<_> = self.lookups.keys().copied().collect();
        ids.into_iter().for_each(|id| self.drive(id, now));
    }

    /// Begins a lookup, if there is anybody to be asked.
    pub(super) fn look_up(
        &mut self,
        target: NodeId,
        family: Family,
        goal: Goal,
        now: Instant,
    ) -> bool {
        let Some(side) = self.side(family) else { return false };
        let mut known = side.table.closest(&target, 2 * BUCKET, Standing::Questionable, now);
        let mut entries = Vec::new();
        if known.len() < BUCKET {
            known = side.table.closest(&target, 2 * BUCKET, Standing::Bad, now);
            let strange = |addr: &&SocketAddr| !known.iter().any(|node| node.addr == **addr);
            let routers = self.routers.iter().filter(|addr| Family::of(addr) == family);
            entries.extend(routers.filter(strange).copied());
        }
        if known.is_empty() && entries.is_empty() {
            return false;
        }
        let id = LookupId(self.next_lookup);
        self.next_lookup += 1;
        self.lookups.insert(id, (goal, Lookup::new(target, family, &known, entries)));
        true
    }

    fn drive(&mut self, id: LookupId, now: Instant) {
        let uses = |family| self.side(family).is_some();
        let want = Want { v4: uses(Family::V4), v6: uses(Family::V6) };
        while self.queries.has_room()
            && let Some((goal, lookup)) = self.lookups.get_mut(&id)
            && let Some(addr) = lookup.poll_ask()
        {
            let query = match *goal {
                Goal::Nodes => Query::FindNode { target: lookup.target(), want },
                Goal::Peers { info_hash, .. } => Query::GetPeers { info_hash, want },
            };
            self.ask(addr, query, Purpose::Lookup(id), now);
        }
        if self.lookups.get(&id).is_some_and(|(_, lookup)| lookup.is_done())
            && let Some((goal, lookup)) = self.lookups.remove(&id)
        {
            self.finish(goal, &lookup, now);
        }
    }

    /// A torrent's lookup tells what it found, and those nearest to the torrent are told of us.
    fn finish(&mut self, goal: Goal, lookup: &Lookup, now: Instant) {
        let Goal::Peers { info_hash, port } = goal else { return };
        let holders = if port.is_some() { lookup.holders() } else { Default::default() };
        let (family, answered, peers) = (lookup.family(), lookup.answered(), lookup.peers());
        let told = holders.len();
        for (addr, token) in holders {
            self.ask(addr, Query::AnnouncePeer { info_hash, port, token }, Purpose::Announce, now);
        }
        self.torrents.ended(info_hash, family, Outcome { answered, peers }, now);
        self.tell(Event::Searched { info_hash, family, answered, peers, told });
    }

    fn lookup_of(&mut self, open: &Open<Purpose>) -> Option<&mut Lookup> {
        match open.purpose {
            Purpose::Lookup(id) => self.lookups.get_mut(&id).map(|(_, lookup)| lookup),
            Purpose::Check | Purpose::Announce => None,
        }
    }
}
