//! Peers, trackers and tools of other projects, in a network and a table of mounts of the test's own.
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
const PEER_PORT: u16 = 6881;

/// Where transmission takes orders.
const RPC_PORT: u16 = 9091;

/// Where web servers listen.
const WEB_PORT: u16 = 8080;

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

/// The Python that has libtorrent.
#[track_caller]
fn python_with_libtorrent() -> PathBuf {
    let python = PathBuf::from("/usr/bin/python3");
    let probe = Command::new(&python).args(["-c", "import libtorrent"]).output();
    assert!(
        probe.is_ok_and(|probe| probe.status.success()),
        "libtorrent is not there: install the Debian package python3-libtorrent (scripts/setup test)"
    );
    python
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    path.to_str().unwrap().to_owned()
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

/// Other projects' peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Libtorrent,
    Transmission,
    Aria2,
    /// BEP 3 and nothing else; a script of our own.
    Plain,
}

/// How a peer finds others, beside trackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finder {
    /// BEP 11.
    Pex,
    /// BEP 14.
    Lsd,
    /// BEP 5, by libtorrent alone; it enters by this node.
    Dht(SocketAddr),
}

/// What a peer does beside TCP in the clear, of what it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Finds(Finder),
    /// Talks encrypted only, and deciphers nothing after the handshake if it is libtorrent.
    Veiled,
    /// Talks encrypted only, and enciphers everything.
    Enciphered,
    /// Talks uTP only, or if it is transmission, too.
    Utp,
}

impl Client {
    /// Those that find peers through trackers.
    pub(crate) const TRACKED: [Self; 3] = [Self::Libtorrent, Self::Transmission, Self::Aria2];

    /// Starts it: what is in `dir` is seeded, the rest downloaded there. Returns when it takes connections.
    #[track_caller]
    pub(crate) fn start<'a>(
        self,
        lan: &'a Lan,
        ip: IpAddr,
        torrent: &Path,
        dir: &Path,
    ) -> Running<'a> {
        self.start_with(&[], lan, ip, torrent, dir)
    }

    /// The same with these ways of finding peers, of those that libtorrent and transmission have.
    #[track_caller]
    pub(crate) fn start_finding<'a>(
        self,
        finders: &[Finder],
        lan: &'a Lan,
        ip: IpAddr,
        torrent: &Path,
        dir: &Path,
    ) -> Running<'a> {
        let habits: Vec<_> = finders.iter().map(|finder| Habit::Finds(*finder)).collect();
        self.start_with(&habits, lan, ip, torrent, dir)
    }

    /// The same with these habits.
    #[track_caller]
    pub(crate) fn start_with<'a>(
        self,
        habits: &[Habit],
        lan: &'a Lan,
        ip: IpAddr,
        torrent: &Path,
        dir: &Path,
    ) -> Running<'a> {
        let (torrent, dir) = (torrent.to_str().unwrap(), dir.to_str().unwrap());
        let name = format!("{self:?}-{ip}").to_lowercase().replace(':', "_");
        let (address, port) = (ip.to_string(), PEER_PORT.to_string());
        let running = match self {
            Self::Libtorrent => {
                let script = script("libtorrent_peer.py");
                let own = [&script as &str, torrent, dir, &address, &port];
                let words = habits.iter().map(|habit| match habit {
                    Habit::Finds(Finder::Pex) => "pex".to_owned(),
                    Habit::Finds(Finder::Lsd) => "lsd".to_owned(),
                    Habit::Finds(Finder::Dht(entry)) => format!("dht={entry}"),
                    Habit::Veiled => "plaintext".to_owned(),
                    Habit::Enciphered => "rc4".to_owned(),
                    Habit::Utp => "utp".to_owned(),
                });
                let words: Vec<_> = words.collect();
                let args: Vec<&str> =
                    own.into_iter().chain(words.iter().map(String::as_str)).collect();
                lan.start(&name, &python_with_libtorrent(), &args)
            }
            Self::Plain => {
                let args = [&script("plain_peer.py"), torrent, dir, &address, &port];
                lan.start(&name, &tool("python3", "python3"), &args)
            }
            Self::Aria2 => aria2(lan, &name, ip, torrent, dir, habits),
            Self::Transmission => transmission(lan, &name, ip, torrent, dir, habits),
        };
        let proto = if habits.contains(&Habit::Utp) { "udp" } else { "tcp" };
        lan.until_listening(proto, peer_at(ip));
        running
    }
}

fn aria2<'a>(
    lan: &'a Lan,
    name: &str,
    ip: IpAddr,
    torrent: &str,
    dir: &str,
    habits: &[Habit],
) -> Running<'a> {
    let encryption = match habits.contains(&Habit::Enciphered) {
        true => ["--bt-require-crypto=true", "--bt-min-crypto-level=arc4"],
        false => ["--bt-require-crypto=false", "--bt-min-crypto-level=plain"],
    };
    let options = [
        "--no-conf",
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=false",
        "--check-integrity=true",
        "--file-allocation=none",
        "--allow-overwrite=true",
        "--seed-ratio=0.0",
        "--console-log-level=info",
        "--summary-interval=0",
    ];
    let own = [
        &format!("--interface={ip}"),
        &format!("--listen-port={PEER_PORT}"),
        &format!("--dir={dir}"),
        torrent,
    ];
    let args: Vec<&str> =
        options.into_iter().chain(encryption).chain(own.map(|arg| arg as &str)).collect();
    lan.start(name, &tool("aria2c", "aria2"), &args)
}

/// Nodes of the DHT at these addresses, which enter by this one.
#[track_caller]
pub(crate) fn libtorrent_nodes<'a>(lan: &'a Lan, at: &[IpAddr], entry: SocketAddr) -> Running<'a> {
    let at: Vec<String> = at.iter().map(IpAddr::to_string).collect();
    let (script, entry, port) =
        (script("libtorrent_nodes.py"), entry.to_string(), PEER_PORT.to_string());
    let own = [&script as &str, &entry, &port];
    let args: Vec<&str> = own.into_iter().chain(at.iter().map(String::as_str)).collect();
    let running = lan.start("libtorrent-nodes", &python_with_libtorrent(), &args);
    running.until_says("nodes");
    running
}

fn transmission<'a>(
    lan: &'a Lan,
    name: &str,
    ip: IpAddr,
    torrent: &str,
    dir: &str,
    habits: &[Habit],
) -> Running<'a> {
    let config = lan.empty(name);
    let [pex, lsd] =
        [Finder::Pex, Finder::Lsd].map(|finder| habits.contains(&Habit::Finds(finder)));
    let encryption = if habits.contains(&Habit::Enciphered) { 2 } else { 0 };
    let utp = habits.contains(&Habit::Utp);
    let settings = format!(
        r#"{{"bind-address-ipv4": "{ip}", "dht-enabled": false, "download-dir": "{dir}",
        "encryption": {encryption}, "lpd-enabled": {lsd}, "peer-port": {PEER_PORT}, "pex-enabled": {pex},
        "port-forwarding-enabled": false, "preallocation": 0, "rpc-authentication-required": false,
        "rpc-bind-address": "{ip}", "rpc-host-whitelist-enabled": false, "rpc-port": {RPC_PORT},
        "rpc-whitelist-enabled": false, "utp-enabled": {utp}}}"#
    );
    fs::write(config.join("settings.json"), settings).unwrap();
    let daemon = tool("transmission-daemon", "transmission-daemon");
    let remote = tool("transmission-remote", "transmission-cli");
    let config = config.to_str().unwrap();
    let running = lan.start(name, &daemon, &["--foreground", "--log-debug", "-g", config]);
    let rpc = SocketAddr::new(ip, RPC_PORT);
    lan.until_listening("tcp", rpc);
    lan.run(&remote, &[&rpc.to_string(), "--add", torrent, "--download-dir", dir]);
    running
}

/// What libtorrent reads in a torrent, or makes of data.
#[track_caller]
pub(crate) fn libtorrent_torrent(lan: &Lan, args: &[&str]) -> Output {
    let script = script("libtorrent_torrent.py");
    let all: Vec<&str> = [&script as &str].into_iter().chain(args.iter().copied()).collect();
    lan.run(&python_with_libtorrent(), &all)
}

/// nginx on this host, with the files below a directory; what was asked of it is in what it says.
#[track_caller]
pub(crate) fn nginx<'a>(lan: &'a Lan, ip: IpAddr, files: &Path) -> (Running<'a>, String) {
    let root = lan.empty("nginx");
    let at = SocketAddr::new(ip, WEB_PORT);
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temps: String =
        temps.map(|name| format!("{name}_temp_path {}/t;\n", root.display())).concat();
    let lines = format!(
        "daemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n{temps}access_log /dev/stdout;\nserver {{ listen {at}; root {files}; }}\n}}\n",
        root = root.display(),
        files = files.display()
    );
    let config = root.join("config");
    fs::write(&config, lines).unwrap();
    let program = tool("nginx", "nginx-light");
    let running = lan.start("nginx", &program, &["-c", config.to_str().unwrap()]);
    lan.until_listening("tcp", at);
    (running, format!("http://{at}/"))
}

/// opentracker on this host, over HTTP and UDP, for one torrent.
#[track_caller]
pub(crate) fn opentracker<'a>(lan: &'a Lan, ip: IpAddr, info_hash: &str) -> Running<'a> {
    let root = lan.empty("opentracker");
    fs::write(root.join("whitelist"), format!("{info_hash}\n")).unwrap();
    let at = tracker_at(ip);
    let config = root.join("config");
    // It leaves the root's power behind, and reads the list from below its directory.
    let lines = format!(
        "listen.tcp {at}\nlisten.udp {at}\naccess.whitelist whitelist\ntracker.rootdir {}\n\
         tracker.user nobody\n",
        root.display()
    );
    fs::write(&config, lines).unwrap();
    let program = tool("opentracker", "opentracker");
    let running = lan.start("opentracker", &program, &["-f", config.to_str().unwrap()]);
    lan.until_listening("tcp", at);
    lan.until_listening("udp", at);
    running
}
