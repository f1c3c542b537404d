//! Whom to talk to, and how: addresses, rates, ways of finding and reaching others.
//!
//! Not here: who carries all connections, once it is looked up ([`crate::cli::proxy`]).

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use bytesize::ByteSize;
use url::{Host, Url};

use crate::cli::blocklist;
use crate::cli::exit::UsageError;
use crate::cli::options::{EncryptionKind, NetworkArgs};
use crate::cli::proxy::NamedProxy;
use crate::engine::dht::{self, PUBLIC_ROUTERS};
use crate::engine::egress::Egress;
use crate::engine::network::Transports;
use crate::engine::node::Ways;
use crate::engine::port_map::PortMap;
use crate::engine::throttle::Rates;
use crate::proto::config::Config;
use crate::proto::mse::Encryption;

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

/// Bytes a second, with `/s` after them or not.
fn rate(option: &str, typed: &str) -> Result<NonZeroU64, UsageError> {
    let size = typed.trim().trim_end_matches("/s").parse::<ByteSize>();
    let bytes = size.map_err(|_| {
        UsageError(format!("{option} {typed}: is no rate; write it as 500KiB/s or 10MB/s"))
    })?;
    NonZeroU64::new(bytes.0).ok_or_else(|| {
        let advice = if option == "--max-up" { "; --no-upload does that" } else { "" };
        UsageError(format!("{option} {typed}: nothing would ever move{advice}"))
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
        Host::parse(host).ok()?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some((host.to_owned(), port))
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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("http://node.example:6881", None),
            ("2001:db8::1:6881", None),
            ("no de.example:6881", None),
        ];
        for (typed, expected) in table {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(node(typed).ok(), expected, "{typed}");
        }
    }
}
