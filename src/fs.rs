//! The FUSE side: translates what the kernel asks, and never decides what to fetch.
//!
//! Invariant: nothing here waits for the network; a read whose bytes are not here is parked, and the
//! thread that took it goes on.
//!
//! ```text
//! kernel ─▶ adapter ─▶ ops ─▶ tree            names, sizes, listings
//!              │        └───▶ source          bytes that are here
//!              ├─▶ parked ──▶ source          bytes to wait for
//!              └─▶ passthrough                what the kernel reads without asking
//! session: mounts, watches the mount, ends it
//! ```

pub mod adapter;
pub mod attach;
pub mod detach;
pub mod errno;
pub mod mountinfo;
pub mod ops;
pub mod parked;
pub mod passthrough;
pub mod session;
pub mod source;
pub mod xattr;
