//! Announces to a tracker as fast as it answers, for `scripts/bench-tracker`.
//!
//! `tracker_load udp|http ADDR:PORT SECONDS TORRENTS`: each announce is a peer with a port of its own in one
//! of so many torrents and asks for 50 others; prints the announces answered and the seconds that it took.
//!
//! Not here: what the tracker spends on it, which the script reads from the system.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Askers at once, each with a socket of its own and one question under way.
const ASKERS: u32 = 32;

/// A datagram that the tracker dropped is asked again.
const PATIENCE: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, addr, seconds, torrents] = args.as_slice() else {
        bail!("usage: tracker_load udp|http ADDR:PORT SECONDS TORRENTS");
    };
    let addr: SocketAddr = addr.parse()?;
    let torrents: u32 = torrents.parse()?;
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds.parse()?);
    let mut askers = JoinSet::new();
    for asker in 0..ASKERS {
        let peers = Peers { state: u64::from(asker) << 32 | 1, torrents };
        match protocol.as_str() {
            "udp" => drop(askers.spawn(ask_udp(addr, peers, end))),
            "http" => drop(askers.spawn(ask_http(addr, peers, end))),
            other => bail!("{other}: is neither udp nor http"),
        }
    }
    let mut answered = 0;
    while let Some(done) = askers.join_next().await {
        answered += done??;
    }
    println!("{answered} {:.3}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Peers one after the other, each in some torrent.
struct Peers {
    state: u64,
    torrents: u32,
}

impl Peers {
    /// An info-hash and a port.
    fn next(&mut self) -> ([u8; 20], u16) {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let drawn = (self.state >> 32) as u32;
        let mut info_hash = [0; 20];
        info_hash[..4].copy_from_slice(&(drawn % self.torrents).to_be_bytes());
        (info_hash, (self.state >> 17) as u16 | 1)
    }
}

async fn ask_udp(addr: SocketAddr, mut peers: Peers, end: Instant) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind((addr.ip(), 0)).await?;
    socket.connect(addr).await?;
    let mut packet = [0; 2048];
    let hello = [&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 8]].concat();
    let len = exchange(&socket, &hello, &mut packet).await?;
    ensure!(len == 16, "no connection id");
    let connection: [u8; 8] = packet[8..16].try_into()?;
    let mut answered = 0;
    while Instant::now() < end {
        let (info_hash, port) = peers.next();
        let mut ask =
            [&connection[..], &[0, 0, 0, 1, 0, 0, 0, 7], &info_hash, &[b'x'; 20]].concat();
        // Downloaded, left and uploaded; event, address and key; peers wanted.
        ask.extend([0, 1, 0].map(u64::to_be_bytes).concat());
        ask.extend([0_u32, 0, 9, 50].map(u32::to_be_bytes).concat());
        ask.extend(port.to_be_bytes());
        let len = exchange(&socket, &ask, &mut packet).await?;
        ensure!(len >= 20 && packet[3] == 1, "no answer to an announce");
        answered += 1;
    }
    Ok(answered)
}

async fn exchange(socket: &UdpSocket, ask: &[u8], reply: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.send(ask).await?;
        if let Ok(len) = timeout(PATIENCE, socket.recv(reply)).await {
            return len;
        }
    }
}

async fn ask_http(addr: SocketAddr, mut peers: Peers, end: Instant) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut reply = Vec::with_capacity(4096);
    let mut answered = 0;
    while Instant::now() < end {
        let (info_hash, port) = peers.next();
        let info_hash: String = info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
        let ask = format!(
            "GET /announce?info_hash={info_hash}&peer_id=xxxxxxxxxxxxxxxxxxxx&port={port}&uploaded=0\
             &downloaded=0&left=1&compact=1&numwant=50 HTTP/1.1\r\nHost: {addr}\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await?;
        reply.clear();
        while !is_whole(&reply)? {
            ensure!(stream.read_buf(&mut reply).await? > 0, "the tracker hung up");
        }
        answered += 1;
    }
    Ok(answered)
}

/// Whether this is all of a response.
fn is_whole(reply: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = reply.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let text = std::str::from_utf8(&reply[..head])?.to_ascii_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "refused: {text}");
    let len = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let len: usize = len.context("no content-length")?.trim().parse()?;
    ensure!(!reply[head..].windows(7).any(|seven| seven == b"failure"), "an announce failed");
    Ok(reply.len() == head + 4 + len)
}
