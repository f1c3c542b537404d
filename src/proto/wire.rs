//! The peer wire protocol as values and bytes.

pub mod codec;
pub mod decoder;
pub mod extension;
pub mod holepunch;
pub mod message;
pub mod pex;
