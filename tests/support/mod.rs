//! What the integration tests share.

#![allow(dead_code, unreachable_pub)]

pub mod content;
pub mod fake;
pub mod mount;
//! What integration tests share.
#![allow(dead_code)]

pub(crate) mod script;
pub(crate) mod sim;
