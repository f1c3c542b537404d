//! What was typed becomes what it means, in one step: sizes, times, addresses, directories.
//!
//! Invariant: paths in settings are absolute, so that they outlive a change of directory.
//! Invariant: a value that could never be right is a usage error that names its option.
//! Not here: SOURCE (`source`), MOUNTPOINT (`mountpoint`), `-o` (`mount_options`).

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use url::Url;

use super::blocklist;
use super::exit::UsageError;
use super::options::{EncryptionKind, NetworkArgs, StorageArgs, StoreKind};
use super::proxy::NamedProxy;
use crate::engine::dht::{self, PUBLIC_ROUTERS};
use crate::engine::egress::Egress;
use crate::engine::network::Transports;
use crate::engine::node::Ways;
use crate::engine::port_map::PortMap;
use crate::engine::throttle::Rates;
use crate::proto::config::Config;
use crate::proto::mse::Encryption;

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

/// Whom to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where peers are accepted; `None`: every address, at the first port from 6881 that is free.
    pub listen: Option<SocketAddr>,
    /// Peers to dial at once.
    pub peers: Vec<SocketAddr>,
    /// Trackers beside those that the torrent names.
    pub trackers: Vec<Url>,
    /// Whether peers are told of each other, and believed about others.
    pub exchange: bool,
    /// How others are found and reached; its proxy is still to be located.
    pub ways: Ways,
    /// Who carries all connections.
    pub proxy: Option<NamedProxy>,
    /// Most bytes a second, each way.
    pub rates: Rates,
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
}

impl Network {
    /// Gives the network options their meaning.
    ///
    /// # Errors
    /// An address or URL cannot be read, or a blocklist.
    pub fn of(args: &NetworkArgs) -> anyhow::Result<Self> {
        let peers: Vec<_> = args.peers.iter().map(|typed| peer(typed)).collect::<Result<_, _>>()?;
        let mut blocklist = blocklist::read(&args.blocklists)?;
        peers.iter().for_each(|peer| blocklist.allow(peer.ip()));
        let listen = args.listen.as_deref().map(|typed| address("--listen", typed)).transpose()?;
        let alone = listen.is_some_and(|addr: SocketAddr| addr.ip().is_loopback());
        let everywhere = listen.is_none_or(|addr| addr.ip() == Ipv4Addr::UNSPECIFIED);
        let port_map = match everywhere && !args.no_port_map {
            true => PortMap::DefaultRoute,
            false => PortMap::Off,
        };
        let device = args.bind_device.as_deref().map(device).transpose()?;
        let egress = Egress { device, ..Egress::default() };
        Ok(Self {
            listen,
            peers,
            trackers: args.trackers.iter().map(|typed| tracker(typed)).collect::<Result<_, _>>()?,
            exchange: !args.no_pex,
            ways: Ways {
                egress,
                blocklist: Arc::new(blocklist),
                port_map,
                dht: dht(args, alone)?,
                transports: Transports {
                    encryption: encryption(args.encryption),
                    tcp: !args.no_tcp,
                    utp: !args.no_utp,
                },
                lsd: !args.no_lsd && !alone,
            },
            proxy: args.proxy.as_deref().map(NamedProxy::parse).transpose()?,
            rates: Rates {
                up: args.max_up.as_deref().map(|typed| rate("--max-up", typed)).transpose()?,
                down: args
                    .max_down
                    .as_deref()
                    .map(|typed| rate("--max-down", typed))
                    .transpose()?,
            },
        })
    }

    /// The same, with what is learnt of the network kept below this directory.
    #[must_use]
    pub fn kept_in(mut self, cache_dir: &Path) -> Self {
        if let Some(dht) = &mut self.ways.dht {
            dht.dir = Some(cache_dir.join("dht"));
        }
        self
    }

    /// What of it a torrent's swarm has to know.
    pub fn knobs(&self) -> Config {
        Config { exchange: self.exchange, ..Config::default() }
    }
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

/// Bytes a second, with `/s` after them or not.
fn rate(option: &str, typed: &str) -> Result<NonZeroU64, UsageError> {
    let size = typed.trim().trim_end_matches("/s").parse::<ByteSize>();
    let bytes = size.map_err(|_| {
        UsageError(format!("{option} {typed}: is no rate; write it as 500KiB/s or 10MB/s"))
    })?;
    NonZeroU64::new(bytes.0).ok_or_else(|| {
        UsageError(format!("{option} {typed}: would stop everything; give at least one byte"))
    })
}

fn address(option: &str, typed: &str) -> Result<SocketAddr, UsageError> {
    typed.parse().map_err(|_| {
        UsageError(format!(
            "{option} {typed}: is no ADDR:PORT; write it as 192.0.2.1:6881 or [2001:db8::1]:6881"
        ))
    })
}

fn peer(typed: &str) -> Result<SocketAddr, UsageError> {
    let peer = address("--peer", typed)?;
    if peer.port() == 0 || peer.ip().is_unspecified() || peer.ip().is_multicast() {
        return Err(UsageError(format!("--peer {typed}: nobody can be dialled there")));
    }
    Ok(peer)
}

fn encryption(typed: EncryptionKind) -> Encryption {
    match typed {
        EncryptionKind::Prefer => Encryption::Prefer,
        EncryptionKind::Require => Encryption::Require,
        EncryptionKind::Off => Encryption::Off,
    }
}

/// `--bind-device`: a name that an interface could have.
fn device(typed: &str) -> Result<String, UsageError> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if typed.is_empty() || typed.len() >= libc::IFNAMSIZ || typed.contains(odd) {
        return Err(UsageError(format!(
            "--bind-device {typed}: is no interface's name; 'ip link' lists them"
        )));
    }
    Ok(typed.to_owned())
}

/// How to take part in the DHT, if so. From a loopback address nobody else can be reached, unless he is named.
fn dht(args: &NetworkArgs, alone: bool) -> Result<Option<dht::Settings>, UsageError> {
    let named: Vec<_> =
        args.dht_bootstrap.iter().map(|typed| node(typed)).collect::<Result<_, _>>()?;
    let public = || PUBLIC_ROUTERS.map(|(host, port)| (host.to_owned(), port)).to_vec();
    let bootstrap = match (args.no_dht, named.is_empty()) {
        (true, _) => None,
        (false, true) if alone => None,
        (false, true) => Some(public()),
        (false, false) => Some(named),
    };
    Ok(bootstrap.map(|bootstrap| dht::Settings { bootstrap, dir: None }))
}

fn node(typed: &str) -> Result<(String, u16), UsageError> {
    let parts = typed.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    });
    parts.ok_or_else(|| {
        UsageError(format!(
            "--dht-bootstrap {typed}: is no HOST:PORT; write it as node.example:6881 or [2001:db8::1]:6881"
        ))
    })
}

fn tracker(typed: &str) -> Result<Url, UsageError> {
    let url = Url::parse(typed).ok().filter(|url| url.has_host());
    let url = url.filter(|url| match url.scheme() {
        "http" | "https" => true,
        "udp" => url.port().is_some(),
        _ => false,
    });
    url.ok_or_else(|| {
        UsageError(format!(
            "--tracker {typed}: is no tracker; write it as http://host:port/announce or udp://host:port"
        ))
    })
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
    fn rates_mean_what_they_say() {
        let table: [(&str, Option<u64>); 7] = [
            ("500KiB/s", Some(500 << 10)),
            ("10MB/s", Some(10_000_000)),
            ("1MiB", Some(1 << 20)),
            ("1", Some(1)),
            ("0", None),
            ("fast", None),
            ("/s", None),
        ];
        for (typed, expected) in table {
            assert_eq!(rate("--max-up", typed).ok().map(NonZeroU64::get), expected, "{typed}");
        }
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
    fn addresses_and_trackers_are_checked() {
        let args = |listen: &str, peer: &str, url: &str| NetworkArgs {
            listen: Some(listen.into()),
            peers: vec![peer.into()],
            trackers: vec![url.into()],
            no_dht: false,
            dht_bootstrap: vec![],
            no_utp: false,
            no_tcp: false,
            no_pex: false,
            encryption: EncryptionKind::Prefer,
            no_lsd: false,
            proxy: None,
            no_port_map: false,
            blocklists: Vec::new(),
            bind_device: None,
            max_up: None,
            max_down: None,
        };
        let table = [
            ("all good", args("[::]:0", "127.0.0.1:6881", "udp://t.example:80/announce"), None),
            (
                "listen name",
                args("localhost:1", "127.0.0.1:1", "http://t/"),
                Some("--listen localhost:1"),
            ),
            ("peer no port", args("[::]:0", "127.0.0.1", "http://t/"), Some("--peer 127.0.0.1:")),
            (
                "peer port 0",
                args("[::]:0", "127.0.0.1:0", "http://t/"),
                Some("nobody can be dialled"),
            ),
            ("udp no port", args("[::]:0", "127.0.0.1:1", "udp://t/"), Some("is no tracker")),
            ("scheme", args("[::]:0", "127.0.0.1:1", "wss://t/"), Some("is no tracker")),
        ];
        for (name, args, complaint) in table {
            let told = Network::of(&args).err().map(|error| error.to_string());
            match (told, complaint) {
                (None, None) => {}
                (Some(told), Some(part)) => assert!(told.contains(part), "{name}: {told}"),
                (told, _) => panic!("{name}: {told:?}"),
            }
        }
    }

    #[test]
    fn an_interface_has_a_name() {
        let table =
            [("eth0", true), ("wg-home.5", true), ("", false), ("a/b", false), ("a b", false)];
        for (typed, good) in table {
            assert_eq!(device(typed).is_ok(), good, "{typed:?}");
        }
        assert!(device("abcdefghijklmno").is_ok() && device("abcdefghijklmnop").is_err());
    }

    #[test]
    fn nodes_are_hosts_with_ports() {
        let table = [
            ("node.example:6881", Some(("node.example", 6881))),
            ("192.0.2.1:1", Some(("192.0.2.1", 1))),
            ("[2001:db8::1]:6881", Some(("2001:db8::1", 6881))),
            ("node.example", None),
            ("node.example:0", None),
            (":6881", None),
        ];
        for (typed, expected) in table {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(node(typed).ok(), expected, "{typed}");
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
