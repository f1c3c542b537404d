//! A look at what readers wait for, and on whom.
//!
//! Invariant: looking changes nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Swarm;
use crate::proto::awaited::{Awaited, Holder, Holders, MAX_HOLDERS, MAX_PIECES, Stage, Standing};
use crate::proto::peer::{Outstanding, Peer};
use crate::proto::picker::Demand;
use crate::proto::units::{PeerKey, PieceIndex};

/// Blocks of a piece that a peer was asked for, and when the first was.
type Asked = BTreeMap<(PieceIndex, PeerKey), (u32, Instant)>;

impl Swarm {
    /// The first pieces that readers want and that are not here, most urgent first.
    pub fn awaited(&self, now: Instant) -> Vec<Awaited> {
        let have = self.picker.have();
        let mut demands = self.readers.demands(&self.geometry, have, self.config.max_window, now);
        demands.truncate(MAX_PIECES);
        if demands.is_empty() {
            return Vec::new();
        }
        let asked = self.asked(&demands.iter().map(|demand| demand.piece).collect());
        let view = |Demand { piece, blocked }| {
            let (holders, named) = self.holders(piece, &asked);
            Awaited { piece, blocked, stage: self.stage(piece), holders, named }
        };
        demands.into_iter().map(view).collect()
    }

    /// Addresses that are known, the connected ones included.
    pub fn known_addresses(&self) -> usize {
        self.dials.candidates.len()
    }

    /// Dials that are under way.
    pub fn dials(&self) -> usize {
        self.dials.len()
    }

    fn asked(&self, pieces: &BTreeSet<PieceIndex>) -> Asked {
        let mut all = Asked::new();
        for peer in self.peers.values() {
            let stands = |request: &&Outstanding| {
                !request.cancelled && pieces.contains(&request.block.piece)
            };
            for request in peer.outstanding().filter(stands) {
                let (blocks, since) =
                    all.entry((request.block.piece, peer.key)).or_insert((0, request.at));
                *blocks += 1;
                *since = request.at.min(*since);
            }
        }
        all
    }

    fn stage(&self, piece: PieceIndex) -> Stage {
        if self.picker.doubted().has(piece) {
            return Stage::Unproven;
        }
        let blocks = self.geometry.block_count(piece);
        match self.picker.partial(piece) {
            Some(partial) if partial.is_whole() => Stage::Whole,
            Some(partial) => {
                let here = partial.received();
                Stage::Fetching { blocks, here, asked: blocks - here - partial.missing() }
            }
            None => Stage::Fetching { blocks, here: 0, asked: 0 },
        }
    }

    fn holders(&self, piece: PieceIndex, asked: &Asked) -> (Holders, Vec<Holder>) {
        let mut holders = Holders::default();
        let mut named = Vec::new();
        for peer in self.peers.values().filter(|peer| peer.pieces.has(piece)) {
            let standing = standing(peer, piece);
            holders.add(standing);
            let asked = asked.get(&(piece, peer.key)).copied();
            let (blocks, since) = asked.map_or((0, None), |(blocks, at)| (blocks, Some(at)));
            named.push(Holder { addr: peer.addr, standing, asked: blocks, since });
        }
        named.sort_by_key(|holder| (Reverse(holder.asked > 0), holder.standing));
        named.truncate(MAX_HOLDERS);
        (holders, named)
    }
}

fn standing(peer: &Peer, piece: PieceIndex) -> Standing {
    if peer.peer_choking && !peer.allowed_fast.contains(&piece) {
        return Standing::Choking;
    }
    if peer.refused.contains(&piece) {
        return Standing::Refusing;
    }
    if peer.snubbed { Standing::Snubbed } else { Standing::Serving }
}
