//! What was typed becomes what it means, in one step: sizes, times, directories.
//!
//! Invariant: paths in settings are absolute, so that they outlive a change of directory.
//! Invariant: a value that could never be right is a usage error that names its option.
//! Not here: SOURCE (`source`), MOUNTPOINT (`mountpoint`), `-o` (`mount_options`).

mod network;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytesize::ByteSize;

use super::exit::UsageError;
use super::options::{StorageArgs, StoreKind};

pub use network::Network;

/// Less memory than this cannot hold a few pieces of common size while they arrive.
const LEAST_MEMORY_BYTES: u64 = 8 << 20;

/// Where pieces are kept and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// State files, and with [`Place::Cache`] the pieces.
    pub cache_dir: PathBuf,
    /// Where verified pieces go.
    pub place: Place,
    /// Most bytes below `cache_dir`, over all torrents.
    pub cache_bytes: u64,
    /// Most bytes of cache, assembly and write queue in memory.
    pub memory_bytes: u64,
}

/// Where verified pieces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below the cache directory, evicted when the budget is used up.
    Cache,
    /// As the torrent's own files below this directory, for good.
    Keep(PathBuf),
    /// Nowhere but in memory.
    Memory,
}

impl Storage {
    /// Gives the storage options their meaning; creates nothing.
    ///
    /// # Errors
    /// A size cannot be read or is too small, options contradict each other, or no home is known.
    pub fn of(args: &StorageArgs) -> anyhow::Result<Self> {
        let place = match (&args.keep, args.store) {
            (Some(_), StoreKind::Memory) => {
                bail!(UsageError(
                    "--keep: contradicts --store memory; leave one of them out".into()
                ))
            }
            (Some(dir), StoreKind::Disk) => Place::Keep(absolute("--keep", dir)?),
            (None, StoreKind::Disk) => Place::Cache,
            (None, StoreKind::Memory) => Place::Memory,
        };
        Ok(Self {
            cache_dir: cache_dir(args.cache_dir.as_deref())?,
            place,
            cache_bytes: size("--cache-size", &args.cache_size)?,
            memory_bytes: memory(&args.memory)?,
        })
    }

    /// Makes sure that nothing is kept on the mount itself, where nobody can write.
    ///
    /// # Errors
    /// One of the directories is the mount point, or below it.
    pub fn keep_off(&self, mountpoint: &Path) -> Result<(), UsageError> {
        let cache = ("--cache-dir", &self.cache_dir);
        let used = match &self.place {
            Place::Memory => vec![],
            Place::Cache => vec![cache],
            Place::Keep(dir) => vec![("--keep", dir), cache],
        };
        match used.into_iter().find(|(_, dir)| real(dir).starts_with(mountpoint)) {
            None => Ok(()),
            Some((option, dir)) => Err(UsageError(format!(
                "{option} {}: is on the mount itself; choose a directory that is not below {}",
                dir.display(),
                mountpoint.display()
            ))),
        }
    }
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let resolved =
        |above: &Path| Some(above.canonicalize().ok()?.join(path.strip_prefix(above).ok()?));
    path.ancestors().find_map(resolved).unwrap_or_else(|| path.to_owned())
}

/// `--memory`.
///
/// # Errors
/// It is no size, or less than 8 MiB.
pub fn memory(typed: &str) -> Result<u64, UsageError> {
    let bytes = size("--memory", typed)?;
    if bytes < LEAST_MEMORY_BYTES {
        return Err(UsageError(format!(
            "--memory {typed}: too small to work in; give at least 8MiB"
        )));
    }
    Ok(bytes)
}

/// `--read-timeout`: `None` waits without end.
///
/// # Errors
/// It is neither a time nor `none`.
pub fn read_timeout(typed: &str) -> Result<Option<Duration>, UsageError> {
    if typed == "none" {
        return Ok(None);
    }
    match humantime::parse_duration(typed) {
        Ok(Duration::ZERO) => {
            Err(UsageError("--read-timeout 0: would fail every read; --offline does that".into()))
        }
        Ok(time) => Ok(Some(time)),
        Err(_) => Err(UsageError(format!(
            "--read-timeout {typed}: is no time; write it as 30s, 5min or none"
        ))),
    }
}

/// A path that stays right when the process changes its directory.
///
/// # Errors
/// The path is empty, or the working directory is gone.
pub fn absolute(what: &str, path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{what} {}", path.display()))
}

fn size(option: &str, typed: &str) -> Result<u64, UsageError> {
    match typed.trim().parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err(UsageError(format!("{option} {typed}: must be more than nothing"))),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err(UsageError(format!(
            "{option} {typed}: is no size; write it as 512MiB, 10GiB or 2T"
        ))),
    }
}

/// What of the process and its environment decides where the cache is.
struct Surroundings {
    is_root: bool,
    has_home: bool,
    xdg_cache: Option<PathBuf>,
}

impl Surroundings {
    fn of_process() -> Self {
        let filled = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            has_home: filled("HOME").is_some(),
            xdg_cache: filled("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()),
        }
    }
}

/// Where pieces and state files go: `--cache-dir`, or what follows from the surroundings.
///
/// # Errors
/// No home is known, or the path cannot be made absolute.
pub fn cache_dir(typed: Option<&Path>) -> anyhow::Result<PathBuf> {
    match typed {
        Some(dir) => absolute("--cache-dir", dir),
        None => default_cache_dir(&Surroundings::of_process()),
    }
}

fn default_cache_dir(around: &Surroundings) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &around.xdg_cache {
        return Ok(dir.join("btfs"));
    }
    if around.is_root && !around.has_home {
        return Ok(PathBuf::from("/var/cache/btfs"));
    }
    let home =
        etcetera::home_dir().context("no home directory to keep the cache in; give --cache-dir")?;
    Ok(home.join(".cache/btfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_mean_what_they_say() {
        let table: [(&str, Option<u64>); 8] = [
            ("512MiB", Some(512 << 20)),
            ("10G", Some(10_000_000_000)),
            ("1.5GiB", Some(3 << 29)),
            ("4096", Some(4096)),
            ("0", None),
            ("many", None),
            ("-1", None),
            ("", None),
        ];
        for (typed, expected) in table {
            assert_eq!(size("--cache-size", typed).ok(), expected, "{typed:?}");
        }
        assert!(memory("64MiB").is_ok() && memory("1MiB").is_err());
    }

    #[test]
    fn times_mean_what_they_say() {
        let table = [
            ("none", Some(None)),
            ("30s", Some(Some(Duration::from_secs(30)))),
            ("2min", Some(Some(Duration::from_secs(120)))),
            ("0s", None),
            ("soon", None),
        ];
        for (typed, expected) in table {
            assert_eq!(read_timeout(typed).ok(), expected, "{typed}");
        }
    }

    #[test]
    fn nothing_is_kept_on_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap().join("mnt");
        std::fs::create_dir(&point).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&point, &link).unwrap();
        let beside = dir.path().join("mnt-cache");
        for (name, cache_dir, place, complaint) in [
            ("beside", &beside, Place::Cache, None),
            ("the mount point", &point, Place::Cache, Some("--cache-dir")),
            ("below a link to it", &link.join("a/b"), Place::Cache, Some("--cache-dir")),
            ("kept there", &beside, Place::Keep(point.clone()), Some("--keep")),
            ("above", &beside, Place::Keep(dir.path().into()), None),
            ("nothing is kept", &point, Place::Memory, None),
        ] {
            let cache_dir = cache_dir.clone();
            let storage = Storage { cache_dir, place, cache_bytes: 1, memory_bytes: 1 };
            let told = storage.keep_off(&point).err().map(|error| error.to_string());
            assert_eq!(
                told.as_deref().map(|told| told.split(' ').next().unwrap()),
                complaint,
                "{name}"
            );
        }
    }

    #[test]
    fn the_cache_is_found_without_a_home() {
        let around = |is_root, has_home, xdg: Option<&str>| Surroundings {
            is_root,
            has_home,
            xdg_cache: xdg.map(PathBuf::from),
        };
        let daemon = default_cache_dir(&around(true, false, None)).unwrap();
        assert_eq!(daemon, Path::new("/var/cache/btfs"));
        let xdg = default_cache_dir(&around(true, false, Some("/c"))).unwrap();
        assert_eq!(xdg, Path::new("/c/btfs"));
        let home = default_cache_dir(&around(false, true, None)).unwrap();
        assert!(home.ends_with(".cache/btfs"));
    }
}
