//! MOUNTPOINT before anything is mounted there: what is wrong with it is said early and by name.
//!
//! Invariant: no check here waits for a server, not even for a dead mount's.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::fs::attach;

/// The device through which the kernel and a filesystem in user space speak.
pub const FUSE_DEVICE: &str = attach::DEVICE;

/// The absolute path of a directory that can be mounted upon.
///
/// # Errors
/// There is no such directory, it is in use, it is stale, or it has entries and `nonempty` was not given.
pub fn check(typed: &Path, nonempty: bool) -> anyhow::Result<PathBuf> {
    Ok(attach::checked(typed, nonempty)?)
}

/// Whether this machine lets anybody mount at all.
///
/// # Errors
/// `device` is not there or closed to us; users other than root may yet have the helper open it.
pub fn check_fuse(device: &Path) -> anyhow::Result<()> {
    let shown = device.display();
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if nix::unistd::geteuid().is_root() {
                bail!("{shown}: no permission, even for root; give the container the device");
            }
            Ok(())
        }
        Err(error) => Err(error)
            .with_context(|| format!("{shown}: no FUSE here; try 'modprobe fuse' as root")),
    }
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
            ("missing", dir.path().join("none"), "no such directory; make it first"),
            ("a file", file, "not a directory"),
            ("not empty", dir.path().to_owned(), "not empty"),
            ("busy", PathBuf::from("/proc"), "something is mounted there already"),
            ("the root", PathBuf::from("/"), "something is mounted there already"),
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
