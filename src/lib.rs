//! btfs streams torrents as files: a read raises the priority of the pieces it needs in a picker that
//! otherwise runs rarest-first, above a swarm engine, a choker and a cache of its own.
//!
//! This page is the plan of the house. Each module's own page says what must always hold there.
//!
//! ```text
//! kernel ─ read ─▶ fs/      fuser. Translates; never waits, never decides what to fetch.
//!                   │ here: answered from the store     │ not yet: a ticket
//!                   ▼                                   ▼
//!                 engine/   tokio. Carries bytes and time. One task owns one torrent.
//!                   │ handle_*(…, now)   ▲ poll_*()
//!                   ▼                    │
//!                 proto/    pure. Decides. No clock, no chance, no sockets, no files, no threads.
//! cli/ the roof: parses, wires engine and fs together, prints.
//! ```
//!
//! # The law of imports
//!
//! `proto` imports neither of the others; `engine` and `fs` import `proto` and not each other; `cli` imports
//! all, and only [`cli::content_source`] and [`cli::mount`] name both wings. Rooms of one floor do not import
//! each other in circles. A test reads the sources and names whatever breaks this.
//!
//! # The way of a read
//!
//! [`fs::adapter`] takes it from the kernel; [`fs::ops`] finds the file and cuts the range at its end;
//! [`cli::content_source`] turns the file's range into the torrent's; [`engine::handle`] answers it at once if
//! [`engine::content`] has the bytes. If not, [`fs::parked`] keeps the kernel's reply, and the torrent's task
//! ([`engine::torrent`]) gives the read to its [`proto::swarm::Swarm`] as a ticket. There
//! [`proto::readahead`] says which pieces are wanted, [`proto::picker`] which blocks come next from which
//! peer. Blocks come back through [`engine::connection`]; a whole piece is hashed and stored by
//! [`engine::workers`]; the ticket is ready, and a worker hands the bytes to the kernel.
//!
//! A file that is here in full when it is opened is lent to the kernel ([`engine::loan`],
//! [`fs::passthrough`]), where it can take it: its reads come to nobody here.
//!
//! # What is not there
//!
//! - Nothing unverified reaches a reader or the store.
//! - No thread of the kernel's requests waits for the network, and no task of the network for a disk or a hash.
//! - No queue is without a bound; the constant beside each says who is slow and what happens when it is full.
//! - No number or length from a peer, a tracker, a torrent or a state file is used before it is checked.
//!
//! # Words
//!
//! A *piece* is the unit that is hashed, a *block* the 16 KiB of it that are asked for at once; a *chunk* is a
//! verified piece in memory. A *window* is what a reader will want next, a *demand* a piece that a reader wants
//! now or in its window, a *ticket* a read that waits, *fill* the download that nobody waits for. All other
//! words are those of BEP 3.
//!
//! # Where to begin if …
//!
//! - a peer is asked for the wrong thing: [`proto::picker`], and its pictures in `tests/picker.rs`;
//! - a restart forgets or believes too much: [`engine::state`], [`engine::home`], and `tests/crash.rs`;
//! - a message is new: [`proto::wire`], then [`proto::swarm`];
//! - a reader waits too long: [`proto::reader`], [`proto::readahead`], [`proto::peer`], and the scenes in `tests/swarm_sim.rs`;
//! - a tracker misbehaves: [`proto::announce`] decides, [`engine::tracker`] carries;
//! - a link never tells what it is: [`proto::introduction`] and [`proto::metadata`]; [`engine::introduction`] carries;
//! - a peer is not dialled, or not kept: [`proto::dials`], [`proto::welcome`]; [`engine::dial`] carries;
//! - a torrent without trackers finds nobody: [`proto::dht`] and `tests/dht_sim.rs`; [`engine::dht`] carries;
//! - a program sees an odd errno: [`fs::errno`];
//! - an option is new: a field in [`cli::options`] or in its command's file, its meaning in [`cli::settings`].

pub mod cli;
pub mod engine;
pub mod fs;
pub mod proto;
