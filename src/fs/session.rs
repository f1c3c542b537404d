//! The mount's life: made, served, watched, ended.
//!
//! Invariant: when a [`Mount`] is over, no read of it waits.
//! Invariant: ends in bounded time, whoever has files open.
//!
//! ```text
//! Serving ──unmount / Drop────────────────▶ reads failed, detached ─┐
//!    ├─────umount(8), seen in mountinfo──▶ reads failed ────────────┼─▶ Over
//!    └─────connection ended by the kernel ▶ reads failed, detached ─┘
//! ```
//!
//! Threads: the FUSE loops; one that runs them; one that sleeps on mountinfo; one for parked reads.
//!
//! Not here: how it is mounted ([`super::attach`]) and unmounted ([`super::detach`]).

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::{Condvar, Mutex, RwLock};

use super::adapter::{Adapter, Owner};
use super::attach::{self, Access, MountError, Options};
use super::detach::{self, DetachError};
use super::mountinfo::{self, Device};
use super::ops::Ops;
use super::parked::Parked;
use super::source::Source;
use crate::proto::tree::{Ino, Tree};

/// How long a detached mount is served for those who have files open, before it is called over.
pub const LINGER: Duration = Duration::from_secs(2);

/// A mounted filesystem. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    point: PathBuf,
    device: Device,
    parked: Arc<Parked>,
    life: Mutex<Life>,
    changed: Condvar,
    notifier: Mutex<Option<Notifier>>,
    /// The device again: as long as the kernel holds its other end, the device number is ours.
    connection: Mutex<Option<OwnedFd>>,
}

#[derive(Debug)]
enum Life {
    Serving,
    Over(Ended),
}

/// How a mount ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Unmounted, and nobody uses it.
    Cleanly,
    /// Unmounted, but files are open; their users see an error when the process ends.
    InUse,
    /// A FUSE loop failed.
    Failed(String),
}

impl Ended {
    /// What the loops' end means. Whoever reads from the device while the kernel ends the connection is told
    /// that it was aborted, and not that it is gone.
    fn of_loops(result: io::Result<()>) -> Self {
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => Self::Cleanly,
            Err(error) => Self::Failed(error.to_string()),
            Ok(()) => Self::Cleanly,
        }
    }
}

impl Mount {
    /// Mounts `tree` over `source` on the directory `point`, and serves it until it is unmounted.
    ///
    /// # Errors
    /// When the place is unfit, or the kernel or its helper refuses.
    pub fn new(
        point: &Path,
        tree: Arc<RwLock<Tree>>,
        source: Arc<dyn Source>,
        options: &Options,
    ) -> Result<Self, MountError> {
        let point = attach::checked(point, options.nonempty)?;
        let fd = attach::attach(&point, options)?;
        let mounts = mountinfo::read().map_err(MountError::Connection)?;
        let device = mountinfo::top_at(&mounts, &point)
            .map(|top| top.device)
            .ok_or_else(|| MountError::Connection(io::ErrorKind::NotConnected.into()))?;
        let connection = fd.try_clone().map_err(MountError::Connection)?;
        let undo = |error| {
            // The first error is the one to tell.
            let _ = detach::detach_served(&point, device, &connection);
            MountError::Connection(error)
        };
        let parked = Parked::new(Arc::clone(&source), options.read_timeout).map_err(undo)?;
        let ops = Ops::new(tree, source, SystemTime::now());
        let adapter = Adapter::new(ops, Arc::clone(&parked), owner());
        let acl = acl(options.access);
        let session = Session::from_fd(adapter, fd, acl, config(acl)).map_err(|error| {
            parked.close();
            undo(error)
        })?;
        let notifier = Mutex::new(Some(session.notifier()));
        let life = Mutex::new(Life::Serving);
        let changed = Condvar::new();
        let connection = Mutex::new(Some(connection));
        let shared = Shared { point, device, parked, life, changed, notifier, connection };
        let shared = Arc::new(shared);
        let mount = Self { shared: Arc::clone(&shared) };
        // From here on dropping the mount undoes all.
        serve(&shared, session).map_err(MountError::Connection)?;
        Ok(mount)
    }

    /// The mount point, links resolved.
    pub fn point(&self) -> &Path {
        &self.shared.point
    }

    /// The mount's device number.
    pub fn device(&self) -> Device {
        self.shared.device
    }

    /// Reads that wait for bytes.
    pub fn waiting_reads(&self) -> usize {
        self.shared.parked.len()
    }

    /// Has the kernel forget a name in the root, because its torrent came or went.
    pub fn forget(&self, name: &OsStr) {
        let notifier = self.shared.notifier.lock().clone();
        if let Some(notifier) = notifier {
            // A name that the kernel does not know is as good as forgotten.
            let _ = notifier.inval_entry(INodeNo(Ino::ROOT.0), name);
        }
    }

    /// Waits until the mount is over, by whatever end.
    pub fn wait(&self) -> Ended {
        let mut life = self.shared.life.lock();
        loop {
            if let Life::Over(ended) = &*life {
                return ended.clone();
            }
            self.shared.changed.wait(&mut life);
        }
    }

    /// How the mount ended, if it is over.
    pub fn ended(&self) -> Option<Ended> {
        self.shared.ended()
    }

    /// Fails what waits, unmounts, and waits for the end; takes [`LINGER`] and a little more at most.
    ///
    /// # Errors
    /// When it cannot be unmounted. What waited has failed all the same.
    pub fn unmount(&self) -> Result<Ended, DetachError> {
        self.shared.parked.close();
        self.shared.detach()?;
        Ok(self.shared.linger())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!("{error}");
        }
    }
}

impl Shared {
    fn ended(&self) -> Option<Ended> {
        match &*self.life.lock() {
            Life::Serving => None,
            Life::Over(ended) => Some(ended.clone()),
        }
    }

    fn detach(&self) -> Result<(), DetachError> {
        match &*self.connection.lock() {
            Some(connection) => detach::detach_served(&self.point, self.device, connection),
            None => Ok(()),
        }
    }

    fn over(&self, ended: Ended) {
        self.parked.close();
        *self.notifier.lock() = None;
        *self.connection.lock() = None;
        let mut life = self.life.lock();
        if matches!(*life, Life::Serving) {
            *life = Life::Over(ended);
        }
        self.changed.notify_all();
    }

    /// Lets those who still have files open finish, for a while.
    fn linger(&self) -> Ended {
        let limit = Instant::now() + LINGER;
        {
            let mut life = self.life.lock();
            while matches!(*life, Life::Serving) {
                if self.changed.wait_until(&mut life, limit).timed_out() {
                    break;
                }
            }
        }
        self.over(Ended::InUse);
        self.ended().unwrap_or(Ended::InUse)
    }

    /// The loops have ended: the kernel is done with us, or they failed.
    fn loops_ended(&self, result: io::Result<()>) {
        self.parked.close();
        if let Err(error) = self.detach() {
            tracing::warn!("{error}");
        }
        self.over(Ended::of_loops(result));
    }

    /// Sleeps until the mount is in the table no more, or the loops have ended and closed the pipe.
    fn watch(&self, table: &File, ends: &PipeReader) -> io::Result<()> {
        loop {
            let mut events = [
                PollFd::new(table.as_fd(), PollFlags::POLLPRI),
                PollFd::new(ends.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut events, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if events[1].any() == Some(true) {
                return Ok(());
            }
            if !mountinfo::has(&mountinfo::read()?, self.device) {
                self.parked.close();
                self.linger();
                return Ok(());
            }
        }
    }
}

/// Starts the threads.
fn serve(shared: &Arc<Shared>, session: Session<Adapter>) -> io::Result<()> {
    let (ends, end) = io::pipe()?;
    let table = File::open(mountinfo::TABLE)?;
    let watcher = Arc::clone(shared);
    thread::Builder::new().name("btfs-mount".to_owned()).spawn(move || {
        if let Err(error) = watcher.watch(&table, &ends) {
            tracing::warn!("the mount is not watched: {error}");
        }
    })?;
    let runner = Arc::clone(shared);
    let run = move || run(&runner, session, end);
    thread::Builder::new().name("btfs-fuse".to_owned()).spawn(run)?;
    Ok(())
}

fn run(shared: &Shared, session: Session<Adapter>, end: PipeWriter) {
    shared.loops_ended(session.run());
    drop(end);
}

fn config(acl: SessionACL) -> Config {
    let mut config = Config::default();
    let cores = thread::available_parallelism().map_or(2, usize::from);
    config.n_threads = Some(cores.clamp(2, 4));
    // A clone needs the device itself, which the helper may open when we may not.
    config.clone_fd = OpenOptions::new().read(true).write(true).open(attach::DEVICE).is_ok();
    config.acl = acl;
    config
}

fn acl(access: Access) -> SessionACL {
    match access {
        Access::Owner => SessionACL::Owner,
        Access::OwnerAndRoot => SessionACL::RootAndOwner,
        Access::All => SessionACL::All,
    }
}

fn owner() -> Owner {
    Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_meets_the_kernels_end_of_the_connection_is_a_clean_end() {
        for (result, expected) in [
            (Ok(()), Ended::Cleanly),
            (Err(Errno::ECONNABORTED), Ended::Cleanly),
            (Err(Errno::EIO), Ended::Failed("Input/output error (os error 5)".to_owned())),
        ] {
            assert_eq!(Ended::of_loops(result.map_err(io::Error::from)), expected);
        }
    }
}
