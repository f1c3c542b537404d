//! Message stream encryption: against numbers from elsewhere, both sides against each other however their bytes are
//! cut and padded, and against bytes that make no sense.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

use std::convert::Infallible;

use btfs::proto::mse::initiator::Initiator;
use btfs::proto::mse::receiver::Receiver;
use btfs::proto::mse::{
    Agreed, Encryption, KEY_LEN, Keystream, MAX_PAD, MOST_KEPT, MseError, Side, obscured,
};
use btfs::proto::units::{InfoHash, PeerId};
use btfs::proto::wire::message::{Handshake, Reserved};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, TryRng};

const TORRENT: InfoHash = InfoHash([7; 20]);

/// Draws one byte for ever.
struct Always(u8);

impl TryRng for Always {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0);
        Ok(())
    }
}

fn shake() -> [u8; 68] {
    let peer_id = PeerId([b'b'; 20]);
    Handshake { reserved: Reserved::default(), info_hash: TORRENT, peer_id }.encode()
}

fn initiator(ours: Encryption, rng: &mut impl Rng) -> (Initiator, Vec<u8>) {
    let mut out = Vec::new();
    let initiator = Initiator::new(TORRENT, ours, shake(), rng, &mut out);
    (initiator, out)
}

/// Finds the torrent of a name.
type Find = fn([u8; 20]) -> Option<InfoHash>;

fn receiver(ours: Encryption, rng: &mut impl Rng) -> Receiver<Find> {
    Receiver::new(ours, rng, |name| (name == obscured(TORRENT)).then_some(TORRENT))
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// How one side of an exchange stands, and what has been said to it and not yet read.
struct End<S> {
    side: S,
    inbox: Vec<u8>,
    /// Bytes read.
    taken: usize,
    /// The byte to be read as another, and what makes it so.
    spoilt: Option<(usize, u8)>,
    result: Option<Result<Agreed, MseError>>,
}

impl<S: Side> End<S> {
    fn new(side: S) -> Self {
        Self { side, inbox: Vec::new(), taken: 0, spoilt: None, result: None }
    }

    /// Reads as much as it wants, at most `most`; whether it read anything.
    fn read(&mut self, most: usize, out: &mut Vec<u8>) -> bool {
        let count = self.side.wants().min(most).min(self.inbox.len());
        if self.result.is_some() || count == 0 {
            return false;
        }
        let mut bytes: Vec<u8> = self.inbox.drain(..count).collect();
        if let Some((at, mask)) = self.spoilt
            && let Some(byte) = at.checked_sub(self.taken).and_then(|at| bytes.get_mut(at))
        {
            *byte ^= mask;
        }
        self.taken += count;
        self.result = self.side.handle(&bytes, out).transpose();
        true
    }
}

/// Lets both speak until they have ended or wait, each reading in turn the next of `cuts`.
fn talk<A: Side, B: Side>(a: &mut End<A>, b: &mut End<B>, cuts: &[usize]) {
    let mut cuts = cuts.iter().copied().cycle();
    let mut next = || cuts.next().expect("some are given");
    while a.read(next(), &mut b.inbox) | b.read(next(), &mut a.inbox) {}
}

/// A whole exchange.
fn converse<A: Side, B: Side>(
    (initiator, first): (A, Vec<u8>),
    receiver: B,
    cuts: &[usize],
) -> (End<A>, End<B>) {
    let (mut a, mut b) = (End::new(initiator), End::new(receiver));
    b.inbox = first;
    talk(&mut a, &mut b, cuts);
    (a, b)
}

/// What comes of these bytes, as far as they are wanted.
fn feed(side: impl Side, bytes: &[u8]) -> Option<Result<Agreed, MseError>> {
    let mut end = End { inbox: bytes.to_vec(), ..End::new(side) };
    while end.read(usize::MAX, &mut Vec::new()) {}
    end.result
}

/// What the stream makes of the next bytes.
fn through(stream: &mut Keystream, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    stream.apply(&mut bytes);
    bytes
}

/// The numbers are another implementation's, for these exponents, torrent and handshake.
#[test]
fn what_is_said_is_what_the_specification_yields() {
    let key_a = hex(
        "75a35a311ec95dd78e7744cabc96191a812d9e4d8479214e0ddc80ff386e9cdbdb585e07b9389bc2678896b402b2a1a4\
         f018f66820d52b5f5a7dfaee489c765829e3e62b82fa7f0e003ed8ea9b6dacf71e0d4ae7a46246bff957eaf0e4a034b5",
    );
    let key_b = hex(
        "3516c22d6f325c091ca8c8c9256506d0138797eb83a085289a378486a8b739243ae0d453105e3e1573b635ef7d870be9\
         0c8763c277b475d4b650f8d8769d555ef6589ff579f63bb41c697e83f3d5d097792c97fab1178be39b8be48c4021703d",
    );
    let named = hex(
        "b229112be45e5ecc32c3948d1681ee0b2cfd1dfbfeac33f56335c600f6283aae112be860787df8ada74df297601c4071\
         852aac6d6ef2ea6fcfc551b60fb9d7b9c313fbeee52382b4b7bf485fb69cde2c3475023fa6aeaa07d401fbb0aa7d446c\
         d0964991980f8212be0038df72af044e272128fe8891d8d5fc4fb38b",
    );
    let chosen = hex("ac27581329b029cbb01159962e51");

    let (mut a, mut said) = initiator(Encryption::Prefer, &mut Always(0x5a));
    let mut b = receiver(Encryption::Require, &mut Always(0xc3));
    assert_eq!(said[..KEY_LEN], key_a);
    said.truncate(KEY_LEN);
    let mut answer = Vec::new();
    assert!(b.handle(&said, &mut answer).unwrap().is_none());
    assert_eq!(answer[..KEY_LEN], key_b);
    said.clear();
    assert!(a.handle(&answer[..KEY_LEN], &mut said).unwrap().is_none());
    assert_eq!(said, named);
    answer.clear();
    assert!(b.handle(&said[..56], &mut answer).unwrap().is_none(), "68 are missing");
    let b = b.handle(&said[56..], &mut answer).unwrap().expect("all was said");
    assert_eq!(answer, chosen);
    let a = a.handle(&answer, &mut Vec::new()).unwrap().expect("all was said");
    assert_eq!((b.torrent, &b.said), (TORRENT, &shake().to_vec()));
    let (mut a, mut b) = (a.ciphers.unwrap(), b.ciphers.unwrap());
    assert_eq!(through(&mut a.outward, b"next"), hex("46ab934f"));
    assert_eq!(through(&mut b.inward, &hex("46ab934f")), b"next");
    assert_eq!(through(&mut b.outward, b"next"), hex("4247af76"));
    assert_eq!(through(&mut a.inward, &hex("4247af76")), b"next");
}

#[test]
fn both_sides_settle_on_the_cheapest_that_suits_both() {
    use Encryption::{Off, Prefer, Require};
    // `Some(true)`: what follows is enciphered.
    for (name, dials, accepts, expected) in [
        ("both prefer", Prefer, Prefer, Some(false)),
        ("who dials requires", Require, Prefer, Some(true)),
        ("who accepts requires", Prefer, Require, Some(true)),
        ("both require", Require, Require, Some(true)),
        ("who accepts has it off", Prefer, Off, None),
        ("who dials has it off", Off, Prefer, None),
    ] {
        let rng = &mut StdRng::seed_from_u64(1);
        let (a, b) = converse(initiator(dials, rng), receiver(accepts, rng), &[1000]);
        let Some(enciphered) = expected else {
            assert_eq!(b.result.unwrap().unwrap_err(), MseError::NoCommonMethod, "{name}");
            assert!(a.result.is_none(), "{name}");
            continue;
        };
        for agreed in [a.result, b.result] {
            assert_eq!(agreed.unwrap().unwrap().ciphers.is_some(), enciphered, "{name}");
        }
    }
}

/// Padding is of no meaning, so whatever a side sent can be replaced.
fn padded(said: &[u8], pad: &[u8]) -> Vec<u8> {
    [&said[..KEY_LEN], pad].concat()
}

#[test]
fn every_length_of_padding_is_found_and_no_longer_one() {
    for len in 0..=MAX_PAD + 1 {
        let rng = &mut StdRng::seed_from_u64(len as u64);
        let (side, said) = initiator(Encryption::Require, rng);
        let said = padded(&said, &vec![0xa5; len]);
        let (a, b) = converse((side, said), receiver(Encryption::Require, rng), &[4096]);
        if len > MAX_PAD {
            assert_eq!(b.result.unwrap().unwrap_err(), MseError::NoSynchronisation);
            continue;
        }
        assert_eq!(b.result.unwrap().unwrap().said, shake(), "{len} bytes");
        assert!(a.result.unwrap().is_ok(), "{len} bytes");
        assert!(a.inbox.is_empty() && b.inbox.is_empty(), "{len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn cut_anywhere_both_sides_agree_and_read_no_byte_too_many(
        seed: u64,
        cuts in prop::collection::vec(1usize..200, 1..6),
        require: bool,
        more in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mode = if require { Encryption::Require } else { Encryption::Prefer };
        let (mut a, mut b) = converse(initiator(mode, rng), receiver(mode, rng), &cuts);
        let (from_a, from_b) = (a.result.take().unwrap().unwrap(), b.result.take().unwrap().unwrap());
        prop_assert_eq!((from_a.torrent, from_b.torrent), (TORRENT, TORRENT));
        prop_assert!(a.inbox.is_empty() && b.inbox.is_empty());
        prop_assert_eq!(from_b.said, shake().to_vec());
        match (from_a.ciphers, from_b.ciphers) {
            (Some(mut a), Some(mut b)) => {
                prop_assert!(require);
                let said = through(&mut a.outward, &more);
                prop_assert_eq!(through(&mut b.inward, &said), more.clone());
                let said = through(&mut b.outward, &more);
                prop_assert_eq!(through(&mut a.inward, &said), more);
            }
            (None, None) => prop_assert!(!require),
            _ => panic!("they do not agree"),
        }
    }

    #[test]
    fn a_spoilt_byte_ends_the_exchange_or_changes_what_is_said(
        seed: u64,
        at in 0usize..1400,
        mask in 1u8..,
        of_receiver: bool,
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (a, said) = initiator(Encryption::Require, rng);
        let (mut a, mut b) = (End::new(a), End::new(receiver(Encryption::Require, rng)));
        if of_receiver { &mut a.spoilt } else { &mut b.spoilt }.replace((at, mask));
        b.inbox = said;
        talk(&mut a, &mut b, &[1000]);
        let said = b.result.and_then(Result::ok).map(|agreed| agreed.said);
        let unharmed = said.is_some_and(|said| said == shake()) && matches!(a.result, Some(Ok(_)));
        // Of no meaning is the padding, whatever else may be offered beside RC4, and that more is said at once than a
        // handshake: what follows is enciphered alike.
        let (taken, behind) = if of_receiver { (a.taken, 14) } else { (b.taken, 124) };
        let padding = KEY_LEN..taken.saturating_sub(behind);
        let offer = padding.end + 48..padding.end + if of_receiver { 48 } else { 52 };
        let said_more = !of_receiver
            && (at == padding.end + 54 || at == padding.end + 55 && shake().len() as u8 ^ mask > shake().len() as u8);
        let is_idle = padding.contains(&at) || offer.contains(&at) || said_more || at >= taken;
        prop_assert!(!unharmed || is_idle);
    }

    #[test]
    fn noise_is_turned_away_after_as_much_as_padding_may_be(
        seed: u64,
        noise in prop::collection::vec(any::<u8>(), 2 * MOST_KEPT),
        dials: bool,
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let told = if dials {
            feed(initiator(Encryption::Prefer, rng).0, &noise)
        } else {
            feed(receiver(Encryption::Prefer, rng), &noise)
        };
        prop_assert_eq!(told.unwrap().unwrap_err(), MseError::NoSynchronisation);
    }
}

#[test]
fn keys_that_give_the_secret_away_are_refused() {
    let prime = hex(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
         ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    );
    let ending = |last: u8| [&prime[..KEY_LEN - 1], &[last]].concat();
    for (name, key) in [
        ("0", vec![0; KEY_LEN]),
        ("1", [vec![0; KEY_LEN - 1], vec![1]].concat()),
        ("the prime less 1", ending(0x62)),
        ("the prime", ending(0x63)),
        ("beyond it", vec![0xff; KEY_LEN]),
    ] {
        let rng = &mut StdRng::seed_from_u64(1);
        let to_dialler = feed(initiator(Encryption::Prefer, rng).0, &key);
        let to_listener = feed(receiver(Encryption::Prefer, rng), &key);
        for told in [to_dialler, to_listener] {
            assert_eq!(told.unwrap().unwrap_err(), MseError::BadKey, "{name}");
        }
    }
}

#[test]
fn a_torrent_that_is_not_here_is_told() {
    let rng = &mut StdRng::seed_from_u64(1);
    let nobody = Receiver::new(Encryption::Prefer, &mut StdRng::seed_from_u64(2), |_| None);
    let (_, b) = converse(initiator(Encryption::Prefer, rng), nobody, &[1000]);
    assert_eq!(b.result.unwrap().unwrap_err(), MseError::UnknownTorrent);
}
