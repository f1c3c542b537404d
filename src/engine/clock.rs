//! The only place that reads time and draws chance for [`crate::proto`].

use std::time::Instant;

use rand::RngExt;

use crate::proto::units::PeerId;

/// What we call ourselves in peer ids (BEP 20): the client's letters and its version.
const PREFIX: &[u8; 8] = b"-bf0100-";

/// The time, on the clock that tokio's timers use, so that a paused test clock holds for both.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A seed for one torrent's chances.
pub fn seed() -> u64 {
    rand::rng().random()
}

/// A seed for chances that others must not guess.
pub fn secret() -> [u8; 32] {
    rand::rng().random()
}

/// A name for a node of the DHT.
pub fn node_id() -> [u8; 20] {
    rand::rng().random()
}

/// A name for one torrent's peers to know us by.
pub fn peer_id() -> PeerId {
    let mut id = [0; 20];
    id[..8].copy_from_slice(PREFIX);
    let mut rng = rand::rng();
    for byte in &mut id[8..] {
        *byte = rng.random_range(b'a'..=b'z');
    }
    PeerId(id)
}
