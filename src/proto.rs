//! The pure heart: decides, and knows no clock, no entropy, no IO and no threads.

pub mod bitfield;
pub mod geometry;
pub mod metainfo;
pub mod units;
pub mod wire;
