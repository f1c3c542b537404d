//! Groups of options that several commands share, as they are typed.
//!
//! Not here: what they mean and their checks (`settings`).

use std::path::PathBuf;

/// `--memory` when it is not given.
pub const DEFAULT_MEMORY: &str = "64MiB";

/// Where pieces are kept.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// Keep pieces and state here [default: ~/.cache/btfs]
    ///
    /// One directory for each torrent, named by its info-hash. The default follows XDG_CACHE_HOME; for root
    /// without a home it is /var/cache/btfs.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Hold at most this much on disk
    ///
    /// Over all torrents; the pieces that were not used for longest go first. K, M and G count in 1000s,
    /// KiB, MiB and GiB in 1024s.
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub cache_size: String,
    /// Hold at most this much in memory
    ///
    /// Pieces in the cache, pieces under way and writes that wait for the disk, in all.
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_MEMORY)]
    pub memory: String,
    /// Keep pieces on disk or in memory
    ///
    /// In memory, half of --memory is for the pieces that are kept, and --cache-size has no meaning.
    #[arg(long, value_name = "disk|memory", default_value = "disk", hide_possible_values = true)]
    pub store: StoreKind,
    /// Keep the torrent's own files in DIR, for good
    ///
    /// What arrives is laid out as ordinary files below DIR and is never evicted; --cache-size does not
    /// count it.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// What `--store` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// Below the cache directory.
    Disk,
    /// Nothing on disk; what is evicted is fetched again.
    Memory,
}

/// What `--encryption` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EncryptionKind {
    /// Where the clear is refused.
    Prefer,
    /// Always.
    Require,
    /// Never.
    Off,
}

/// Whom to talk to.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Accept peers at this address [default: every one]
    ///
    /// An IPv6 address stands in brackets; port 0 lets the system choose. Without it btfs listens on every
    /// address, at 6881 or the next port that is free.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Connect to this peer too; may be repeated
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    pub peers: Vec<String>,
    /// Announce to this tracker too; may be repeated
    ///
    /// An http, https or udp URL, asked beside those that the torrent names. A private torrent (BEP 27) that names
    /// any takes no other.
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Neither dial nor accept peers over uTP
    ///
    /// Peers are dialled over TCP first, and over uTP (BEP 29), which passes routers that TCP does not, where that
    /// is not answered at once.
    #[arg(long, hide_short_help = true)]
    pub no_utp: bool,
    /// Neither dial nor accept peers over TCP
    #[arg(long, hide_short_help = true, conflicts_with = "no_utp")]
    pub no_tcp: bool,
    /// Stay out of the DHT
    ///
    /// The DHT finds peers without a tracker. It is left alone too when --listen names a loopback address and there
    /// is no --dht-bootstrap; a private torrent (BEP 27) is never looked up or announced there.
    #[arg(long, hide_short_help = true)]
    pub no_dht: bool,
    /// Enter the DHT through this node; may be repeated
    ///
    /// Used in place of the public ones: router.bittorrent.com, dht.transmissionbt.com and dht.libtorrent.org. Nodes
    /// of an earlier run, of torrents and of peers are used in any case.
    #[arg(long, value_name = "HOST:PORT", hide_short_help = true, conflicts_with = "no_dht")]
    pub dht_bootstrap: Vec<String>,
    /// Exchange no peers with peers
    #[arg(long, hide_short_help = true)]
    pub no_pex: bool,
    /// Prefer or require encrypted peers, or talk to none
    ///
    /// Encryption (MSE) hides the protocol from those who look for it on the way. With 'prefer', peers are dialled in
    /// the clear, which saves a round trip, and encrypted where that is closed; both are accepted. With 'require',
    /// peers in the clear are turned away, both ways, and everything is enciphered.
    #[arg(
        long,
        value_name = "prefer|require|off",
        default_value = "prefer",
        hide_possible_values = true,
        hide_short_help = true
    )]
    pub encryption: EncryptionKind,
    /// Do not look for peers on the local network
    ///
    /// Nor tell it which torrents are here. It is left alone too when --listen names a loopback address.
    #[arg(long, hide_short_help = true)]
    pub no_lsd: bool,
    /// Reach everyone through this SOCKS5 proxy alone
    ///
    /// As socks5://HOST:PORT or socks5://NAME:PASSWORD@HOST:PORT; socks5h:// means the same. The proxy resolves
    /// names. What it cannot carry is not sent: UDP trackers are not asked, and nobody can dial us. While it is down,
    /// nobody is reached.
    #[arg(long, value_name = "URL", conflicts_with = "listen")]
    pub proxy: Option<String>,
    /// Do not ask the router to let peers in
    ///
    /// Otherwise it is asked by PCP, NAT-PMP or UPnP, when btfs listens on every address and the router's is private,
    /// and not beside --proxy or --bind-device.
    #[arg(long, hide_short_help = true)]
    pub no_port_map: bool,
    /// Have nothing to do with peers on this list; may be repeated
    ///
    /// A file of addresses and ranges, one a line, as p2p, DAT or CIDR, IPv4 and IPv6, plain or in gzip. Peers named by
    /// --peer and trackers are reached all the same.
    #[arg(long = "blocklist", value_name = "FILE", hide_short_help = true)]
    pub blocklists: Vec<PathBuf>,
    /// Use this network interface alone
    ///
    /// For peers and trackers, both ways. It must be there at the start; while it is gone, nobody is reached. Names are
    /// still looked up by the system, by whatever way that takes.
    #[arg(long, value_name = "IF", hide_short_help = true)]
    pub bind_device: Option<String>,
    /// Upload at most so much a second
    ///
    /// Such as 500KiB/s, over all torrents and peers. Messages that control a connection count, and do not
    /// wait.
    #[arg(long, value_name = "RATE")]
    pub max_up: Option<String>,
    /// Download at most so much a second
    #[arg(long, value_name = "RATE")]
    pub max_down: Option<String>,
}
