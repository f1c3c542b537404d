//! What options promise, seen through a mount.
