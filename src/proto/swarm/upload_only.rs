//! Who wants nothing more (BEP 21): we tell peers of us, they tell us of them, and where neither side wants
//! anything of the other, both part.
//!
//! We want nothing more when all is here, and as a partial seed: one whose data is incomplete and that neither fill
//! nor a reader will ever complete. A mount without fill that nobody reads is no partial seed: a reader may come at
//! any moment, and would then miss the connections that peers have closed for it.
//!
//! libtorrent takes the handshake's word only when it says yes, so those who speak its message of the same name
//! are told by that.
//!
//! Not here: the bytes ([`crate::proto::wire::extension`]).

use std::time::{Duration, Instant};

use super::{Parting, Swarm};
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::wire::extension::{Extension, encode_upload_only};
use crate::proto::wire::message::Message;

/// Age from which on a connection has told what its peer has, one HAVE after another.
const TELLING: Duration = Duration::from_secs(10);

impl Swarm {
    /// Whether nothing will be wanted beside what is here.
    pub(super) fn wants_no_more(&self) -> bool {
        self.have().is_full() || !(self.config.fill || self.config.reads)
    }

    /// Tells every peer when it has changed whether we want more. If we do again, since a piece was lost or thrown
    /// out, the seeds that we had left are dialled at once: a reader may be waiting for it.
    pub(super) fn tell_upload_only(&mut self, now: Instant) {
        let upload_only = self.wants_no_more();
        if std::mem::replace(&mut self.told_upload_only, upload_only) == upload_only {
            return;
        }
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.judge(key, now);
            let Some(peer) = self.peers.get(&key).filter(|peer| peer.extended) else { continue };
            let message = match peer.said.ids.of(Extension::UploadOnly) {
                Some(id) => Message::Extended { id, payload: encode_upload_only(upload_only) },
                None => self.hello(peer, Some(upload_only)),
            };
            self.say(key, message, now);
        }
        if !upload_only {
            self.dial(now);
        }
    }

    /// The peer has told of itself: if it wants nothing, it needs no slot, whatever it said before.
    pub(super) fn heed_upload_only(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.peer_interested &= !peer.wants_no_more();
        self.judge(key, now);
    }

    /// The peer says that it is interested: whatever it said before, it wants more.
    pub(super) fn forget_upload_only(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.said.upload_only = None;
        }
    }

    /// Parts from those that want nothing and have nothing for us, unless the user named them. Not at once: what
    /// they have may still be on its way, as one HAVE after another.
    pub(super) fn part_from_uploaders(&mut self, now: Instant) {
        let idle = |peer: &&Peer| {
            let settled = now.saturating_duration_since(peer.since) >= TELLING;
            let unused = !peer.am_interested && peer.wants_no_more();
            settled && unused && !self.dials.candidates.stays(peer.addr)
        };
        let keys: Vec<_> = self.peers.values().filter(idle).map(|peer| peer.key).collect();
        for key in keys {
            self.part(key, Parting::BothSeeds, now);
        }
    }
}
