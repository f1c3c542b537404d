//! What a private torrent asks of its swarm (BEP 27): peers of one tracker at a time.
//!
//! Not here: which sources of peers there may be at all ([`crate::proto::origin`]).

use std::net::SocketAddr;
use std::time::Instant;

use super::{Parting, Swarm};
use crate::proto::origin::Origin;

impl Swarm {
    /// A tracker of the torrent names peers. A private torrent then leaves those that another one named, and those
    /// that dialled us meanwhile.
    pub fn handle_tracked(
        &mut self,
        url: &str,
        addrs: impl IntoIterator<Item = SocketAddr>,
        now: Instant,
    ) {
        let is_new = self.private && self.tracker.as_deref() != Some(url);
        if is_new && self.tracker.replace(url.to_owned()).is_some() {
            self.leave_all(now);
        }
        self.handle_candidates(addrs, Origin::Tracker, now);
    }

    /// Everyone goes whom the user did not name.
    fn leave_all(&mut self, now: Instant) {
        let others = self.peers.values().filter(|peer| !self.dials.candidates.stays(peer.addr));
        for key in others.map(|peer| peer.key).collect::<Vec<_>>() {
            self.part(key, Parting::OtherTracker, now);
        }
        self.dials.candidates.forget_all_but_those_that_stay();
        self.settle(now);
    }

    /// Whether a dial has come through that was begun before its tracker was left.
    pub(super) fn is_left_behind(&self, addr: SocketAddr, incoming: bool) -> bool {
        self.private && !incoming && !self.dials.candidates.is_known(addr)
    }
}
