//! What one peer has asked of us, and how much of it may be on its way.
//!
//! Invariant: at most `reqq` requests are queued, and blocks being loaded or not yet taken by the socket stay
//! below the peer's credit: a peer that asks and does not read holds no more memory than that.
//!
//! Not here: whether the peer may ask at all ([`crate::proto::choker`]).

use std::collections::VecDeque;

use super::geometry::Span;

/// Credit in seconds of the peer's rate: what is on its way can no longer be cancelled, so a seek of the peer
/// waits behind it.
const CREDIT_SECONDS: f64 = 1.0 / 32.0;

/// Least credit: four blocks, so that even a slow peer's line never runs dry.
const LEAST_CREDIT: u64 = 64 * 1024;

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

    /// The requests to load now, given the peer's upload rate in bytes per second.
    pub fn load(&mut self, rate: f64) -> Vec<Span> {
        let credit = ((rate * CREDIT_SECONDS) as u64).clamp(LEAST_CREDIT, MOST_CREDIT);
        let mut spans = Vec::new();
        let mut under_way =
            self.unsent + self.loading.iter().map(|span| u64::from(span.len)).sum::<u64>();
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

    /// Whether the socket has not yet taken all that was asked for: the line is slower than the peer.
    pub fn is_waiting(&self) -> bool {
        !self.is_empty() || self.unsent > 0
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.loading.is_empty()
    }
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
        let spans = queue.load(0.0);
        assert_eq!(spans.len() as u64 * 16_384, LEAST_CREDIT);
        for span in spans {
            assert!(queue.loaded(span));
            queue.sending(16_384);
        }
        assert_eq!(queue.load(0.0), []);
        queue.sent(16_384);
        assert_eq!(queue.load(0.0).len(), 1);
        queue.clear();
        assert!(queue.is_waiting(), "the socket has not taken everything");
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
