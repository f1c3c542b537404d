//! Makes the mount: checks the place, opens the device, and calls mount(2) or its helper.
//!
//! Invariant: what is refused is refused before anything is mounted, with one clear line.
//!
//! We mount by ourselves and hand the FUSE library the device alone, for then it has nothing to unmount:
//! what it unmounts at its end may be somebody else's by then.
//!
//! Not here: what happens on the mount ([`super::session`]); its end ([`super::detach`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::statvfs::statvfs;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::mountinfo;

/// The kernel's side of every FUSE filesystem.
pub const DEVICE: &str = "/dev/fuse";

/// The helper that mounts for users other than root.
pub const HELPER: &str = "fusermount3";

/// The filesystem's type in the table of mounts.
pub const KIND: &str = "fuse.btfs";

/// How long the helper may take.
const HELPER_PATIENCE: Duration = Duration::from_secs(10);

/// Who may use the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Whoever mounted it.
    #[default]
    Owner,
    /// Whoever mounted it, and root (`-o allow_root`).
    OwnerAndRoot,
    /// Everybody (`-o allow_other`).
    All,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `mount` shows as the source.
    pub source_name: String,
    /// Who may use it.
    pub access: Access,
    /// Mount on a directory that has something in it (`-o nonempty`).
    pub nonempty: bool,
    /// Forbid to run programs from it (`-o noexec`).
    pub noexec: bool,
    /// How long a read waits for the swarm; without end by default. Always kept below the kernel's own limit.
    pub read_timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source_name: "btfs".to_owned(),
            access: Access::default(),
            nonempty: false,
            noexec: false,
            read_timeout: None,
        }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is not there.
    #[error("{}: no such directory; make it first", .0.display())]
    Missing(PathBuf),
    /// The mount point is a file.
    #[error("{}: not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The mount point has something in it.
    #[error("{}: not empty; choose an empty directory, or pass -o nonempty", .0.display())]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("{}: something is mounted there already; unmount it first", .0.display())]
    Mounted(PathBuf),
    /// What is mounted there has lost its process.
    #[error(
        "{point}: left behind by a mount whose process is gone (Transport endpoint is not \
         connected); clear it with `umount -l {point}` or `btfs unmount {point}`",
        point = .0.display()
    )]
    Stale(PathBuf),
    /// The mount point cannot be looked at.
    #[error("{point}: {1}", point = .0.display())]
    Unusable(PathBuf, io::Error),
    /// The kernel has no FUSE.
    #[error(
        "{DEVICE} is not there; load the kernel's FUSE with `modprobe fuse`, or give the container the device"
    )]
    NoDevice,
    /// The device is not for us.
    #[error("{DEVICE}: permission denied; run as root, or let your user read and write it")]
    DeviceDenied,
    /// Not root, and no helper either.
    #[error(
        "only root may mount without {HELPER}; install it (Debian: apt install fuse3) or run as root"
    )]
    NoHelper,
    /// The helper does not let users share mounts.
    #[error("allow_other and allow_root need the line user_allow_other in /etc/fuse.conf")]
    AllowOther,
    /// The helper refused.
    #[error("{HELPER} refused: {0}")]
    Helper(String),
    /// The kernel refused.
    #[error("the kernel refused the mount: {0}")]
    Kernel(Errno),
    /// The connection did not come up.
    #[error("the FUSE connection did not come up: {0}")]
    Connection(#[source] io::Error),
}

/// The mount point as the kernel knows it, if something may be mounted there.
///
/// # Errors
/// When it is missing, no directory, in use, stale, or not empty.
pub fn checked(point: &Path, nonempty: bool) -> Result<PathBuf, MountError> {
    let unusable = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT) => MountError::Missing(point.to_owned()),
        Some(libc::ENOTDIR) => MountError::NotDirectory(point.to_owned()),
        Some(libc::ENOTCONN | libc::ECONNABORTED) => MountError::Stale(point.to_owned()),
        _ => MountError::Unusable(point.to_owned(), error),
    };
    if !fs::metadata(point).map_err(unusable)?.is_dir() {
        return Err(MountError::NotDirectory(point.to_owned()));
    }
    let real = point.canonicalize().map_err(unusable)?;
    let mounts = mountinfo::read().map_err(unusable)?;
    if mountinfo::top_at(&mounts, &real).is_some() {
        // The kernel may remember what stat says of a dead mount, but never what statvfs says.
        statvfs(&real).map_err(|errno| unusable(errno.into()))?;
        return Err(MountError::Mounted(point.to_owned()));
    }
    if !nonempty && fs::read_dir(&real).map_err(unusable)?.next().is_some() {
        return Err(MountError::NotEmpty(point.to_owned()));
    }
    Ok(real)
}

/// Mounts on a checked place, and gives the device over which the kernel will talk.
///
/// # Errors
/// When the kernel or the helper refuses.
pub fn attach(point: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    match attach_directly(point, options) {
        Err(MountError::Kernel(Errno::EPERM)) => attach_by_helper(point, options),
        // The helper may open the device when we may not.
        Err(MountError::DeviceDenied) if !nix::unistd::geteuid().is_root() => {
            attach_by_helper(point, options)
        }
        done => done,
    }
}

fn attach_directly(point: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let mut flags =
        MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    flags.set(MsFlags::MS_NOEXEC, options.noexec);
    let data = format!(
        "fd={},rootmode=40555,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid(),
        if shared(options) { ",allow_other" } else { "" },
    );
    let name = options.source_name.as_str();
    nix::mount::mount(Some(name), point, Some(KIND), flags, Some(data.as_str()))
        .map_err(MountError::Kernel)?;
    Ok(device.into())
}

fn open_device() -> Result<File, MountError> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => MountError::NoDevice,
            Some(libc::EACCES | libc::EPERM) => MountError::DeviceDenied,
            _ => MountError::Unusable(DEVICE.into(), error),
        }
    })
}

fn shared(options: &Options) -> bool {
    options.access != Access::Owner
}

/// Has the helper mount; it sends the device through the socket that it gets as its standard input.
fn attach_by_helper(point: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let failed = |error: io::Error| MountError::Helper(error.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    ours.set_read_timeout(Some(HELPER_PATIENCE)).map_err(failed)?;
    let spawned = Command::new(HELPER)
        .arg("-o")
        .arg(helper_options(options))
        .arg("--")
        .arg(point)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let helper = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => failed(error),
    })?;
    let device = received(&ours);
    drop(ours);
    let output = helper.wait_with_output().map_err(failed)?;
    device.ok_or_else(|| complaint(&String::from_utf8_lossy(&output.stderr)))
}

fn helper_options(options: &Options) -> String {
    let name = options.source_name.replace('\\', "\\\\").replace(',', "\\,");
    let shared = if shared(options) { ",allow_other" } else { "" };
    let noexec = if options.noexec { ",noexec" } else { "" };
    format!(
        "ro,nosuid,nodev,noatime,default_permissions,subtype=btfs,fsname={name}{shared}{noexec}"
    )
}

/// The descriptor that the helper sent, if it sent one.
fn received(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// What the helper's last words mean.
fn complaint(words: &str) -> MountError {
    if words.contains("user_allow_other") {
        return MountError::AllowOther;
    }
    if words.contains(DEVICE) && words.contains("Permission denied") {
        return MountError::DeviceDenied;
    }
    let line = words.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it gave no reason");
    MountError::Helper(line.trim_start_matches(HELPER).trim_start_matches(':').trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_words_become_one_line() {
        for (words, expected) in [
            (
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n",
                "allow_other and allow_root need the line user_allow_other in /etc/fuse.conf",
            ),
            (
                "fusermount3: user has no write access to mountpoint /x\n",
                "fusermount3 refused: user has no write access to mountpoint /x",
            ),
            (
                "fusermount3: failed to open /dev/fuse: Permission denied\n",
                "/dev/fuse: permission denied; run as root, or let your user read and write it",
            ),
            ("\n", "fusermount3 refused: it gave no reason"),
        ] {
            assert_eq!(complaint(words).to_string(), expected);
        }
    }

    #[test]
    fn a_comma_in_the_name_is_no_new_option() {
        let options = Options { source_name: "a,b\\c".to_owned(), ..Options::default() };
        assert!(helper_options(&options).contains(r"fsname=a\,b\\c"));
    }
}
