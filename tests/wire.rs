//! The wire, byte for byte: every message both ways, however the stream is cut, and what is refused.

use std::cell::Cell;
use std::rc::Rc;

use btfs::proto::units::{InfoHash, PeerId};
use btfs::proto::wire::codec::{
    HANDSHAKE_LEN, MAX_BITFIELD_LEN, MAX_BLOCK_LEN, MAX_EXTENDED_LEN, MAX_UNKNOWN_LEN,
    NotBitTorrent,
};
use btfs::proto::wire::decoder::{BlockBuffer, BlockBuffers, DecodeError, Decoder};
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};
use bytes::Bytes;
use proptest::prelude::*;

/// Plain buffers that count what was asked for.
#[derive(Clone, Default)]
struct Counted {
    taken: Rc<Cell<usize>>,
    largest: Rc<Cell<usize>>,
}

#[derive(Debug)]
struct Plain {
    bytes: Vec<u8>,
    len: usize,
}

impl BlockBuffers for Counted {
    type Block = Plain;

    fn take(&mut self, len: usize) -> Plain {
        self.taken.set(self.taken.get() + 1);
        self.largest.set(self.largest.get().max(len));
        Plain { bytes: Vec::new(), len }
    }
}

impl BlockBuffer for Plain {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        assert!(self.bytes.len() <= self.len, "more data than was announced");
    }
}

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn decode(parts: &[&[u8]], pieces: Option<u32>) -> Result<Vec<Message>, DecodeError> {
    let mut decoder = Decoder::new(pieces, Counted::default());
    let mut out = Vec::new();
    for part in parts {
        decoder.feed(part, &mut out)?;
    }
    Ok(out)
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        if let Some(data) = message.encode(&mut out) {
            out.extend_from_slice(data);
        }
    }
    out
}

fn asked() -> Request {
    Request { piece: 1, begin: 0x4000, len: 0x0203 }
}

/// Every message as BEP 3, 5, 6 and 10 write it.
fn table() -> Vec<(&'static str, &'static [u8], Message)> {
    vec![
        ("keep-alive", b"\0\0\0\0", Message::KeepAlive),
        ("choke", b"\0\0\0\x01\x00", Message::Choke),
        ("unchoke", b"\0\0\0\x01\x01", Message::Unchoke),
        ("interested", b"\0\0\0\x01\x02", Message::Interested),
        ("not interested", b"\0\0\0\x01\x03", Message::NotInterested),
        ("have", b"\0\0\0\x05\x04\x01\x02\x03\x04", Message::Have(0x0102_0304)),
        (
            "bitfield",
            b"\0\0\0\x03\x05\xff\x80",
            Message::Bitfield(Bytes::from_static(&[0xff, 0x80])),
        ),
        ("request", b"\0\0\0\x0d\x06\0\0\0\x01\0\0\x40\0\0\0\x02\x03", Message::Request(asked())),
        (
            "piece",
            b"\0\0\0\x0c\x07\0\0\0\x01\0\0\x40\0abc",
            Message::Piece { piece: 1, begin: 0x4000, data: Bytes::from_static(b"abc") },
        ),
        ("cancel", b"\0\0\0\x0d\x08\0\0\0\x01\0\0\x40\0\0\0\x02\x03", Message::Cancel(asked())),
        ("port", b"\0\0\0\x03\x09\x1a\xe1", Message::Port(6881)),
        ("suggest", b"\0\0\0\x05\x0d\0\0\0\x07", Message::Suggest(7)),
        ("have all", b"\0\0\0\x01\x0e", Message::HaveAll),
        ("have none", b"\0\0\0\x01\x0f", Message::HaveNone),
        ("reject", b"\0\0\0\x0d\x10\0\0\0\x01\0\0\x40\0\0\0\x02\x03", Message::Reject(asked())),
        ("allowed fast", b"\0\0\0\x05\x11\0\0\0\x09", Message::AllowedFast(9)),
        (
            "extended",
            b"\0\0\0\x04\x14\x03de",
            Message::Extended { id: 3, payload: Bytes::from_static(b"de") },
        ),
        (
            "extended, empty",
            b"\0\0\0\x02\x14\x00",
            Message::Extended { id: 0, payload: Bytes::new() },
        ),
        (
            "piece, empty",
            b"\0\0\0\x09\x07\0\0\0\x01\0\0\0\0",
            Message::Piece { piece: 1, begin: 0, data: Bytes::new() },
        ),
    ]
}

#[test]
fn every_message_has_its_bytes_both_ways() {
    for (name, bytes, message) in table() {
        assert_eq!(encode(std::slice::from_ref(&message)), bytes, "{name}: encode");
        assert_eq!(decode(&[bytes], None), Ok(vec![message]), "{name}: decode");
    }
}

#[test]
fn a_truncated_message_is_awaited() {
    for (name, bytes, _) in table() {
        for end in 0..bytes.len() {
            assert_eq!(decode(&[&bytes[..end]], None), Ok(vec![]), "{name}: {end} bytes");
        }
    }
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let messages: Vec<_> = table().into_iter().map(|(_, _, message)| message).collect();
    let stream = encode(&messages);
    for at in 0..=stream.len() {
        let (front, back) = stream.split_at(at);
        assert_eq!(decode(&[front, back], None).as_ref(), Ok(&messages), "cut at {at}");
    }
    let bytewise: Vec<_> = stream.chunks(1).collect();
    assert_eq!(decode(&bytewise, None), Ok(messages));
}

#[test]
fn unknown_messages_are_passed_over() {
    let stream = [b"\0\0\0\x03\x15xy".as_slice(), b"\0\0\0\x01\xff", b"\0\0\0\x01\x00"].concat();
    for at in 0..=stream.len() {
        let (front, back) = stream.split_at(at);
        assert_eq!(decode(&[front, back], None), Ok(vec![Message::Choke]), "cut at {at}");
    }
}

/// The verdict on a frame by its first five bytes: `Ok` when it would be read on.
fn verdict(id: u8, len: u32, pieces: Option<u32>) -> Result<(), DecodeError> {
    let mut frame = (len + 1).to_be_bytes().to_vec();
    frame.push(id);
    decode(&[&frame], pieces).map(drop)
}

#[test]
fn lengths_are_exact_by_type() {
    let exact = [0, 1, 2, 3, 14, 15].map(|id| (id, 0));
    let exact = exact.into_iter().chain([4, 13, 17].map(|id| (id, 4)));
    let exact = exact.chain([6, 8, 16].map(|id| (id, 12))).chain([(9, 2)]);
    for (id, len) in exact {
        assert_eq!(verdict(id, len, None), Ok(()), "{id}");
        for wrong in [len.wrapping_sub(1), len + 1].into_iter().filter(|&len| len < 100) {
            assert_eq!(
                verdict(id, wrong, None),
                Err(DecodeError::WrongLength { id, len: wrong }),
                "{id}"
            );
        }
        let huge = u32::MAX - 1;
        assert_eq!(
            verdict(id, huge, None),
            Err(DecodeError::WrongLength { id, len: huge }),
            "{id}"
        );
    }
}

#[test]
fn a_bitfield_fits_the_torrent() {
    for (pieces, len, fits) in [
        (8, 0, false),
        (8, 1, true),
        (8, 2, false),
        (9, 1, false),
        (9, 2, true),
        (9, 3, false),
        (2 << 20, MAX_BITFIELD_LEN, true),
    ] {
        let expected = if fits { Ok(()) } else { Err(DecodeError::WrongLength { id: 5, len }) };
        assert_eq!(verdict(5, len, Some(pieces)), expected, "{pieces} pieces, {len} bytes");
    }
}

#[test]
fn payloads_are_bounded_by_type() {
    for (id, least, most) in [
        (5, 0, MAX_BITFIELD_LEN),
        (7, 8, 8 + MAX_BLOCK_LEN),
        (20, 1, 1 + MAX_EXTENDED_LEN),
        (21, 0, MAX_UNKNOWN_LEN),
        (255, 0, MAX_UNKNOWN_LEN),
    ] {
        for len in [least, least + 1, most - 1, most] {
            assert_eq!(verdict(id, len, None), Ok(()), "{id}: {len}");
        }
        for len in [most + 1, u32::MAX - 1] {
            assert_eq!(verdict(id, len, None), Err(DecodeError::TooLong { id, len }), "{id}");
        }
        if let Some(len) = least.checked_sub(1) {
            assert_eq!(verdict(id, len, None), Err(DecodeError::WrongLength { id, len }), "{id}");
        }
    }
}

#[test]
fn an_error_stays_and_keeps_what_came_before() {
    let mut decoder = Decoder::new(None, Counted::default());
    let mut out = Vec::new();
    let bad = Err(DecodeError::WrongLength { id: 4, len: 0 });
    assert_eq!(decoder.feed(b"\0\0\0\x01\x00\0\0\0\x01\x04", &mut out), bad);
    assert_eq!(decoder.feed(b"\0\0\0\x01\x01", &mut out), bad);
    assert_eq!(out, [Message::Choke]);
}

#[test]
fn a_block_buffer_is_taken_once_and_only_for_a_believed_length() {
    let buffers = Counted::default();
    let mut decoder = Decoder::new(None, buffers.clone());
    let mut out = Vec::new();
    let message =
        Message::Piece { piece: 0, begin: 0, data: Bytes::from(vec![7; MAX_BLOCK_LEN as usize]) };
    let stream = encode(std::slice::from_ref(&message));
    decoder.feed(&stream[..12], &mut out).unwrap();
    assert_eq!(buffers.taken.get(), 0, "the head is not whole");
    for part in stream[12..].chunks(1000) {
        decoder.feed(part, &mut out).unwrap();
    }
    assert_eq!(out, [message]);
    assert_eq!((buffers.taken.get(), buffers.largest.get()), (1, MAX_BLOCK_LEN as usize));

    let mut too_long = (MAX_BLOCK_LEN + 10).to_be_bytes().to_vec();
    too_long.extend([7; 100]);
    assert!(decoder.feed(&too_long, &mut out).is_err());
    assert_eq!(buffers.taken.get(), 1, "nothing is allocated for a refused length");
}

fn any_reserved() -> impl Strategy<Value = Reserved> {
    any::<(bool, bool, bool)>().prop_map(|(extended, fast, dht)| Reserved { extended, fast, dht })
}

fn any_message() -> impl Strategy<Value = Message> {
    let request =
        || any::<(u32, u32, u32)>().prop_map(|(piece, begin, len)| Request { piece, begin, len });
    let payload = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![
        (0..table().len()).prop_map(|row| table()[row].2.clone()),
        any::<u32>().prop_map(Message::Have),
        payload().prop_map(Message::Bitfield),
        request().prop_map(Message::Request),
        request().prop_map(Message::Cancel),
        request().prop_map(Message::Reject),
        (any::<(u32, u32)>(), payload()).prop_map(|((piece, begin), data)| Message::Piece {
            piece,
            begin,
            data
        }),
        any::<u16>().prop_map(Message::Port),
        (any::<u8>(), payload()).prop_map(|(id, payload)| Message::Extended { id, payload }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(
        messages in prop::collection::vec(any_message(), 0..20),
        cuts in prop::collection::vec(1..400usize, 1..20),
    ) {
        let stream = encode(&messages);
        let mut parts = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (front, back) = rest.split_at(rest.len().min(*cut));
            parts.push(front);
            rest = back;
        }
        prop_assert_eq!(decode(&parts, None), Ok(messages));
    }

    #[test]
    fn noise_never_panics_and_reads_the_same_however_cut(
        noise in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..24u8, 1 => any::<u8>()], 0..600),
        at in any::<prop::sample::Index>(),
    ) {
        let (front, back) = noise.split_at(at.index(noise.len() + 1));
        prop_assert_eq!(decode(&[&noise], None), decode(&[front, back], None));
    }

    #[test]
    fn a_handshake_survives_the_wire(
        reserved in any_reserved(), info_hash in any::<[u8; 20]>(), peer_id in any::<[u8; 20]>(),
    ) {
        let hello =
            Handshake { reserved, info_hash: InfoHash(info_hash), peer_id: PeerId(peer_id) };
        prop_assert_eq!(Handshake::parse(&hello.encode()), Ok(hello));
    }
}

#[test]
fn a_handshake_has_its_bytes() {
    let hello = Handshake {
        reserved: Reserved { extended: true, fast: true, dht: true },
        info_hash: InfoHash([0xaa; 20]),
        peer_id: PeerId(*b"-BF0001-abcdefghijkl"),
    };
    let expected = [
        b"\x13BitTorrent protocol".as_slice(),
        &[0, 0, 0, 0, 0, 0x10, 0, 0x05],
        &[0xaa; 20],
        b"-BF0001-abcdefghijkl",
    ]
    .concat();
    assert_eq!(hello.encode().as_slice(), expected);
}

#[test]
fn another_protocol_is_no_handshake() {
    let mut bytes = [0xff; HANDSHAKE_LEN];
    assert_eq!(Handshake::parse(&bytes), Err(NotBitTorrent));
    bytes[..20].copy_from_slice(b"\x13BitTorrent protocoL");
    assert_eq!(Handshake::parse(&bytes), Err(NotBitTorrent));
    bytes[..20].copy_from_slice(b"\x13BitTorrent protocol");
    let all = Reserved { extended: true, fast: true, dht: true };
    assert_eq!(Handshake::parse(&bytes).map(|hello| hello.reserved), Ok(all));
}
