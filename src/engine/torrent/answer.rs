//! Reads that waited get their bytes.
//!
//! Invariant: a read that was taken in is answered once; one whose bytes are gone again waits once more.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Instant;

use tracing::warn;

use super::Torrent;
use crate::engine::message::{Command, Deliver, ReadFailure};
use crate::engine::workers::{Busy, Work};
use crate::proto::units::{ReaderId, Ticket};

thread_local! {
    /// The bytes of the waiting read that this thread answers; grows to the largest, at most 1 MiB.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A read that waits.
pub(super) struct Waiting {
    pub(super) range: Range<u64>,
    pub(super) reader: ReaderId,
    pub(super) deliver: Deliver,
}

impl Torrent {
    /// Nobody brings what is missing to a torrent that is offline: reads that need it fail.
    pub(super) fn fail_hopeless(&mut self, now: Instant) {
        if self.tracker.is_some() {
            return;
        }
        let hopeless = self.waiting.iter().filter(|(_, read)| !self.swarm.may_have(&read.range));
        let hopeless: Vec<_> = hopeless.map(|(ticket, _)| *ticket).collect();
        for ticket in hopeless {
            self.swarm.cancel(ticket, now);
            if let Some(read) = self.waiting.remove(&ticket) {
                (read.deliver)(Err(ReadFailure::Offline));
            }
        }
    }

    /// Hands the read's bytes over, off this task; should they be gone again, the read waits once more.
    pub(super) fn deliver(&mut self, ticket: Ticket) {
        let Some(Waiting { range, reader, deliver }) = self.waiting.remove(&ticket) else { return };
        let content = self.content.clone();
        let again = self.out.commands.clone();
        let answer = move |bytes: &mut Vec<u8>| {
            bytes.resize((range.end - range.start) as usize, 0);
            match content.read_resident(range.start, bytes) {
                Ok(true) => deliver(Ok(bytes)),
                Ok(false) => {
                    // A closed queue drops the read, which answers it.
                    let _ = again.blocking_send(Command::Lost(content.missing(&range)));
                    let _ = again.blocking_send(Command::Read { ticket, reader, range, deliver });
                }
                Err(error) => {
                    let lost = content.doubt(&range);
                    warn!(%error, lost = lost.len(), "cannot read what is here");
                    if lost.is_empty() {
                        deliver(Err(ReadFailure::Storage));
                        return;
                    }
                    let _ = again.blocking_send(Command::Lost(lost));
                    let _ = again.blocking_send(Command::Read { ticket, reader, range, deliver });
                }
            }
        };
        let answer = Work::Deliver(Box::new(|| BYTES.with_borrow_mut(answer)));
        // Its bytes are here: no work that waits can be in its way.
        if let Err(Busy(answer)) = self.resources.workers.submit(answer) {
            self.submit(*answer);
        }
    }
}
