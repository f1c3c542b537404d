//! A network and a table of mounts of the test's own, and programs that run there.
//!
//! Invariant: nothing leaves the [`Lan`], no wait is without end, and whatever was started ends with its handle
//! or with the test's thread.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longest wait for anything that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Hosts in a [`Lan`], each with an address of both families.
const HOSTS: u8 = 9;

/// Where peers take connections; each has an address of its own.
pub(crate) const PEER_PORT: u16 = 6881;

/// Where trackers listen.
const TRACKER_PORT: u16 = 6969;

/// The address of a host in the [`Lan`].
pub(crate) fn host(n: u8) -> IpAddr {
    assert!((1..=HOSTS).contains(&n), "there is no host {n}");
    Ipv4Addr::new(10, 9, 0, n).into()
}

/// Its IPv6 address.
pub(crate) fn host6(n: u8) -> IpAddr {
    assert!((1..=HOSTS).contains(&n), "there is no host {n}");
    Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, n.into()).into()
}

/// Where the peer on this host takes connections.
pub(crate) fn peer_at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, PEER_PORT)
}

/// Where the tracker on this host listens.
pub(crate) fn tracker_at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, TRACKER_PORT)
}

/// A network of the addresses 10.9.0.1 to 10.9.0.9 and fd09::1 to fd09::9, and a directory for whatever is needed.
pub(crate) struct Lan {
    holder: Child,
    dir: TempDir,
    started: Instant,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new(tool("unshare", "util-linux"));
        if !nix::unistd::geteuid().is_root() {
            holder.args(["--user", "--map-root-user"]);
        }
        tool("ip", "iproute2");
        let script = format!(
            "ip link set lo up multicast on && ip route add 224.0.0.0/4 dev lo && for n in $(seq {HOSTS}); do \
             ip addr add 10.9.0.$n/32 dev lo && ip addr add fd09::$n/128 dev lo nodad || exit; done && echo ready && read _"
        );
        let mut holder = holder
            .args(["--net", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no network namespace can be made here");
        Self { holder, dir: tempfile::tempdir().unwrap(), started: Instant::now() }
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A new, empty directory there.
    pub(crate) fn empty(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A command that runs inside and does not outlive the thread that starts it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.command_at(self.holder.id(), program)
    }

    /// The same in the namespaces of this process.
    pub(crate) fn command_at(&self, pid: u32, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(pid.to_string()).args(["--net", "--mount"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command.env("HOME", self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    #[track_caller]
    pub(crate) fn run(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = self.command(Path::new("timeout"));
        let limit = LIMIT.as_secs().to_string();
        command.args(["--kill-after=1", &limit]).arg(program).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{} {args:?}: {output:?}", program.display());
        output
    }

    /// Starts a program that goes on; what it says goes to a file.
    pub(crate) fn start(&self, name: &str, program: &Path, args: &[&str]) -> Running<'_> {
        let mut command = self.command(program);
        command.args(args);
        self.launch(name, command)
    }

    /// The same of a command.
    pub(crate) fn launch(&self, name: &str, mut command: Command) -> Running<'_> {
        let log = self.path(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Running { child: command.spawn().unwrap(), log, name: name.to_owned(), lan: self }
    }

    /// Waits until it happens.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !happened() {
            assert!(begin.elapsed() < LIMIT, "waited in vain: {what}");
            thread::sleep(Duration::from_millis(20));
        }
        let (took, now) = (begin.elapsed(), self.started.elapsed());
        eprintln!("{:7.3} {what}: after {:.3} s", now.as_secs_f64(), took.as_secs_f64());
    }

    /// Waits until somebody listens there.
    #[track_caller]
    pub(crate) fn until_listening(&self, proto: &str, at: SocketAddr) {
        let family = if at.is_ipv4() { "" } else { "6" };
        let table = format!("/proc/{}/net/{proto}{family}", self.holder.id());
        let (place, state) = (in_table(at), if proto == "udp" { "07" } else { "0A" });
        self.until(&format!("{proto} at {at}"), || {
            let sockets = fs::read_to_string(&table).unwrap();
            sockets.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(1) == Some(&place.as_str()) && fields.get(3) == Some(&state)
            })
        });
    }

    /// What `sha256sum` says of every file below, as seen from inside. Files may come and be renamed meanwhile.
    #[track_caller]
    pub(crate) fn hashes(&self, top: &Path) -> String {
        let script =
            "cd \"$0\" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum; exit 0";
        let output = self.run(Path::new("sh"), &["-c", script, top.to_str().unwrap()]);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the files below have these hashes.
    #[track_caller]
    pub(crate) fn until_same(&self, what: &str, top: &Path, expected: &str) {
        self.until(what, || self.hashes(top) == expected);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if thread::panicking() || std::env::var_os("BTFS_TEST_LOGS").is_some() {
            self.tell_logs();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Lan {
    /// The last lines of every log, for whoever looks into a failure, or asks with `BTFS_TEST_LOGS`.
    fn tell_logs(&self) {
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let said = fs::read(entry.path()).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let from = said.lines().count().saturating_sub(60);
                eprintln!("--- {}", entry.path().display());
                said.lines().skip(from).for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// An address as the kernel's table of sockets has it.
fn in_table(at: SocketAddr) -> String {
    let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes(bytes.try_into().unwrap()));
    let ip: String = match at.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    format!("{ip}:{:04X}", at.port())
}

/// A program's path; without it the test fails and says what to install.
#[track_caller]
pub(crate) fn tool(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{program} is not there: install the Debian package {package} (scripts/setup test)")
    })
}

/// A program under way, which dropping kills.
pub(crate) struct Running<'a> {
    child: Child,
    name: String,
    log: PathBuf,
    lan: &'a Lan,
}

impl Running<'_> {
    /// What it has said.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it says something with this in it.
    #[track_caller]
    pub(crate) fn until_says(&self, part: &str) {
        self.lan.until(&format!("{} says '{part}'", self.name), || self.said().contains(part));
    }

    /// Whether something is mounted there, as it sees it.
    pub(crate) fn has_mounted(&self, point: &Path) -> bool {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.child.id()));
        table.is_ok_and(|table| table.contains(&format!(" {} ", point.display())))
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn stop(self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.ended()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ended(mut self) -> ExitStatus {
        let mut ended = None;
        let what = format!("{} ends", self.name);
        self.lan.until(&what, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
