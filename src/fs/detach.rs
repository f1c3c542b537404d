//! Ends the mount, whoever uses it, and never another's.
//!
//! Invariant: nothing is unmounted that does not have our device number on top of our mount point.
//!
//! Not here: what becomes of waiting reads ([`super::session`] fails them first).

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::attach::HELPER;
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

/// Takes the filesystem off its mount point, at once even when it is in use. That it is gone already is
/// no error.
///
/// # Errors
/// When it is still there.
pub fn detach(point: &Path, device: Device) -> Result<(), DetachError> {
    let mounts = mountinfo::read()?;
    if !mounts.iter().any(|mount| mount.point == point && mount.device == device) {
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
