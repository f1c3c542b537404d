//! Rude peers: a seed written by hand, and its bad manners.
//!
//! Not here: when its words arrive ([`super::sim`]).

use std::time::Duration;

use bytes::Bytes;

use btfs::proto::bitfield::Bitfield;
use btfs::proto::wire::message::{Message, Request};

use super::sim::Torrent;

/// How a scripted peer differs from an honest seed.
#[derive(Clone, Debug)]
pub(crate) enum Manners {
    /// It does not.
    Honest,
    /// Every so many blocks that it sends hold a false byte.
    Corrupts(u32),
    /// It unchokes and never answers.
    Silent,
    /// It answers so many requests, then none.
    SilentAfter(u32),
    /// It never unchokes.
    Chokes,
    /// It chokes after every so many blocks, and unchokes a while later.
    ChokeStorm(u32),
    /// It says that it has all, and rejects every request.
    RejectsAll,
    /// It rejects so many requests, then none; without BEP 6 it is honest.
    RejectsFirst(u32),
    /// It sends each block twice.
    Twice,
    /// It sends false blocks that nobody asked for, beside the right ones.
    Unasked,
    /// It names pieces that are not.
    Garbage,
    /// It tells what it has by one HAVE after another, after a while.
    HavesOnly,
    /// It has these pieces only.
    Part(Bitfield),
    /// It answers one request in so many only after this long.
    Tardy(u32, Duration),
}

/// What the script does next: say something, now or later.
pub(crate) type Said = (Duration, Message);

/// One end of one connection of a rude peer.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Its manners.
    pub(crate) manners: Manners,
    /// Whether it speaks BEP 6.
    pub(crate) fast: bool,
    answered: u32,
    choking: bool,
}

const SOON: Duration = Duration::ZERO;

impl Script {
    /// A seed with these manners.
    pub(crate) fn new(manners: Manners, fast: bool) -> Self {
        Self { manners, fast, answered: 0, choking: true }
    }

    /// Its first words on a fresh connection.
    pub(crate) fn greet(&self, torrent: &Torrent) -> Vec<Said> {
        let pieces = torrent.geometry.piece_count();
        let full = Message::Bitfield(Bitfield::full(pieces).to_wire().into());
        match &self.manners {
            Manners::Garbage => vec![(SOON, full), (SOON, Message::Have(pieces + 7))],
            Manners::Part(part) => vec![(SOON, Message::Bitfield(part.to_wire().into()))],
            Manners::HavesOnly => (0..pieces)
                .map(|piece| (Duration::from_millis(500 + 10 * u64::from(piece)), piece))
                .map(|(after, piece)| (after, Message::Have(piece)))
                .collect(),
            Manners::Honest
            | Manners::Corrupts(_)
            | Manners::Silent
            | Manners::SilentAfter(_)
            | Manners::Chokes
            | Manners::ChokeStorm(_)
            | Manners::RejectsAll
            | Manners::RejectsFirst(_)
            | Manners::Twice
            | Manners::Unasked
            | Manners::Tardy(..) => vec![(SOON, if self.fast { Message::HaveAll } else { full })],
        }
    }

    /// Its answer to a message.
    pub(crate) fn hear(&mut self, message: &Message, torrent: &Torrent) -> Vec<Said> {
        match message {
            Message::Interested if !matches!(self.manners, Manners::Chokes) => {
                self.choking = false;
                vec![(SOON, Message::Unchoke)]
            }
            Message::Request(asked) => self.answer(*asked, torrent),
            Message::Interested
            | Message::KeepAlive
            | Message::Choke
            | Message::Unchoke
            | Message::NotInterested
            | Message::Have(_)
            | Message::Bitfield(_)
            | Message::Piece { .. }
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::Reject(_)
            | Message::AllowedFast(_)
            | Message::Extended { .. } => Vec::new(),
        }
    }

    fn answer(&mut self, asked: Request, torrent: &Torrent) -> Vec<Said> {
        self.answered += 1;
        let nth = self.answered;
        let right = block(asked, torrent, false);
        match self.manners {
            Manners::Silent | Manners::Chokes => Vec::new(),
            Manners::SilentAfter(after) if nth > after => Vec::new(),
            Manners::RejectsFirst(until) if self.fast && nth <= until => {
                vec![(SOON, Message::Reject(asked))]
            }
            Manners::RejectsAll => vec![(SOON, Message::Reject(asked))],
            Manners::Corrupts(every) => {
                vec![(SOON, block(asked, torrent, nth.is_multiple_of(every)))]
            }
            Manners::Twice => vec![(SOON, right.clone()), (SOON, right)],
            Manners::Unasked => {
                let other = Request { begin: asked.begin ^ 16_384, ..asked };
                vec![(SOON, block(other, torrent, true)), (SOON, right)]
            }
            Manners::ChokeStorm(every) if nth.is_multiple_of(every) => {
                let mut said = vec![(SOON, right), (SOON, Message::Choke)];
                said.push((Duration::from_millis(300), Message::Unchoke));
                said
            }
            Manners::Tardy(every, wait) if nth.is_multiple_of(every) => vec![(wait, right)],
            Manners::Honest
            | Manners::SilentAfter(_)
            | Manners::ChokeStorm(_)
            | Manners::RejectsFirst(_)
            | Manners::Garbage
            | Manners::HavesOnly
            | Manners::Part(_)
            | Manners::Tardy(..) => vec![(SOON, right)],
        }
    }
}

fn block(asked: Request, torrent: &Torrent, false_byte: bool) -> Message {
    let Some(span) = torrent.geometry.span(asked.piece, asked.begin, asked.len) else {
        return Message::KeepAlive;
    };
    let start = torrent.geometry.piece_start(span.piece) + u64::from(span.begin);
    let mut data = torrent.bytes(start, span.len);
    if false_byte {
        let mut copy = data.to_vec();
        copy[0] ^= 1;
        data = Bytes::from(copy);
    }
    Message::Piece { piece: asked.piece, begin: asked.begin, data }
}
