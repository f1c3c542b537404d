//! How the program ends: the exit codes, and an error as one line.
//!
//! Invariant: the numbers are part of the interface and stand in the man page.

use std::process::ExitCode;

/// Exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It could not be done; standard error says why.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
}

impl Exit {
    /// The code for a command that ended with `error`.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.chain().any(|cause| cause.is::<UsageError>()) { Self::Usage } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An argument that no state of the machine could make right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The error and its causes on one line, from the outermost in; what a cause repeats is said once.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if line.ends_with(&said) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&said);
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn codes_are_those_of_the_man_page() {
        let table = [
            ("any failure", anyhow!("disk full"), Exit::Failed, 1),
            ("usage", UsageError("no".into()).into(), Exit::Usage, 2),
            (
                "usage with context",
                anyhow::Error::new(UsageError("no".into())).context("mount"),
                Exit::Usage,
                2,
            ),
        ];
        for (name, error, exit, code) in table {
            assert_eq!(Exit::of(&error), exit, "{name}");
            assert_eq!(exit as u8, code, "{name}");
        }
        assert_eq!(Exit::Done as u8, 0);
    }

    #[test]
    fn a_chain_is_one_line_without_repetition() {
        let error = anyhow!("no such\nfile").context("x.torrent");
        assert_eq!(one_line(&error), "x.torrent: no such file");
        let error = anyhow!("broken").context("x.torrent: broken");
        assert_eq!(one_line(&error), "x.torrent: broken");
    }
}
