//! The tokio side: carries bytes and time into [`crate::proto`], and decides nothing.

pub mod author;
pub mod budget;
pub mod check;
pub mod chunks;
pub mod clock;
pub mod connection;
pub mod content;
pub mod dial;
pub mod handle;
pub mod handshake;
pub mod have_map;
pub mod home;
pub mod listen;
pub mod message;
pub mod network;
pub mod node;
pub mod outbox;
pub mod pool;
pub mod resources;
pub mod state;
pub mod store;
pub mod throttle;
pub mod torrent;
pub mod tracker;
pub mod tracker_server;
pub mod workers;
