//! How packets leave the machine: every socket towards the network is opened here, and every name looked up.
//!
//! ```text
//!                  TCP                     UDP    names, over HTTP    names, otherwise   taking connections
//! direct           yes                     yes    resolved here       resolved here      yes
//! through a proxy  the proxy carries it    no     the proxy resolves  no                 no
//! ```
//!
//! Invariant: with a proxy no packet goes anywhere else: what it cannot carry fails, and so does all when it is down.
//! Invariant: with a device every socket is bound to it, and none opens while it is not there.
//! Invariant: no other file of the engine opens a socket, but for those of the tracker that we serve.
//!
//! Not here: which addresses a stranger's URL may lead to ([`crate::proto::announce::reach`]).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{Client, ClientBuilder};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, lookup_host};
use tokio_socks::tcp::Socks5Stream;
use url::Url;

use crate::proto::announce::udp::Family;

/// Local addresses that dials and announces leave from; `None` lets the kernel choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddrs {
    /// For peers and trackers with an IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// For peers and trackers with an IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl LocalAddrs {
    /// What a socket of this family is bound to.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            Family::V6 => self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).into(),
        }
    }
}

/// A SOCKS5 proxy (RFC 1928, 1929).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Name and password, where it asks for them: 1 to 255 bytes each.
    pub login: Option<(String, String)>,
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.addr)
    }
}

/// What this process may use of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Where connections come from.
    pub local: LocalAddrs,
    /// The only network interface that is used; `None` lets the kernel choose.
    pub device: Option<String>,
    /// Who carries all connections.
    pub proxy: Option<Proxy>,
}

impl From<LocalAddrs> for Egress {
    fn from(local: LocalAddrs) -> Self {
        Self { local, ..Self::default() }
    }
}

impl Egress {
    /// Whether a proxy carries all connections; then UDP may not be used, no name looked up, and nobody can dial us.
    pub const fn is_proxied(&self) -> bool {
        self.proxy.is_some()
    }

    /// Whether sockets can be opened: an error when the device is not there, or may not be chosen.
    pub fn check(&self) -> io::Result<()> {
        self.open(Domain::IPV4, Type::STREAM).map(drop)
    }

    /// Connects to a peer.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let Some(proxy) = &self.proxy else { return self.connect_directly(to).await };
        let stream = self.connect_directly(proxy.addr).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot reach the proxy: {error}"))
        })?;
        let carried = match &proxy.login {
            None => Socks5Stream::connect_with_socket(stream, to).await,
            Some((name, password)) => {
                Socks5Stream::connect_with_password_and_socket(stream, to, name, password).await
            }
        };
        carried
            .map(Socks5Stream::into_inner)
            .map_err(|error| io::Error::other(format!("the proxy: {error}")))
    }

    /// A socket for an address of this family that others are to reach or that sends datagrams, not yet bound to it.
    pub(super) fn socket(&self, at: SocketAddr, kind: Type) -> io::Result<Socket> {
        if self.is_proxied() {
            return Err(not_carried("datagrams and incoming connections"));
        }
        self.open(Domain::for_address(at), kind)
    }

    /// A socket for datagrams at this address; port 0 takes a free one.
    pub fn udp(&self, at: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(at, Type::DGRAM)?;
        socket.bind(&at.into())?;
        UdpSocket::from_std(socket.into())
    }

    /// The addresses of a name.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if self.is_proxied() {
            return Err(not_carried("lookups of names"));
        }
        Ok(lookup_host((host, port)).await?.collect())
    }

    /// The beginning of an HTTP client whose connections leave as they must. Names in URLs become addresses of the
    /// wanted family only by a resolver that the caller sets; a proxy resolves them as it likes.
    ///
    /// # Errors
    /// The proxy's name and password make no URL.
    pub fn http(&self, family: Family) -> reqwest::Result<ClientBuilder> {
        let mut builder = Client::builder().no_proxy();
        if let Some(device) = &self.device {
            builder = builder.interface(device);
        }
        let Some(proxy) = &self.proxy else {
            return Ok(builder.local_address(self.local.of(family)));
        };
        let via = reqwest::Proxy::all(proxy.url())?;
        Ok(builder.local_address(self.local.of(Family::of(&proxy.addr))).proxy(via))
    }

    async fn connect_directly(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.open(Domain::for_address(to), Type::STREAM)?;
        let from = match to {
            SocketAddr::V4(_) => self.local.v4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.local.v6.map(IpAddr::V6),
        };
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    fn open(&self, domain: Domain, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(socket)
    }
}

impl Proxy {
    /// With `socks5h` the HTTP client leaves names to the proxy.
    fn url(&self) -> Url {
        let mut url =
            Url::parse(&format!("socks5h://{}", self.addr)).expect("an address is a host");
        if let Some((name, password)) = &self.login {
            url.set_username(name).expect("it has a host");
            url.set_password(Some(password)).expect("it has a host");
        }
        url
    }
}

fn not_carried(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{what} cannot go through the proxy"))
}
