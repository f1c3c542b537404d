//! How a failure reaches the program that asked: one errno for each, and no wildcard, so that a new
//! failure is asked for its errno by the compiler.
//!
//! | a read that … | errno |
//! | --- | --- |
//! | needs bytes that are not here, offline | `ENODATA` |
//! | waited for longer than `--read-timeout` | `ETIMEDOUT` |
//! | was interrupted by a signal | `EINTR` |
//! | waited when the mount ended | `ECONNABORTED`, as the kernel says when a FUSE connection ends |
//! | is of a torrent that was taken out | `ESTALE` |
//! | met a failing store | `EIO` |
//!
//! None fails for want of room: what the store does not take is read from memory.

use super::source::ReadError;

/// Why an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No such name, or the node was taken out.
    #[error("no such file or directory")]
    NoEntry,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsDirectory,
    /// A link was needed, or the argument makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// The name is longer than [`crate::proto::tree::MAX_NAME_LEN`].
    #[error("name too long")]
    NameTooLong,
    /// The handle is not open.
    #[error("bad handle")]
    BadHandle,
    /// Nothing can be changed here.
    #[error("read-only filesystem")]
    ReadOnly,
    /// The node has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The bytes did not come.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Fault {
    /// The number that the program sees.
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoEntry => libc::ENOENT,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::Invalid => libc::EINVAL,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::BadHandle => libc::EBADF,
            Self::ReadOnly => libc::EROFS,
            Self::NoAttribute => libc::ENODATA,
            Self::Read(error) => read_errno(error),
        }
    }
}

const fn read_errno(error: ReadError) -> i32 {
    match error {
        ReadError::Offline => libc::ENODATA,
        ReadError::TimedOut => libc::ETIMEDOUT,
        ReadError::Interrupted => libc::EINTR,
        ReadError::ShuttingDown => libc::ECONNABORTED,
        ReadError::Removed => libc::ESTALE,
        ReadError::Storage | ReadError::Abandoned => libc::EIO,
    }
}
