//! The tokio side: carries bytes and time into [`crate::proto`], and decides nothing.

pub mod budget;
pub mod check;
pub mod chunks;
pub mod connection;
pub mod content;
pub mod dial;
pub mod handshake;
pub mod have_map;
pub mod listen;
pub mod message;
pub mod network;
pub mod outbox;
pub mod pool;
pub mod state;
pub mod store;
pub mod tracker;
pub mod workers;
