//! Whom of many to connect to (BEP 40): an order that both ends of a connection compute alike, and that
//! differs from pair to pair, so that a swarm becomes a random graph that nobody can be crowded out of.
//!
//! Not here: when to dial ([`super::candidates`]).

use std::net::{IpAddr, SocketAddr};

/// Bits that count of an address beyond the part that two strangers are told apart by.
const SPARSE: u8 = 0x55;

/// The connection's priority: the higher, the sooner. `None` for addresses of two families.
pub fn priority(ours: SocketAddr, theirs: SocketAddr) -> Option<u32> {
    match (ours.ip().to_canonical(), theirs.ip().to_canonical()) {
        (a, b) if a == b => {
            let (low, high) = ordered(ours.port().to_be_bytes(), theirs.port().to_be_bytes());
            Some(crc32c(&[low, high].concat()))
        }
        (IpAddr::V4(a), IpAddr::V4(b)) => Some(of_octets(a.octets(), b.octets(), 2)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some(of_octets(a.octets(), b.octets(), 6)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The first `whole` octets count in full, and as many more as are the same and one.
fn of_octets<const N: usize>(a: [u8; N], b: [u8; N], whole: usize) -> u32 {
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let whole = if same < whole { whole } else { same + 1 };
    let masked = |mut octets: [u8; N]| {
        octets.iter_mut().skip(whole).for_each(|octet| *octet &= SPARSE);
        octets
    };
    let (low, high) = ordered(masked(a), masked(b));
    crc32c(&[low, high].concat())
}

fn ordered<T: Ord>(a: T, b: T) -> (T, T) {
    if a <= b { (a, b) } else { (b, a) }
}

/// CRC-32C, bit by bit: there are never more than 32 bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_beps_own_examples() {
        let ours = at("123.213.32.10:1");
        assert_eq!(priority(ours, at("98.76.54.32:2")), Some(0xec2d_7224));
        assert_eq!(priority(ours, at("123.213.32.234:2")), Some(0x9956_8189));
    }

    #[test]
    fn masks_widen_with_what_two_addresses_share() {
        let table = [
            ("CRC-32C of nine digits", crc32c(b"123456789"), 0xe306_9283),
            (
                "one /16",
                priority(at("230.12.23.1:1"), at("230.12.123.3:1")).expect("one family"),
                crc32c(&[230, 12, 23, 1, 230, 12, 123, 1]),
            ),
            (
                "one address: ports",
                priority(at("10.0.0.1:1234"), at("10.0.0.1:300")).expect("one family"),
                crc32c(&[0x01, 0x2c, 0x04, 0xd2]),
            ),
            (
                "strangers in IPv6",
                priority(at("[ffff:1::ff]:1"), at("[1:ffff::ffff]:1")).expect("one family"),
                crc32c(&[
                    0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x55, 0x55, //
                    0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x55,
                ]),
            ),
            (
                "one /48 in IPv6",
                priority(at("[1:2:3:ffff::]:1"), at("[1:2:3:feff::]:1")).expect("one family"),
                crc32c(&[
                    0, 1, 0, 2, 0, 3, 0xfe, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, //
                    0, 1, 0, 2, 0, 3, 0xff, 0x55, 0, 0, 0, 0, 0, 0, 0, 0,
                ]),
            ),
        ];
        for (name, found, expected) in table {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(priority(at("10.0.0.1:1"), at("[::1]:1")), None);
    }

    #[test]
    fn both_ends_see_the_same() {
        let pairs =
            [("1.2.3.4:1", "5.6.7.8:2"), ("[1::2]:1", "[1::3]:2"), ("1.1.1.1:1", "1.1.1.1:2")];
        for (a, b) in pairs {
            assert_eq!(priority(at(a), at(b)), priority(at(b), at(a)), "{a} {b}");
        }
    }
}
