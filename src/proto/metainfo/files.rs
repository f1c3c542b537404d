//! The files of a v1 info dictionary, with their BEP 47 attributes.
//!
//! Invariant: offsets ascend without gaps from 0 to the total; links point inside the torrent.
//!
//! Not here: whether the total suits the pieces ([`super`]).

use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::super::bencode::Dict;
use super::super::names::{self, Names};
use super::{File, FileKind, MetainfoError, required};

/// The files and their sum.
pub(super) struct Layout {
    pub(super) files: Vec<File>,
    pub(super) total: u64,
    pub(super) single_file: bool,
}

/// One element of `files`, as it stands there.
#[derive(Deserialize)]
struct Listed {
    length: Option<i64>,
    path: Vec<ByteBuf>,
    #[serde(rename = "path.utf-8")]
    path_utf8: Option<Vec<ByteBuf>>,
    attr: Option<ByteBuf>,
    #[serde(rename = "symlink path")]
    symlink_path: Option<Vec<ByteBuf>>,
}

impl Listed {
    fn has(&self, attribute: u8) -> bool {
        self.attr.as_ref().is_some_and(|attr| attr.contains(&attribute))
    }

    fn is_padding(&self) -> bool {
        self.has(b'p') || self.path.last().is_some_and(is_padding_name)
    }

    /// Links take no bytes of the torrent, whatever their entry says; other clients count them so, too.
    fn is_symlink(&self) -> bool {
        self.has(b'l') && !self.is_padding()
    }

    fn length(&self) -> Option<u64> {
        if self.is_symlink() {
            return Some(0);
        }
        self.length.and_then(|length| u64::try_from(length).ok())
    }

    /// The UTF-8 path where it is one, else the path that all torrents have.
    fn path(&self) -> &[ByteBuf] {
        let valid = |path: &&Vec<ByteBuf>| {
            !path.is_empty() && path.iter().all(|e| std::str::from_utf8(e).is_ok())
        };
        self.path_utf8.as_ref().filter(valid).unwrap_or(&self.path)
    }
}

/// BitComet marks padding by name alone.
pub(in super::super) fn is_padding_name(element: &impl AsRef<[u8]>) -> bool {
    element.as_ref().starts_with(b"_____padding_file_")
}

/// Reads `length` or `files`.
pub(super) fn layout(dict: &Dict<'_>, name: &str) -> Result<Layout, MetainfoError> {
    match (dict.raw("length").is_some(), dict.raw("files").is_some()) {
        (true, false) => single(dict, name),
        (false, true) => many(&required::<Vec<Listed>>(dict, "files")?),
        _ => Err(MetainfoError::Layout),
    }
}

fn single(dict: &Dict<'_>, name: &str) -> Result<Layout, MetainfoError> {
    let length: i64 = required(dict, "length")?;
    let total = u64::try_from(length).map_err(|_| MetainfoError::FileLength(0))?;
    let executable = dict.string("attr").is_some_and(|attr| attr.contains(&b'x'));
    let kind = FileKind::Regular { executable };
    let file = File { path: vec![name.to_owned()], offset: 0, length: total, kind };
    Ok(Layout { files: vec![file], total, single_file: true })
}

fn many(listed: &[Listed]) -> Result<Layout, MetainfoError> {
    let shown: Vec<&[ByteBuf]> =
        listed.iter().filter(|f| !f.is_padding()).map(Listed::path).collect();
    let names = Names::assign(&shown)?;
    let mut files = Vec::with_capacity(listed.len());
    let mut offset: u64 = 0;
    let mut named = 0;
    for (index, entry) in listed.iter().enumerate() {
        let length = entry.length().ok_or(MetainfoError::FileLength(index))?;
        let path = if entry.is_padding() {
            vec![".pad".to_owned(), index.to_string()]
        } else {
            named += 1;
            names.path(named - 1).to_vec()
        };
        files.push(File { path, offset, length, kind: kind(entry, &names) });
        offset = offset
            .checked_add(length)
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or(MetainfoError::TotalLength)?;
    }
    Ok(Layout { files, total: offset, single_file: false })
}

/// A link that points nowhere inside the torrent is an empty file.
fn kind(entry: &Listed, names: &Names) -> FileKind {
    if entry.is_padding() {
        return FileKind::Padding;
    }
    if entry.is_symlink() {
        let target = entry.symlink_path.as_deref().and_then(|raw| resolve(raw, names));
        return target.map_or(FileKind::Regular { executable: false }, |target| {
            FileKind::Symlink { target }
        });
    }
    FileKind::Regular { executable: entry.has(b'x') }
}

/// The target's path below the torrent's directory, if something is there under the name that we gave it.
fn resolve(raw: &[ByteBuf], names: &Names) -> Option<Vec<String>> {
    let mut target = Vec::new();
    for element in raw {
        match element.as_slice() {
            b"" | b"." => {}
            b".." => {
                target.pop()?;
            }
            _ => target.push(names::element(element)),
        }
    }
    (!target.is_empty() && names.contains(&target)).then_some(target)
}
