//! Peers behind routers that let nobody in are met with the help of a third (BEP 55).
//!
//! ```text
//! we ── dial, in vain ──▶ far          helper named far (BEP 11)
//! we ── Rendezvous(far) ─▶ helper ── Connect(we) ──▶ far
//! we ◀─ Connect(far) ──── helper                     far ── dial ─▶ we
//! we ── dial ───────────▶ far
//! ```
//!
//! Invariant: help is asked for once for each time that a peer is named, and a peer makes us dial or speak for it so
//! often a minute and no more ([`MAX_PUNCHES`]).
//!
//! [`MAX_PUNCHES`]: crate::proto::peer::MAX_PUNCHES
//!
//! Not here: the dial, which goes over uTP as well as over TCP (the driver's); private torrents, which never do this.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::{Event, Swarm, Violation};
use crate::proto::announce::reach::Reach;
use crate::proto::candidates::{MAX_HEARSAY, is_dialable};
use crate::proto::peer::Peer;
use crate::proto::units::PeerKey;
use crate::proto::wire::extension::Extension;
use crate::proto::wire::holepunch::{Refusal, Word};
use crate::proto::wire::message::Message;

impl Swarm {
    /// Whether we speak ut_holepunch at all.
    pub(super) fn punches(&self) -> bool {
        self.config.punch && self.gossips()
    }

    /// This peer has named an address where ut_holepunch is spoken.
    pub(super) fn note_helper(&mut self, key: PeerKey, addr: SocketAddr) {
        let helps = |peer: &Peer| peer.said.ids.of(Extension::Holepunch).is_some();
        if self.punches()
            && self.helpers.len() < MAX_HEARSAY
            && self.peers.get(&key).is_some_and(helps)
        {
            self.helpers.insert(addr, key);
        }
    }

    /// A dial came to nothing: whoever named the address may help.
    pub(super) fn ask_for_help(&mut self, addr: SocketAddr, now: Instant) {
        if let Some(helper) = self.helpers.remove(&addr) {
            self.punch(helper, Word::Rendezvous(addr), now);
        }
    }

    pub(super) fn hear_holepunch(
        &mut self,
        key: PeerKey,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let Some(word) = Word::parse(payload) else { return self.odd(key) };
        if !peer.punches.take(now) {
            return self.odd(key);
        }
        match word {
            Word::Rendezvous(far) => {
                let answer = match self.bring_together(key, far, now) {
                    Ok(()) => Word::Connect(far),
                    Err(refusal) => Word::Refused(far, refusal),
                };
                self.punch(key, answer, now);
            }
            Word::Connect(far) => self.dial_now(key, far, now),
            // It is dialled again as anybody is.
            Word::Refused(..) => {}
        }
        Ok(())
    }

    /// Tells the far peer to dial the near one.
    fn bring_together(
        &mut self,
        near: PeerKey,
        far: SocketAddr,
        now: Instant,
    ) -> Result<(), Refusal> {
        if !is_dialable(far) {
            return Err(Refusal::NoSuchPeer);
        }
        let asks = self.peers.get(&near).ok_or(Refusal::NotConnected)?;
        let there = |peer: &&Peer| peer.contact() == far || peer.addr == far;
        let far = self.peers.values().find(there).ok_or(Refusal::NotConnected)?;
        if far.key == near {
            return Err(Refusal::NoSelf);
        }
        let may_know =
            |one: &Peer, other: &Peer| Reach::of_neighbour(one.addr.ip()).allows(other.addr.ip());
        if !may_know(asks, far) || !may_know(far, asks) {
            return Err(Refusal::NotConnected);
        }
        if far.said.ids.of(Extension::Holepunch).is_none() {
            return Err(Refusal::NoSupport);
        }
        let (far, near) = (far.key, asks.contact());
        self.punch(far, Word::Connect(near), now);
        Ok(())
    }

    /// Dials at once, since the far peer does so too.
    fn dial_now(&mut self, helper: PeerKey, far: SocketAddr, now: Instant) {
        let Some(helper) = self.peers.get(&helper) else { return };
        let is_near = Reach::of_neighbour(helper.addr.ip()).allows(far.ip());
        let is_here = self.peers.values().any(|peer| peer.contact() == far);
        if is_near && !is_here && self.dials.at_once(far, self.peers.len(), &self.config, now) {
            self.events.push_back(Event::Dial(far));
        }
    }

    fn punch(&mut self, to: PeerKey, word: Word, now: Instant) {
        let id = self.peers.get(&to).and_then(|peer| peer.said.ids.of(Extension::Holepunch));
        if let Some(id) = id {
            self.say(to, Message::Extended { id, payload: word.encode() }, now);
        }
    }
}
