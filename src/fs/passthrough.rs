//! Open files that the kernel reads by itself, from the file on disk, without asking us.
//!
//! Invariant: all open handles of one node are answered alike, since the kernel fails an open that would mix
//! them: so a file that becomes complete while it is open is read by the kernel from the next time on.
//! Invariant: a node has one backing, from its first open handle to its last.
//!
//! What the kernel reads by itself it reads as the file on disk has it. If somebody else cuts that file while it
//! is open here, its readers find its end there, and a mapping faults, as with the file itself; the next to open
//! it is served, and what is gone is fetched again.
//!
//! Not here: which files are fit for it (the source knows).

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, FileHandle, FopenFlags, InitFlags, KernelConfig, ReplyOpen};
use parking_lot::Mutex;

use super::source::{Backing, Hold};
use crate::proto::tree::Ino;
use crate::proto::units::ReaderId;

/// File systems that our files may lie on may be stacked on none; then an overlay fits on the mount.
const STACK_DEPTH: u32 = 1;

/// How open files are read.
#[derive(Debug, Default)]
pub struct Passthrough {
    /// Whether the kernel can do it, and has not forbidden it to this process.
    possible: AtomicBool,
    openings: Openings<Passed>,
}

/// A file that the kernel knows; in this order it is let go.
#[derive(Debug)]
struct Passed {
    id: BackingId,
    _hold: Hold,
}

impl Passthrough {
    /// Asks the kernel for it when the connection begins.
    pub fn negotiate(&mut self, config: &mut KernelConfig) {
        let able = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        *self.possible.get_mut() = able;
    }

    /// Answers an open. `lend` gives the file on disk, if it may be read in the node's place.
    pub fn answer(
        &self,
        reply: ReplyOpen,
        ino: Ino,
        reader: ReaderId,
        lend: impl FnOnce() -> Option<Backing>,
    ) {
        let handle = FileHandle(reader.0);
        match self.openings.open(ino, || self.register(&reply, lend)) {
            Some(passed) => reply.opened_passthrough(handle, FopenFlags::empty(), &passed.id),
            None => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    /// A handle of the node is gone.
    pub fn close(&self, ino: Ino) {
        self.openings.close(ino);
    }

    fn register(
        &self,
        reply: &ReplyOpen,
        lend: impl FnOnce() -> Option<Backing>,
    ) -> Option<Passed> {
        if !self.possible.load(Ordering::Relaxed) {
            return None;
        }
        let Backing { file, hold } = lend()?;
        match reply.open_backing(&*file) {
            Ok(id) => Some(Passed { id, _hold: hold }),
            Err(error) => {
                self.refused(&error);
                None
            }
        }
    }

    fn refused(&self, error: &io::Error) {
        tracing::debug!(%error, "the kernel does not read complete files by itself");
        // It is for root alone; any other reason may be one of this file.
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.possible.store(false, Ordering::Relaxed);
        }
    }
}

/// The nodes that are open, and what their handles share.
#[derive(Debug)]
struct Openings<B>(Mutex<HashMap<Ino, Opening<B>>>);

#[derive(Debug)]
struct Opening<B> {
    handles: u32,
    /// `None` when its reads are ours to answer.
    backing: Option<Arc<B>>,
}

impl<B> Default for Openings<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B> Openings<B> {
    /// One handle more; the first decides, by what `lend` gives, for all that are open with it.
    fn open(&self, ino: Ino, lend: impl FnOnce() -> Option<B>) -> Option<Arc<B>> {
        let mut nodes = self.0.lock();
        let first = || Opening { handles: 0, backing: lend().map(Arc::new) };
        let opening = nodes.entry(ino).or_insert_with(first);
        opening.handles += 1;
        opening.backing.clone()
    }

    /// One handle less; with the last goes the backing.
    fn close(&self, ino: Ino) {
        let mut nodes = self.0.lock();
        let Some(opening) = nodes.get_mut(&ino) else { return };
        opening.handles -= 1;
        let last = if opening.handles == 0 { nodes.remove(&ino) } else { None };
        drop(nodes);
        // The kernel is told after the lock is released.
        drop(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step does to one of two nodes, and how the handle that it opens is read.
    enum Step {
        /// Opened while it is complete or not.
        Open(u64, bool, Answer),
        Close(u64),
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Answer {
        Served,
        /// From the backing with this number.
        Passed(u32),
    }

    use Answer::{Passed as By, Served};
    use Step::{Close, Open};

    #[test]
    fn handles_that_are_open_together_are_read_alike() {
        for (name, steps) in [
            ("complete", vec![Open(1, true, By(1))]),
            ("incomplete", vec![Open(1, false, Served)]),
            ("one backing for all", vec![Open(1, true, By(1)), Open(1, true, By(1))]),
            (
                "what is read by the kernel stays so",
                vec![Open(1, true, By(1)), Open(1, false, By(1))],
            ),
            (
                "what becomes complete while it is open",
                vec![
                    Open(1, false, Served),
                    Open(1, true, Served),
                    Close(1),
                    Open(1, true, Served),
                ],
            ),
            ("from the next time on", vec![Open(1, false, Served), Close(1), Open(1, true, By(1))]),
            (
                "a backing goes with the last handle",
                vec![
                    Open(1, true, By(1)),
                    Open(1, true, By(1)),
                    Close(1),
                    Open(1, true, By(1)),
                    Close(1),
                    Close(1),
                    Open(1, true, By(2)),
                ],
            ),
            ("lost meanwhile", vec![Open(1, true, By(1)), Close(1), Open(1, false, Served)]),
            ("each for itself", vec![Open(1, false, Served), Open(2, true, By(1)), Close(2)]),
            ("closed twice", vec![Open(1, true, By(1)), Close(1), Close(1), Open(1, true, By(2))]),
        ] {
            play(name, steps);
        }
    }

    fn play(name: &str, steps: Vec<Step>) {
        let openings = Openings::default();
        let mut lent = Vec::new();
        let mut open = HashMap::new();
        for step in steps {
            match step {
                Open(node, complete, expected) => {
                    let lend = || {
                        let number = Arc::new(lent.len() as u32 + 1);
                        lent.push(Arc::downgrade(&number));
                        number
                    };
                    let backing = openings.open(Ino(node), || complete.then(lend));
                    let answer = backing.map_or(Served, |number| By(**number));
                    assert_eq!(answer, expected, "{name}");
                    *open.entry(node).or_insert(0) += 1;
                }
                Close(node) => {
                    openings.close(Ino(node));
                    open.entry(node)
                        .and_modify(|handles: &mut u32| *handles = handles.saturating_sub(1));
                }
            }
            let kept = lent.iter().filter(|number| number.upgrade().is_some()).count();
            let nodes = open.values().filter(|&&handles| handles > 0).count();
            assert!(kept <= nodes, "{name}: {kept} backings for {nodes} open nodes");
        }
    }
}
