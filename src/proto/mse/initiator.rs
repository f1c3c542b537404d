//! The side that dials.

use std::fmt;
use std::mem;

use rand::Rng;

use super::keys::{Secret, obscured};
use super::search::Heard;
use super::{
    Agreed, Ciphers, Encryption, KEY_LEN, Method, MseError, Side, VERIFICATION, begin, pad_len,
};
use crate::proto::units::InfoHash;
use crate::proto::wire::codec::HANDSHAKE_LEN;

/// Bytes between the zeros and the last padding: the method chosen, and that padding's length.
const CHOICE_LEN: usize = 4 + 2;

/// An exchange that we began.
pub struct Initiator {
    torrent: InfoHash,
    ours: Encryption,
    secret: Secret,
    /// Goes along as soon as it may.
    handshake: [u8; HANDSHAKE_LEN],
    heard: Heard,
    state: State,
}

/// What is to come next.
enum State {
    /// The receiver's key.
    Key,
    /// Its padding, and behind it zeros as it enciphers them.
    Padding { pattern: [u8; VERIFICATION.len()], ciphers: Ciphers },
    /// The method that it chose.
    Choice { ciphers: Ciphers },
    /// Padding once more.
    Rest { len: usize, ciphers: Ciphers, method: Method },
    /// Nothing.
    Over,
}

impl Initiator {
    /// Begins an exchange about the torrent, and appends to `out` what is to be sent first.
    pub fn new(
        torrent: InfoHash,
        ours: Encryption,
        handshake: [u8; HANDSHAKE_LEN],
        rng: &mut impl Rng,
        out: &mut Vec<u8>,
    ) -> Self {
        let secret = begin(rng, out);
        Self { torrent, ours, secret, handshake, heard: Heard::default(), state: State::Key }
    }

    /// Knows the receiver's key: names the torrent, offers methods, and shakes hands.
    fn reply(&mut self, out: &mut Vec<u8>) -> Result<State, MseError> {
        let shared = self.secret.shared(&self.heard.take::<KEY_LEN>())?;
        let mut ciphers = shared.ciphers(self.torrent);
        out.extend(shared.pattern());
        out.extend(shared.veil(obscured(self.torrent)));
        let from = out.len();
        out.extend(VERIFICATION);
        out.extend(self.ours.methods().to_be_bytes());
        out.extend([0; 2]); // no padding
        out.extend((HANDSHAKE_LEN as u16).to_be_bytes());
        out.extend(self.handshake);
        ciphers.outward.apply(&mut out[from..]);
        let mut pattern = VERIFICATION;
        ciphers.inward.apply(&mut pattern);
        Ok(State::Padding { pattern, ciphers })
    }

    /// Knows the receiver's choice, and takes it if it was offered.
    fn accept(&mut self, mut ciphers: Ciphers) -> Result<State, MseError> {
        let mut choice = self.heard.take::<CHOICE_LEN>();
        ciphers.inward.apply(&mut choice);
        let [a, b, c, d, len @ ..] = choice;
        let method = Method::of_bit(u32::from_be_bytes([a, b, c, d]));
        let method = method.filter(|method| method.suits(self.ours));
        let method = method.ok_or(MseError::NoCommonMethod)?;
        Ok(State::Rest { len: pad_len(len)?, ciphers, method })
    }

    /// Knows everything.
    fn end(&mut self, len: usize, mut ciphers: Ciphers, method: Method) -> Agreed {
        ciphers.inward.apply(&mut self.heard.take_some(len));
        Agreed { torrent: self.torrent, said: Vec::new(), ciphers: ciphers.under(method) }
    }
}

impl Side for Initiator {
    fn wants(&self) -> usize {
        match &self.state {
            State::Key => self.heard.missing(KEY_LEN),
            State::Padding { pattern, .. } => self.heard.missing_through(pattern, CHOICE_LEN),
            State::Choice { .. } => self.heard.missing(CHOICE_LEN),
            State::Rest { len, .. } => self.heard.missing(*len),
            State::Over => 0,
        }
    }

    fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Agreed>, MseError> {
        self.heard.push(bytes);
        while self.wants() == 0 {
            self.state = match mem::replace(&mut self.state, State::Over) {
                State::Key => self.reply(out)?,
                State::Padding { pattern, ciphers } => {
                    self.heard.skip_through(&pattern)?;
                    State::Choice { ciphers }
                }
                State::Choice { ciphers } => self.accept(ciphers)?,
                State::Rest { len, ciphers, method } => {
                    return Ok(Some(self.end(len, ciphers, method)));
                }
                State::Over => return Err(MseError::Over),
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("torrent", &self.torrent).finish_non_exhaustive()
    }
}
