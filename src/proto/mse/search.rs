//! What the other side has said and nobody has used yet; and the end of its padding, found by what must follow.

use super::{MAX_PAD, MOST_KEPT, MseError};

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: Vec<u8>,
}

impl Heard {
    /// Takes in what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        debug_assert!(self.bytes.len() <= MOST_KEPT, "more was fed than wanted");
    }

    /// How many are missing from so many.
    pub(super) fn missing(&self, count: usize) -> usize {
        count.saturating_sub(self.bytes.len())
    }

    /// The first `N`, of which none must be missing.
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut first = [0; N];
        first.copy_from_slice(&self.bytes[..N]);
        self.bytes.drain(..N);
        first
    }

    /// The first `count`, of which none must be missing.
    pub(super) fn take_some(&mut self, count: usize) -> Vec<u8> {
        self.bytes.drain(..count).collect()
    }

    /// How many are missing at least until `pattern` ends the padding and `after` bytes stand behind it; none once
    /// it is decided where the pattern is.
    pub(super) fn missing_through(&self, pattern: &[u8], after: usize) -> usize {
        let begun = self.begun(pattern);
        let is_decided = self.find(pattern).is_some() || self.bytes.len() - begun > MAX_PAD;
        if is_decided { 0 } else { pattern.len() - begun + after }
    }

    /// Drops the padding and the pattern behind it.
    ///
    /// # Errors
    /// The pattern is not where it may be.
    pub(super) fn skip_through(&mut self, pattern: &[u8]) -> Result<(), MseError> {
        let at = self.find(pattern).ok_or(MseError::NoSynchronisation)?;
        self.bytes.drain(..at + pattern.len());
        Ok(())
    }

    fn find(&self, pattern: &[u8]) -> Option<usize> {
        let at = self.bytes.windows(pattern.len()).position(|window| window == pattern);
        at.filter(|at| *at <= MAX_PAD)
    }

    /// How much of the pattern stands at the end.
    fn begun(&self, pattern: &[u8]) -> usize {
        let longest = self.bytes.len().min(pattern.len());
        (0..=longest).rev().find(|len| self.bytes.ends_with(&pattern[..*len])).unwrap_or(0)
    }
}
