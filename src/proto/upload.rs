//! What one peer has asked of us, and how much of it may be on its way.
//!
//! Invariant: at most `reqq` requests are queued, and blocks being loaded or not yet taken by the socket stay
//! below the peer's credit: a peer that asks and does not read holds no more memory than that.
//!
//! Not here: whether the peer may ask at all ([`crate::proto::choker`]).

use std::collections::VecDeque;

use super::geometry::Span;
use super::units::BLOCK_LEN;

/// Credit in seconds of the peer's rate: what is on its way can no longer be cancelled, so a seek of the peer
/// waits behind it.
const CREDIT_SECONDS: f64 = 1.0 / 32.0;

/// Blocks of the least credit, so that even a slow peer's line never runs dry. Under a limit there are fewer for a
/// slow peer: a choke goes out behind them, and should within a second.
const LEAST_BLOCKS: u64 = 4;

/// Most credit.
const MOST_CREDIT: u64 = 1 << 20;

/// One peer's requests.
#[derive(Debug, Default)]
pub struct UploadQueue {
    queue: VecDeque<Span>,
    loading: Vec<Span>,
    unsent: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It will be answered.
    Yes,
    /// It is queued already.
    Already,
    /// There are too many.
    Full,
}

impl UploadQueue {
    /// Takes in a request.
    pub fn push(&mut self, span: Span, reqq: usize) -> Queued {
        if self.queue.contains(&span) || self.loading.contains(&span) {
            return Queued::Already;
        }
        if self.queue.len() >= reqq {
            return Queued::Full;
        }
        self.queue.push_back(span);
        Queued::Yes
    }

    /// The peer takes a request back; true when it will not be answered.
    pub fn cancel(&mut self, span: Span) -> bool {
        let before = self.queue.len();
        self.queue.retain(|queued| *queued != span);
        self.queue.len() < before
    }

    /// Drops every request that is not being loaded, and hands them out to be rejected.
    pub fn clear(&mut self) -> Vec<Span> {
        self.queue.drain(..).collect()
    }

    /// The requests to load now, given the peer's upload rate in bytes per second, and whether blocks wait for
    /// their turn under a limit.
    pub fn load(&mut self, rate: f64, limited: bool) -> Vec<Span> {
        let credit = credit(rate, limited);
        let mut spans = Vec::new();
        let mut under_way =
            self.unsent + self.loading.iter().map(|s| u64::from(s.len)).sum::<u64>();
        while under_way < credit
            && let Some(span) = self.queue.pop_front()
        {
            under_way += u64::from(span.len);
            spans.push(span);
        }
        self.loading.extend_from_slice(&spans);
        spans
    }

    /// The span has been loaded; true when it is still to be sent.
    pub fn loaded(&mut self, span: Span) -> bool {
        let Some(at) = self.loading.iter().position(|loading| *loading == span) else {
            return false;
        };
        self.loading.swap_remove(at);
        true
    }

    /// A block goes out to the socket.
    pub fn sending(&mut self, bytes: u64) {
        self.unsent += bytes;
    }

    /// The socket has taken these bytes.
    pub fn sent(&mut self, bytes: u64) {
        self.unsent = self.unsent.saturating_sub(bytes);
    }

    /// Whether something was loaded, or is about to be, that the socket has not yet taken.
    pub fn is_under_way(&self) -> bool {
        !self.loading.is_empty() || self.unsent > 0
    }

    /// Whether the socket has not yet taken all that was asked for: the line is slower than the peer.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || self.is_under_way()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.loading.is_empty()
    }
}

/// Bytes that may be on their way to a peer that takes so many a second; one block always may.
fn credit(rate: f64, limited: bool) -> u64 {
    let block = u64::from(BLOCK_LEN);
    let in_a_second = (rate as u64 / block).clamp(1, LEAST_BLOCKS);
    let least = if limited { in_a_second } else { LEAST_BLOCKS };
    ((rate * CREDIT_SECONDS) as u64).clamp(least * block, MOST_CREDIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::geometry::Geometry;

    #[test]
    fn a_peer_that_does_not_read_holds_no_more_than_its_credit() {
        let geometry = Geometry::new(64 << 20, 1 << 20).expect("legal");
        let mut queue = UploadQueue::default();
        for at in 0..64 {
            let span = geometry.span(at / 64, at * 16_384, 16_384).expect("inside");
            assert_eq!(queue.push(span, 60), if at < 60 { Queued::Yes } else { Queued::Full });
        }
        let spans = queue.load(0.0, false);
        assert_eq!(spans.len() as u64, LEAST_BLOCKS);
        for span in spans {
            assert!(queue.loaded(span));
            queue.sending(16_384);
        }
        assert_eq!(queue.load(0.0, false), []);
        queue.sent(16_384);
        assert_eq!(queue.load(0.0, false).len(), 1);
        queue.clear();
        assert!(queue.is_waiting(), "the socket has not taken everything");
    }

    #[test]
    fn under_a_limit_a_choke_waits_for_a_second_or_one_block() {
        const KIB: f64 = 1024.0;
        let table = [
            ("nothing sent yet", 0.0, 1),
            ("10 KiB/s", 10.0 * KIB, 1),
            ("just below two blocks", 31.9 * KIB, 1),
            ("two blocks a second", 32.0 * KIB, 2),
            ("63 KiB/s", 63.0 * KIB, 3),
            ("64 KiB/s", 64.0 * KIB, 4),
            ("1 MiB/s", KIB * KIB, 4),
            ("8 MiB/s", 8.0 * KIB * KIB, 16),
            ("1 GiB/s", KIB * KIB * KIB, 64),
        ];
        for (name, rate, blocks) in table {
            let block = u64::from(BLOCK_LEN);
            assert_eq!(credit(rate, true), blocks * block, "{name}");
            assert_eq!(credit(rate, false), blocks.max(LEAST_BLOCKS) * block, "{name}");
        }
    }

    #[test]
    fn a_request_is_queued_once_and_can_be_taken_back() {
        let geometry = Geometry::new(1 << 20, 1 << 20).expect("legal");
        let span = geometry.span(0, 0, 16_384).expect("inside");
        let mut queue = UploadQueue::default();
        assert_eq!(queue.push(span, 10), Queued::Yes);
        assert_eq!(queue.push(span, 10), Queued::Already);
        assert!(queue.cancel(span));
        assert!(!queue.cancel(span));
        assert!(queue.is_empty());
    }
}
