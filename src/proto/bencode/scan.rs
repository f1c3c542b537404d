//! One pass over untrusted bencode, with its own stack.
//!
//! Invariant: no recursion, no allocation larger than a small multiple of what was already read, and
//! whatever is accepted is canonical but for the order of keys.
//!
//! Not here: reading values ([`super`]).

use std::ops::Range;

use super::{BencodeError, Keys, Limits};

/// Longest decimal form of a 64-bit integer, sign included.
const MAX_INTEGER_DIGITS: usize = 20;

/// Longest decimal form of a string length: ten digits hold 32 bits.
const MAX_LENGTH_DIGITS: usize = 10;

/// What the pass found out.
#[derive(Debug)]
pub(super) struct Scan {
    /// Bytes of the value.
    pub(super) len: usize,
    /// Whether every dictionary has its keys in order.
    pub(super) sorted: bool,
    /// The entries of the outermost dictionary, by key; empty when the value is none.
    pub(super) top: Vec<Entry>,
    /// Entries to leave out when keys must be text: ascending, never one inside another.
    pub(super) unreadable: Vec<Range<usize>>,
}

/// Where one dictionary entry stands. Narrow, as a hostile input may have a million.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// First byte of the key's length.
    token: u32,
    key_start: u32,
    value_start: u32,
    value_end: u32,
}

impl Entry {
    pub(super) fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.key_start as usize..self.value_start as usize]
    }

    pub(super) fn value(self) -> Range<usize> {
        self.value_start as usize..self.value_end as usize
    }
}

/// An open list or dictionary.
enum Frame {
    List,
    Dict {
        entries: Vec<Entry>,
        sorted: bool,
        /// Whether the last entry still lacks its value.
        waits: bool,
    },
}

struct Scanner<'a> {
    bytes: &'a [u8],
    limits: &'a Limits,
    at: usize,
    tokens: usize,
    stack: Vec<Frame>,
    found: Scan,
}

/// Checks the value at the start of `bytes`.
pub(super) fn scan(bytes: &[u8], limits: &Limits) -> Result<Scan, BencodeError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(BencodeError::Length(0));
    }
    let found = Scan { len: 0, sorted: true, top: Vec::new(), unreadable: Vec::new() };
    let mut scanner = Scanner { bytes, limits, at: 0, tokens: 0, stack: Vec::new(), found };
    loop {
        scanner.step()?;
        if scanner.stack.is_empty() {
            scanner.found.len = scanner.at;
            return Ok(scanner.found);
        }
    }
}

impl Scanner<'_> {
    /// Takes one token: a key, a scalar, the start or the end of a container.
    fn step(&mut self) -> Result<(), BencodeError> {
        let byte = self.peek()?;
        let key_or_end = matches!(self.stack.last(), Some(Frame::Dict { waits: false, .. }));
        let may_end = key_or_end || matches!(self.stack.last(), Some(Frame::List));
        if byte == b'e' && may_end {
            return self.close();
        }
        self.tokens += 1;
        if self.tokens > self.limits.tokens {
            return Err(BencodeError::Tokens(self.limits.tokens));
        }
        if key_or_end {
            return self.key(byte);
        }
        match byte {
            b'0'..=b'9' => {
                self.string()?;
                self.value_done();
            }
            b'i' => {
                self.integer()?;
                self.value_done();
            }
            b'l' => self.open(Frame::List)?,
            b'd' => self.open(Frame::Dict { entries: Vec::new(), sorted: true, waits: false })?,
            _ => return Err(BencodeError::Unexpected { at: self.at, byte }),
        }
        Ok(())
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        self.bytes.get(self.at).copied().ok_or(BencodeError::Truncated(self.at))
    }

    fn open(&mut self, frame: Frame) -> Result<(), BencodeError> {
        if self.stack.len() == self.limits.depth {
            return Err(BencodeError::Depth(self.limits.depth));
        }
        self.stack.push(frame);
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), BencodeError> {
        if let Some(Frame::Dict { mut entries, sorted, .. }) = self.stack.pop() {
            if !sorted {
                self.found.sorted = false;
                entries.sort_unstable_by(|a, b| a.key(self.bytes).cmp(b.key(self.bytes)));
                if entries.windows(2).any(|two| two[0].key(self.bytes) == two[1].key(self.bytes)) {
                    return Err(BencodeError::DuplicateKey(self.at));
                }
            }
            if self.stack.is_empty() {
                self.found.top = entries;
            }
        }
        self.at += 1;
        self.value_done();
        Ok(())
    }

    fn key(&mut self, byte: u8) -> Result<(), BencodeError> {
        if !byte.is_ascii_digit() {
            let key_is_value = matches!(byte, b'i' | b'l' | b'd');
            return Err(if key_is_value {
                BencodeError::Key(self.at)
            } else {
                BencodeError::Unexpected { at: self.at, byte }
            });
        }
        let token = self.at as u32;
        let key = self.string()?;
        let entry = Entry {
            token,
            key_start: key.start as u32,
            value_start: key.end as u32,
            value_end: key.end as u32,
        };
        let Some(Frame::Dict { entries, sorted, waits }) = self.stack.last_mut() else {
            return Ok(());
        };
        // Equal keys count as out of order: closing the dictionary then tells whether one is there twice.
        *sorted &= entries.last().is_none_or(|last| last.key(self.bytes) < entry.key(self.bytes));
        entries.push(entry);
        *waits = true;
        Ok(())
    }

    /// A value ends here: if it belongs to a dictionary's entry, that is complete.
    fn value_done(&mut self) {
        let Some(Frame::Dict { entries, waits, .. }) = self.stack.last_mut() else { return };
        *waits = false;
        let Some(entry) = entries.last_mut() else { return };
        entry.value_end = self.at as u32;
        let entry = *entry;
        if self.limits.keys == Keys::Text && std::str::from_utf8(entry.key(self.bytes)).is_err() {
            let start = entry.token as usize;
            let inside = self.found.unreadable.iter().rev().take_while(|cut| cut.start > start);
            let kept = self.found.unreadable.len() - inside.count();
            self.found.unreadable.truncate(kept);
            self.found.unreadable.push(start..self.at);
        }
    }

    /// Takes `<length>:<bytes>` and returns where the bytes stand.
    fn string(&mut self) -> Result<Range<usize>, BencodeError> {
        let token = self.at;
        let digits = self.digits(MAX_LENGTH_DIGITS);
        let canonical = digits.len() == 1 || self.bytes[digits.start] != b'0';
        let length = decimal(&self.bytes[digits.clone()]).and_then(|n| u32::try_from(n).ok());
        let (true, Some(length)) = (canonical, length) else {
            return Err(BencodeError::Length(token));
        };
        match self.bytes.get(digits.end) {
            Some(b':') => {}
            Some(b'0'..=b'9') => return Err(BencodeError::Length(token)),
            Some(&byte) => return Err(BencodeError::Unexpected { at: digits.end, byte }),
            None => return Err(BencodeError::Truncated(token)),
        }
        let start = digits.end + 1;
        let end = start + length as usize;
        if end > self.bytes.len() {
            return Err(BencodeError::Truncated(token));
        }
        self.at = end;
        Ok(start..end)
    }

    /// Takes `i<number>e`.
    fn integer(&mut self) -> Result<(), BencodeError> {
        let token = self.at;
        self.at += 1;
        let negative = self.bytes.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let digits = self.digits(MAX_INTEGER_DIGITS);
        match self.bytes.get(digits.end) {
            Some(b'e') => {}
            Some(_) => return Err(BencodeError::Integer(token)),
            None => return Err(BencodeError::Truncated(token)),
        }
        let text = &self.bytes[digits.clone()];
        let canonical = match text {
            [] => false,
            [b'0'] => !negative,
            [first, ..] => *first != b'0',
        };
        let limit = i64::MAX as u64 + u64::from(negative);
        if !canonical || decimal(text).is_none_or(|n| n > limit) {
            return Err(BencodeError::Integer(token));
        }
        self.at = digits.end + 1;
        Ok(())
    }

    /// The run of at most `most` digits from here on.
    fn digits(&self, most: usize) -> Range<usize> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        self.at..self.at + count
    }
}

/// The value of ASCII digits, if it fits.
fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))
}
