//! uTP (BEP 29), a library's, over the port's UDP socket.
//!
//! Invariant: a stream holds 768 KiB that are not yet read and as many that are not yet acknowledged, at most.
//! Honest peers send what was asked for, however many they are; a stream that stands still holds 70 KiB.
//! Invariant: who is dialled gets nothing but SYN packets until it answers, and who dials nothing but an answer to
//! his until he has shaken hands: a forged address draws no payload on somebody else.
//!
//! Not here: whether TCP or uTP is tried ([`super::dial`]). The library's control of congestion is CUBIC: it yields
//! to other traffic no more than TCP does.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use librqbit_dualstack_sockets::PollSendToVectored;
use librqbit_utp::{
    SocketOpts, Transport, UtpSocket, UtpSocketUdp, UtpStream, UtpStreamReadHalf,
    UtpStreamWriteHalf,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::udp_port::{Datagram, UdpPort};

/// Bytes on their way to us, or from us, on one stream: 100 Mbit/s at 60 ms. For what may come out of order the library
/// keeps a list of 35 KiB ready.
const WINDOW_LEN: usize = 768 * 1024;

/// Bytes of that which a stream begins with, towards the peer.
const FIRST_WINDOW_LEN: usize = 32 * 1024;

/// Longest packet, headers included. Tunnels and PPPoE leave so much of Ethernet's 1500 bytes; where a line is narrower
/// still, routers cut it up ([`UdpPort`] lets them).
const PACKET_LEN: usize = 1400;

/// Times that the library sends a longer packet than before anew until it takes the line for too narrow. Then it would
/// go on without the bytes in it; so it never may, and the stream ends as for any other packet that does not come.
const PROBES_AGAIN: usize = usize::MAX;

/// Silence that ends a stream: more than a connection bears, so that it decides. Less would end streams on which there is
/// nothing to say: the library counts from what it heard last, whether or not it waits for more. What is not
/// acknowledged ends a stream much sooner.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Streams at once: more than there may be connections and handshakes, since some linger.
const STREAMS: usize = 300;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Time after which a SYN is sent again: the library sends each dial's once.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// The library names the type of its clock and chance nowhere but here.
trait EnvironmentOf {
    type Environment;
}

impl<T, E> EnvironmentOf for UtpSocket<T, E> {
    type Environment = E;
}

type Environment = <UtpSocketUdp as EnvironmentOf>::Environment;

/// All uTP streams of the process; they end with it.
pub struct Utp {
    socket: Arc<UtpSocket<Datagrams, Environment>>,
    _until: DropGuard,
}

impl Utp {
    /// Takes what comes to the port for uTP. Call it inside the runtime.
    pub fn start(port: Arc<UdpPort>) -> Self {
        let inbox = Mutex::new(port.take_utp());
        let local = port.local_addrs().first().copied();
        let options = SocketOpts {
            vsock_rx_bufsize_bytes: NonZeroUsize::new(WINDOW_LEN),
            vsock_tx_bufsize_bytes_initial: NonZeroUsize::new(FIRST_WINDOW_LEN),
            vsock_tx_bufsize_bytes_max: NonZeroUsize::new(WINDOW_LEN),
            link_mtu: NonZeroUsize::new(PACKET_LEN),
            mtu_probe_max_retransmissions: Some(PROBES_AGAIN),
            remote_inactivity_timeout: Some(SILENCE),
            max_live_vsocks: NonZeroUsize::new(STREAMS),
            disable_nagle: true,
            ..SocketOpts::default()
        };
        let until = options.cancellation_token.clone().drop_guard();
        let datagrams = Datagrams { port, inbox, local: local.unwrap_or(NOWHERE) };
        let socket = UtpSocket::new_with_opts(datagrams, Environment::default(), options);
        Self { socket: socket.expect("the packets are long enough"), _until: until }
    }

    /// Dials, and goes on until the peer answers.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        loop {
            if let Ok(answered) = timeout(SYN_AGAIN, self.socket.connect(addr)).await {
                return answered.map(Stream::new).map_err(io::Error::other);
            }
        }
    }

    /// The next stream that somebody begins.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let stream = self.socket.accept().await.map_err(io::Error::other)?;
        let addr = stream.remote_addr();
        Ok((Stream::new(stream), addr))
    }
}

impl fmt::Debug for Utp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Utp")
    }
}

/// The port as the library sees it.
struct Datagrams {
    port: Arc<UdpPort>,
    inbox: Mutex<mpsc::Receiver<Datagram>>,
    /// For the library's log.
    local: SocketAddr,
}

impl Transport for Datagrams {
    async fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut inbox = self.inbox.lock().await;
        while let Some((bytes, from)) = inbox.recv().await {
            // What does not fit is as good as lost: a beginning alone must not be acknowledged.
            if let Some(taken) = buffer.get_mut(..bytes.len()) {
                taken.copy_from_slice(&bytes);
                return Ok((bytes.len(), from));
            }
        }
        // The library would end for good; the port's end is ours too.
        std::future::pending().await
    }

    async fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> io::Result<usize> {
        poll_fn(|cx| self.port.poll_send_to(cx, &[IoSlice::new(bytes)], to)).await
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.port.poll_send_to(cx, &[IoSlice::new(bytes)], to)
    }

    fn bind_addr(&self) -> SocketAddr {
        self.local
    }
}

impl PollSendToVectored for Datagrams {
    fn poll_send_to_vectored(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.port.poll_send_to(cx, parts, to)
    }
}

/// A connected stream.
pub struct Stream {
    reader: UtpStreamReadHalf,
    writer: Writer,
}

impl Stream {
    fn new(stream: UtpStream) -> Self {
        let (reader, writer) = stream.split();
        Self { reader, writer: Writer(writer) }
    }

    /// Its two directions.
    pub fn into_split(self) -> (UtpStreamReadHalf, Writer) {
        (self.reader, self.writer)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("utp::Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().writer).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_shutdown(cx)
    }
}

/// The outgoing direction. What is written leaves by itself; a flush of the library's would wait until the peer has
/// acknowledged it, and the next message with it.
pub struct Writer(UtpStreamWriteHalf);

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("utp::Writer")
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
