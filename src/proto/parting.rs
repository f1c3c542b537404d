//! Why a connection is ended by us.

/// Why we part from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Parting {
    /// It is ourselves.
    #[error("the peer is this process itself")]
    Ourselves,
    /// It has a connection already.
    #[error("the peer is connected already")]
    Duplicate,
    /// There are too many.
    #[error("enough peers are connected")]
    Crowded,
    /// It was proven to lie.
    #[error("the peer's address is banned for false data")]
    Banned,
    /// It broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
    /// It said nothing for too long.
    #[error("the peer has been silent for too long")]
    Silent,
    /// It gave nothing, and others wait to be met.
    #[error("the peer is of no use, and others wait")]
    Useless,
    /// It was named by a tracker that a private torrent no longer uses (BEP 27).
    #[error("the peer is of another tracker than the one now used")]
    OtherTracker,
    /// Neither side wants anything of the other: both have all, or are partial seeds (BEP 21).
    #[error("neither side wants anything of the other")]
    BothSeeds,
}
