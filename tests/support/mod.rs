//! What the integration tests share.

#![allow(dead_code, unreachable_pub)]

pub mod content;
pub mod fake;
pub mod mount;
pub mod script;
pub mod sim;
pub(crate) mod replay;
pub(crate) mod script;
pub(crate) mod sim;
