//! A web server of a torrent's files, with good manners or bad ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use btfs::proto::metainfo::{FileKind, Metainfo};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a server differs from a good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It does not.
    Good,
    /// It sends the whole file, whatever was asked for.
    Whole,
    /// It answers with this status.
    Status(u16),
    /// It answers with 404 for this path alone.
    Lacks(String),
    /// It says that it sends other bytes.
    OtherRange,
    /// It says that the file has another length.
    OtherTotal,
    /// It does not say what it sends.
    NoRangeTold,
    /// It sends without end.
    Endless,
    /// It sends less than it should, and ends in order.
    Short,
    /// It breaks off in the midst.
    Breaks,
    /// It sends one byte a second.
    Trickles,
    /// It sends as many other bytes.
    Lies,
    /// It redirects to itself.
    RedirectsRound,
    /// It redirects there.
    RedirectsTo(String),
}

/// The server; it ends with this.
pub(crate) struct Site {
    addr: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Site {
    /// A server of these bytes, which are the torrent's.
    pub(crate) async fn of(torrent: &Metainfo, bytes: &[u8], manners: Manners) -> Self {
        let mut files = BTreeMap::new();
        let regular = |kind: &FileKind| matches!(kind, FileKind::Regular { .. });
        for file in torrent.files.iter().filter(|file| regular(&file.kind)) {
            let below = if torrent.single_file {
                String::new()
            } else {
                format!("/{}", file.path.join("/"))
            };
            let range = file.offset as usize..(file.offset + file.length) as usize;
            files.insert(format!("/{}{below}", torrent.name), bytes[range].to_vec());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(listener, Arc::new((files, manners)), seen.clone()));
        Self { addr, seen, task }
    }

    /// Its root, without a slash.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

type Shelf = Arc<(BTreeMap<String, Vec<u8>>, Manners)>;

async fn accept(listener: TcpListener, shelf: Shelf, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let (shelf, seen) = (shelf.clone(), seen.clone());
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            while let Some((path, range)) = request(&mut stream).await {
                seen.requests.fetch_add(1, Ordering::Relaxed);
                if answer(stream.get_mut(), &shelf, &path, range).await.is_none() {
                    return;
                }
            }
        });
    }
}

/// The path of the next request, and the range that it asks for.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Option<Range<usize>>)> {
    let (mut path, mut range) = (None, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(target) = line.strip_prefix("get ") {
            path = target.split(' ').next().map(str::to_owned);
        } else if let Some((first, last)) =
            line.strip_prefix("range: bytes=").and_then(|r| r.split_once('-'))
        {
            range = Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1);
        } else if line.is_empty() {
            let path =
                percent_encoding::percent_decode_str(&path?).decode_utf8().ok()?.into_owned();
            return Some((path, range));
        }
    }
}

/// Answers; `None` when the connection ends with that.
async fn answer(
    stream: &mut TcpStream,
    shelf: &Shelf,
    path: &str,
    range: Option<Range<usize>>,
) -> Option<()> {
    let (files, manners) = &**shelf;
    let empty =
        |status: u16, more: &str| format!("HTTP/1.1 {status} x\r\n{more}Content-Length: 0\r\n\r\n");
    let lacks = |path: &str| matches!(manners, Manners::Lacks(lacked) if lacked == path);
    let head = match manners {
        Manners::Status(status) => Some(empty(*status, "")),
        Manners::RedirectsRound => Some(empty(302, &format!("Location: {path}\r\n"))),
        Manners::RedirectsTo(url) => Some(empty(302, &format!("Location: {url}\r\n"))),
        _ if lacks(path) => Some(empty(404, "")),
        _ => None,
    };
    let Some(file) = files.get(path).filter(|_| head.is_none()) else {
        let head = head.unwrap_or_else(|| empty(404, ""));
        return stream.write_all(head.as_bytes()).await.ok();
    };
    let range = range.unwrap_or(0..file.len());
    if range.end > file.len() || *manners == Manners::Whole {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        return stream.write_all(file).await.ok();
    }
    part(stream, file, range, manners).await
}

/// Answers with a part of a file.
async fn part(
    stream: &mut TcpStream,
    file: &[u8],
    range: Range<usize>,
    manners: &Manners,
) -> Option<()> {
    let (mut told, mut total, mut body) = (range.clone(), file.len(), file[range.clone()].to_vec());
    match manners {
        Manners::OtherRange => told = 0..range.len(),
        Manners::OtherTotal => total += 1,
        Manners::Lies => body.iter_mut().for_each(|byte| *byte ^= 1),
        Manners::Short => body.truncate(100),
        _ => {}
    }
    let length = match manners {
        Manners::Endless => "Connection: close\r\n".to_owned(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let told = match manners {
        Manners::NoRangeTold => String::new(),
        _ => format!("Content-Range: bytes {}-{}/{total}\r\n", told.start, told.end - 1),
    };
    let head = format!("HTTP/1.1 206 Partial Content\r\n{told}{length}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    match manners {
        Manners::Breaks => {
            stream.write_all(&body[..body.len() / 2]).await.ok()?;
            None
        }
        Manners::Endless => loop {
            stream.write_all(&[0; 4096]).await.ok()?;
        },
        Manners::Trickles => {
            for byte in &body {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Some(())
        }
        _ => stream.write_all(&body).await.ok(),
    }
}
