//! A connected stream, whichever way it came: what is shaken hands over, and then carried.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection;
use super::message::Hello;
use super::network::{Door, Network};
use super::utp;
use crate::proto::mse::Ciphers;
use crate::proto::wire::pex::Traits;

/// A stream to a peer.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over UDP (BEP 29).
    Utp(utp::Stream),
}

impl Stream {
    /// What others may be told of the peer, from whether this goes through ciphers and how it is carried (BEP 11).
    pub fn traits(&self, ciphers: Option<&Ciphers>) -> Traits {
        Traits::default()
            .with(Traits::ENCRYPTS, ciphers.is_some())
            .with(Traits::UTP, matches!(self, Self::Utp(_)))
    }

    /// Carries messages until the connection ends.
    pub async fn carry(
        self,
        network: &Network,
        door: Door,
        hello: Hello,
        ciphers: Option<Ciphers>,
    ) {
        match self {
            Self::Tcp(stream) => {
                connection::carry(network, door, hello, stream.into_split(), ciphers).await;
            }
            Self::Utp(stream) => {
                connection::carry(network, door, hello, stream.into_split(), ciphers).await;
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Utp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Utp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Utp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Utp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
