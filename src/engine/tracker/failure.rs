//! Why an announce came to nothing.

use std::error::Error;

use crate::proto::announce::AnswerError;

/// Why an announce came to nothing, in words for `btfs why`. URLs stay out of it: they may hold a
/// passkey.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The tracker's URL is none.
    #[error("not a tracker's URL: {0}")]
    Url(String),
    /// The host has no address in this family.
    #[error("the name has no address of this family")]
    NoAddress,
    /// The name cannot be resolved.
    #[error("cannot resolve the name: {0}")]
    Name(std::io::Error),
    /// There is a proxy, and it carries only TCP.
    #[error("not asked, since UDP cannot go through the proxy")]
    NotCarried,
    /// The URL leads where no tracker's may.
    #[error("refused to follow the URL to {0}")]
    Forbidden(String),
    /// More redirects than are followed.
    #[error("too many redirects")]
    Redirects,
    /// A redirect from https to http.
    #[error("redirected from https to http")]
    Downgrade,
    /// The answer is longer than any honest one, in MiB.
    #[error("the answer is longer than {0} MiB")]
    TooLong(usize),
    /// An HTTP status without an answer.
    #[error("HTTP status {0}")]
    Status(u16),
    /// HTTP failed below the status.
    #[error("{}", innermost(.0))]
    Http(reqwest::Error),
    /// A socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The tracker answered, but not as hoped.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let nowhere =
            |cause: &(dyn Error + 'static)| matches!(cause.downcast_ref(), Some(Self::NoAddress));
        let nowhere = causes(&error).any(nowhere);
        if nowhere { Self::NoAddress } else { Self::Http(error.without_url()) }
    }
}

impl Failure {
    /// What to tell when both families failed; `None` when one answered.
    pub(super) fn of_both(v4: Result<(), Self>, v6: Result<(), Self>) -> Option<Self> {
        Some(Self::more_telling(v4.err()?, v6.err()?))
    }

    /// That a host has no IPv4 address says less than what happened over IPv6.
    pub(super) fn more_telling(v4: Self, v6: Self) -> Self {
        if matches!(v4, Self::NoAddress) { v6 } else { v4 }
    }
}

/// The cause at the bottom says what went wrong; those above it say where.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What lies below an error, from its top.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'_ (dyn Error + 'static)| (*cause).source())
}
