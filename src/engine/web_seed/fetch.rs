//! One run of blocks from a web server, file by file.
//!
//! Invariant: no more is read of an answer than was asked for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::engine::message::FromPeer;
use crate::engine::network::Network;
use crate::engine::pool::Block;
use crate::engine::tracker::{Dialer, FetchError};
use crate::proto::announce::udp::Family;
use crate::proto::layout::{Layout, Source};
use crate::proto::metainfo::Metainfo;
use crate::proto::units::{FileIndex, PeerKey};
use crate::proto::web_seed::{Run, url_of};
use crate::proto::wire::decoder::{BlockBuffer, BlockBuffers};
use crate::proto::wire::message::{Message, Request};

/// Time that a server may take for one run, our own waits left out: 17 KiB/s for a whole one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a run did not come.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("its URL leads to no file")]
    Url,
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("connection lost: {0}")]
    Lost(#[from] reqwest::Error),
    #[error("the server answers a request for bytes with HTTP status {0}")]
    Status(StatusCode),
    #[error("the server lacks the file, or has another (HTTP status {status})")]
    Missing { file: FileIndex, status: StatusCode },
    #[error("the server knows no ranges")]
    NoRanges,
    #[error("the server sends other bytes than were asked for")]
    OtherRange,
    #[error("the server sends less than was asked for")]
    Short,
    #[error("the server sends more than was asked for")]
    Long,
    #[error("the server is too slow")]
    Slow,
    #[error("the torrent is gone")]
    Gone,
}

impl Failure {
    /// Whether the next attempt would fail too.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Url | Self::NoRanges | Self::OtherRange | Self::Long | Self::Gone => true,
            Self::Missing { .. } => true,
            Self::Fetch(error) => error.is_final(),
            Self::Lost(_) | Self::Status(_) | Self::Short | Self::Slow => false,
        }
    }
}

/// How a run ended.
pub(super) struct Fetched {
    /// The family over which the server was reached.
    pub(super) family: Family,
    /// Blocks that did not come.
    pub(super) left: VecDeque<Request>,
    pub(super) outcome: Result<(), Failure>,
}

/// What a run needs; each has its own.
#[derive(Clone)]
pub(super) struct Fetch {
    pub(super) key: PeerKey,
    pub(super) url: Arc<str>,
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) layout: Arc<Layout>,
    /// Over which the server was reached last.
    pub(super) family: Family,
    pub(super) network: Arc<Network>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) to_torrent: mpsc::Sender<FromPeer>,
}

impl Fetch {
    pub(super) async fn carry(mut self, run: Run) -> Fetched {
        let mut blocks = Blocks { left: run.blocks, block: None };
        let outcome = self.fetch(run.range, &mut blocks).await;
        Fetched { family: self.family, left: blocks.left, outcome }
    }

    async fn fetch(&mut self, range: Range<u64>, blocks: &mut Blocks) -> Result<(), Failure> {
        let mut clock = Clock { left: PATIENCE };
        let layout = self.layout.clone();
        for segment in layout.segments(range) {
            match segment.source {
                Source::Zeros => {
                    // A run is 1 MiB at most.
                    let zeros = vec![0; segment.len as usize];
                    self.hand_over(&zeros, blocks).await?;
                }
                Source::File { file, offset } => {
                    let wanted = offset..offset + segment.len;
                    let body = clock.run(self.open(file, wanted.clone())).await??;
                    self.read(body, segment.len, &mut clock, blocks).await?;
                }
            }
        }
        Ok(())
    }

    /// An answer whose body begins with the wanted bytes.
    async fn open(&mut self, file: FileIndex, wanted: Range<u64>) -> Result<Body, Failure> {
        let url = url_of(&self.url, &self.metainfo, file).and_then(|url| Url::parse(&url).ok());
        let url = url.ok_or(Failure::Url)?;
        let response = match self.dialer.range(url.clone(), self.family, wanted.clone()).await {
            Err(error) if error.is_of_family() => {
                self.family = match self.family {
                    Family::V4 => Family::V6,
                    Family::V6 => Family::V4,
                };
                self.dialer.range(url, self.family, wanted.clone()).await?
            }
            response => response?,
        };
        let length = self.metainfo.file(file).map_or(0, |file| file.length);
        match response.status() {
            StatusCode::PARTIAL_CONTENT => match range_of(&response) {
                Some((_, Some(total))) if total != length => {
                    Err(Failure::Missing { file, status: response.status() })
                }
                Some((range, _)) if range == wanted => Ok(Body { response, is_whole: false }),
                _ => Err(Failure::OtherRange),
            },
            StatusCode::OK if wanted.start == 0 => {
                Ok(Body { response, is_whole: wanted.end < length })
            }
            StatusCode::OK => Err(Failure::NoRanges),
            status @ (StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::FORBIDDEN
            | StatusCode::RANGE_NOT_SATISFIABLE) => Err(Failure::Missing { file, status }),
            status => Err(Failure::Status(status)),
        }
    }

    async fn read(
        &self,
        mut body: Body,
        len: u64,
        clock: &mut Clock,
        blocks: &mut Blocks,
    ) -> Result<(), Failure> {
        let mut tap = self.network.down.tap();
        let mut left = len;
        while let Some(mut chunk) = clock.run(body.response.chunk()).await?? {
            if chunk.len() as u64 > left {
                if !body.is_whole {
                    return Err(Failure::Long);
                }
                chunk.truncate(left as usize);
            }
            poll_fn(|cx| tap.poll_take(chunk.len(), cx)).await;
            left -= chunk.len() as u64;
            self.hand_over(&chunk, blocks).await?;
            if left == 0 && body.is_whole {
                return Ok(());
            }
        }
        if left == 0 { Ok(()) } else { Err(Failure::Short) }
    }

    /// Cuts bytes into blocks, and gives whole ones to the torrent.
    async fn hand_over(&self, mut bytes: &[u8], blocks: &mut Blocks) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(next) = blocks.left.front().copied() else { return Err(Failure::Long) };
            let len = next.len as usize;
            let take = || self.network.pool.clone().take(len);
            let mut block = blocks.block.take().unwrap_or_else(take);
            let lacks = len - block.as_ref().len();
            let (now, later) = bytes.split_at(lacks.min(bytes.len()));
            block.put(now);
            bytes = later;
            if block.as_ref().len() < len {
                blocks.block = Some(block);
                continue;
            }
            let data = Bytes::from_owner(block);
            let piece = Message::Piece { piece: next.piece, begin: next.begin, data };
            let batch = FromPeer::Messages { key: self.key, batch: vec![piece] };
            self.to_torrent.send(batch).await.map_err(|_| Failure::Gone)?;
            blocks.left.pop_front();
        }
        Ok(())
    }
}

/// An answer to be read.
struct Body {
    response: Response,
    /// It holds the file to its end, where only the beginning was asked for.
    is_whole: bool,
}

/// The blocks of a run that have not come, and what there is of the first of them.
struct Blocks {
    left: VecDeque<Request>,
    block: Option<Block>,
}

/// The time that a server has left.
struct Clock {
    left: Duration,
}

impl Clock {
    async fn run<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Failure> {
        let begun = Instant::now();
        let done = timeout(self.left, awaited).await.map_err(|_| Failure::Slow);
        self.left = self.left.saturating_sub(begun.elapsed());
        done
    }
}

/// The range that an answer says to hold, and the length of the whole if it says that.
fn range_of(response: &Response) -> Option<(Range<u64>, Option<u64>)> {
    let header = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    Some((range, total.parse().ok()))
}
