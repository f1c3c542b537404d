//! Addresses that nobody is to have to do with, as lists of ranges name them.
//!
//! Invariant: of each family the ranges are sorted and apart, so that a question costs O(log n); a range takes 8 bytes, of
//! IPv6 addresses 32.
//!
//! Not here: reading and inflating files (`cli`), and who asks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Colons at which the name in a line may end: a range of two IPv6 addresses holds at most 14.
const COLONS: usize = 15;

/// Levels of access in a DAT line from which on it allows the range.
const ALLOWED: u32 = 128;

/// A range's first and last address, as numbers.
type Span<N> = (N, N);

/// The addresses.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blocklist {
    v4: Vec<Span<u32>>,
    v6: Vec<Span<u128>>,
}

impl fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocklist({} ranges)", self.len())
    }
}

impl Blocklist {
    /// Whether the address is on the list.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => find(&self.v4, ip.to_bits()).is_some(),
            IpAddr::V6(ip) => find(&self.v6, ip.to_bits()).is_some(),
        }
    }

    /// Takes one address off the list.
    pub fn allow(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let n = ip.to_bits();
                cut(&mut self.v4, n, [n.checked_sub(1), n.checked_add(1)]);
            }
            IpAddr::V6(ip) => {
                let n = ip.to_bits();
                cut(&mut self.v6, n, [n.checked_sub(1), n.checked_add(1)]);
            }
        }
    }

    /// Ranges, those that touch counted as one.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether nobody is on it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The index of the span that holds this number.
fn find<N: Copy + Ord>(spans: &[Span<N>], n: N) -> Option<usize> {
    let at = spans.partition_point(|(first, _)| *first <= n).checked_sub(1)?;
    (spans[at].1 >= n).then_some(at)
}

/// Takes `n` out, whose neighbours these are.
fn cut<N: Copy + Ord>(spans: &mut Vec<Span<N>>, n: N, [below, above]: [Option<N>; 2]) {
    let Some(at) = find(spans, n) else { return };
    let (first, last) = spans[at];
    let left = below.filter(|below| *below >= first).map(|below| (first, below));
    let right = above.filter(|above| *above <= last).map(|above| (above, last));
    spans.splice(at..=at, left.into_iter().chain(right));
}

/// A list while it is read, line by line.
#[derive(Debug, Default)]
pub struct Draft {
    list: Blocklist,
    /// Lines that named a range or an address.
    pub read: usize,
    /// Lines that could not be read.
    pub unreadable: usize,
}

impl Draft {
    /// Takes a line in any of these forms, of IPv4 or IPv6:
    ///
    /// ```text
    /// name:192.0.2.0-192.0.2.255                    p2p; the name may hold anything
    /// 192.000.002.000 - 192.000.002.255 , 000 , n   DAT; from level 128 on the line blocks nothing
    /// 192.0.2.0-192.0.2.255      192.0.2.0/24       192.0.2.1
    /// ```
    ///
    /// What is empty or begins with `#`, `;` or `//` says nothing; so does what follows `#` or `;` after a range.
    pub fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || ["#", ";", "//"].iter().any(|mark| line.starts_with(mark)) {
            return;
        }
        match parse(line) {
            Some(Entry::Blocked(Range::V4(span))) => self.list.v4.push(span),
            Some(Entry::Blocked(Range::V6(span))) => self.list.v6.push(span),
            Some(Entry::Allowed) => {}
            None => {
                self.unreadable += 1;
                return;
            }
        }
        self.read += 1;
    }

    /// The list of all that was read.
    pub fn finish(mut self) -> Blocklist {
        merge(&mut self.list.v4, |last| last.checked_add(1));
        merge(&mut self.list.v6, |last| last.checked_add(1));
        self.list
    }
}

/// Sorts the spans and joins those that overlap or touch.
fn merge<N: Copy + Ord>(spans: &mut Vec<Span<N>>, next: impl Fn(N) -> Option<N>) {
    spans.sort_unstable();
    spans.dedup_by(|later, kept| {
        let joins = next(kept.1).is_none_or(|next| later.0 <= next);
        if joins {
            kept.1 = kept.1.max(later.1);
        }
        joins
    });
    spans.shrink_to_fit();
}

/// What a line says.
enum Entry {
    Blocked(Range),
    /// Nothing that concerns us.
    Allowed,
}

/// Addresses of one family.
enum Range {
    V4(Span<u32>),
    V6(Span<u128>),
}

impl Range {
    fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                Some(Self::V4((first.to_bits(), last.to_bits())))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                Some(Self::V6((first.to_bits(), last.to_bits())))
            }
            _ => None,
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let before_comment = || line.split(['#', ';']).next().and_then(bare);
    bare(line)
        .or_else(|| named(line))
        .map(Entry::Blocked)
        .or_else(|| dat(line))
        .or_else(|| before_comment().map(Entry::Blocked))
}

fn bare(text: &str) -> Option<Range> {
    range(text).or_else(|| network(text)).or_else(|| {
        let ip = address(text)?;
        Range::new(ip, ip)
    })
}

/// `name:first-last`. The name ends at the first colon that leaves a range.
fn named(line: &str) -> Option<Range> {
    let ends = line.rmatch_indices(':').take(COLONS);
    ends.filter_map(|(at, _)| range(&line[at + 1..])).last()
}

/// `first - last , level , name`.
fn dat(line: &str) -> Option<Entry> {
    let (addrs, rest) = line.split_once(',')?;
    let range = range(addrs)?;
    let level: u32 = rest.split(',').next()?.trim().parse().ok()?;
    Some(if level < ALLOWED { Entry::Blocked(range) } else { Entry::Allowed })
}

/// `first-last`.
fn range(text: &str) -> Option<Range> {
    let (first, last) = text.split_once('-')?;
    Range::new(address(first)?, address(last)?)
}

/// `address/bits`.
fn network(text: &str) -> Option<Range> {
    let (ip, bits) = text.split_once('/')?;
    let bits: u32 = bits.trim().parse().ok()?;
    match address(ip)? {
        IpAddr::V4(ip) if bits <= u32::BITS => {
            let host = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = ip.to_bits() & !host;
            Some(Range::V4((first, first | host)))
        }
        IpAddr::V6(ip) if bits <= u128::BITS => {
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            let first = ip.to_bits() & !host;
            Range::new(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | host).into())
        }
        _ => None,
    }
}

/// An address; of IPv4 also with leading zeros, which mean no octal here.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.contains(':') {
        return text.parse().ok();
    }
    let octet = |part: &str| {
        let digits = matches!(part.len(), 1..=3) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u8>().ok().filter(|_| digits)
    };
    let mut octets = text.split('.').map(octet);
    let mut next = || octets.next().flatten();
    let ip = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    octets.next().is_none().then_some(ip.into())
}
