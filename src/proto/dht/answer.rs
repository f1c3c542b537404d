//! What we answer to others.
//!
//! Invariant: an answer is no larger than a packet, and goes to the address that asked.
//! Invariant: nobody is announced whose address was not shown to receive what we send there (a token).

use std::net::SocketAddr;
use std::time::Instant;

use super::contact::{Contact, Host};
use super::krpc::{Body, Message, Query, Refusal, Reply, Want};
use super::node_id::NodeId;
use super::table::{BUCKET, Standing};
use super::{Dht, Family};

impl Dht {
    pub(super) fn handle_query(
        &mut self,
        transaction: Vec<u8>,
        from: Contact,
        query: Query,
        read_only: bool,
        now: Instant,
    ) {
        let family = Family::of(&from.addr);
        let Some(side) = self.side_mut(family) else { return };
        if from.id == side.table.own() {
            return;
        }
        side.vantage.was_asked_by(Host::of(&from.addr), now);
        // Who is read-only too tells nobody of us, and two that enter by each other would both wait for ever.
        if side.vantage.is_read_only() && !read_only {
            return;
        }
        let (id, seen_at) = (side.table.own(), Some(from.addr));
        let is_of_interest = !read_only && side.table.was_asked_by(from, now);
        let body = match self.answer(from.addr, query, now) {
            Ok(reply) => Body::Reply { id, reply, seen_at },
            Err(refusal) => Body::Error(refusal),
        };
        let datagram = Message { transaction, body }.encode();
        if self.flood.answers(datagram.len(), now) {
            self.send(from.addr, datagram);
        }
        if is_of_interest {
            self.check(from.addr, now);
        }
    }

    fn answer(&mut self, from: SocketAddr, query: Query, now: Instant) -> Result<Reply, Refusal> {
        let family = Family::of(&from);
        match query {
            Query::Ping => Ok(Reply::default()),
            Query::FindNode { target, want } => Ok(self.nodes_near(&target, want, family, now)),
            Query::Unknown { target: Some(target) } => {
                Ok(self.nodes_near(&target, Want::default(), family, now))
            }
            Query::Unknown { target: None } => Err(Refusal::MethodUnknown),
            Query::GetPeers { info_hash, want } => {
                let near = self.nodes_near(&info_hash.into(), want, family, now);
                let peers = self.store.draw(&info_hash, family, now, &mut self.rng);
                Ok(Reply { peers, token: Some(self.tokens.give(from.ip()).to_vec()), ..near })
            }
            Query::AnnouncePeer { info_hash, port, token } => {
                if !self.tokens.accepts(from.ip(), &token) {
                    return Err(Refusal::Protocol);
                }
                let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                self.store.announce(info_hash, peer, now);
                Ok(Reply::default())
            }
        }
    }

    /// The good nodes near an id; where they are too few, those that may be.
    fn nodes_near(&self, target: &NodeId, want: Want, asked_in: Family, now: Instant) -> Reply {
        let none = want == Want::default();
        let wanted = |family| match family {
            _ if none => family == asked_in,
            Family::V4 => want.v4,
            Family::V6 => want.v6,
        };
        let mut nodes = Vec::new();
        for side in self.sides.iter().filter(|side| wanted(side.family)) {
            let near = |worst| side.table.closest(target, BUCKET, worst, now);
            let good = near(Standing::Good);
            nodes.extend(if good.len() < BUCKET { near(Standing::Questionable) } else { good });
        }
        Reply { nodes, ..Reply::default() }
    }
}
