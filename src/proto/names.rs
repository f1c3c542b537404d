//! File names that strangers chose, made legal, unique and stable.
//!
//! Invariant: every element that leaves here is 1 to [`MAX_ELEMENT_LEN`] bytes of UTF-8, holds no separator,
//! control or bidirectional formatting character, and is neither `.` nor `..`; no two files share a path, and
//! no file's path runs through another file. The same torrent gets the same names everywhere.
//!
//! Not here: clashes between torrents in one mount, and inode numbers (both in [`crate::fs`]).

use std::collections::HashMap;

/// Longest path element in bytes: below the 255 of Linux file systems, with room for what a store appends.
pub const MAX_ELEMENT_LEN: usize = 240;

/// Most elements in a path.
pub const MAX_DEPTH: usize = 100;

/// Most files that we rename because another has the name already.
pub const MAX_DUPLICATES: usize = 500;

/// Longest extension, in characters without the dot, that survives shortening.
const MAX_EXTENSION_CHARS: usize = 10;

/// Why a torrent's paths cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A file without a path.
    #[error("file {0} has an empty path")]
    EmptyPath(usize),
    /// More than [`MAX_DEPTH`] elements.
    #[error("the path of file {0} is deeper than {MAX_DEPTH}")]
    TooDeep(usize),
    /// More than [`MAX_DUPLICATES`] files whose name is taken.
    #[error("more than {MAX_DUPLICATES} files have the name of another")]
    TooManyDuplicates,
}

/// A legal path element for any bytes.
pub fn element(raw: &[u8]) -> String {
    match clean(raw).as_str() {
        "" | "." | ".." => "_".to_owned(),
        name => fit(name, ""),
    }
}

/// A legal name for a whole torrent, or `None` when nothing of the bytes can stay.
pub fn top(raw: &[u8]) -> Option<String> {
    match clean(raw).as_str() {
        "" | "." | ".." => None,
        name => Some(fit(name, "")),
    }
}

/// Text that cannot steer a terminal: control and bidirectional formatting characters are neutralised.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|&c| !is_formatting(c))
        .map(|c| if is_control(c) { '_' } else { c })
        .collect()
}

/// The paths of a torrent's files, legal and unique.
#[derive(Debug, Default)]
pub struct Names {
    paths: Vec<Vec<String>>,
    /// What every directory holds, the torrent's own at 0.
    directories: Vec<HashMap<String, Slot>>,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    File,
    Directory(usize),
}

impl Names {
    /// Names all files of a torrent. A directory keeps its name before any file, a file that comes first before
    /// one that comes later, and only the later ones are numbered: `a.txt`, `a.1.txt`, `a.2.txt`.
    ///
    /// # Errors
    /// When a path is empty or too deep, or too many clash.
    pub fn assign<P: AsRef<[E]>, E: AsRef<[u8]>>(raw: &[P]) -> Result<Self, NameError> {
        let mut names = Self { paths: Vec::new(), directories: vec![HashMap::new()] };
        let mut homes = Vec::with_capacity(raw.len());
        for (index, path) in raw.iter().enumerate() {
            let path = path.as_ref();
            match path.len() {
                0 => return Err(NameError::EmptyPath(index)),
                1..=MAX_DEPTH => {}
                _ => return Err(NameError::TooDeep(index)),
            }
            let path: Vec<String> = path.iter().map(|e| element(e.as_ref())).collect();
            homes.push(names.directory_of(&path));
            names.paths.push(path);
        }
        let late = names.claim(&homes);
        if late.len() > MAX_DUPLICATES {
            return Err(NameError::TooManyDuplicates);
        }
        names.number(&late, &homes);
        Ok(names)
    }

    /// The paths, in the order of the files.
    pub fn into_paths(self) -> Vec<Vec<String>> {
        self.paths
    }

    /// The path of the file with this index.
    pub fn path(&self, index: usize) -> &[String] {
        &self.paths[index]
    }

    /// Whether a file or directory has exactly this path; the empty path is the torrent's own directory.
    pub fn contains<E: AsRef<str>>(&self, path: &[E]) -> bool {
        let Some((leaf, above)) = path.split_last() else { return true };
        let mut at = 0;
        for element in above {
            match self.directories[at].get(element.as_ref()) {
                Some(Slot::Directory(below)) => at = *below,
                Some(Slot::File) | None => return false,
            }
        }
        self.directories[at].contains_key(leaf.as_ref())
    }

    /// The directory that holds the path's last element, made if need be. No files are there yet.
    fn directory_of(&mut self, path: &[String]) -> usize {
        let mut at = 0;
        for element in &path[..path.len() - 1] {
            at = match self.directories[at].get(element) {
                Some(Slot::Directory(below)) => *below,
                Some(Slot::File) | None => {
                    let below = self.directories.len();
                    self.directories.push(HashMap::new());
                    self.directories[at].insert(element.clone(), Slot::Directory(below));
                    below
                }
            };
        }
        at
    }

    /// Gives every file its own name where that is free, and returns the files that come too late.
    fn claim(&mut self, homes: &[usize]) -> Vec<usize> {
        let mut late = Vec::new();
        for (index, &home) in homes.iter().enumerate() {
            let Some(leaf) = self.paths[index].last() else { continue };
            if self.directories[home].contains_key(leaf) {
                late.push(index);
            } else {
                self.directories[home].insert(leaf.clone(), Slot::File);
            }
        }
        late
    }

    /// Numbers the late files. Each name counts on from where it stopped, so a hostile torrent cannot make us
    /// try the same numbers again and again.
    fn number(&mut self, late: &[usize], homes: &[usize]) {
        let mut next: HashMap<(usize, String), u32> = HashMap::new();
        for &index in late {
            let home = homes[index];
            let Some(leaf) = self.paths[index].last_mut() else { continue };
            let count = next.entry((home, leaf.clone())).or_default();
            let name = loop {
                *count += 1;
                let name = fit(leaf, &format!(".{count}"));
                if !self.directories[home].contains_key(&name) {
                    break name;
                }
            };
            self.directories[home].insert(name.clone(), Slot::File);
            *leaf = name;
        }
    }
}

/// The bytes as text without anything that a path or a terminal would take for an order.
fn clean(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len().min(4 * MAX_ELEMENT_LEN));
    for chunk in raw.utf8_chunks() {
        let legal = chunk.valid().chars().filter(|&c| !is_formatting(c));
        text.extend(legal.map(|c| if is_control(c) || matches!(c, '/' | '\\') { '_' } else { c }));
        if !chunk.invalid().is_empty() {
            text.push('_');
        }
    }
    text
}

/// Controls, and the two separators that end a line.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Invisible characters that reorder or hide text. The joiners U+200C and U+200D are not among them: Persian,
/// Indic scripts and emoji are misspelt without them.
fn is_formatting(c: char) -> bool {
    matches!(c,
        '\u{061C}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// `name` with `tag` before its extension, shortened to [`MAX_ELEMENT_LEN`] with tag and extension kept.
fn fit(name: &str, tag: &str) -> String {
    let (stem, extension) = name.split_at(extension_start(name));
    let room = MAX_ELEMENT_LEN - tag.len() - extension.len();
    let mut end = stem.len().min(room);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{tag}{extension}", &stem[..end])
}

/// Where the extension begins, its dot included; the name's length when it has none worth keeping.
fn extension_start(name: &str) -> usize {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name[dot + 1..].chars().count() <= MAX_EXTENSION_CHARS => dot,
        _ => name.len(),
    }
}
