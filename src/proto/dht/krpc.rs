//! What nodes say to each other (BEP 5, BEP 32, BEP 43), read from and written as datagrams.
//!
//! Invariant: reading takes time and memory in proportion to a datagram of [`MAX_DATAGRAM`] bytes, whatever is in
//! it, and every list that comes out is bounded.
//!
//! Not here: what a message does ([`super`]).

use std::net::SocketAddr;

use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes};

use super::contact::{Contact, put_addr, put_nodes, read_addr, read_nodes};
use super::node_id::NodeId;
use crate::proto::announce::udp::Family;
use crate::proto::bencode::{BencodeError, Dict, Keys, Limits, encode};
use crate::proto::units::InfoHash;

/// Longest datagram that is read: others send what fits into a packet.
pub const MAX_DATAGRAM: usize = 2048;

/// Nodes that are taken from one reply, of each family.
pub const MAX_NODES: usize = 16;

/// Peers that are taken from one reply.
pub const MAX_VALUES: usize = 100;

/// Longest transaction id that is echoed, and longest token that is kept.
const MAX_OPAQUE: usize = 64;

/// What a message may be made of: the deepest that others send has five levels, the longest a hundred peers.
const LIMITS: Limits = Limits { depth: 8, tokens: 512, keys: Keys::Text };

/// What we call ourselves (BEP 20's letters and a version).
const VERSION: &[u8; 4] = b"bf\x00\x01";

/// A query that we do not know.
const METHOD_UNKNOWN: i64 = 204;

/// A query that lacks something, or has a wrong token.
const PROTOCOL_ERROR: i64 = 203;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Pairs a reply with its query; the asker's choice.
    pub transaction: Vec<u8>,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A question.
    Query {
        /// Who asks.
        id: NodeId,
        /// What.
        query: Query,
        /// BEP 43: the asker cannot be asked, and is no node for a table.
        read_only: bool,
    },
    /// An answer.
    Reply {
        /// Who answers.
        id: NodeId,
        /// What.
        reply: Reply,
        /// BEP 42: where the answering node sees the asker.
        seen_at: Option<SocketAddr>,
    },
    /// A refusal.
    Error(Refusal),
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Are you there?
    Ping,
    /// Which nodes do you know near this id?
    FindNode {
        /// The id.
        target: NodeId,
        /// Nodes of which family.
        want: Want,
    },
    /// Which peers of this torrent, or nodes near it, do you know?
    GetPeers {
        /// The torrent.
        info_hash: InfoHash,
        /// Nodes of which family.
        want: Want,
    },
    /// I am a peer of this torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHash,
        /// Where the peer takes connections; `None`: at the port that this came from.
        port: Option<u16>,
        /// From an earlier reply to `get_peers`.
        token: Vec<u8>,
    },
    /// One that is newer than we are. If it has a target it can be led to nodes that know better.
    Unknown {
        /// The id that it is about.
        target: Option<NodeId>,
    },
}

/// Families of nodes that an asker wants (BEP 32); neither stands for the family in which it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Nodes with IPv4 addresses.
    pub v4: bool,
    /// Nodes with IPv6 addresses.
    pub v6: bool,
}

/// An answer. An empty list and no list are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Nodes of both families, at most [`MAX_NODES`] of each.
    pub nodes: Vec<Contact>,
    /// Peers, at most [`MAX_VALUES`].
    pub peers: Vec<SocketAddr>,
    /// To be shown when announcing.
    pub token: Option<Vec<u8>>,
}

/// Why a query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was understood and not right.
    Protocol,
    /// It was not understood.
    MethodUnknown,
    /// Any other.
    Other(i64),
}

/// Why a datagram is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KrpcError {
    /// It is longer than any that is meant well.
    #[error("{0} bytes are more than a message may have")]
    TooLong(usize),
    /// It is not bencode.
    #[error(transparent)]
    Bencode(#[from] BencodeError),
    /// It lacks what every such message has, or has it in the wrong form.
    #[error("the message's `{0}` is missing or wrong")]
    Field(&'static str),
}

impl Message {
    /// Reads a datagram.
    ///
    /// # Errors
    /// When it is no message of the DHT.
    pub fn parse(datagram: &[u8]) -> Result<Self, KrpcError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(KrpcError::TooLong(datagram.len()));
        }
        let outer = Dict::scan(datagram, &LIMITS)?;
        let transaction = opaque(&outer, "t").ok_or(KrpcError::Field("t"))?;
        let body = match outer.string("y") {
            Some(b"q") => read_query(&outer)?,
            Some(b"r") => read_reply(&outer)?,
            Some(b"e") => Body::Error(read_refusal(&outer)),
            _ => return Err(KrpcError::Field("y")),
        };
        Ok(Self { transaction, body })
    }

    /// Writes a datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut form =
            Form { t: Bytes::new(&self.transaction), v: Bytes::new(VERSION), ..Form::default() };
        match &self.body {
            Body::Query { id, query, read_only } => {
                form.y = "q";
                form.q = Some(query.name());
                form.ro = read_only.then_some(1);
                form.a = Some(Arguments::of(*id, query));
            }
            Body::Reply { id, reply, seen_at } => {
                form.y = "r";
                form.ip = seen_at.as_ref().map(|addr| ByteBuf::from(put_addr(addr)));
                form.r = Some(Answer::of(*id, reply));
            }
            Body::Error(refusal) => {
                form.y = "e";
                form.e = Some(refusal.form());
            }
        }
        encode(&form).expect("strings, numbers and lists of them have a form in bencode")
    }
}

impl Query {
    fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::FindNode { .. } => "find_node",
            Self::GetPeers { .. } => "get_peers",
            Self::AnnouncePeer { .. } => "announce_peer",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl Refusal {
    const fn form(self) -> (i64, &'static str) {
        match self {
            Self::Protocol => (PROTOCOL_ERROR, "bad arguments or token"),
            Self::MethodUnknown => (METHOD_UNKNOWN, "unknown method"),
            Self::Other(code) => (code, "refused"),
        }
    }
}

/// A message as it stands in the datagram.
#[derive(Default, Serialize)]
struct Form<'a> {
    a: Option<Arguments<'a>>,
    e: Option<(i64, &'static str)>,
    ip: Option<ByteBuf>,
    q: Option<&'static str>,
    r: Option<Answer<'a>>,
    ro: Option<u8>,
    t: &'a Bytes,
    v: &'a Bytes,
    y: &'static str,
}

/// `a` of a query.
#[derive(Default, Serialize)]
struct Arguments<'a> {
    id: ByteBuf,
    implied_port: Option<u8>,
    info_hash: Option<ByteBuf>,
    port: Option<u16>,
    target: Option<ByteBuf>,
    token: Option<&'a Bytes>,
    want: Option<Vec<&'static str>>,
}

impl<'a> Arguments<'a> {
    fn of(id: NodeId, query: &'a Query) -> Self {
        let mut form = Self { id: ByteBuf::from(id.0), ..Self::default() };
        match query {
            Query::Ping => {}
            Query::FindNode { target, want } => {
                form.target = Some(ByteBuf::from(target.0));
                form.want = want.form();
            }
            Query::GetPeers { info_hash, want } => {
                form.info_hash = Some(ByteBuf::from(info_hash.0));
                form.want = want.form();
            }
            Query::AnnouncePeer { info_hash, port, token } => {
                form.info_hash = Some(ByteBuf::from(info_hash.0));
                form.implied_port = port.is_none().then_some(1);
                form.port = Some(port.unwrap_or_default());
                form.token = Some(Bytes::new(token));
            }
            Query::Unknown { target } => form.target = target.map(|id| ByteBuf::from(id.0)),
        }
        form
    }
}

impl Want {
    fn form(self) -> Option<Vec<&'static str>> {
        let names = [(self.v4, "n4"), (self.v6, "n6")];
        let names: Vec<_> =
            names.into_iter().filter_map(|(want, name)| want.then_some(name)).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// `r` of a reply.
#[derive(Default, Serialize)]
struct Answer<'a> {
    id: ByteBuf,
    nodes: Option<ByteBuf>,
    nodes6: Option<ByteBuf>,
    token: Option<&'a Bytes>,
    values: Option<Vec<ByteBuf>>,
}

impl<'a> Answer<'a> {
    fn of(id: NodeId, reply: &'a Reply) -> Self {
        let nodes = |family| {
            Some(put_nodes(&reply.nodes, family)).filter(|list| !list.is_empty()).map(ByteBuf::from)
        };
        let values: Vec<_> = reply.peers.iter().map(|addr| ByteBuf::from(put_addr(addr))).collect();
        Self {
            id: ByteBuf::from(id.0),
            nodes: nodes(Family::V4),
            nodes6: nodes(Family::V6),
            token: reply.token.as_deref().map(Bytes::new),
            values: (!values.is_empty()).then_some(values),
        }
    }
}

fn read_query(outer: &Dict<'_>) -> Result<Body, KrpcError> {
    let args = inner(outer, "a")?;
    let id = id(&args, "id").ok_or(KrpcError::Field("id"))?;
    let info_hash = || args_hash(&args).ok_or(KrpcError::Field("info_hash"));
    let query = match outer.string("q") {
        Some(b"ping") => Query::Ping,
        Some(b"find_node") => Query::FindNode {
            target: self::id(&args, "target").ok_or(KrpcError::Field("target"))?,
            want: read_want(&args),
        },
        Some(b"get_peers") => Query::GetPeers { info_hash: info_hash()?, want: read_want(&args) },
        Some(b"announce_peer") => Query::AnnouncePeer {
            info_hash: info_hash()?,
            port: read_port(&args)?,
            token: opaque(&args, "token").ok_or(KrpcError::Field("token"))?,
        },
        Some(_) => Query::Unknown {
            target: self::id(&args, "target").or_else(|| args_hash(&args).map(NodeId::from)),
        },
        None => return Err(KrpcError::Field("q")),
    };
    let read_only = number(outer, "ro") == Some(1);
    Ok(Body::Query { id, query, read_only })
}

fn read_reply(outer: &Dict<'_>) -> Result<Body, KrpcError> {
    let answer = inner(outer, "r")?;
    let id = id(&answer, "id").ok_or(KrpcError::Field("id"))?;
    let list =
        |key, family| read_nodes(answer.string(key).unwrap_or_default(), family).take(MAX_NODES);
    let values: Vec<ByteBuf> = answer.read("values").ok().flatten().unwrap_or_default();
    let reply = Reply {
        nodes: list("nodes", Family::V4).chain(list("nodes6", Family::V6)).collect(),
        peers: values.iter().filter_map(|value| read_addr(value)).take(MAX_VALUES).collect(),
        token: opaque(&answer, "token"),
    };
    let seen_at = outer.string("ip").and_then(read_addr);
    Ok(Body::Reply { id, reply, seen_at })
}

fn read_refusal(outer: &Dict<'_>) -> Refusal {
    let code = outer.read::<(i64, ByteBuf)>("e").ok().flatten().map(|(code, _)| code);
    match code {
        Some(PROTOCOL_ERROR) => Refusal::Protocol,
        Some(METHOD_UNKNOWN) => Refusal::MethodUnknown,
        code => Refusal::Other(code.unwrap_or_default()),
    }
}

fn read_port(args: &Dict<'_>) -> Result<Option<u16>, KrpcError> {
    if number(args, "implied_port").is_some_and(|implied| implied != 0) {
        return Ok(None);
    }
    let port = number(args, "port").and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port != 0).map(Some).ok_or(KrpcError::Field("port"))
}

fn read_want(args: &Dict<'_>) -> Want {
    let names: Vec<ByteBuf> = args.read("want").ok().flatten().unwrap_or_default();
    let wants = |family: &[u8]| names.iter().any(|name| name.as_slice() == family);
    Want { v4: wants(b"n4"), v6: wants(b"n6") }
}

fn inner<'a>(outer: &Dict<'a>, key: &'static str) -> Result<Dict<'a>, KrpcError> {
    let raw = outer.raw(key).ok_or(KrpcError::Field(key))?;
    Dict::scan(raw, &LIMITS).map_err(|_| KrpcError::Field(key))
}

fn id(dict: &Dict<'_>, key: &str) -> Option<NodeId> {
    dict.string(key)?.try_into().ok().map(NodeId)
}

fn args_hash(args: &Dict<'_>) -> Option<InfoHash> {
    args.string("info_hash")?.try_into().ok().map(InfoHash)
}

fn number(dict: &Dict<'_>, key: &str) -> Option<i64> {
    dict.read(key).ok().flatten()
}

fn opaque(dict: &Dict<'_>, key: &str) -> Option<Vec<u8>> {
    dict.string(key).filter(|bytes| (1..=MAX_OPAQUE).contains(&bytes.len())).map(<[u8]>::to_vec)
}
