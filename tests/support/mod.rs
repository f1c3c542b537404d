//! What the integration tests share.

#![allow(dead_code, unreachable_pub)]

pub mod content;
pub mod fake;
pub mod mount;
pub mod replay;
pub mod script;
pub mod sim;
