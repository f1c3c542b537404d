//! The UDP side of our port: one socket a family, shared by the DHT and uTP.
//!
//! Every message of the DHT is a dictionary, so it begins with `d`; no packet of uTP does (its first byte is type and
//! version).
//!
//! Invariant: nobody waits here. What its receiver has no room for is dropped, as UDP may do anyway; both protocols
//! send again.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dontfrag::UdpSocketExt;
use parking_lot::Mutex;
use socket2::{SockRef, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::debug;

use super::egress::Egress;

/// Longest datagram that is taken. Longer ones are dropped whole, as a line that is too narrow would: a beginning that
/// is acknowledged would tell uTP's search for the packet size that all of it came.
const MAX_DATAGRAM: usize = 4096;

/// A read of so many bytes is of a longer one.
const LONGER: usize = MAX_DATAGRAM + 1;

/// Datagrams that wait for the DHT or uTP. Each is the slow side by microseconds; a lookup brings some hundred at
/// once, a fast stream as many.
const CAPACITY: usize = 1024;

/// Bytes that the kernel keeps until we read; it may give less.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Pause after a read that failed, so that an interface that is down does not keep a core busy.
const PAUSE: Duration = Duration::from_millis(100);

/// A datagram and where it came from.
pub type Datagram = (Vec<u8>, SocketAddr);

/// Where datagrams of each kind go; what nobody has taken is dropped.
#[derive(Debug, Default)]
struct Takers {
    dht: Mutex<Option<mpsc::Sender<Datagram>>>,
    utp: Mutex<Option<mpsc::Sender<Datagram>>>,
}

/// One for the process. Dropping it ends the reading.
#[derive(Debug)]
pub struct UdpPort {
    egress: Egress,
    /// With where they are bound.
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    takers: Arc<Takers>,
    readers: Vec<JoinHandle<()>>,
}

impl UdpPort {
    /// Binds these addresses, one of a family, and reads from then on. Call it inside the runtime.
    ///
    /// # Errors
    /// When one of them is taken.
    pub fn bind(egress: &Egress, addrs: &[SocketAddr]) -> io::Result<Self> {
        let bound = addrs.iter().map(|addr| {
            let socket = bind(egress, *addr)?;
            Ok((socket.local_addr()?, Arc::new(socket)))
        });
        let sockets = bound.collect::<io::Result<Vec<_>>>()?;
        let takers = Arc::<Takers>::default();
        let readers = sockets
            .iter()
            .map(|(_, socket)| tokio::spawn(read(Arc::clone(socket), takers.clone())))
            .collect();
        Ok(Self { egress: egress.clone(), sockets, takers, readers })
    }

    /// How its packets leave.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Where we are bound.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(addr, _)| *addr).collect()
    }

    /// What begins as the DHT's messages do; whoever takes it again takes it away.
    pub fn take_dht(&self) -> mpsc::Receiver<Datagram> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        *self.takers.dht.lock() = Some(sender);
        receiver
    }

    /// All the rest.
    pub fn take_utp(&self) -> mpsc::Receiver<Datagram> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        *self.takers.utp.lock() = Some(sender);
        receiver
    }

    /// Sends a datagram when the kernel has room for it.
    ///
    /// # Errors
    /// When the kernel refuses, or we have no address of that family.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket(to)?.send_to(datagram, to).await.map(drop)
    }

    /// Sends a datagram now. Past the runtime, to which a fresh socket is not writable yet.
    ///
    /// # Errors
    /// As for [`Self::send_to`], and when the kernel has no room.
    pub fn try_send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        SockRef::from(self.socket(to)?).send_to(datagram, &to.into()).map(drop)
    }

    /// Sends a datagram of these parts, or has the task woken when the kernel has room for it.
    ///
    /// # Errors
    /// As for [`Self::send_to`].
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket(to)?;
        loop {
            ready!(socket.poll_send_ready(cx))?;
            let send = || SockRef::from(socket).send_to_vectored(parts, &to.into());
            match socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn socket(&self, to: SocketAddr) -> io::Result<&UdpSocket> {
        let found = self.sockets.iter().find(|(own, _)| own.is_ipv4() == to.is_ipv4());
        found.map(|(_, socket)| &**socket).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Drop for UdpPort {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

fn bind(egress: &Egress, addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = egress.socket(addr, Type::DGRAM)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Less is slower under load, and no reason to fail.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&addr.into())?;
    let socket = std::net::UdpSocket::from(socket);
    if addr.is_ipv4() {
        // A router may cut up what its next line is too narrow for: not all of them say that they drop it instead.
        socket.set_dontfrag_v4(false)?;
    }
    UdpSocket::from_std(socket)
}

async fn read(socket: Arc<UdpSocket>, takers: Arc<Takers>) {
    let mut buffer = vec![0; LONGER];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((0 | LONGER.., _)) => {}
            Ok((len, from)) => {
                let taker = if buffer[0] == b'd' { &takers.dht } else { &takers.utp };
                if let Some(taker) = &*taker.lock() {
                    let _ = taker.try_send((buffer[..len].to_vec(), from));
                }
            }
            Err(error) => {
                debug!(%error, "cannot read a datagram");
                sleep(PAUSE).await;
            }
        }
    }
}
