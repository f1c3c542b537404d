//! Peers, trackers and tools of other projects, on hosts of a [`Lan`].

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lan::{Lan, PEER_PORT, Running, peer_at, tool, tracker_at};

/// Where transmission takes orders.
const RPC_PORT: u16 = 9091;

/// Where web servers listen.
const WEB_PORT: u16 = 8080;

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
    /// Downloads 16 kB in a second, if it is libtorrent.
    Slow,
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
                    Habit::Slow => "slow".to_owned(),
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
