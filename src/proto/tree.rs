//! The mount's tree: every directory, file and link of every torrent, by inode and by name.
//!
//! Invariant: an inode number is the first 63 bits of a hash over info-hash and path, so that a torrent
//! has the same numbers in every mount; 0 is never given out, 1 is the root, and a collision takes the
//! next free number.
//! Invariant: names in a directory are unique and in byte order; a directory is there because something
//! in it is, or because it is the top of its torrent.
//! Invariant: padding files are not in the tree.
//! Invariant: a torrent that was expected before it was known is a directory for good, under the name that it was
//! expected by; its number stays the same when it is filled.
//!
//! Not here: bytes, times as the kernel wants them, permissions ([`crate::fs::ops`]); making names legal
//! ([`crate::proto::metainfo`]).

mod draft;
mod node;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::metainfo::Metainfo;
use super::units::{InfoHash, TorrentId};
use draft::{DraftKind, Drafts};

pub use node::{Entry, EntryKind, FileRef, Ino, Node, NodeKind};

/// Longest name that the kernel takes, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// Why a torrent does not go into the tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The torrent is there already.
    #[error("the torrent {0} is mounted already")]
    Present(InfoHash),
    /// Two of the torrent's files want the same place, or one wants to be in another.
    #[error("two files of the torrent are both called {0:?}")]
    Clash(String),
}

/// Every node of the mount.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<Ino, Node>,
    torrents: BTreeMap<TorrentId, Planted>,
}

/// What the tree remembers of one torrent.
#[derive(Clone, Debug)]
struct Planted {
    info_hash: InfoHash,
    created: Option<i64>,
    /// The name in the root.
    name: Box<str>,
    /// Whether it is not known yet what is in it.
    awaited: bool,
    /// Its nodes; the first is the one in the root.
    nodes: Vec<Ino>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A root with nothing in it.
    pub fn new() -> Self {
        let kind = NodeKind::directory([]);
        let root = Node { ino: Ino::ROOT, parent: Ino::ROOT, torrent: None, kind };
        Self { nodes: BTreeMap::from([(Ino::ROOT, root)]), torrents: BTreeMap::new() }
    }

    /// Puts a torrent into the root, and tells the number of its top node.
    ///
    /// A torrent whose name is taken gets a part of its info-hash added to it.
    ///
    /// # Errors
    /// When the torrent is there already or two of its files clash; the tree is then as it was.
    pub fn add(&mut self, torrent: TorrentId, meta: &Metainfo) -> Result<Ino, AddError> {
        let twin = self.torrents.values().any(|other| other.info_hash == meta.info_hash);
        if twin || self.torrents.contains_key(&torrent) {
            return Err(AddError::Present(meta.info_hash));
        }
        let drafts = Drafts::of(meta)?;
        let name = self.free_name(&meta.name, meta.info_hash, meta.single_file);
        let nodes = self.plant(torrent, drafts);
        let top = nodes[0];
        let (info_hash, created) = (meta.info_hash, meta.created);
        let planted = Planted { info_hash, created, name, awaited: false, nodes };
        self.torrents.insert(torrent, planted);
        self.list_root();
        Ok(top)
    }

    /// Puts an empty directory into the root for a torrent of which nothing else is known, and tells its number.
    /// `name` must be legal; one that is taken gets a part of the info-hash added to it.
    ///
    /// # Errors
    /// When the torrent is there already.
    pub fn expect(
        &mut self,
        torrent: TorrentId,
        info_hash: InfoHash,
        name: &str,
    ) -> Result<Ino, AddError> {
        let twin = self.torrents.values().any(|other| other.info_hash == info_hash);
        if twin || self.torrents.contains_key(&torrent) {
            return Err(AddError::Present(info_hash));
        }
        let name = self.free_name(name, info_hash, false);
        let nodes = self.plant(torrent, Drafts::empty(info_hash));
        let top = nodes[0];
        self.torrents
            .insert(torrent, Planted { info_hash, created: None, name, awaited: true, nodes });
        self.list_root();
        Ok(top)
    }

    /// Puts the files of an expected torrent into its directory, also when there is but one.
    ///
    /// # Errors
    /// When two of its files clash; the tree is then as it was.
    pub fn fill(&mut self, torrent: TorrentId, meta: &Metainfo) -> Result<(), AddError> {
        let drafts = Drafts::below(meta)?;
        let Some(planted) = self.torrents.get_mut(&torrent) else { return Ok(()) };
        for ino in std::mem::take(&mut planted.nodes) {
            self.nodes.remove(&ino);
        }
        let nodes = self.plant(torrent, drafts);
        if let Some(planted) = self.torrents.get_mut(&torrent) {
            (planted.created, planted.awaited, planted.nodes) = (meta.created, false, nodes);
        }
        self.list_root();
        Ok(())
    }

    /// Takes a torrent out, and tells the name that it had in the root.
    pub fn remove(&mut self, torrent: TorrentId) -> Option<Box<str>> {
        let planted = self.torrents.remove(&torrent)?;
        for ino in &planted.nodes {
            self.nodes.remove(ino);
        }
        self.list_root();
        Some(planted.name)
    }

    /// The node with this number.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// The node of this name in a directory.
    pub fn lookup(&self, parent: Ino, name: &str) -> Option<&Node> {
        let entries = self.entries(parent)?;
        let at = entries.binary_search_by(|entry| (*entry.name).cmp(name)).ok()?;
        self.node(entries[at].ino)
    }

    /// What is in a directory, in byte order of names.
    pub fn entries(&self, ino: Ino) -> Option<&Arc<[Entry]>> {
        match &self.node(ino)?.kind {
            NodeKind::Directory { entries, .. } => Some(entries),
            NodeKind::File { .. } | NodeKind::Symlink { .. } => None,
        }
    }

    /// When the node's torrent was made, in seconds since 1970.
    pub fn created(&self, node: &Node) -> Option<i64> {
        self.torrents.get(&node.torrent?)?.created
    }

    /// The info-hash of the node's torrent.
    pub fn info_hash(&self, node: &Node) -> Option<InfoHash> {
        Some(self.torrents.get(&node.torrent?)?.info_hash)
    }

    /// Whether it is not known yet what is in the node's torrent.
    pub fn is_awaited(&self, node: &Node) -> bool {
        node.torrent.and_then(|id| self.torrents.get(&id)).is_some_and(|planted| planted.awaited)
    }

    /// Nodes in the tree, the root counted.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no torrent is in the tree.
    pub fn is_empty(&self) -> bool {
        self.torrents.is_empty()
    }

    /// Gives each draft its number, and makes nodes of them.
    fn plant(&mut self, torrent: TorrentId, drafts: Drafts<'_>) -> Vec<Ino> {
        let mut numbers: Vec<Ino> = Vec::with_capacity(drafts.0.len());
        for draft in &drafts.0 {
            let ino = self.free_ino(Ino::wanted(&draft.seed));
            let parent = draft.parent.map_or(Ino::ROOT, |parent| numbers[parent]);
            // Directories are listed below, when what is in them has its numbers.
            let kind = draft.kind.node_kind();
            self.nodes.insert(ino, Node { ino, parent, torrent: Some(torrent), kind });
            numbers.push(ino);
        }
        for (draft, ino) in drafts.0.iter().zip(&numbers) {
            let DraftKind::Directory(children) = &draft.kind else { continue };
            let list = children.iter().map(|(name, &child)| {
                let kind = drafts.0[child].kind.entry_kind();
                Entry { name: (*name).into(), ino: numbers[child], kind }
            });
            let kind = NodeKind::directory(list);
            self.nodes.entry(*ino).and_modify(|node| node.kind = kind);
        }
        numbers
    }

    fn free_ino(&self, wanted: Ino) -> Ino {
        let mut ino = wanted;
        while self.nodes.contains_key(&ino) {
            ino = ino.next();
        }
        ino
    }

    fn free_name(&self, name: &str, info_hash: InfoHash, is_file: bool) -> Box<str> {
        let taken = |name: &str| self.torrents.values().any(|other| *other.name == *name);
        if !taken(name) {
            return name.into();
        }
        let hash = info_hash.to_string();
        let parts = [8, 16, 40].map(|digits| hash[..digits].to_owned());
        let counted = (2..).map(|n: u32| format!("{hash} {n}"));
        parts
            .into_iter()
            .chain(counted)
            .map(|part| with_suffix(name, &format!(" [{part}]"), is_file))
            .find(|name| !taken(name))
            .expect("there are more numbers than torrents")
            .into()
    }

    fn list_root(&mut self) {
        let mut list: Vec<Entry> = self
            .torrents
            .values()
            .map(|planted| {
                let ino = planted.nodes[0];
                Entry { name: planted.name.clone(), ino, kind: self.nodes[&ino].kind.entry_kind() }
            })
            .collect();
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let kind = NodeKind::directory(list);
        self.nodes.entry(Ino::ROOT).and_modify(|root| root.kind = kind);
    }
}

/// The name with a suffix: before the extension of a file, at the end of a directory's name. The stem is
/// cut where the whole would be too long.
fn with_suffix(name: &str, suffix: &str, is_file: bool) -> String {
    let short =
        |ext: &str| (1..=5).contains(&ext.len()) && ext.bytes().all(|b| b.is_ascii_alphanumeric());
    let dot = name.rfind('.').filter(|&at| is_file && at > 0 && short(&name[at + 1..]));
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let room = MAX_NAME_LEN - suffix.len() - extension.len();
    let cut = (0..=room.min(stem.len())).rfind(|&at| stem.is_char_boundary(at)).unwrap_or(0);
    format!("{}{suffix}{extension}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_number_gives_way_to_the_next_free_one() {
        let mut tree = Tree::new();
        let root = tree.nodes[&Ino::ROOT].clone();
        for taken in [5, 6, 8] {
            tree.nodes.insert(Ino(taken), root.clone());
        }
        assert_eq!(tree.free_ino(Ino(4)), Ino(4));
        assert_eq!(tree.free_ino(Ino(5)), Ino(7));
    }

    #[test]
    fn a_suffix_stands_before_a_real_extension() {
        for (name, is_file, expected) in [
            ("film.mkv", true, "film [x].mkv"),
            ("film.mkv", false, "film.mkv [x]"),
            (".hidden", true, ".hidden [x]"),
            ("Dr. Who, all of it", true, "Dr. Who, all of it [x]"),
            ("plain", true, "plain [x]"),
        ] {
            assert_eq!(with_suffix(name, " [x]", is_file), expected, "{name}");
        }
        let long = with_suffix(&"é".repeat(127), " [0123456789]", true);
        assert!(long.len() <= MAX_NAME_LEN && long.ends_with("é [0123456789]"), "{long}");
    }
}
