//! `btfs unmount` against real mounts: of a server that lives, that is stopped, and that is dead.
//!
//! It has its own `main`, since the servers are this program, started again in a role, and fork.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

use btfs::cli::daemon::background;
use btfs::fs::attach::Options;
use btfs::fs::mountinfo;
use btfs::fs::session::Mount;
use btfs::fs::source::{
    Backing, FileSpan, Form, Metadata, Part, Pieces, ReadError, ReadReply, Source, Totals,
};
use btfs::proto::tree::{FileRef, Tree};
use btfs::proto::units::{ReaderId, Ticket, TorrentId};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use parking_lot::RwLock;
use tempfile::TempDir;

/// Tells the started process that it serves; the mount point is its first argument.
const ROLE: &str = "BTFS_TEST_ROLE";

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return serve(Path::new(&std::env::args_os().nth(1).unwrap()));
    }
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: /dev/fuse is not there");
        return ExitCode::SUCCESS;
    }
    alone::run(&[
        ("a_living_server_ends_with_its_mount", a_living_server_ends_with_its_mount),
        ("a_dead_servers_mount_is_named_and_cleared", a_dead_servers_mount_is_named_and_cleared),
        ("a_stopped_server_is_not_waited_for", a_stopped_server_is_not_waited_for),
        ("a_mount_is_found_through_a_link", a_mount_is_found_through_a_link),
    ])
}

/// An empty mount in the background that ends by SIGTERM, as `btfs mount` does.
fn serve(point: &Path) -> ExitCode {
    nix::sys::prctl::set_name(c"btfs-test").unwrap();
    let result = background(None, |ready| {
        let mut terminate = SigSet::empty();
        terminate.add(Signal::SIGTERM);
        terminate.thread_block()?;
        let tree = Arc::new(RwLock::new(Tree::new()));
        let mount = Mount::new(point, tree, Arc::new(Nothing), &Options::default())?;
        ready.mounted()?;
        terminate.wait()?;
        mount.unmount()?;
        Ok(())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn a_living_server_ends_with_its_mount() {
    let served = Served::new();
    assert_done(&served.unmount());
    assert!(!served.is_mounted() && !served.is_alive());
    let again = served.unmount();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(told(&again).contains("nothing is mounted there"), "{again:?}");
}

fn a_dead_servers_mount_is_named_and_cleared() {
    let served = Served::new();
    served.signal(Signal::SIGKILL);
    while served.is_alive() {
        std::thread::yield_now();
    }
    assert!(served.is_mounted());
    let torrent = served.dir.path().join("x.torrent");
    std::fs::write(&torrent, b"d4:infodee").unwrap();
    let output = btfs().arg("mount").arg(torrent).arg(&served.point).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told(&output).contains("btfs unmount"), "{output:?}");
    assert_done(&served.unmount());
    assert!(!served.is_mounted());
}

fn a_stopped_server_is_not_waited_for() {
    let served = Served::new();
    served.signal(Signal::SIGSTOP);
    while !served.is_stopped() {
        std::thread::yield_now();
    }
    let output = served.unmount();
    served.signal(Signal::SIGKILL);
    assert_done(&output);
    assert!(!served.is_mounted());
}

fn a_mount_is_found_through_a_link() {
    let served = Served::new();
    let link = served.dir.path().join("link");
    std::os::unix::fs::symlink(&served.point, &link).unwrap();
    assert_done(&btfs().arg("unmount").arg(&link).output().unwrap());
    assert!(!served.is_mounted() && !served.is_alive());
}

#[track_caller]
fn assert_done(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

fn told(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn btfs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_btfs"))
}

/// A mount and the process behind it; dropping it ends both by force.
struct Served {
    dir: TempDir,
    point: PathBuf,
    server: Pid,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap().join("a mount");
        std::fs::create_dir(&point).unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap());
        let output = server.env(ROLE, "serve").arg(&point).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let pid = xattr(&point).parse().unwrap();
        Self { dir, point, server: Pid::from_raw(pid) }
    }

    fn unmount(&self) -> Output {
        btfs().arg("unmount").arg(&self.point).output().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(self.server, signal).unwrap();
    }

    fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Whether each of its threads is: the one that answers the kernel may be the last.
    fn is_stopped(&self) -> bool {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", self.server)).unwrap();
        threads.all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    }

    fn is_mounted(&self) -> bool {
        mountinfo::top_at(&mountinfo::read().unwrap(), &self.point).is_some()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.is_alive() && self.is_mounted() {
            let _ = kill(self.server, Signal::SIGKILL);
        }
        let _ = nix::mount::umount2(&self.point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn xattr(point: &Path) -> String {
    let mut value = [0; 32];
    let len = rustix::fs::getxattr(point, "user.btfs.pid", &mut value[..]).unwrap();
    String::from_utf8(value[..len].to_vec()).unwrap()
}

/// The content of no torrents.
#[derive(Debug)]
struct Nothing;

impl Source for Nothing {
    fn read_now(&self, _: ReaderId, _: FileRef, _: u64, _: &mut [u8]) -> Result<bool, ReadError> {
        Err(ReadError::Removed)
    }

    fn read_later(&self, _: ReaderId, _: FileRef, _: FileSpan, _: Ticket, reply: ReadReply) {
        reply.answer(Err(ReadError::Removed));
    }

    fn cancel(&self, _: Ticket) {}

    fn opened(&self, _: ReaderId, _: FileRef) {}

    fn closed(&self, _: ReaderId) {}

    fn resident(&self, _: FileRef) -> u64 {
        0
    }

    fn pieces(&self, _: FileRef) -> Pieces {
        Pieces::default()
    }

    fn backing(&self, _: FileRef) -> Option<Backing> {
        None
    }

    fn why(&self, _: Part, _: Form) -> String {
        String::new()
    }

    fn metadata(&self, _: TorrentId) -> Metadata {
        Metadata::Here
    }

    fn totals(&self, _: TorrentId) -> Totals {
        Totals::default()
    }

    fn grand_totals(&self) -> Totals {
        Totals::default()
    }
}
