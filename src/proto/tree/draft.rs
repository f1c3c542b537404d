//! A torrent's part of the tree while it is drawn up: what is in which directory, and where links lead.

use std::collections::BTreeMap;

use sha1::{Digest, Sha1};

use super::{AddError, EntryKind, NodeKind};
use crate::proto::metainfo::{File, FileKind, Metainfo};
use crate::proto::units::{FileIndex, InfoHash};

/// The nodes of one torrent before they have their numbers; a parent stands before its children, and the
/// first is the one that goes into the root.
pub(super) struct Drafts<'a>(pub(super) Vec<Draft<'a>>);

pub(super) struct Draft<'a> {
    /// Place of the directory that it is in; none for the first.
    pub(super) parent: Option<usize>,
    /// Hash over info-hash and path.
    pub(super) seed: [u8; 20],
    pub(super) kind: DraftKind<'a>,
}

pub(super) enum DraftKind<'a> {
    Directory(BTreeMap<&'a str, usize>),
    File { file: FileIndex, length: u64, executable: bool },
    Symlink(String),
}

impl DraftKind<'_> {
    pub(super) fn node_kind(&self) -> NodeKind {
        match self {
            Self::Directory(_) => NodeKind::directory([]),
            &Self::File { file, length, executable } => NodeKind::File { file, length, executable },
            Self::Symlink(target) => NodeKind::Symlink { target: target.clone() },
        }
    }

    pub(super) fn entry_kind(&self) -> EntryKind {
        match self {
            Self::Directory(_) => EntryKind::Directory,
            Self::File { .. } => EntryKind::File,
            Self::Symlink(_) => EntryKind::Symlink,
        }
    }
}

impl<'a> Drafts<'a> {
    /// A directory with nothing in it.
    pub(super) fn empty(info_hash: InfoHash) -> Self {
        let kind = DraftKind::Directory(BTreeMap::new());
        Self(vec![Draft { parent: None, seed: info_hash.0, kind }])
    }

    pub(super) fn of(meta: &'a Metainfo) -> Result<Self, AddError> {
        if !meta.single_file {
            return Self::below(meta);
        }
        let first = shown(meta).next().or_else(|| Some((FileIndex(0), meta.files.first()?)));
        let kind = first.map_or(DraftKind::Directory(BTreeMap::new()), |(i, f)| leaf(i, f));
        Ok(Self(vec![Draft { parent: None, seed: meta.info_hash.0, kind }]))
    }

    /// All files below a directory.
    pub(super) fn below(meta: &'a Metainfo) -> Result<Self, AddError> {
        let mut drafts = Self::empty(meta.info_hash);
        for (index, file) in shown(meta) {
            let clash = || AddError::Clash(file.path.join("/"));
            let (name, directories) = file.path.split_last().ok_or_else(clash)?;
            let mut at = 0;
            for directory in directories {
                at = drafts.directory(at, directory).ok_or_else(clash)?;
            }
            drafts.child(at, name, leaf(index, file)).ok_or_else(clash)?;
        }
        Ok(drafts)
    }

    /// The directory of this name in the one at `parent`, made if it is not there; none if a file is.
    fn directory(&mut self, parent: usize, name: &'a str) -> Option<usize> {
        let DraftKind::Directory(children) = &self.0[parent].kind else { return None };
        match children.get(name) {
            Some(&at) => matches!(self.0[at].kind, DraftKind::Directory(_)).then_some(at),
            None => self.child(parent, name, DraftKind::Directory(BTreeMap::new())),
        }
    }

    /// A new node in the directory at `parent`; none if the name is taken.
    fn child(&mut self, parent: usize, name: &'a str, kind: DraftKind<'a>) -> Option<usize> {
        let at = self.0.len();
        let DraftKind::Directory(children) = &mut self.0[parent].kind else { return None };
        if children.contains_key(name) {
            return None;
        }
        children.insert(name, at);
        let seed = Sha1::new().chain_update(self.0[parent].seed).chain_update(name).finalize();
        self.0.push(Draft { parent: Some(parent), seed: seed.into(), kind });
        Some(at)
    }
}

/// The files that are not padding.
fn shown(meta: &Metainfo) -> impl Iterator<Item = (FileIndex, &File)> {
    let files = (0..).map(FileIndex).zip(&meta.files);
    files.filter(|(_, file)| file.kind != FileKind::Padding)
}

fn leaf(index: FileIndex, file: &File) -> DraftKind<'static> {
    match &file.kind {
        FileKind::Symlink { target } => DraftKind::Symlink(relative(&file.path, target)),
        &FileKind::Regular { executable } => {
            DraftKind::File { file: index, length: file.length, executable }
        }
        FileKind::Padding => {
            DraftKind::File { file: index, length: file.length, executable: false }
        }
    }
}

/// The way from the link at `from` to `target`, both below the torrent's directory.
fn relative(from: &[String], target: &[String]) -> String {
    let directory = &from[..from.len().saturating_sub(1)];
    let shared = directory.iter().zip(target).take_while(|(a, b)| a == b).count();
    let up = directory[shared..].iter().map(|_| "..");
    let down = target[shared..].iter().map(String::as_str);
    let way: Vec<&str> = up.chain(down).collect();
    if way.is_empty() { ".".to_owned() } else { way.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_the_shortest_way() {
        let path = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        for (from, target, expected) in [
            ("link", "file", "file"),
            ("a/link", "file", "../file"),
            ("a/b/link", "a/c/file", "../c/file"),
            ("a/link", "a/file", "file"),
            ("a/b/link", "a", ".."),
            ("a/link", "a", "."),
        ] {
            let way = relative(&path(from), &path(target));
            assert_eq!(way, expected, "{from} -> {target}");
        }
    }
}
