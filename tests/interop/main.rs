//! Swarms with real peers of other projects: they seed to our mount, download from our seed, and meet us at
//! their trackers and ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/content.rs"]
#[allow(dead_code, unreachable_pub)]
mod content;
mod dht;
mod finding;
#[path = "../support/lan.rs"]
mod lan;
mod magnets;
#[path = "../support/peers.rs"]
mod peers;
mod stage;
mod torrents;
mod trackers;
mod trading;
mod ways;
