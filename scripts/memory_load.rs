//! Peers for `scripts/bench-memory`: many connections to one btfs, each of a kind that costs memory.
//!
//! `memory_load TORRENT DATA ADDR:PORT KIND:COUNT...` runs until it is ended; a connection that ends is made
//! anew. Each peer has an address of its own on the loopback network. `DATA` is the torrent's single file, and
//! `-` when nobody serves it. The kinds:
//!
//! - `seed` has everything and serves whoever asks, as fast as the line takes it;
//! - `slow` has nothing, asks for as much as it may, and reads a little now and then;
//! - `deaf` has nothing, asks for as much as it may, and then never reads again;
//! - `part` has about half of the pieces, gets more of them, and serves nobody.
//!
//! Not here: what it costs btfs, which the script reads from the system.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use btfs::engine::pool::Pool;
use btfs::proto::metainfo::Metainfo;
use btfs::proto::units::{BLOCK_LEN, PeerId};
use btfs::proto::wire::codec::HANDSHAKE_LEN;
use btfs::proto::wire::decoder::Decoder;
use btfs::proto::wire::message::{Handshake, Message, Request, Reserved};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// Requests that btfs queues for one peer; it says so in its extension handshake.
const REQUESTS: usize = 500;

/// Time between two reads of a slow peer, and bytes of each.
const SLOW: (Duration, usize) = (Duration::from_millis(250), 16 * 1024);

/// Time between two pieces that a peer without all of them gets.
const GAIN: Duration = Duration::from_millis(500);

/// Time until a connection that ended is made anew.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Seed,
    Slow,
    Deaf,
    Part,
}

/// What all peers share.
struct Load {
    metainfo: Metainfo,
    data: Bytes,
    target: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [torrent, data, target, kinds @ ..] = args.as_slice() else {
        bail!("usage: memory_load TORRENT DATA|- ADDR:PORT KIND:COUNT...");
    };
    let metainfo = Metainfo::parse(&std::fs::read(torrent)?)?;
    let data = if data == "-" { Bytes::new() } else { std::fs::read(data)?.into() };
    let load = Arc::new(Load { metainfo, data, target: target.parse()? });
    let mut number = 0;
    for kind in kinds {
        let (kind, count) = kind.split_once(':').context("KIND:COUNT")?;
        let kind = match kind {
            "seed" => Kind::Seed,
            "slow" => Kind::Slow,
            "deaf" => Kind::Deaf,
            "part" => Kind::Part,
            other => bail!("{other}: no kind of peer"),
        };
        for _ in 0..count.parse::<u16>()? {
            tokio::spawn(stay(load.clone(), kind, number));
            number += 1;
        }
    }
    std::future::pending().await
}

async fn stay(load: Arc<Load>, kind: Kind, number: u16) {
    loop {
        if let Err(error) = load.visit(kind, number).await
            && std::env::var_os("MEMORY_LOAD_LOG").is_some()
        {
            eprintln!("peer {number}: {error}");
        }
        sleep(AGAIN).await;
    }
}

impl Load {
    async fn visit(&self, kind: Kind, number: u16) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        let [high, low] = number.to_be_bytes();
        socket.bind(([127, 1, high, low + 1], 0).into())?;
        let mut stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        self.shake_hands(&mut stream, number).await?;
        match kind {
            Kind::Seed => self.seed(stream).await,
            Kind::Slow | Kind::Deaf => self.take(stream, kind).await,
            Kind::Part => self.gain(stream, number).await,
        }
    }

    async fn shake_hands(&self, stream: &mut TcpStream, number: u16) -> anyhow::Result<()> {
        let mut peer_id = *b"-ML0001-000000000000";
        peer_id[18..].copy_from_slice(&number.to_be_bytes());
        let reserved = Reserved { fast: true, extended: false, dht: false };
        let info_hash = self.metainfo.info_hash;
        let ours = Handshake { reserved, info_hash, peer_id: PeerId(peer_id) };
        stream.write_all(&ours.encode()).await?;
        stream.read_exact(&mut [0; HANDSHAKE_LEN]).await?;
        Ok(())
    }

    /// Serves.
    async fn seed(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let (mut inward, outward) = stream.split();
        let mut outward = BufWriter::with_capacity(256 * 1024, outward);
        outward.write_all(&encoded([Message::HaveAll, Message::Unchoke])).await?;
        outward.flush().await?;
        let mut ears = self.ears();
        loop {
            for message in ears.hear(&mut inward).await? {
                let Message::Request(Request { piece, begin, len }) = message else { continue };
                let at = u64::from(piece) * u64::from(self.metainfo.geometry.nominal_piece_len());
                let at = at as usize + begin as usize;
                let data = self.data.slice(at..at + len as usize);
                outward
                    .write_all(&encoded([Message::Piece { piece, begin, data: data.clone() }]))
                    .await?;
                outward.write_all(&data).await?;
            }
            outward.flush().await?;
        }
    }

    /// Asks for all that it may, and reads next to nothing.
    async fn take(&self, mut stream: TcpStream, kind: Kind) -> anyhow::Result<()> {
        stream.write_all(&encoded([Message::HaveNone, Message::Interested])).await?;
        let (mut inward, mut outward) = stream.split();
        let mut ears = self.ears();
        while !ears.hear(&mut inward).await?.contains(&Message::Unchoke) {}
        let wishes = self.wishes().take(REQUESTS).map(Message::Request);
        outward.write_all(&encoded(wishes)).await?;
        if kind == Kind::Deaf {
            return std::future::pending().await;
        }
        let mut more = self.wishes().skip(REQUESTS);
        loop {
            sleep(SLOW.0).await;
            ears.window = SLOW.1;
            let got = ears.hear(&mut inward).await?;
            let got = got.iter().filter(|message| matches!(message, Message::Piece { .. })).count();
            outward.write_all(&encoded(more.by_ref().take(got).map(Message::Request))).await?;
        }
    }

    /// Has about half, and gets more.
    async fn gain(&self, mut stream: TcpStream, number: u16) -> anyhow::Result<()> {
        let pieces = self.metainfo.geometry.piece_count();
        let mut bits =
            vec![0b1010_0110_u8.rotate_left(u32::from(number)); pieces.div_ceil(8) as usize];
        if !pieces.is_multiple_of(8) {
            bits.pop();
            bits.push(0);
        }
        stream.write_all(&encoded([Message::Bitfield(bits.into()), Message::Interested])).await?;
        let (mut inward, mut outward) = stream.split();
        let mut ears = self.ears();
        let mut next = u32::from(number);
        loop {
            tokio::select! {
                heard = ears.hear(&mut inward) => drop(heard?),
                () = sleep(GAIN) => {
                    next = (next + 7919) % pieces;
                    outward.write_all(&encoded([Message::Have(next)])).await?;
                }
            }
        }
    }

    fn wishes(&self) -> impl Iterator<Item = Request> + '_ {
        let geometry = &self.metainfo.geometry;
        let blocks = geometry.pieces().flat_map(|piece| geometry.blocks(piece));
        blocks.map(|block| {
            let span = geometry.block_span(block);
            Request { piece: span.piece.raw(), begin: span.begin, len: span.len }
        })
    }

    fn ears(&self) -> Ears {
        let decoder = Decoder::new(Some(self.metainfo.geometry.piece_count()), Pool::new(0));
        Ears { decoder, window: 4 * BLOCK_LEN as usize, buf: vec![0; 4 * BLOCK_LEN as usize] }
    }
}

/// The reading side of a connection.
struct Ears {
    decoder: Decoder<Pool>,
    window: usize,
    buf: Vec<u8>,
}

impl Ears {
    async fn hear(
        &mut self,
        socket: &mut (impl AsyncReadExt + Unpin),
    ) -> anyhow::Result<Vec<Message>> {
        let len = socket.read(&mut self.buf[..self.window]).await?;
        ensure!(len > 0, "btfs closed the connection");
        let mut heard = Vec::new();
        self.decoder.feed(&self.buf[..len], &mut heard)?;
        Ok(heard)
    }
}

/// The messages, but for the data of a PIECE.
fn encoded(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let _ = message.encode(&mut bytes);
    }
    bytes
}
