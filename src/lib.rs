//! btfs streams torrents as files.

pub mod cli;
pub mod engine;
pub mod fs;
pub mod proto;
