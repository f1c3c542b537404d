//! `btfs why`: what a file waits for, asked of the mount that shows it.
//!
//! Invariant: no step waits for the mount's server without a limit.
//!
//! Not here: the answer itself ([`super::diagnosis`], in the process that serves the mount).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{getxattr, major, minor, stat};
use rustix::io::Errno;

use crate::fs::mountinfo::{self, Device};

/// How long the mount's server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The filesystem type of our mounts.
const FILESYSTEM: &str = "fuse.btfs";

/// Options of `btfs why`.
#[derive(Clone, Debug, clap::Args)]
pub struct Why {
    /// A file or directory in a mount
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Print JSON
    ///
    /// One object with the keys torrents, a list, and left_out: how many there was no room for. The manual lists the
    /// keys of each torrent.
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Prints the answer.
    ///
    /// # Errors
    /// PATH is in no mount of btfs, or its server gives no answer; the error says which.
    pub fn run(self) -> anyhow::Result<()> {
        let attribute = if self.json { "user.btfs.why.json" } else { "user.btfs.why" };
        let text = ask(&self.path, attribute)?;
        match writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n')) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

/// Asks on a thread that may hang for ever in our place.
fn ask(path: &Path, attribute: &'static str) -> anyhow::Result<String> {
    let shown = path.display().to_string();
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || sender.send(answer(&path, attribute)));
    let Ok(answer) = receiver.recv_timeout(ANSWER_LIMIT) else {
        bail!("{shown}: the mount's process does not answer; 'btfs unmount' ends it");
    };
    answer.with_context(|| shown)
}

fn answer(path: &Path, attribute: &str) -> anyhow::Result<String> {
    let device = match stat(path) {
        Ok(stat) => Device { major: major(stat.st_dev), minor: minor(stat.st_dev) },
        Err(Errno::NOTCONN | Errno::CONNABORTED) => {
            bail!("the mount's process has died; 'btfs unmount' clears the mount")
        }
        Err(error) => return Err(error.into()),
    };
    let mounts = mountinfo::read().context("cannot read the table of mounts")?;
    let ours = |mount: &mountinfo::Mount| mount.device == device && mount.kind == FILESYSTEM;
    if !mounts.iter().any(ours) {
        bail!(
            "is in no mount of btfs; name a file or directory of one ('findmnt -t {FILESYSTEM}' lists them)"
        );
    }
    let mut value = vec![0; 64 * 1024];
    let len = getxattr(path, attribute, &mut value[..]).context("the mount does not say")?;
    value.truncate(len);
    Ok(String::from_utf8_lossy(&value).into_owned())
}
