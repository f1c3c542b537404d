//! The program as its user sees it: real mounts of torrents that a real seed serves on loopback.
//!
//! Invariant: every process, mount and directory ends with the test that made it, also when that fails.
//! Not here: other clients (`tests/interop`), the filesystem without a swarm (`tests/fuse*.rs`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod complete;
mod content;
mod ends;
mod failures;
mod magnet;
mod model;
mod options;
mod players;
mod pressure;
mod program;
mod relay;
mod restart;
mod stage;
mod tools;
mod why;
