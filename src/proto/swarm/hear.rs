//! What peers say, taken in one message at a time; every number is checked here.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::{Event, MAX_ODDITIES, Parting, Swarm, Violation};
use crate::proto::bitfield::Bitfield;
use crate::proto::candidates::culprit;
use crate::proto::peer::Peer;
use crate::proto::units::{BlockRef, PeerKey, PieceIndex};
use crate::proto::wire::extension::{Extension, HANDSHAKE_ID, parse_dont_have, parse_upload_only};
use crate::proto::wire::message::{Message, Request};

/// Suggested pieces of one peer that are kept; the oldest make room.
const MAX_SUGGESTED: usize = 64;

/// Allowed-fast pieces that one peer may name.
const MAX_ALLOWED_FAST: usize = 64;

impl Swarm {
    /// The peer has said this, in this order.
    pub fn handle_messages(&mut self, key: PeerKey, batch: Vec<Message>, now: Instant) {
        for message in batch {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            peer.hears(now);
            let heard = self.hear(key, message, now);
            if let Err(violation) = heard {
                self.part(key, Parting::Violation(violation), now);
                break;
            }
        }
        self.settle(now);
    }

    fn hear(&mut self, key: PeerKey, message: Message, now: Instant) -> Result<(), Violation> {
        match message {
            Message::KeepAlive => Ok(()),
            Message::Port(port) => self.hear_port(key, port),
            Message::Suggest(raw) => self.hear_suggest(key, raw),
            Message::Choke => self.hear_choke(key),
            Message::Unchoke => self.hear_unchoke(key),
            Message::Interested => {
                self.forget_upload_only(key);
                self.hear_interested(key, now)
            }
            Message::NotInterested => self.hear_not_interested(key, now),
            Message::Have(raw) => self.hear_have(key, raw, now),
            Message::Bitfield(bytes) => self.hear_bitfield(key, &bytes, now),
            Message::HaveAll => {
                self.hear_pieces(key, Bitfield::full(self.geometry.piece_count()), now)
            }
            Message::HaveNone => {
                self.hear_pieces(key, Bitfield::empty(self.geometry.piece_count()), now)
            }
            Message::Request(request) => self.hear_request(key, request, now),
            Message::Cancel(request) => self.hear_cancel(key, request, now),
            Message::Piece { piece, begin, data } => self.hear_piece(key, piece, begin, data, now),
            Message::Reject(request) => self.hear_reject(key, request, now),
            Message::AllowedFast(raw) => self.hear_allowed_fast(key, raw),
            Message::Extended { id, payload } => self.hear_extended(key, id, &payload, now),
        }
    }

    fn hear_choke(&mut self, key: PeerKey) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        peer.peer_choking = true;
        // What it suggested for its turn, it gives to others now.
        peer.suggested.clear();
        // With BEP 6 each request is answered or rejected; without it a choke drops them all.
        if !peer.fast {
            for asked in peer.take_all() {
                self.picker.release(asked.block, key);
            }
            self.drop_exclusive(key);
            self.picker.disown(key);
            self.wake_all();
        }
        Ok(())
    }

    fn hear_unchoke(&mut self, key: PeerKey) -> Result<(), Violation> {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.peer_choking = false;
            peer.refused.clear();
            self.idle.insert(key);
        }
        Ok(())
    }

    fn hear_have(&mut self, key: PeerKey, raw: u32, now: Instant) -> Result<(), Violation> {
        let piece = self.geometry.piece(raw).ok_or("have of a piece that is not")?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if peer.pieces.has(piece) {
            return Ok(());
        }
        self.picker.peer_gained(&peer.pieces, piece);
        peer.pieces.insert(piece);
        self.spread.is_out(piece);
        peer.refused.remove(&piece);
        if !self.picker.have().has(piece) {
            self.idle.insert(key);
        }
        self.judge(key, now);
        self.spread_out(now);
        Ok(())
    }

    fn hear_bitfield(
        &mut self,
        key: PeerKey,
        bytes: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let pieces = Bitfield::from_wire(bytes, self.geometry.piece_count())
            .ok_or("bitfield of another length than the torrent's, or with spare bits set")?;
        self.hear_pieces(key, pieces, now)
    }

    fn hear_pieces(
        &mut self,
        key: PeerKey,
        pieces: Bitfield,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        // aria2 sends its bitfield again in place of many haves: what was said before still holds.
        self.picker.peer_left(&peer.pieces);
        peer.pieces.union_with(&pieces);
        self.picker.peer_came(&peer.pieces);
        self.idle.insert(key);
        self.judge(key, now);
        Ok(())
    }

    fn hear_suggest(&mut self, key: PeerKey, raw: u32) -> Result<(), Violation> {
        let Some(piece) = self.geometry.piece(raw) else { return self.odd(key) };
        let have = self.picker.have();
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        peer.suggested.retain(|known| *known != piece && !have.has(*known));
        if peer.suggested.len() >= MAX_SUGGESTED {
            peer.suggested.pop_front();
        }
        peer.suggested.push_back(piece);
        self.idle.insert(key);
        Ok(())
    }

    fn hear_allowed_fast(&mut self, key: PeerKey, raw: u32) -> Result<(), Violation> {
        let piece = self.geometry.piece(raw).ok_or("allowed-fast of a piece that is not")?;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if !peer.fast {
            return Err("a message of BEP 6 without having announced it");
        }
        if peer.allowed_fast.len() < MAX_ALLOWED_FAST {
            peer.allowed_fast.insert(piece);
            self.idle.insert(key);
        }
        Ok(())
    }

    fn hear_piece(
        &mut self,
        key: PeerKey,
        piece: u32,
        begin: u32,
        data: Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let len = u32::try_from(data.len()).map_err(|_| "a block that is too long")?;
        let Some(block) = self.geometry.block_exactly(piece, begin, len) else {
            return Err("bytes that are no block of the torrent");
        };
        self.take_block(key, block, data, now);
        Ok(())
    }

    fn hear_reject(
        &mut self,
        key: PeerKey,
        request: Request,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(block) = self.block_of(request) else { return self.odd(key) };
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if !peer.fast {
            return Err("a message of BEP 6 without having announced it");
        }
        // It may come after we gave the request up for lost.
        let Some(asked) = peer.take_out(block) else { return Ok(()) };
        peer.rejected(&asked);
        // Said while unchoked and not to our cancel, it means that this piece will not come from there.
        let refuses = !peer.peer_choking && !asked.cancelled;
        let snub = refuses && peer.refuse(block.piece, now);
        peer.allowed_fast.remove(&block.piece);
        self.picker.release(block, key);
        if peer.peer_choking && peer.outstanding().len() == 0 {
            self.drop_exclusive(key);
            self.picker.disown(key);
        }
        if snub {
            self.snub(key);
        }
        self.wake_all();
        Ok(())
    }

    fn hear_extended(
        &mut self,
        key: PeerKey,
        id: u8,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        let heard = self.peers.get(&key).is_some_and(|peer| self.hears_of_pieces(peer));
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        match id {
            HANDSHAKE_ID => match peer.learn(payload) {
                Ok(()) => {
                    self.tell_pieces(key, heard, now);
                    self.gossip_to_newcomer(key, now);
                    self.heed_upload_only(key, now);
                    Ok(())
                }
                Err(_) => self.odd(key),
            },
            _ if Extension::from_local_id(id) == Some(Extension::Metadata) => {
                self.hear_metadata(key, payload, now)
            }
            _ if Extension::from_local_id(id) == Some(Extension::UploadOnly) => {
                let told =
                    parse_upload_only(payload).ok_or("upload_only of another length than 1")?;
                peer.said.upload_only = Some(told);
                self.heed_upload_only(key, now);
                Ok(())
            }
            _ if Extension::from_local_id(id) == Some(Extension::DontHave) => {
                let raw = parse_dont_have(payload).ok_or("lt_donthave of another length than 4")?;
                let piece = self.geometry.piece(raw).ok_or("lt_donthave of a piece that is not")?;
                self.hear_dont_have(key, piece, now)
            }
            _ if Extension::from_local_id(id) == Some(Extension::Pex) && self.gossips() => {
                self.hear_gossip(key, payload, now)
            }
            _ if Extension::from_local_id(id) == Some(Extension::Holepunch) && self.punches() => {
                self.hear_holepunch(key, payload, now)
            }
            _ => self.odd(key),
        }
    }

    /// BEP 54: the peer has thrown the piece out.
    fn hear_dont_have(
        &mut self,
        key: PeerKey,
        piece: PieceIndex,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        if !peer.pieces.has(piece) {
            return Ok(());
        }
        self.picker.peer_lost(&peer.pieces, piece);
        peer.pieces.remove(piece);
        let gone: Vec<_> = peer
            .outstanding()
            .map(|asked| asked.block)
            .filter(|block| block.piece == piece)
            .collect();
        for block in gone {
            peer.take_out(block);
            self.picker.release(block, key);
        }
        self.wake_all();
        self.judge(key, now);
        Ok(())
    }

    /// Tells the peer whether we want anything of it; parts from it when neither can want anything.
    pub(super) fn judge(&mut self, key: PeerKey, now: Instant) {
        let no_more = self.wants_no_more();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if no_more && peer.wants_no_more() {
            self.part(key, Parting::BothSeeds, now);
            return;
        }
        let wanted = !no_more && peer.pieces.has_more_than(self.picker.have());
        if wanted != peer.am_interested {
            peer.am_interested = wanted;
            self.say(key, if wanted { Message::Interested } else { Message::NotInterested }, now);
        }
    }

    pub(super) fn block_of(&self, request: Request) -> Option<BlockRef> {
        self.geometry.block_exactly(request.piece, request.begin, request.len)
    }

    /// Something without sense that does no harm by itself.
    pub(super) fn odd(&mut self, key: PeerKey) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        peer.oddities += 1;
        if peer.oddities > MAX_ODDITIES {
            return Err("too many messages without sense");
        }
        Ok(())
    }

    /// The liar's connections end, and it is not dialled again for an hour.
    pub(super) fn ban(&mut self, liar: SocketAddr, now: Instant) {
        self.dials.candidates.ban(liar, now);
        self.events.push_back(Event::Banned(liar));
        let lied = |peer: &&Peer| culprit(peer.contact()) == liar;
        let keys: Vec<_> = self.peers.values().filter(lied).map(|peer| peer.key).collect();
        for key in keys {
            self.part(key, Parting::Banned, now);
        }
    }
}
