//! How a torrent stands, for everyone who asks.

use std::time::Instant;

use super::Torrent;
use crate::engine::handle::{DhtSearch, Fill, PeerStatus, Status};
use crate::engine::tracker::TrackerHandle;
use crate::proto::announce::Progress;
use crate::proto::peer::Peer;

impl Torrent {
    pub(super) fn report(&mut self, now: Instant) {
        self.reported = now;
        let geometry = &self.content.metainfo.geometry;
        let have = self.swarm.have();
        let last = geometry.pieces().next_back().filter(|&last| have.has(last));
        let short = last.map_or(0, |last| geometry.nominal_piece_len() - geometry.piece_len(last));
        let have_bytes =
            u64::from(have.count()) * u64::from(geometry.nominal_piece_len()) - u64::from(short);
        let totals = self.swarm.totals();
        let left = geometry.total() - have_bytes;
        let (uploaded, downloaded) = (totals.uploaded, totals.downloaded);
        self.out.progress.send_replace(Progress { uploaded, downloaded, left });
        self.out.status.send_replace(Status {
            have: have.count(),
            have_bytes,
            totals,
            down_rate: self.down.per_second(now),
            up_rate: self.up.per_second(now),
            peers: self.swarm.peers().map(peer_status).collect(),
            dials: self.swarm.dials(),
            known: self.swarm.known_addresses(),
            awaited: self.swarm.awaited(now),
            trackers: self.tracker.as_ref().map(TrackerHandle::status).unwrap_or_default(),
            dht: self.dht_search(),
            fill: self.fill_now(),
            trouble: self.trouble.clone(),
        });
    }

    fn dht_search(&self) -> Option<DhtSearch> {
        let dht = self.resources.dht.as_ref().filter(|_| self.door.dht)?;
        let status = dht.status();
        Some(DhtSearch { nodes: status.nodes, found: status.found(self.door.info_hash) })
    }

    fn fill_now(&self) -> Fill {
        let piece = u64::from(self.content.metainfo.geometry.nominal_piece_len());
        match () {
            () if !self.fill => Fill::Off,
            () if self.retry_store.is_some() => Fill::Halted,
            () if self.resources.budget.room() < piece => Fill::NoRoom,
            () => Fill::On,
        }
    }
}

fn peer_status(peer: &Peer) -> PeerStatus {
    PeerStatus {
        addr: peer.addr,
        client: peer.said.client.clone().unwrap_or_default(),
        pieces: peer.pieces.count(),
        choking: peer.peer_choking,
        snubbed: peer.snubbed,
        downloaded: peer.downloaded,
        uploaded: peer.uploaded,
    }
}
