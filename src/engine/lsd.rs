//! Local service discovery (BEP 14): one task that calls out torrents by multicast and hears others.
//!
//! Invariant: nothing is sent beyond the networks that this machine is on itself.
//!
//! Not here: when to call, and what a call looks like ([`crate::proto::lsd`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use socket2::{InterfaceIndexOrAddress, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

use super::clock::now;
use super::egress::Egress;
use super::message::Command;
use super::network::canonical;
use crate::proto::lsd::{Call, Calls, GROUP_V4, GROUP_V6, MAX_LEN, PORT};
use crate::proto::origin::Origin;
use crate::proto::units::InfoHash;

/// Orders that may wait for the task. It is never slow; a full queue drops a wish, which comes again.
const ORDERS: usize = 64;

/// The local network, for whoever has torrents. Dropping it ends the task.
#[derive(Debug)]
pub struct Lsd {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Join(InfoHash, mpsc::Sender<Command>),
    Leave(InfoHash),
    Seek(InfoHash),
}

impl Lsd {
    /// Calls, where that may leave, and tells others of `port`; must be called inside a tokio runtime.
    pub fn start(egress: &Egress, port: u16) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let task = Task {
            groups: groups(egress),
            calls: Calls::new(now()),
            torrents: BTreeMap::new(),
            port,
            cookie: rand::random(),
        };
        tokio::spawn(task.run(inbox));
        Self { orders }
    }

    /// The torrent is called out from now on, and `commands` hears of others that have it.
    pub fn join(&self, torrent: InfoHash, commands: mpsc::Sender<Command>) {
        self.order(Order::Join(torrent, commands));
    }

    /// The torrent is gone.
    pub fn leave(&self, torrent: InfoHash) {
        self.order(Order::Leave(torrent));
    }

    /// The torrent has too few peers; may be said as often as it is true.
    pub fn seek(&self, torrent: InfoHash) {
        self.order(Order::Seek(torrent));
    }

    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

/// A multicast group that we are in.
#[derive(Debug)]
struct Group {
    addr: SocketAddr,
    socket: UdpSocket,
}

struct Task {
    groups: [Option<Group>; 2],
    calls: Calls,
    torrents: BTreeMap<InfoHash, mpsc::Sender<Command>>,
    port: u16,
    cookie: u32,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let (mut v4, mut v6) = ([0; MAX_LEN], [0; MAX_LEN]);
        loop {
            self.call().await;
            let wake = self.calls.poll_timeout();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = sleep_until(wake.unwrap_or_else(now).into()), if wake.is_some() => {}
                got = receive(self.groups[0].as_ref(), &mut v4) => self.take(0, got, &v4),
                got = receive(self.groups[1].as_ref(), &mut v6) => self.take(1, got, &v6),
            }
        }
    }

    fn take(&mut self, group: usize, got: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        match got {
            Ok((len, from)) => self.hear(&buffer[..len], from.ip()),
            Err(error) => {
                debug!(%error, "no local discovery over a family any more");
                self.groups[group] = None;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(torrent, commands) => {
                self.torrents.insert(torrent, commands);
                self.calls.join(torrent, now());
            }
            Order::Leave(torrent) => {
                self.torrents.remove(&torrent);
                self.calls.leave(torrent);
            }
            Order::Seek(torrent) => self.calls.seek(torrent, now()),
        }
    }

    /// Calls out what is due, to every group.
    async fn call(&mut self) {
        loop {
            let torrents = self.calls.poll_call(now());
            if torrents.is_empty() {
                return;
            }
            let call = Call { port: self.port, torrents, cookie: Some(self.cookie) };
            for group in self.groups.iter().flatten() {
                if let Err(error) = group.socket.send_to(&call.encode(group.addr), group.addr).await
                {
                    debug!(group = %group.addr, %error, "cannot call on the local network");
                }
            }
        }
    }

    fn hear(&mut self, datagram: &[u8], from: IpAddr) {
        // What is no call takes nobody's turn.
        let Some(call) = Call::parse(datagram) else { return };
        if call.cookie == Some(self.cookie) || !self.calls.hear(now()) {
            return;
        }
        let addr = canonical(SocketAddr::new(from, call.port));
        for commands in call.torrents.iter().filter_map(|torrent| self.torrents.get(torrent)) {
            // A full queue drops the name; its owner calls again.
            let _ = commands.try_send(Command::Meet { addrs: vec![addr], origin: Origin::Lsd });
        }
    }
}

/// The next datagram to a group; never one when we are not in it.
async fn receive(group: Option<&Group>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match group {
        Some(group) => group.socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// The groups of the families that we have an address of, or any.
fn groups(egress: &Egress) -> [Option<Group>; 2] {
    let local = egress.local;
    let any = local.v4.is_none() && local.v6.is_none();
    let v4 = local.v4.or(any.then_some(Ipv4Addr::UNSPECIFIED)).map(|local| group_v4(egress, local));
    let v6 = local.v6.or(any.then_some(Ipv6Addr::UNSPECIFIED)).map(|local| group_v6(egress, local));
    [v4, v6].map(|group| {
        let group = group?;
        group.inspect_err(|error| debug!(%error, "no local discovery over a family")).ok()
    })
}

fn group_v4(egress: &Egress, local: Ipv4Addr) -> io::Result<Group> {
    let addr = SocketAddr::from((GROUP_V4, PORT));
    let socket = socket(egress, addr)?;
    match &egress.device {
        // What is bound to a device sends by it, but would join wherever the default route leads.
        Some(device) => {
            let interface = InterfaceIndexOrAddress::Index(if_nametoindex(device.as_str())?);
            socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
        }
        None => {
            socket.join_multicast_v4(&GROUP_V4, &local)?;
            socket.set_multicast_if_v4(&local)?;
        }
    }
    socket.set_multicast_loop_v4(true)?;
    bind(socket, addr)
}

fn group_v6(egress: &Egress, local: Ipv6Addr) -> io::Result<Group> {
    let addr = SocketAddr::from((GROUP_V6, PORT));
    let socket = socket(egress, addr)?;
    let interface = match &egress.device {
        Some(device) => if_nametoindex(device.as_str())?,
        None => interface_of(local)?,
    };
    socket.set_only_v6(true)?;
    socket.join_multicast_v6(&GROUP_V6, interface)?;
    socket.set_multicast_if_v6(interface)?;
    socket.set_multicast_loop_v6(true)?;
    bind(socket, addr)
}

fn socket(egress: &Egress, at: SocketAddr) -> io::Result<Socket> {
    let socket = egress.socket(at, Type::DGRAM)?;
    // Every client on this machine listens at the same port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Bound to the group and not to an address of ours, so that nothing else reaches it.
fn bind(socket: Socket, addr: SocketAddr) -> io::Result<Group> {
    socket.bind(&addr.into())?;
    Ok(Group { addr, socket: UdpSocket::from_std(socket.into())? })
}

/// The number of the interface with this address; 0, which lets the kernel choose, for none.
fn interface_of(local: Ipv6Addr) -> io::Result<u32> {
    if local.is_unspecified() {
        return Ok(0);
    }
    let is_it = |addr: &nix::sys::socket::SockaddrStorage| {
        addr.as_sockaddr_in6().is_some_and(|addr| addr.ip() == local)
    };
    let found = getifaddrs()?.find(|entry| entry.address.as_ref().is_some_and(is_it));
    let found = found.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(if_nametoindex(found.interface_name.as_str())?)
}
