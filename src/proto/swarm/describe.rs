//! What the torrent is, for peers that know its hash alone (BEP 9); and the way into the swarm of those that told us.
//!
//! Not here: how we learn it ourselves ([`crate::proto::introduction`]).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Swarm, Violation};
use crate::proto::dials::Dials;
use crate::proto::metadata::Word;
use crate::proto::metadata::serve::Description;
use crate::proto::units::PeerKey;
use crate::proto::wire::extension::Extension;
use crate::proto::wire::message::Message;

/// Time that a reader has who waited to learn what the torrent is, before fill takes the peers: they have unchoked us
/// by then, and what they are asked for first comes first, cancelled or not.
const READERS_FIRST: Duration = Duration::from_millis(100);

impl Swarm {
    /// From now on peers are given the info dictionary, unless the torrent is private. Call it before any comes.
    pub fn describe(&mut self, info: Bytes) {
        self.description = (!self.private).then(|| Description::new(info));
    }

    /// Takes over the addresses that were met and are dialled while it was unknown what the torrent is; those who are
    /// connected follow. A private torrent may not have them.
    pub fn adopt(&mut self, dials: Dials, now: Instant) {
        if !self.private {
            self.dials = dials;
            // Peers were asked for then, and nobody is here yet only since all are on their way over.
            self.dials.hush(now);
        }
        if self.config.reads {
            let fill_from = now + READERS_FIRST;
            (self.fill_from, self.next_housekeeping) = (Some(fill_from), fill_from);
        }
    }

    /// Fill takes the peers that nobody reads from, once it is time.
    pub(super) fn begin_fill(&mut self, now: Instant) {
        if self.fill_from.is_some_and(|at| now >= at) {
            self.fill_from = None;
            self.wake_all();
        }
    }

    /// Extensions that we speak.
    pub(super) fn spoken(&self) -> Vec<Extension> {
        let mut spoken = vec![Extension::DontHave, Extension::UploadOnly];
        spoken.extend(self.gossips().then_some(Extension::Pex));
        spoken.extend(self.punches().then_some(Extension::Holepunch));
        spoken.extend(self.description.as_ref().map(|_| Extension::Metadata));
        spoken
    }

    pub(super) fn hear_metadata(
        &mut self,
        key: PeerKey,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        match Word::parse(payload) {
            Some(Word::Request(block)) => {
                let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
                let Some(id) = peer.said.ids.of(Extension::Metadata) else { return self.odd(key) };
                let answer = match &mut self.description {
                    Some(description) => description.answer(block, &mut peer.metadata, now),
                    None => Word::Reject(block).encode(),
                };
                self.say(key, Message::Extended { id, payload: answer }, now);
                Ok(())
            }
            // What we asked for before we knew it.
            Some(Word::Data { .. } | Word::Reject(_)) => Ok(()),
            None => self.odd(key),
        }
    }
}
