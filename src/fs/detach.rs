//! Ends the mount, whoever uses it, and never another's.
//!
//! Invariant: nothing is unmounted that is not ours: it must have our device number and be on top of our
//! mount point, and as the kernel gives out the number of a filesystem that is gone again, the connection
//! must be alive, which keeps the number ours, or the mount must be dead.
//!
//! Not here: what becomes of waiting reads ([`super::session`] fails them first).

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::statvfs;

use super::attach::{HELPER, KIND};
use super::mountinfo::{self, Device};

/// How long the helper may take.
const HELPER_PATIENCE: Duration = Duration::from_secs(5);

/// Why the mount is still there.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Something else was mounted over it.
    #[error("{}: something else is mounted over it; unmount that first", .0.display())]
    Covered(PathBuf),
    /// The table of mounts cannot be read.
    #[error("the table of mounts cannot be read: {0}")]
    Table(#[from] io::Error),
    /// The kernel refused.
    #[error("{point}: {1}", point = .0.display())]
    Kernel(PathBuf, Errno),
    /// The helper refused, or did not end.
    #[error("{}: {HELPER} did not unmount it", .0.display())]
    Helper(PathBuf),
}

/// Whether the kernel still holds the other end of the device that served a mount.
pub fn is_connected(connection: impl AsFd) -> bool {
    let mut event = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    let asked = poll(&mut event, PollTimeout::ZERO);
    asked.is_ok() && !event[0].revents().is_some_and(|got| got.contains(PollFlags::POLLERR))
}

/// Takes the filesystem that `connection` serves off its mount point, as [`detach`] does, unless the kernel has
/// ended it already: another filesystem may have its device number by then.
///
/// # Errors
/// When it is still there.
pub fn detach_served(
    point: &Path,
    device: Device,
    connection: impl AsFd,
) -> Result<(), DetachError> {
    if !is_connected(connection) && !is_dead(point) {
        return Ok(());
    }
    detach(point, device)
}

/// Takes the filesystem off its mount point, at once even when it is in use. That it is gone already is
/// no error.
///
/// # Errors
/// When it is still there.
pub fn detach(point: &Path, device: Device) -> Result<(), DetachError> {
    let mounts = mountinfo::read()?;
    let ours = |mount: &mountinfo::Mount| {
        mount.device == device && mount.point == point && mount.kind == KIND
    };
    if !mounts.iter().any(ours) {
        return Ok(());
    }
    if mountinfo::top_at(&mounts, point).is_none_or(|top| top.device != device) {
        return Err(DetachError::Covered(point.to_owned()));
    }
    match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(Errno::EPERM) => detach_by_helper(point),
        Err(errno) => Err(DetachError::Kernel(point.to_owned(), errno)),
    }
}

/// Whether what is mounted there has lost its process.
fn is_dead(point: &Path) -> bool {
    matches!(statvfs(point), Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}

fn detach_by_helper(point: &Path) -> Result<(), DetachError> {
    let failed = || DetachError::Helper(point.to_owned());
    let mut helper = Command::new(HELPER)
        .args(["-u", "-q", "-z", "--"])
        .arg(point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| failed())?;
    let limit = Instant::now() + HELPER_PATIENCE;
    while Instant::now() < limit {
        match helper.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Err(failed()),
        }
        thread::sleep(Duration::from_millis(5));
    }
    // Nothing more can be done for it.
    let _ = helper.kill();
    Err(failed())
}
