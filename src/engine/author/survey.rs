//! Finds what a torrent is to be made of.
//!
//! Invariant: the walk never follows a link below its root, so it ends.
//!
//! Not here: the order of files ([`crate::proto::author`] sorts them).

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::DataError;
use crate::proto::author::{Content, Source};
use crate::proto::metainfo::FileKind;

/// What is at a path.
#[derive(Debug)]
pub struct Survey {
    /// The path, links resolved.
    pub root: PathBuf,
    /// The path's last element as it was given.
    pub name: String,
    /// What there is to put into a torrent.
    pub content: Content,
    /// Directories that a torrent cannot hold, as nothing is in them.
    pub empty_directories: Vec<PathBuf>,
}

/// Looks at a file, or at everything below a directory.
///
/// # Errors
/// When something cannot be read or cannot be in a torrent.
pub fn survey(path: &Path) -> Result<Survey, DataError> {
    let root = fs::canonicalize(path).map_err(|e| DataError::io(path, e))?;
    let named = path.file_name().or_else(|| root.file_name());
    let name = named.ok_or_else(|| DataError::Nameless(path.to_owned()))?;
    let name = name.to_str().ok_or_else(|| DataError::NotText(path.to_owned()))?.to_owned();
    let metadata = fs::metadata(&root).map_err(|e| DataError::io(path, e))?;
    if metadata.is_dir() {
        let (sources, empty_directories) = walk(&root)?;
        return Ok(Survey { root, name, content: Content::Many(sources), empty_directories });
    }
    if !metadata.is_file() {
        return Err(DataError::Special(path.to_owned()));
    }
    let content = Content::Single { length: metadata.len(), executable: is_executable(&metadata) };
    Ok(Survey { root, name, content, empty_directories: Vec::new() })
}

fn walk(root: &Path) -> Result<(Vec<Source>, Vec<PathBuf>), DataError> {
    let mut sources = Vec::new();
    let mut empty = Vec::new();
    let mut links = Vec::new();
    let mut places = HashSet::new();
    let mut todo: Vec<(PathBuf, Vec<String>)> = vec![(root.to_owned(), Vec::new())];
    while let Some((directory, below)) = todo.pop() {
        let mut entries =
            fs::read_dir(&directory).map_err(|e| DataError::io(&directory, e))?.peekable();
        if entries.peek().is_none() {
            empty.push(directory.clone());
        }
        for entry in entries {
            let entry = entry.map_err(|e| DataError::io(&directory, e))?;
            let at = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(DataError::NotText(at));
            };
            let metadata = entry.metadata().map_err(|e| DataError::io(&at, e))?;
            let path: Vec<String> = below.iter().cloned().chain([name]).collect();
            places.insert(path.clone());
            if metadata.is_dir() {
                todo.push((at, path));
            } else if metadata.is_file() {
                let kind = FileKind::Regular { executable: is_executable(&metadata) };
                sources.push(Source { path, length: metadata.len(), kind });
            } else if metadata.is_symlink() {
                links.push((at, path));
            } else {
                return Err(DataError::Special(at));
            }
        }
    }
    for (at, path) in links {
        let to = fs::read_link(&at).map_err(|e| DataError::io(&at, e))?;
        let target = inside(&path, &to).filter(|target| places.contains(target));
        let target = target.or_else(|| resolved(root, &at)).ok_or(DataError::Link(at))?;
        sources.push(Source { path, length: 0, kind: FileKind::Symlink { target } });
    }
    empty.sort();
    Ok((sources, empty))
}

/// Where a link says that it leads, as elements below the root; `None` when that is outside.
fn inside(link: &[String], to: &Path) -> Option<Vec<String>> {
    let mut at = link[..link.len() - 1].to_vec();
    for component in to.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                at.pop()?;
            }
            Component::Normal(name) => at.push(name.to_str()?.to_owned()),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(at)
}

/// Where a link leads once all links on its way are followed, as elements below the root.
fn resolved(root: &Path, link: &Path) -> Option<Vec<String>> {
    let target = fs::canonicalize(link).ok()?;
    let below = target.strip_prefix(root).ok()?;
    below.iter().map(|element| element.to_str().map(str::to_owned)).collect()
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}
