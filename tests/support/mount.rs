//! A mount that never outlives its test, and readers that are never waited for without end.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use btfs::fs::attach::Options;
use btfs::fs::mountinfo;
use btfs::fs::session::{Ended, Mount};
use btfs::proto::metainfo::Metainfo;
use btfs::proto::tree::Tree;
use btfs::proto::units::TorrentId;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use parking_lot::RwLock;
use tempfile::TempDir;

use super::fake::{Fake, LIMIT};

/// Longest that a test with a mount may take; then the process ends, which frees whoever hangs on it.
const WATCHDOG: Duration = Duration::from_secs(90);

/// A mounted [`Fake`].
pub struct TestMount {
    pub fake: Arc<Fake>,
    pub tree: Arc<RwLock<Tree>>,
    pub mount: Mount,
    dir: Option<TempDir>,
    _done: Sender<()>,
}

/// Whether this machine can mount. Without FUSE a test fails, unless `BTFS_SKIP_FUSE=1` allows it not to run.
pub fn fuse() -> bool {
    if Path::new("/dev/fuse").exists() {
        return true;
    }
    let skip = std::env::var_os("BTFS_SKIP_FUSE").is_some_and(|value| value == "1");
    assert!(
        skip,
        "/dev/fuse is not there: load fuse, or set BTFS_SKIP_FUSE=1 to leave this test out"
    );
    eprintln!("SKIPPED: /dev/fuse is not there and BTFS_SKIP_FUSE=1");
    false
}

/// Whether the kernel may read files by itself for this process: Linux 6.9 and root.
pub fn passthrough() -> bool {
    let all_ids = fs::read_to_string("/proc/self/uid_map").expect("a map");
    let first = all_ids.split_whitespace().eq(["0", "0", "4294967295"]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    let recent = matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 9));
    let able = first && recent && geteuid().is_root();
    if !able {
        eprintln!("SKIPPED: only root's processes have the kernel read files, since Linux 6.9");
    }
    able
}

/// The tree of these torrents, numbered from 0.
pub fn tree(torrents: &[Metainfo]) -> Tree {
    let mut tree = Tree::new();
    for (id, meta) in (0..).map(TorrentId).zip(torrents) {
        tree.add(id, meta).expect("no clash");
    }
    tree
}

impl TestMount {
    /// Mounts these torrents.
    pub fn of(torrents: &[Metainfo]) -> Self {
        Self::with(torrents, &Options::default())
    }

    /// Mounts these torrents in a certain way.
    pub fn with(torrents: &[Metainfo], options: &Options) -> Self {
        let fake = Fake::of(torrents);
        let tree = Arc::new(RwLock::new(tree(torrents)));
        let dir = tempfile::tempdir().expect("a directory to mount on");
        let mount = Mount::new(dir.path(), Arc::clone(&tree), Arc::clone(&fake) as _, options)
            .expect("a mount");
        Self { fake, tree, mount, dir: Some(dir), _done: watchdog() }
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.mount.point().to_owned()
    }

    /// A path in the mount.
    pub fn path(&self, below: &str) -> PathBuf {
        self.mount.point().join(below)
    }

    /// Whether the table of mounts has it.
    pub fn is_mounted(&self) -> bool {
        mountinfo::has(&mountinfo::read().expect("a table of mounts"), self.mount.device())
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        let clean = self.mount.unmount().is_ok();
        if !clean && self.is_mounted() {
            eprintln!("the clean way failed; detaching {}", self.mount.point().display());
            let _ = umount2(self.mount.point(), MntFlags::MNT_DETACH);
        }
        if let Some(dir) = self.dir.take().filter(|_| self.is_mounted()) {
            eprintln!("left behind: {}", dir.keep().display());
        }
    }
}

/// Ends the process when the sender is not dropped in time.
fn watchdog() -> Sender<()> {
    let (done, over) = channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if over.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs; giving up on the whole process");
            std::process::abort();
        }
    });
    done
}

/// A child process that is killed when dropped, and never waited for without end.
pub struct Reader(Child);

impl Reader {
    /// Starts a program.
    pub fn start(program: &str, args: &[&str]) -> Self {
        Self::start_with(program, args, &[])
    }

    /// Starts a program with more in its environment.
    pub fn start_with(program: &str, args: &[&str], env: &[(&str, &Path)]) -> Self {
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it runs");
    }

    /// How it ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let limit = Instant::now() + LIMIT;
        while Instant::now() < limit {
            if let Some(status) = self.0.try_wait().expect("a child to wait for") {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("the reader does not end");
    }

    /// How it ended, and what it said.
    #[track_caller]
    pub fn output(&mut self) -> (ExitStatus, String, String) {
        let status = self.ended();
        let mut said = (String::new(), String::new());
        let out = self.0.stdout.take().map(|mut out| out.read_to_string(&mut said.0));
        let err = self.0.stderr.take().map(|mut err| err.read_to_string(&mut said.1));
        assert!(out.is_none_or(|r| r.is_ok()) && err.is_none_or(|r| r.is_ok()));
        (status, said.0, said.1)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.try_wait();
    }
}

/// The mount came to its end. A mount namespace made meanwhile, by whatever process, holds a copy of the
/// mount and so may have kept it in use.
#[track_caller]
pub fn assert_over(ended: &Ended) {
    assert!(matches!(ended, Ended::Cleanly | Ended::InUse), "{ended:?}");
}

/// Runs what might hang on a thread of its own, and fails the test if it takes too long.
#[track_caller]
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = channel();
    thread::spawn(move || tell.send(work()));
    told.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{what} does not end"))
}
