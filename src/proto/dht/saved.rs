//! What a node keeps between two runs, as bytes: its id and its table, for each family.
//!
//! Invariant: what is read is bounded and made of addresses that can be sent to, whoever wrote it.

use serde::Serialize;
use serde_bytes::ByteBuf;

use super::contact::{Contact, put_nodes, read_nodes};
use super::node_id::NodeId;
use crate::proto::announce::udp::Family;
use crate::proto::bencode::{BencodeError, Dict, Keys, Limits, encode};
use crate::proto::blocklist::Blocklist;

/// Longest form that is read.
pub const MAX_LEN: usize = 64 * 1024;

/// Nodes that are kept of a family.
const MAX_NODES: usize = 500;

const LIMITS: Limits = Limits { depth: 2, tokens: 16, keys: Keys::Text };

/// Of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Of the node at IPv4 addresses.
    pub v4: Option<SavedTable>,
    /// Of the node at IPv6 addresses.
    pub v6: Option<SavedTable>,
}

/// Of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedTable {
    /// The node's own id.
    pub id: NodeId,
    /// Whom it knew.
    pub nodes: Vec<Contact>,
}

impl SavedTable {
    /// The same without nodes at these addresses.
    #[must_use]
    pub fn without(mut self, blocklist: &Blocklist) -> Self {
        self.nodes.retain(|node| !blocklist.contains(node.addr.ip()));
        self
    }
}

#[derive(Serialize)]
struct Form {
    id: Option<ByteBuf>,
    id6: Option<ByteBuf>,
    nodes: Option<ByteBuf>,
    nodes6: Option<ByteBuf>,
}

impl Saved {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let id = |table: &Option<SavedTable>| table.as_ref().map(|table| ByteBuf::from(table.id.0));
        let nodes = |table: &Option<SavedTable>, family| {
            table.as_ref().map(|table| {
                let most = table.nodes.len().min(MAX_NODES);
                ByteBuf::from(put_nodes(&table.nodes[..most], family))
            })
        };
        let form = Form {
            id: id(&self.v4),
            id6: id(&self.v6),
            nodes: nodes(&self.v4, Family::V4),
            nodes6: nodes(&self.v6, Family::V6),
        };
        encode(&form).expect("strings have a form in bencode")
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are not of this form. A family that is missing or makes no sense is left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, BencodeError> {
        let dict = Dict::scan(&bytes[..bytes.len().min(MAX_LEN)], &LIMITS)?;
        let table = |id, nodes, family| {
            let id = NodeId(dict.string(id)?.try_into().ok()?);
            let nodes = read_nodes(dict.string(nodes)?, family).take(MAX_NODES).collect();
            Some(SavedTable { id, nodes })
        };
        Ok(Self { v4: table("id", "nodes", Family::V4), v6: table("id6", "nodes6", Family::V6) })
    }
}
