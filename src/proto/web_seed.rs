//! Web seeds (BEP 19): where a torrent's bytes are on a web server, and which of them to ask for at once.
//!
//! To a swarm a web seed is a peer like any other, dialled at an address that no peer can have.
//!
//! Not here: HTTP ([`crate::engine::web_seed`]). A file whose name had to be changed to be shown is sought by the new
//! name.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::geometry::Geometry;
use super::metainfo::Metainfo;
use super::units::FileIndex;
use super::wire::message::Request;

/// Blocks that are asked for at once: 1 MiB.
const MAX_RUN: usize = 64;

/// The prefix of addresses where everything is discarded (RFC 6666), so that no peer has one.
const NOWHERE: [u16; 4] = [0x100, 0, 0, 0];

/// What stands for itself in a part of a path (RFC 3986).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address that stands for the torrent's web seed with this index.
pub fn address(index: u16) -> SocketAddr {
    let [a, b, c, d] = NOWHERE;
    SocketAddr::new(Ipv6Addr::new(a, b, c, d, 0, 0, 0, index).into(), 80)
}

/// The index of the web seed that the address stands for.
pub fn index(addr: SocketAddr) -> Option<u16> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let [a, b, c, d, 0, 0, 0, index] = ip.segments() else { return None };
    ([a, b, c, d] == NOWHERE && addr.port() == 80).then_some(index)
}

/// Where a file is below a web seed's URL; `None` when the URL cannot lead to several files.
pub fn url_of(base: &str, torrent: &Metainfo, file: FileIndex) -> Option<String> {
    let part = |name: &str| utf8_percent_encode(name, RESERVED).to_string();
    let is_directory = base.ends_with('/');
    if torrent.single_file {
        let name = if is_directory { part(&torrent.name) } else { String::new() };
        return Some(format!("{base}{name}"));
    }
    if base.contains(['?', '#']) {
        return None;
    }
    let path: Vec<_> = torrent.file(file)?.path.iter().map(|name| part(name)).collect();
    let slash = if is_directory { "" } else { "/" };
    Some(format!("{base}{slash}{}/{}", part(&torrent.name), path.join("/")))
}

/// Blocks without a gap between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The bytes of the torrent that they fill.
    pub range: Range<u64>,
    /// The blocks, in order, at least one.
    pub blocks: VecDeque<Request>,
}

/// What was asked of a web seed and has not been sent for, oldest first.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Request>);

impl Queue {
    /// One more is wanted.
    pub fn push(&mut self, request: Request) {
        self.0.push_back(request);
    }

    /// Takes a request back; false when it has been sent for.
    pub fn cancel(&mut self, request: Request) -> bool {
        let at = self.0.iter().position(|queued| *queued == request);
        at.is_some_and(|at| self.0.remove(at).is_some())
    }

    /// Nothing more is wanted of what was queued.
    pub fn take_all(&mut self) -> impl Iterator<Item = Request> {
        self.0.drain(..)
    }

    /// The oldest request, with all those that follow on it, up to 1 MiB.
    pub fn take_run(&mut self, geometry: &Geometry) -> Option<Run> {
        let first = self.0.pop_front()?;
        let start = offset(&first, geometry);
        let mut run = Run { range: start..start + u64::from(first.len), blocks: [first].into() };
        while run.blocks.len() < MAX_RUN
            && let Some(at) = self.0.iter().position(|next| offset(next, geometry) == run.range.end)
            && let Some(next) = self.0.remove(at)
        {
            run.range.end += u64::from(next.len);
            run.blocks.push_back(next);
        }
        Some(run)
    }
}

/// Where the request's bytes begin in the torrent.
fn offset(request: &Request, geometry: &Geometry) -> u64 {
    u64::from(request.piece) * u64::from(geometry.nominal_piece_len()) + u64::from(request.begin)
}
