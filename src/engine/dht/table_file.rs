//! The DHT's id and table between two runs, in a file of their own.
//!
//! Invariant: of processes that run at once, one bears the id that is kept and saves; the others begin with the same
//! nodes under a new name, since two of one name are one to everybody else.
//!
//! Not here: the file's form ([`crate::proto::dht::saved`]).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use nix::fcntl::OFlag;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::engine::clock;
use crate::engine::store::lock::TorrentLock;
use crate::proto::dht::node_id::NodeId;
use crate::proto::dht::saved::{MAX_LEN, Saved};

const NAME: &str = "nodes";

/// The file, and whether it is ours to write.
#[derive(Debug)]
pub(super) struct TableFile {
    path: PathBuf,
    lock: Option<TorrentLock>,
}

impl TableFile {
    /// The file in this directory, which is made when missing; `None` where none can be.
    pub(super) fn open(dir: &Path) -> Option<Self> {
        if let Err(error) = fs::create_dir_all(dir) {
            warn!(dir = %dir.display(), %error, "the DHT's nodes are not kept");
            return None;
        }
        Some(Self { path: dir.join(NAME), lock: TorrentLock::take(dir).ok() })
    }

    /// Whether no other process has it.
    pub(super) fn is_ours(&self) -> bool {
        self.lock.is_some()
    }

    /// What an earlier run left; nothing when that cannot be read.
    pub(super) fn load(&self) -> Saved {
        let mut saved = match self.read() {
            Ok(bytes) => Saved::parse(&bytes).unwrap_or_else(|error| {
                debug!(%error, "the DHT's nodes of an earlier run are lost");
                Saved::default()
            }),
            Err(error) => {
                debug!(%error, "no nodes of the DHT from an earlier run");
                Saved::default()
            }
        };
        if !self.is_ours() {
            for table in [&mut saved.v4, &mut saved.v6].into_iter().flatten() {
                table.id = NodeId(clock::node_id());
            }
        }
        saved
    }

    /// Puts the table in the file's place; gives the file back, unless that came to nothing.
    pub(super) async fn save(self, saved: Saved) -> Option<Self> {
        let written = spawn_blocking(move || {
            let write = || {
                let mut file = AtomicWriteFile::open(&self.path)?;
                file.write_all(&saved.encode())?;
                file.commit()
            };
            match write() {
                Ok(()) => Some(self),
                Err(error) => {
                    warn!(path = %self.path.display(), %error, "the DHT's nodes are not kept");
                    None
                }
            }
        });
        written.await.ok().flatten()
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?;
        file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
