//! The side that accepts.

use std::fmt;
use std::mem;

use rand::Rng;

use super::keys::{Secret, Shared};
use super::search::Heard;
use super::{
    Agreed, Ciphers, Encryption, KEY_LEN, Method, MseError, Side, VERIFICATION, begin, pad_len,
};
use crate::proto::units::InfoHash;
use crate::proto::wire::codec::HANDSHAKE_LEN;

/// Bytes of the torrent's name.
const NAME_LEN: usize = 20;

/// Bytes behind it: zeros, the methods offered, the length of more padding.
const OFFER_LEN: usize = VERIFICATION.len() + 4 + 2;

/// Bytes behind that padding: how long what the initiator says at once is.
const LENGTH_LEN: usize = 2;

/// An exchange that somebody began with us.
///
/// `F` finds the torrent of an [`obscured`](super::obscured) name, if it is here.
pub struct Receiver<F> {
    ours: Encryption,
    find: F,
    secret: Secret,
    /// Our key and padding, until they are sent.
    greeting: Vec<u8>,
    heard: Heard,
    state: State,
}

/// What is to come next.
enum State {
    /// The initiator's key.
    Key,
    /// Its padding, and behind it a hash of the secret.
    Padding { pattern: [u8; 20], shared: Shared },
    /// Which torrent it means, and which methods it takes.
    Offer { shared: Shared },
    /// Padding once more, and how much it says at once.
    Rest { len: usize, exchange: Exchange, methods: u32 },
    /// That.
    Said { len: usize, exchange: Exchange, method: Method },
    /// Nothing.
    Over,
}

/// What has been found out.
struct Exchange {
    torrent: InfoHash,
    ciphers: Ciphers,
}

impl<F: FnMut([u8; 20]) -> Option<InfoHash>> Receiver<F> {
    /// Begins to listen. Nothing is said before the initiator's key is known.
    pub fn new(ours: Encryption, rng: &mut impl Rng, find: F) -> Self {
        let mut greeting = Vec::new();
        let secret = begin(rng, &mut greeting);
        Self { ours, find, secret, greeting, heard: Heard::default(), state: State::Key }
    }

    /// Knows the initiator's key.
    fn reply(&mut self, out: &mut Vec<u8>) -> Result<State, MseError> {
        let shared = self.secret.shared(&self.heard.take::<KEY_LEN>())?;
        out.append(&mut self.greeting);
        Ok(State::Padding { pattern: shared.pattern(), shared })
    }

    /// Knows which torrent is meant, and by that the keys.
    fn name(&mut self, shared: &Shared) -> Result<State, MseError> {
        let name = shared.veil(self.heard.take::<NAME_LEN>());
        let torrent = (self.find)(name).ok_or(MseError::UnknownTorrent)?;
        let mut ciphers = shared.ciphers(torrent).swapped();
        let mut offer = self.heard.take::<OFFER_LEN>();
        ciphers.inward.apply(&mut offer);
        let [_, _, _, _, _, _, _, _, a, b, c, d, len @ ..] = offer;
        if !offer.starts_with(&VERIFICATION) {
            return Err(MseError::WrongKey);
        }
        let methods = u32::from_be_bytes([a, b, c, d]);
        let len = pad_len(len)?;
        Ok(State::Rest { len, exchange: Exchange { torrent, ciphers }, methods })
    }

    /// Knows how much the initiator says at once, and chooses.
    fn choose(
        &mut self,
        len: usize,
        mut exchange: Exchange,
        methods: u32,
    ) -> Result<State, MseError> {
        let inward = &mut exchange.ciphers.inward;
        inward.apply(&mut self.heard.take_some(len));
        let mut said = self.heard.take::<LENGTH_LEN>();
        inward.apply(&mut said);
        let len = usize::from(u16::from_be_bytes(said));
        let is_handshake = len <= HANDSHAKE_LEN;
        // What is said at once is enciphered in any case: more of it than we take in now must go on so.
        let chosen = Method::ALL.into_iter().find(|method| {
            methods & method.bit() != 0
                && method.suits(self.ours)
                && (is_handshake || *method == Method::Rc4)
        });
        let method = chosen.ok_or(MseError::NoCommonMethod)?;
        Ok(State::Said { len: len.min(HANDSHAKE_LEN), exchange, method })
    }

    /// Knows everything: tells its choice.
    fn end(&mut self, len: usize, exchange: Exchange, method: Method, out: &mut Vec<u8>) -> Agreed {
        let Exchange { torrent, mut ciphers } = exchange;
        let mut said = self.heard.take_some(len);
        ciphers.inward.apply(&mut said);
        let from = out.len();
        out.extend(VERIFICATION);
        out.extend(method.bit().to_be_bytes());
        out.extend([0; 2]); // no padding
        ciphers.outward.apply(&mut out[from..]);
        Agreed { torrent, said, ciphers: ciphers.under(method) }
    }
}

impl<F: FnMut([u8; 20]) -> Option<InfoHash>> Side for Receiver<F> {
    fn wants(&self) -> usize {
        match &self.state {
            State::Key => self.heard.missing(KEY_LEN),
            State::Padding { pattern, .. } => {
                self.heard.missing_through(pattern, NAME_LEN + OFFER_LEN + LENGTH_LEN)
            }
            State::Offer { .. } => self.heard.missing(NAME_LEN + OFFER_LEN),
            State::Rest { len, .. } => self.heard.missing(len + LENGTH_LEN),
            State::Said { len, .. } => self.heard.missing(*len),
            State::Over => 0,
        }
    }

    fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Agreed>, MseError> {
        self.heard.push(bytes);
        while self.wants() == 0 {
            self.state = match mem::replace(&mut self.state, State::Over) {
                State::Key => self.reply(out)?,
                State::Padding { pattern, shared } => {
                    self.heard.skip_through(&pattern)?;
                    State::Offer { shared }
                }
                State::Offer { shared } => self.name(&shared)?,
                State::Rest { len, exchange, methods } => self.choose(len, exchange, methods)?,
                State::Said { len, exchange, method } => {
                    return Ok(Some(self.end(len, exchange, method, out)));
                }
                State::Over => return Err(MseError::Over),
            }
        }
        Ok(None)
    }
}

impl<F> fmt::Debug for Receiver<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("ours", &self.ours).finish_non_exhaustive()
    }
}
