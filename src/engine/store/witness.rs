//! Who may look over a store's shoulder: hears of every change to the disk before it is made, and may refuse it.
//!
//! Tests of crashes stop a store at each of its changes in turn with it. In the program nobody looks.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::proto::units::FileIndex;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A file gets its length.
    Length(FileIndex),
    /// Bytes are written.
    Write {
        /// The file.
        file: FileIndex,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A hole is punched.
    Punch {
        /// The file.
        file: FileIndex,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A file is flushed.
    Flush(FileIndex),
    /// All files are flushed.
    FlushAll,
    /// The state file is replaced, flushed itself.
    Replace {
        /// By these bytes.
        bytes: &'a [u8],
    },
    /// The state file is removed.
    Remove,
    /// The state file gets the present time.
    Pulse,
}

/// Hears of changes.
pub trait Witness: Send + Sync {
    /// The change follows, unless this fails; then its maker is told the same.
    ///
    /// # Errors
    /// The witness would have the system refuse.
    fn before(&self, change: Change<'_>) -> io::Result<()>;
}

/// The place of a witness; mostly empty.
#[derive(Clone, Default)]
pub(in crate::engine) struct Watch(Option<Arc<dyn Witness>>);

impl Watch {
    pub(super) fn by(witness: Arc<dyn Witness>) -> Self {
        Self(Some(witness))
    }

    pub(in crate::engine) fn before(&self, change: Change<'_>) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |witness| witness.before(change))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.is_some()).finish()
    }
}
