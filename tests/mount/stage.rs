//! Where a test plays: a directory, data in it, torrents of it, seeds, trackers and mounts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use btfs::fs::mountinfo;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::program::{Program, until};

/// A directory of the test's own.
pub(crate) struct Stage(TempDir);

/// A `btfs seed`.
pub(crate) struct Seed {
    pub(crate) program: Program,
    pub(crate) addr: SocketAddr,
}

/// A `btfs mount --foreground`.
pub(crate) struct Mounted {
    pub(crate) program: Program,
    pub(crate) point: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("btfs-mount").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// An empty directory, made.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A file of this length, of which no two blocks are alike.
    pub(crate) fn file(&self, name: impl AsRef<Path>, len: u64) -> PathBuf {
        let path = self.path(name);
        write_noise(&path, len);
        path
    }

    /// A torrent of the data, beside it.
    pub(crate) fn torrent(&self, data: &Path, args: &[&str]) -> PathBuf {
        let mut name = data.file_name().unwrap().to_owned();
        name.push(".torrent");
        let torrent = self.path(name);
        Program::done(Program::btfs().arg("create").arg(data).arg("-o").arg(&torrent).args(args));
        torrent
    }

    /// A seed of it, once it is ready.
    pub(crate) fn seed(&self, torrent: &Path, data: &Path) -> Seed {
        self.seed_with(torrent, data, &[])
    }

    /// The same with more options.
    pub(crate) fn seed_with(&self, torrent: &Path, data: &Path, args: &[&str]) -> Seed {
        let mut command = Program::btfs();
        command.arg("seed").arg(torrent).arg(data).args(["--listen", "127.0.0.1:0"]).args(args);
        let program = Program::start(&mut command);
        let line = program.await_line("on port");
        let port: u16 = line.rsplit(' ').next().unwrap().parse().unwrap();
        Seed { program, addr: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// A tracker, and its announce URL.
    pub(crate) fn tracker(&self) -> (Program, String) {
        let mut command = Program::btfs();
        let program = Program::start(command.args(["tracker", "--listen", "127.0.0.1:0"]));
        let line = program.await_line("listening on");
        let url = format!("http://{}/announce", line.rsplit(' ').next().unwrap());
        (program, url)
    }

    /// `btfs mount SOURCE... POINT` with directories of this stage and the peers, not yet run.
    pub(crate) fn mount_command(
        &self,
        sources: &[&Path],
        point: &Path,
        peers: &[SocketAddr],
    ) -> Command {
        let mut command = Program::btfs();
        command.arg("mount").args(sources).arg(point).arg("--cache-dir").arg(self.path("cache"));
        command.args(["--listen", "127.0.0.1:0"]);
        for peer in peers {
            command.arg("--peer").arg(peer.to_string());
        }
        command
    }

    /// Mounts in the foreground, and returns once the mount is there.
    #[track_caller]
    pub(crate) fn mount(&self, torrent: &Path, peers: &[SocketAddr], args: &[&str]) -> Mounted {
        let point = self.dir("mnt");
        let mut command = self.mount_command(&[torrent], &point, peers);
        Mounted::start(command.arg("--foreground").args(args), &point)
    }
}

impl Mounted {
    /// Runs a command that mounts in the foreground.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, point: &Path) -> Self {
        let mut mounted = Self { program: Program::start(command), point: point.to_path_buf() };
        until("the mount is there", || {
            let running = mounted.program.is_running();
            assert!(running, "it ended instead: {}", mounted.program.said());
            is_mounted(point)
        });
        mounted
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.point.join(below)
    }

    /// The value of an attribute.
    #[track_caller]
    pub(crate) fn attribute(&self, below: &str, name: &str) -> String {
        attribute(&self.path(below), name)
    }

    /// Bytes of the mount that are here.
    #[track_caller]
    pub(crate) fn here(&self) -> u64 {
        self.attribute("", "user.btfs.have").parse().unwrap()
    }

    /// Ends it as a user does, and looks that nothing is left.
    #[track_caller]
    pub(crate) fn unmount(mut self) -> String {
        Program::done(Program::btfs().arg("unmount").arg(&self.point));
        let status = self.program.ended();
        assert!(status.success(), "{status}: {}", self.program.said());
        assert!(!is_mounted(&self.point));
        self.program.said()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the mount said: {}", self.program.said());
        }
        if self.program.is_running() {
            self.program.signal(Signal::SIGKILL);
        }
        undo(&self.point);
    }
}

/// An address where nobody listens. Its host is nobody else's, so that whoever asks for any free port does not get this.
pub(crate) fn nowhere() -> SocketAddr {
    TcpListener::bind("127.77.0.1:0").unwrap().local_addr().unwrap()
}

/// Takes away whatever is mounted there.
pub(crate) fn undo(point: &Path) {
    for _ in 0..3 {
        if !is_mounted(point) || umount2(point, MntFlags::MNT_DETACH).is_err() {
            return;
        }
    }
}

/// Whether the table of mounts has something there.
pub(crate) fn is_mounted(point: &Path) -> bool {
    // Only the directory above is resolved: what is mounted may be dead.
    let real = point.parent().unwrap().canonicalize().unwrap().join(point.file_name().unwrap());
    mountinfo::top_at(&mountinfo::read().unwrap(), &real).is_some()
}

/// The value of an extended attribute.
#[track_caller]
pub(crate) fn attribute(path: &Path, name: &str) -> String {
    let mut value = vec![0; 64 * 1024];
    let len = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    String::from_utf8(value[..len].to_vec()).unwrap()
}

/// Writes a file of which no two blocks of 4 KiB are alike, and which differs from those of other names.
pub(crate) fn write_noise(path: &Path, len: u64) {
    const BLOCK: usize = 4096;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap_or(OsStr::new("")).as_encoded_bytes();
    let mut state = name.iter().fold(0x9e37_79b9_u64, |sum, &b| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(b))
    }) | 1;
    let mut chunk = vec![0; (1 << 20).min(len.next_multiple_of(8)) as usize];
    for word in chunk.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let mut file = File::create(path).unwrap();
    let mut left = len;
    let mut number = state;
    while left > 0 {
        for block in chunk.chunks_mut(BLOCK).filter(|block| block.len() >= 8) {
            number = number.wrapping_add(1);
            block[..8].copy_from_slice(&number.to_le_bytes());
        }
        let now = left.min(chunk.len() as u64);
        file.write_all(&chunk[..now as usize]).unwrap();
        left -= now;
    }
}
