//! Messages on their way into a socket: heads and small messages in one buffer, block data beside it,
//! written together.
//!
//! Invariant: bytes leave in the order of the messages, each once, however little a write takes.
//!
//! Not here: waiting for the socket ([`super::connection`]).

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::proto::wire::message::Message;

/// Slices for one write: heads and data of 32 blocks, 512 KiB.
const MAX_SLICES: usize = 64;

/// Bytes of the head buffer that are kept between batches; only a large bitfield needs more.
const KEEP_HEADS: usize = 16 * 1024;

/// One batch of encoded messages and how far it is written.
#[derive(Debug, Default)]
pub struct Outbox {
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// The first part that is not wholly written, and how much of it is.
    next: usize,
    written: usize,
}

#[derive(Debug)]
enum Part {
    /// Bytes of `heads`.
    Heads(Range<usize>),
    /// A PIECE's data.
    Data(Bytes),
    /// An extension's payload, which may be as long.
    Payload(Bytes),
}

impl Outbox {
    /// Takes a message in behind the others.
    pub fn push(&mut self, message: &Message) {
        let from = self.heads.len();
        let data = message.encode(&mut self.heads);
        let to = self.heads.len();
        match self.parts.last_mut() {
            Some(Part::Heads(range)) => range.end = to,
            Some(Part::Data(_) | Part::Payload(_)) | None => self.parts.push(Part::Heads(from..to)),
        }
        let part =
            if matches!(message, Message::Piece { .. }) { Part::Data } else { Part::Payload };
        self.parts.extend(data.map(|data| part(data.clone())));
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.next == self.parts.len()
    }

    /// What the next write should take.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut skip = self.written;
        let mut filled = 0;
        for (part, slot) in self.parts[self.next..].iter().zip(into) {
            *slot = IoSlice::new(&self.bytes(part)[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// Notes that a write took `bytes`; how many of them were block data.
    pub fn advance(&mut self, mut bytes: usize) -> u64 {
        let mut payload = 0;
        while let Some(part) = self.parts.get(self.next) {
            let step = bytes.min(self.bytes(part).len() - self.written);
            if matches!(part, Part::Data(_)) {
                payload += step as u64;
            }
            bytes -= step;
            self.written += step;
            if self.written < self.bytes(part).len() {
                break;
            }
            (self.next, self.written) = (self.next + 1, 0);
        }
        if self.is_empty() {
            self.clear();
        }
        payload
    }

    fn bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Heads(range) => &self.heads[range.clone()],
            Part::Data(data) | Part::Payload(data) => data,
        }
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.heads.shrink_to(KEEP_HEADS);
        self.parts.clear();
        self.next = 0;
    }
}

/// Room for [`Outbox::slices`].
pub fn no_slices<'a>() -> [IoSlice<'a>; MAX_SLICES] {
    [IoSlice::new(&[]); MAX_SLICES]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block data and all bytes that come out when each write takes at most `step` bytes.
    fn drain(outbox: &mut Outbox, step: usize) -> (u64, Vec<u8>) {
        let (mut payload, mut out) = (0, Vec::new());
        while !outbox.is_empty() {
            let mut slices = no_slices();
            let filled = outbox.slices(&mut slices);
            let offered: Vec<u8> =
                slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = offered.len().min(step);
            out.extend_from_slice(&offered[..taken]);
            payload += outbox.advance(taken);
        }
        (payload, out)
    }

    #[test]
    fn bytes_leave_in_order_however_little_a_write_takes() {
        let piece = |data: &'static [u8]| Message::Piece { piece: 1, begin: 2, data: data.into() };
        let mut messages = vec![Message::Unchoke, Message::Have(3), piece(b"abc"), piece(b"")];
        let extended = Message::Extended { id: 2, payload: Bytes::from_static(b"no block data") };
        messages.extend([Message::KeepAlive, piece(b"defgh"), extended, Message::Choke]);
        messages.extend((0..100).map(|_| piece(b"xy")));
        let mut expected = Vec::new();
        for message in &messages {
            if let Some(data) = message.encode(&mut expected) {
                expected.extend_from_slice(data);
            }
        }
        let mut outbox = Outbox::default();
        for step in [1, 2, 3, 7, 64, 1 << 20] {
            messages.iter().for_each(|message| outbox.push(message));
            assert_eq!(drain(&mut outbox, step), (208, expected.clone()), "{step} bytes a write");
        }
    }
}
