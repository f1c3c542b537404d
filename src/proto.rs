//! The pure heart: decides, and knows no clock, no entropy, no IO and no threads.

pub mod announce;
pub mod assembly;
pub mod author;
pub mod bencode;
pub mod bitfield;
pub mod blame;
pub mod cache;
pub mod candidates;
pub mod choker;
pub mod config;
pub mod geometry;
pub mod layout;
pub mod metainfo;
pub mod names;
pub mod partial;
pub mod peer;
pub mod picker;
pub mod rarity;
pub mod rate;
pub mod readahead;
pub mod registry;
pub mod swarm;
pub mod tree;
pub mod units;
pub mod upload;
pub mod wire;
