//! What the integration tests share.

#![allow(dead_code, unreachable_pub)]

pub mod agenda;
pub mod congestion;
pub mod content;
pub mod distribution;
pub mod fake;
pub mod line;
pub mod mount;
pub mod replay;
pub mod script;
pub mod sim;
