//! MOUNTPOINT before anything is mounted there: what is wrong with it is said early and by name.
//!
//! Invariant: no check here waits for a server, not even for a dead mount's.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;

use super::settings;

/// The device through which the kernel and a filesystem in user space speak.
pub const FUSE_DEVICE: &str = "/dev/fuse";

/// The absolute path of a directory that can be mounted upon.
///
/// # Errors
/// There is no such directory, it is in use, it is stale, or it has entries and `nonempty` was not given.
pub fn check(typed: &Path, nonempty: bool) -> anyhow::Result<PathBuf> {
    let shown = typed.display();
    let meta = typed.metadata().map_err(|error| unusable(typed, &error))?;
    if !meta.is_dir() {
        bail!(
            "{shown}: is not a directory; the mount point comes last: btfs mount SOURCE... MOUNTPOINT"
        );
    }
    let path = typed.canonicalize().with_context(|| format!("{shown}: cannot mount there"))?;
    if is_mounted(&path, meta.dev())? {
        bail!(
            "{shown}: is busy, something is mounted there; end that with 'btfs unmount {shown}' first"
        );
    }
    if !nonempty && has_entries(&path)? {
        bail!(
            "{shown}: is not empty, and a mount would hide what is in it; choose another or add -o nonempty"
        );
    }
    settings::absolute("MOUNTPOINT", &path)
}

/// Whether this machine lets anybody mount at all.
///
/// # Errors
/// `device` is not there or closed to us.
pub fn check_fuse(device: &Path) -> anyhow::Result<()> {
    let shown = device.display();
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!(
                "{shown}: no permission; ask root for 'chmod 666 {shown}', or give the container the device"
            )
        }
        Err(error) => Err(error)
            .with_context(|| format!("{shown}: no FUSE here; try 'modprobe fuse' as root")),
    }
}

fn unusable(typed: &Path, error: &io::Error) -> anyhow::Error {
    let shown = typed.display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => {
            anyhow::anyhow!("{shown}: no such directory; make it with 'mkdir -p {shown}'")
        }
        Some(Errno::ENOTCONN) => anyhow::anyhow!(
            "{shown}: a stale mount, its server is gone; clear it with 'btfs unmount {shown}'"
        ),
        Some(Errno::EACCES) => {
            anyhow::anyhow!(
                "{shown}: no permission to look at it; mount in a directory of your own"
            )
        }
        _ => anyhow::anyhow!("{shown}: cannot mount there: {error}"),
    }
}

/// A mount's root has another device than the directory above it; `/` is its own parent.
fn is_mounted(path: &Path, device: u64) -> anyhow::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    let meta = parent.metadata().with_context(|| format!("{}", parent.display()))?;
    Ok(meta.dev() != device)
}

fn has_entries(path: &Path) -> anyhow::Result<bool> {
    let mut entries =
        path.read_dir().with_context(|| format!("{}: cannot list", path.display()))?;
    Ok(entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_mounted_upon_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.torrent");
        std::fs::write(&file, b"").unwrap();
        let table = [
            ("missing", dir.path().join("none"), "no such directory; make it with"),
            ("a file", file, "is not a directory"),
            ("not empty", dir.path().to_owned(), "is not empty"),
            ("busy", PathBuf::from("/proc"), "is busy"),
            ("the root", PathBuf::from("/"), "is busy"),
        ];
        for (name, path, expected) in table {
            let told = check(&path, false).expect_err(name).to_string();
            assert!(told.starts_with(&path.display().to_string()), "{name}: {told}");
            assert!(told.contains(expected), "{name}: {told}");
        }
    }

    #[test]
    fn an_empty_directory_is_taken_and_a_full_one_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(check(dir.path(), false).unwrap(), real);
        std::fs::write(dir.path().join("x"), b"").unwrap();
        assert_eq!(check(dir.path(), true).unwrap(), real);
    }

    #[test]
    fn a_machine_without_fuse_is_told_so() {
        let told = check_fuse(Path::new("/nowhere/fuse")).unwrap_err().to_string();
        assert!(told.starts_with("/nowhere/fuse: no FUSE here"), "{told}");
    }
}
