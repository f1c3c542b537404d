//! One connection after its handshakes: whole messages in batches to the torrent, messages out.
//!
//! One task carries both directions, as two futures that end together; so it ends once, with one reason.
//!
//! Invariant: between `Connected` and `Closed` stands everything else that is told of a connection.
//! Invariant: an idle connection holds no read buffer, since reads go through one scratch for the thread.
//! Invariant: a full queue to the torrent stops the reading, never the writing; nothing is read that has no
//! place in that queue, so of what a connection heard it holds one unfinished message at most.
//!
//! Invariant: under a rate limit no byte is read before its turn, so TCP holds the peer back; PIECE messages
//! leave one at a turn, and what does not depend on them overtakes them.
//!
//! Not here: what messages mean, keep-alives and when to close (the swarm); whose turn it is
//! ([`super::throttle`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::cipher::{Deciphering, Enciphering};
use super::message::{FromPeer, Hello, TO_PEER_CAPACITY};
use super::network::{Door, Network};
use super::outbox::{Outbox, no_slices};
use super::pool::Pool;
use super::throttle::Tap;
use crate::proto::mse::Ciphers;
use crate::proto::units::PeerKey;
use crate::proto::wire::decoder::{DecodeError, Decoder};
use crate::proto::wire::message::Message;

/// Silence after which a peer is taken for dead; clients send a keep-alive every two minutes (BEP 3).
pub const IDLE_LIMIT: Duration = Duration::from_secs(4 * 60);

/// Time that what is queued gets to leave after the torrent has closed the connection; counted from the
/// next write, which a peer that takes nothing can put off by as much again.
pub const LINGER: Duration = Duration::from_secs(2);

/// Bytes of the scratch that a thread's reads share, and so of payload in one batch.
///
/// Measured on loopback, 32 to 512 KiB: this is the cheapest by a little. Larger reads save system calls,
/// but scratch and blocks then fall out of the core's cache between the two copies; from 256 KiB on that
/// costs a fifth and more.
const SCRATCH_LEN: usize = 64 * 1024;

/// Bytes read at once from a peer that sends small messages.
const SMALL_READ_LEN: usize = 16 * 1024;

/// Messages in one read beyond which a peer sends small ones. A message takes up to ten times its bytes
/// in memory: with smaller reads a flood of empty ones stays small too.
const SMALL_BATCH: usize = 64;

/// Messages encoded for one series of writes.
const OUT_BATCH: usize = 64;

/// Messages that may wait for their turn to upload. The swarm has no more blocks than its credit under way;
/// a peer whose floods of requests we reject fills this, then its queue, and is closed.
const HELD: usize = 1024;

/// Bytes of a PIECE message beside its data.
const PIECE_HEAD_LEN: usize = 13;

/// Bytes that the kernel takes before they can leave. What is in a socket can no longer be cancelled, overtaken
/// or counted as waiting: with the kernel's own megabytes a seed would think its line idle while it is choked.
const UNSENT_LEN: u32 = 32 * 1024;

/// Payload bytes after which a series of writes reports, before it is done.
const REPORT_LEN: u64 = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_LEN].into());
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum End {
    #[error("we closed the connection")]
    Ours,
    #[error("the peer closed the connection")]
    Theirs,
    #[error("nothing heard for {} s", IDLE_LIMIT.as_secs())]
    Idle,
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("bad bytes: {0}")]
    Malformed(#[from] DecodeError),
}

/// Sets a fresh socket up to carry messages: none waits for another to fill a packet, nor behind many that the
/// line cannot take yet.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_LEN)
}

/// [`run`], through the ciphers if the handshake agreed on any.
pub async fn carry<R, W>(
    network: &Network,
    door: Door,
    hello: Hello,
    halves: (R, W),
    ciphers: Option<Ciphers>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match ciphers {
        None => run(network, door, hello, halves).await,
        Some(Ciphers { inward, outward }) => {
            let halves = (Deciphering::new(halves.0, inward), Enciphering::new(halves.1, outward));
            run(network, door, hello, halves).await;
        }
    }
}

/// Announces the connection to its torrent, and carries it until it ends.
///
/// `halves` are the stream's two directions. The task ends when the peer or the torrent closes.
pub async fn run<R, W>(network: &Network, door: Door, hello: Hello, halves: (R, W))
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let key = network.next_key();
    let (sender, messages) = mpsc::channel(TO_PEER_CAPACITY);
    let to_torrent = door.to_torrent;
    if to_torrent.send(FromPeer::Connected { key, hello, sender }).await.is_err() {
        return;
    }
    let decoder = Decoder::new(door.pieces, network.pool.clone());
    let mut inward = Inward {
        key,
        socket: halves.0,
        decoder,
        window: SMALL_READ_LEN,
        tap: network.down.tap(),
        to_torrent: &to_torrent,
    };
    let mut outward = Outward::new(key, halves.1, messages, network.up.tap(), &to_torrent);
    let end = tokio::select! {
        end = inward.carry() => end,
        end = outward.carry() => end,
    };
    let closed = FromPeer::Closed { key, reason: end.to_string() };
    let sent = (outward.sent > 0).then(|| outward.report());
    for last in sent.into_iter().chain([closed]) {
        // An error means that the torrent is gone, and with it everyone who would care.
        let _ = to_torrent.send(last).await;
    }
}

/// Room for one batch in the torrent's queue.
type Place<'a> = mpsc::Permit<'a, FromPeer>;

/// Socket to torrent.
struct Inward<'a, R> {
    key: PeerKey,
    socket: R,
    decoder: Decoder<Pool>,
    window: usize,
    tap: Tap,
    to_torrent: &'a mpsc::Sender<FromPeer>,
}

impl<'a, R: AsyncRead + Unpin> Inward<'a, R> {
    async fn carry(&mut self) -> End {
        loop {
            let mut batch = Vec::new();
            let read = match timeout(IDLE_LIMIT, self.read(&mut batch)).await {
                Ok(read) => read,
                // The peer may have spoken long ago: it is we who do not listen yet.
                Err(_) if self.tap.is_waiting() => continue,
                Err(_) => return End::Idle,
            };
            self.window = if batch.len() > SMALL_BATCH { SMALL_READ_LEN } else { SCRATCH_LEN };
            match read {
                Ok((place, decoded)) => {
                    if !batch.is_empty() {
                        place.send(FromPeer::Messages { key: self.key, batch });
                    }
                    if let Err(end) = decoded {
                        return end;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// One read from the socket, decoded, and the place in the torrent's queue for what came.
    async fn read(
        &mut self,
        batch: &mut Vec<Message>,
    ) -> Result<(Place<'a>, Result<(), End>), End> {
        let mut place = None;
        loop {
            let taken = poll_fn(|cx| {
                let Some(place) = place.take().or_else(|| self.to_torrent.try_reserve().ok())
                else {
                    return Poll::Ready(None);
                };
                // While the peer is silent the place is free for others.
                let read = SCRATCH.with_borrow_mut(|scratch| self.poll_read(cx, scratch, batch));
                read.map(|read| Some((place, read)))
            });
            if let Some(read) = taken.await {
                return Ok(read);
            }
            place = Some(self.to_torrent.reserve().await.map_err(|_| End::Ours)?);
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        batch: &mut Vec<Message>,
    ) -> Poll<Result<(), End>> {
        let window = self.tap.read_len(self.window);
        ready!(self.tap.poll_take(window, cx));
        let mut read = ReadBuf::new(&mut scratch[..window]);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut read);
        self.tap.refund(window - read.filled().len());
        ready!(polled)?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(End::Theirs));
        }
        Poll::Ready(Ok(self.decoder.feed(read.filled(), batch)?))
    }
}

/// Torrent to socket.
struct Outward<'a, W> {
    key: PeerKey,
    socket: W,
    messages: mpsc::Receiver<Message>,
    tap: Tap,
    /// Blocks that wait for their turn, the first of them in front, and what must not overtake them.
    held: VecDeque<Message>,
    outbox: Outbox,
    /// Payload bytes that the socket took and the torrent has not heard of.
    sent: u64,
    /// When what is queued must have left; set once the torrent has dropped its sender.
    until: Option<Instant>,
    to_torrent: &'a mpsc::Sender<FromPeer>,
}

impl<'a, W: AsyncWrite + Unpin> Outward<'a, W> {
    fn new(
        key: PeerKey,
        socket: W,
        messages: mpsc::Receiver<Message>,
        tap: Tap,
        to_torrent: &'a mpsc::Sender<FromPeer>,
    ) -> Self {
        let (held, outbox) = Default::default();
        Self { key, socket, messages, tap, held, outbox, sent: 0, until: None, to_torrent }
    }

    async fn carry(&mut self) -> End {
        let mut batch = Vec::with_capacity(OUT_BATCH);
        loop {
            let due = self.held.front().map(wire_len);
            tokio::select! {
                biased;
                Ok(room) = self.to_torrent.reserve(), if self.sent > 0 => room.send(self.report()),
                got = self.messages.recv_many(&mut batch, OUT_BATCH), if self.held.len() < HELD => {
                    if got == 0 {
                        break;
                    }
                    batch.drain(..).for_each(|message| self.take_in(message));
                }
                () = poll_fn(|cx| self.tap.poll_take(due.unwrap_or(0), cx)), if due.is_some() => {
                    self.release();
                }
            }
            if let Err(end) = self.write_all().await {
                return end;
            }
        }
        // Best effort: the peer may be gone already.
        let _ = timeout(LINGER, self.socket.shutdown()).await;
        End::Ours
    }

    /// Queues a message: for the socket, or behind the blocks that wait for their turn.
    fn take_in(&mut self, message: Message) {
        let is_block = matches!(message, Message::Piece { .. });
        let waits = is_block || (!self.held.is_empty() && is_of_upload(&message));
        if waits && self.tap.is_limited() {
            self.held.push_back(message);
        } else {
            self.tap.spend(wire_len(&message));
            self.outbox.push(&message);
        }
    }

    /// The turn has come of the block in front, and of what waited for it.
    fn release(&mut self) {
        let block = self.held.pop_front();
        block.iter().for_each(|block| self.outbox.push(block));
        while let Some(message) = self.held.pop_front() {
            if matches!(message, Message::Piece { .. }) {
                self.held.push_front(message);
                break;
            }
            self.tap.spend(wire_len(&message));
            self.outbox.push(&message);
        }
    }

    async fn write_all(&mut self) -> Result<(), End> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        while !self.outbox.is_empty() {
            match timeout(LINGER, self.write()).await {
                Ok(written) => written?,
                // Woken to look whether anybody still wants this to be written.
                Err(_) => self.check_linger()?,
            }
            if self.sent >= REPORT_LEN
                && let Ok(room) = self.to_torrent.try_reserve()
            {
                room.send(self.report());
            }
        }
        loop {
            match timeout(LINGER, self.socket.flush()).await {
                Ok(flushed) => return Ok(flushed?),
                Err(_) => self.check_linger()?,
            }
        }
    }

    /// One write to the socket. Safe to drop at any await: what was taken is noted.
    async fn write(&mut self) -> Result<(), End> {
        self.check_linger()?;
        let Self { socket, outbox, tap, .. } = self;
        let taken = {
            let mut slices = no_slices();
            let filled = outbox.slices(&mut slices);
            poll_fn(|cx| {
                let polled = Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..filled]);
                if polled.is_pending() {
                    // Nobody shall wait for a peer that does not read.
                    tap.give_up();
                }
                polled
            })
            .await?
        };
        if taken == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        self.sent += self.outbox.advance(taken);
        Ok(())
    }

    /// Ends the connection when its sender has been dropped for too long.
    fn check_linger(&mut self) -> Result<(), End> {
        if !self.messages.is_closed() {
            return Ok(());
        }
        let now = Instant::now();
        if now >= *self.until.get_or_insert(now + LINGER) { Err(End::Ours) } else { Ok(()) }
    }

    /// The payload since the last report, which is the caller's to send.
    fn report(&mut self) -> FromPeer {
        FromPeer::Sent { key: self.key, payload: mem::take(&mut self.sent) }
    }
}

/// What answers a peer's requests, or tells whether they are answered: its order is kept.
fn is_of_upload(message: &Message) -> bool {
    match message {
        Message::Piece { .. } | Message::Choke | Message::Unchoke | Message::Reject(_) => true,
        Message::KeepAlive
        | Message::Interested
        | Message::NotInterested
        | Message::Have(_)
        | Message::Bitfield(_)
        | Message::Request(_)
        | Message::Cancel(_)
        | Message::Port(_)
        | Message::Suggest(_)
        | Message::HaveAll
        | Message::HaveNone
        | Message::AllowedFast(_)
        | Message::Extended { .. } => false,
    }
}

/// Bytes of the message on the wire.
fn wire_len(message: &Message) -> usize {
    match message {
        Message::Piece { data, .. } => PIECE_HEAD_LEN + data.len(),
        Message::Bitfield(bits) => 5 + bits.len(),
        Message::Extended { payload, .. } => 6 + payload.len(),
        Message::KeepAlive => 4,
        Message::Choke
        | Message::Unchoke
        | Message::Interested
        | Message::NotInterested
        | Message::HaveAll
        | Message::HaveNone => 5,
        Message::Port(_) => 7,
        Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 9,
        Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 17,
    }
}
