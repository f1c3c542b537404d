//! The secret that both sides come to share, the hashes made of it, and the keystreams.
//!
//! Invariant: the exponent takes part in arithmetic of constant time only.

use std::fmt;

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{U192, U768, const_monty_params};
use rand::Rng;
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

use super::{Ciphers, KEY_LEN, MseError};
use crate::proto::units::InfoHash;

const_monty_params!(
    Prime,
    U768,
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
     020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
     4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    "The prime of the exchange."
);

type Residue = ConstMontyForm<Prime, { U768::LIMBS }>;

/// Bits of the exponent: more would cost time and hide nothing more.
const SECRET_BITS: u32 = 160;

/// Bytes at the start of a keystream that tell of its key, and are thrown away.
const DISCARDED: usize = 1024;

/// One side's half of the exchange.
pub(super) struct Secret(U192);

impl Secret {
    /// A fresh one.
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 24];
        rng.fill_bytes(&mut bytes[4..]);
        Self(U192::from_be_slice(&bytes))
    }

    /// What the other side is told.
    pub(super) fn public(&self) -> [u8; KEY_LEN] {
        bytes(&Residue::new(&U768::from(2u8)).pow_bounded_exp(&self.0, SECRET_BITS))
    }

    /// What both sides come to know.
    ///
    /// # Errors
    /// The other side's key lies outside the group, or yields the same whatever our exponent is.
    pub(super) fn shared(&self, theirs: &[u8; KEY_LEN]) -> Result<Shared, MseError> {
        let key = U768::from_be_slice(theirs);
        let last = Prime::PARAMS.modulus().as_ref().wrapping_sub(&U768::ONE);
        if key <= U768::ONE || key >= last {
            return Err(MseError::BadKey);
        }
        Ok(Shared(bytes(&Residue::new(&key).pow_bounded_exp(&self.0, SECRET_BITS))))
    }
}

fn bytes(residue: &Residue) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes.copy_from_slice(residue.retrieve().to_be_bytes().as_ref());
    bytes
}

/// The shared secret.
pub(super) struct Shared([u8; KEY_LEN]);

impl Shared {
    /// What the initiator says after its padding.
    pub(super) fn pattern(&self) -> [u8; 20] {
        hash([b"req1", &self.0])
    }

    /// Turns the torrent's [`obscured`] name into what goes on the wire, and back.
    pub(super) fn veil(&self, name: [u8; 20]) -> [u8; 20] {
        let veil = hash([b"req3", &self.0]);
        std::array::from_fn(|i| name[i] ^ veil[i])
    }

    /// The keystreams of a connection about the torrent, as the initiator has them.
    pub(super) fn ciphers(&self, torrent: InfoHash) -> Ciphers {
        let stream = |tag: &[u8; 4]| Keystream::new(&hash([tag, &self.0, &torrent.0]));
        Ciphers { inward: stream(b"keyB"), outward: stream(b"keyA") }
    }
}

/// The hash by which a dialling peer names a torrent without telling it to others.
pub fn obscured(torrent: InfoHash) -> [u8; 20] {
    hash([b"req2", &torrent.0])
}

fn hash<const N: usize>(parts: [&[u8]; N]) -> [u8; 20] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// One direction of RC4.
pub struct Keystream(Rc4);

impl Keystream {
    fn new(key: &[u8; 20]) -> Self {
        let mut stream = Self(Rc4::new_from_slice(key).expect("RC4 takes keys of 1 to 256 bytes"));
        stream.apply(&mut [0; DISCARDED]);
        stream
    }

    /// Enciphers or deciphers the next bytes, in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Keystream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keystream")
    }
}
