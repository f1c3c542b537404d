//! The two directions of a connection whose payload is enciphered (RC4 of `proto::mse`).
//!
//! Invariant: reading deciphers in the reader's own buffer, and an idle direction holds no buffer at all.
//! Invariant: what a write took is enciphered once and leaves in that order; 32 KiB of it may wait here.
//!
//! Not here: agreeing on the keys ([`super::handshake`]). Connections in the clear never come here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proto::mse::Keystream;

/// Bytes enciphered for one write: two blocks, as much as the kernel takes ahead of the line.
const CHUNK_LEN: usize = 32 * 1024;

/// Deciphers what is read.
#[derive(Debug)]
pub struct Deciphering<R> {
    inner: R,
    stream: Keystream,
}

impl<R> Deciphering<R> {
    /// All that is read from `inner` from now on.
    pub fn new(inner: R, stream: Keystream) -> Self {
        Self { inner, stream }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Deciphering<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, stream } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buf))?;
        stream.apply(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

/// Enciphers what is written.
#[derive(Debug)]
pub struct Enciphering<W> {
    inner: W,
    stream: Keystream,
    /// Enciphered; a keystream cannot be turned back, so it must leave before anything else.
    waiting: Vec<u8>,
    /// How much of that has left.
    left: usize,
}

impl<W: AsyncWrite + Unpin> Enciphering<W> {
    /// All that is written to `inner` from now on.
    pub fn new(inner: W, stream: Keystream) -> Self {
        Self { inner, stream, waiting: Vec::new(), left: 0 }
    }

    /// Writes what waits.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.waiting.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting[self.left..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.left += taken,
            }
        }
        (self.waiting, self.left) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Enciphering<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        for slice in slices {
            let room = CHUNK_LEN - this.waiting.len();
            this.waiting.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        this.stream.apply(&mut this.waiting);
        let taken = this.waiting.len();
        // It is taken, whether the socket has room at once or not.
        match this.poll_empty(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
