//! A node of the DHT (BEP 5, 32, 42, 43).

pub mod contact;
pub mod krpc;
pub mod node_id;
