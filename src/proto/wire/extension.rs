//! Payloads of the extension protocol (BEP 10).
#![allow(missing_docs)]
use crate::proto::wire::message::Message;
pub const HANDSHAKE: u8 = 0;
pub const DONTHAVE: u8 = 7;
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    pub client: Option<String>,
    pub listen_port: Option<u16>,
    pub reqq: Option<u32>,
    pub your_ip: Option<std::net::IpAddr>,
    pub donthave: Option<u8>,
}
impl Handshake {
    pub fn ours() -> Self {
        Self::default()
    }
    pub fn to_message(&self) -> Message {
        Message::Extended { id: 0, payload: bytes::Bytes::new() }
    }
    pub fn parse(_b: &[u8]) -> Result<Self, ()> {
        Err(())
    }
}
pub fn donthave(id: u8, piece: u32) -> Message {
    Message::Extended { id, payload: piece.to_be_bytes().to_vec().into() }
}
pub fn parse_donthave(b: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(b.try_into().ok()?))
}
