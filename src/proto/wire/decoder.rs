//! Bytes to messages, with every length checked before it is believed.
//!
//! Invariant: what an unfinished frame holds is its head, the bytes of it that came, and at most one block
//! buffer; so a peer that names a length makes us allocate no more than [`MAX_BLOCK_LEN`].
//! Invariant: the data of a PIECE is copied once, from the read into its block buffer.
//!
//! Not here: whether the numbers make sense for the torrent (the swarm checks them).

use std::mem;

use bytes::Bytes;
use thiserror::Error;

use super::codec::{
    MAX_BITFIELD_LEN, MAX_BLOCK_LEN, MAX_EXTENDED_LEN, MAX_UNKNOWN_LEN, PIECE_HEAD_LEN, id,
};
use super::message::{Message, Request};

/// Bytes of the longest message without a payload: length, id, three numbers.
const MAX_HEAD_LEN: usize = 17;

/// Where the data of PIECE messages goes as it arrives.
pub trait BlockBuffers {
    /// A buffer being filled; it goes back where it came from when its last reader drops it.
    type Block: BlockBuffer;

    /// An empty buffer for `len` bytes, at most [`MAX_BLOCK_LEN`].
    fn take(&mut self, len: usize) -> Self::Block;
}

/// Storage for the data of one PIECE message.
pub trait BlockBuffer: AsRef<[u8]> + Send + 'static {
    /// Appends the next bytes; together never more than were asked for.
    fn put(&mut self, bytes: &[u8]);
}

/// Why a stream of messages cannot be read on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The id has another length than this.
    #[error("message {id} with {len} bytes is malformed")]
    WrongLength {
        /// The message's id.
        id: u8,
        /// Bytes after the id.
        len: u32,
    },
    /// A length that we do not take.
    #[error("message {id} with {len} bytes is too long")]
    TooLong {
        /// The message's id.
        id: u8,
        /// Bytes after the id.
        len: u32,
    },
}

/// Turns the reads of one socket into messages, however the stream is cut.
#[derive(Debug)]
pub struct Decoder<B: BlockBuffers> {
    pieces: Option<u32>,
    buffers: B,
    state: State<B::Block>,
}

/// What is under way between two reads.
#[derive(Debug)]
enum State<Block> {
    /// A frame's first bytes, up to its payload.
    Head(Head),
    /// A payload that grows by what arrives.
    Payload { of: Payload, left: usize, bytes: Vec<u8> },
    /// The data of a PIECE.
    Piece { piece: u32, begin: u32, left: usize, block: Block },
    /// A message that we do not know.
    Skip { left: usize },
}

/// Messages whose payload is kept as bytes.
#[derive(Clone, Copy, Debug)]
enum Payload {
    Bitfield,
    Extended { id: u8 },
}

impl<Block> Default for State<Block> {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl<B: BlockBuffers> Decoder<B> {
    /// A decoder at the first byte after the handshake. With `pieces` known, a BITFIELD must fit exactly.
    pub fn new(pieces: Option<u32>, buffers: B) -> Self {
        Self { pieces, buffers, state: State::default() }
    }

    /// Takes what one read gave and appends every message that is now whole.
    ///
    /// # Errors
    /// The stream is lost then, since where the next message starts is unknown; `out` keeps what came before.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Message>) -> Result<(), DecodeError> {
        while !bytes.is_empty() {
            out.extend(self.step(&mut bytes)?);
        }
        Ok(())
    }

    /// Goes on until a frame ends or the bytes do.
    fn step(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, DecodeError> {
        if let State::Head(head) = &mut self.state {
            if !head.fill(bytes, self.pieces)? {
                return Ok(None);
            }
            let head = mem::take(head);
            if let Some(message) = head.message() {
                return Ok(Some(message));
            }
            self.state = self.open(&head);
        }
        Ok(self.pour(bytes))
    }

    /// The state that takes the payload which the head announces.
    fn open(&mut self, head: &Head) -> State<B::Block> {
        let left = head.payload_len();
        match head.id() {
            id::BITFIELD => State::Payload { of: Payload::Bitfield, left, bytes: Vec::new() },
            id::EXTENDED => State::Payload {
                of: Payload::Extended { id: head.bytes[5] },
                left,
                bytes: Vec::new(),
            },
            id::PIECE => {
                let (piece, begin) = (head.number(5), head.number(9));
                State::Piece { piece, begin, left, block: self.buffers.take(left) }
            }
            _ => State::Skip { left },
        }
    }

    /// Moves payload bytes to their place; the message when it is whole.
    fn pour(&mut self, bytes: &mut &[u8]) -> Option<Message> {
        let left = match &mut self.state {
            State::Head(_) => return None,
            State::Payload { left, bytes: kept, .. } => {
                kept.extend_from_slice(split(bytes, left));
                *left
            }
            State::Piece { left, block, .. } => {
                block.put(split(bytes, left));
                *left
            }
            State::Skip { left } => {
                split(bytes, left);
                *left
            }
        };
        if left > 0 {
            return None;
        }
        match mem::take(&mut self.state) {
            State::Head(_) | State::Skip { .. } => None,
            State::Payload { of: Payload::Bitfield, bytes, .. } => {
                Some(Message::Bitfield(bytes.into()))
            }
            State::Payload { of: Payload::Extended { id }, bytes, .. } => {
                Some(Message::Extended { id, payload: bytes.into() })
            }
            State::Piece { piece, begin, block, .. } => {
                Some(Message::Piece { piece, begin, data: Bytes::from_owner(block) })
            }
        }
    }
}

/// Cuts up to `left` bytes off the front and counts them down.
fn split<'a>(bytes: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let (front, back) = bytes.split_at(bytes.len().min(*left));
    *bytes = back;
    *left -= front.len();
    front
}

/// A frame up to its payload; for a message without one, all of it.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; MAX_HEAD_LEN],
    filled: usize,
}

impl Head {
    /// Takes what the head still lacks; whether it is whole now.
    fn fill(&mut self, bytes: &mut &[u8], pieces: Option<u32>) -> Result<bool, DecodeError> {
        loop {
            let mut lacks = self.end(pieces)? - self.filled;
            if lacks == 0 {
                return Ok(true);
            }
            let part = split(bytes, &mut lacks);
            self.bytes[self.filled..self.filled + part.len()].copy_from_slice(part);
            self.filled += part.len();
            if lacks > 0 {
                return Ok(false);
            }
        }
    }

    /// Bytes in the head as far as is known yet.
    fn end(&self, pieces: Option<u32>) -> Result<usize, DecodeError> {
        if self.filled < 4 || self.frame_len() == 0 {
            return Ok(4);
        }
        if self.filled < 5 {
            return Ok(5);
        }
        let (id, len) = (self.id(), self.frame_len() - 1);
        check_len(id, len, pieces)?;
        Ok(match id {
            id::EXTENDED => 6,
            id::PIECE => PIECE_HEAD_LEN,
            id => 5 + fixed_len(id).map_or(0, |len| len as usize),
        })
    }

    /// What the length prefix says: bytes of id and all that follows.
    fn frame_len(&self) -> u32 {
        self.number(0)
    }

    fn id(&self) -> u8 {
        self.bytes[4]
    }

    /// Bytes of the frame behind a whole head.
    fn payload_len(&self) -> usize {
        4 + self.frame_len() as usize - self.filled
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|i| self.bytes[at + i]))
    }

    fn request(&self) -> Request {
        Request { piece: self.number(5), begin: self.number(9), len: self.number(13) }
    }

    /// The message, when it has no payload beyond its head.
    fn message(&self) -> Option<Message> {
        if self.frame_len() == 0 {
            return Some(Message::KeepAlive);
        }
        Some(match self.id() {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE => Message::Have(self.number(5)),
            id::REQUEST => Message::Request(self.request()),
            id::CANCEL => Message::Cancel(self.request()),
            id::PORT => Message::Port(u16::from_be_bytes([self.bytes[5], self.bytes[6]])),
            id::SUGGEST => Message::Suggest(self.number(5)),
            id::HAVE_ALL => Message::HaveAll,
            id::HAVE_NONE => Message::HaveNone,
            id::REJECT => Message::Reject(self.request()),
            id::ALLOWED_FAST => Message::AllowedFast(self.number(5)),
            _ => return None,
        })
    }
}

/// Bytes after the id of a message without a payload.
fn fixed_len(id: u8) -> Option<u32> {
    Some(match id {
        id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => 0,
        id::HAVE_ALL | id::HAVE_NONE => 0,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => 4,
        id::REQUEST | id::CANCEL | id::REJECT => 12,
        id::PORT => 2,
        _ => return None,
    })
}

/// Refuses a message by its id and the bytes after it, before any of them is kept.
fn check_len(id: u8, len: u32, pieces: Option<u32>) -> Result<(), DecodeError> {
    let (least, most) = match (id, fixed_len(id)) {
        (_, Some(exact)) => (exact, exact),
        (id::BITFIELD, None) => {
            pieces.map_or((0, MAX_BITFIELD_LEN), |pieces| (pieces.div_ceil(8), pieces.div_ceil(8)))
        }
        (id::PIECE, None) => (8, 8 + MAX_BLOCK_LEN),
        (id::EXTENDED, None) => (1, 1 + MAX_EXTENDED_LEN),
        (_, None) => (0, MAX_UNKNOWN_LEN),
    };
    if len < least || len > most && least == most {
        return Err(DecodeError::WrongLength { id, len });
    }
    if len > most {
        return Err(DecodeError::TooLong { id, len });
    }
    Ok(())
}
