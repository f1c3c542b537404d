//! `btfs unmount`: ends a mount and its process, or clears what a dead one left.
//!
//! ```text
//! find the mount ── its server says its pid ── SIGTERM ── gone within 10 s ─▶ done
//!        │                  │ dead or silent                 │ not gone
//!        ▼                  └────────────▶ detach the mount ◀┘
//!   not btfs, not there: an error
//! ```
//!
//! Invariant: no step waits for the mount's server without a limit.
//! Invariant: only a process of the mount's own user that runs btfs is signalled, since a mount can claim
//! any pid.
//! Not here: the ordered end of a serving process (`mount`).

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::fs::detach::detach;
use crate::fs::mountinfo::{self, Mount};

/// How long a server may take to say its pid.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a server may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long a process may take to end once its mount is detached.
const LAST_LIMIT: Duration = Duration::from_secs(2);
/// The attribute of a mount's root that holds the pid of its server.
const PID_ATTRIBUTE: &str = "user.btfs.pid";
/// The filesystem type of our mounts.
const FILESYSTEM: &str = "fuse.btfs";

/// Options of `btfs unmount`.
#[derive(Clone, Debug, clap::Args)]
pub struct Unmount {
    /// Where the torrents are mounted
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

impl Unmount {
    /// Ends the mount.
    ///
    /// # Errors
    /// Nothing of ours is mounted there, or it may not be ended; the error says which.
    pub fn run(self) -> anyhow::Result<()> {
        let shown = self.mountpoint.display();
        let mount = find(&self.mountpoint)?;
        match server(&mount) {
            Server::Process(process) => end(&mount, &process),
            Server::Dead => Ok(detach(&mount.point, mount.device)?),
            Server::Silent(why) => {
                tracing::info!("{shown}: {why}; detaching the mount");
                Ok(detach(&mount.point, mount.device)?)
            }
            Server::Forbidden => {
                bail!(
                    "{shown}: the mount belongs to user {}; unmount it as that user or root",
                    owner(&mount)
                )
            }
        }
        .with_context(|| format!("{shown}: cannot unmount"))
    }
}

/// Who serves a mount.
#[derive(Debug)]
enum Server {
    Process(Process),
    Dead,
    Silent(String),
    Forbidden,
}

/// A running process that cannot be confused with a later one of the same number.
#[derive(Debug)]
struct Process {
    pid: i32,
    fd: OwnedFd,
}

/// The user whose process serves the mount.
fn owner(mount: &Mount) -> u32 {
    mount.user.unwrap_or(0)
}

/// The topmost mount at `typed`, if it is ours.
fn find(typed: &Path) -> anyhow::Result<Mount> {
    let shown = typed.display();
    let path = resolve(typed).with_context(|| format!("{shown}: no such mount point"))?;
    match mountinfo::top_at(&mountinfo::read()?, &path) {
        Some(mount) if mount.kind == FILESYSTEM => Ok(mount.clone()),
        Some(mount) => {
            bail!("{shown}: is a mount of {}, not of btfs; use umount for it", mount.kind)
        }
        None => bail!(
            "{shown}: nothing is mounted there; 'findmnt -t {FILESYSTEM}' lists the mounts of btfs"
        ),
    }
}

/// The mount point's absolute path.
///
/// What is behind its last name may be a mount whose server is silent, and even stat would wait for that;
/// reading it as a link asks the server nothing.
fn resolve(typed: &Path) -> std::io::Result<PathBuf> {
    let whole = std::path::absolute(typed)?;
    if fs::read_link(&whole).is_ok() {
        return whole.canonicalize();
    }
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => whole.canonicalize(),
    }
}

/// Asks the mount's root who serves it, on a thread that may hang for ever in our place.
fn server(mount: &Mount) -> Server {
    let (sender, receiver) = mpsc::channel();
    let path = mount.point.clone();
    thread::spawn(move || {
        let mut value = [0; 32];
        let answer = rustix::fs::getxattr(&path, PID_ATTRIBUTE, &mut value[..]);
        let _ = sender.send(answer.map(|len| String::from_utf8_lossy(&value[..len]).into_owned()));
    });
    match receiver.recv_timeout(ANSWER_LIMIT) {
        Ok(Ok(pid)) => match process(&pid, owner(mount)) {
            Ok(process) => Server::Process(process),
            Err(why) => Server::Silent(why),
        },
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Server::Dead,
        Ok(Err(Errno::ACCESS | Errno::PERM)) => Server::Forbidden,
        Ok(Err(error)) => Server::Silent(format!("its server does not say its pid: {error}")),
        Err(_) => Server::Silent("its server does not answer".to_owned()),
    }
}

/// The process with this pid, if it can be the server of a mount of `uid`.
fn process(said: &str, uid: u32) -> Result<Process, String> {
    let pid = said.trim().parse().ok().filter(|&raw| raw > 0).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("its server says {said:?} for a pid"))?;
    let fd =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("process {said}: {error}"))?;
    let number = pid.as_raw_nonzero().get();
    let home = PathBuf::from(format!("/proc/{number}"));
    let name = fs::read_to_string(home.join("comm")).unwrap_or_default();
    let owner = fs::metadata(&home).map(|meta| meta.uid());
    if !name.starts_with("btfs") || owner.ok() != Some(uid) {
        return Err(format!("process {number} is not its server"));
    }
    Ok(Process { pid: number, fd })
}

/// SIGTERM, and then force if that does not do.
fn end(mount: &Mount, process: &Process) -> anyhow::Result<()> {
    match pidfd_send_signal(&process.fd, Signal::TERM) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => {
            return Err(error).with_context(|| format!("process {}: cannot signal", process.pid));
        }
    }
    let ended = process.wait(END_LIMIT)?;
    if is_mounted(mount)? {
        detach(&mount.point, mount.device)?;
    }
    if !ended && !process.wait(LAST_LIMIT)? {
        bail!(
            "the mount is gone, but process {} still runs; end it with 'kill -9 {0}'",
            process.pid
        );
    }
    Ok(())
}

impl Process {
    /// Whether the process is gone within `limit`.
    fn wait(&self, limit: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("the limit is no time")?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for the process"),
            }
        }
    }
}

/// Whether the filesystem is still at its place; by device, since numbers of mounts come again.
fn is_mounted(mount: &Mount) -> anyhow::Result<bool> {
    let at_place = |other: &Mount| other.device == mount.device && other.point == mount.point;
    Ok(mountinfo::read()?.iter().any(at_place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_believed_only_of_a_process_that_can_be_the_server() {
        let own = std::process::id().to_string();
        let uid = nix::unistd::geteuid().as_raw();
        let table = [
            ("no number", "x", uid),
            ("negative", "-1", uid),
            ("zero", "0", uid),
            ("another user's", &own, uid + 1),
            ("init", "1", uid),
        ];
        for (name, said, uid) in table {
            assert!(process(said, uid).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_no_mount_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let table = [
            ("nothing mounted", dir.path().to_owned(), "nothing is mounted there"),
            ("nowhere", PathBuf::from("/nowhere/at/all"), "no such mount point"),
            ("another filesystem", PathBuf::from("/proc"), "is a mount of proc"),
        ];
        for (name, path, expected) in table {
            let told = find(&path).expect_err(name).to_string();
            assert!(told.contains(expected), "{name}: {told}");
        }
    }
}
