//! The tokio side: carries bytes and time into [`crate::proto`], and decides nothing.

pub mod message;
