//! The kernel's table of mounts, `/proc/self/mountinfo`.
//!
//! Invariant: paths are bytes as the kernel has them, its octal escapes undone.
//!
//! Not here: what follows from the table ([`super::session`], [`super::detach`]).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where the kernel shows the table; poll(2) tells of changes with POLLPRI.
pub const TABLE: &str = "/proc/self/mountinfo";

/// A filesystem's device number: as long as it lives, no other has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number; 0 for a FUSE filesystem.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u32,
    /// The mount that it is mounted on.
    pub parent: u32,
    /// The filesystem that is mounted.
    pub device: Device,
    /// Where it is mounted, seen from this process's root.
    pub point: PathBuf,
    /// The filesystem's type, such as `fuse.btfs`.
    pub kind: String,
    /// For FUSE: the user who mounted it.
    pub user: Option<u32>,
}

/// The table as it is now.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(TABLE)?))
}

/// The mounts in a table; lines that make no sense are left out.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&b| b == b'\n').filter_map(mount).collect()
}

/// The mount that a path shows: the uppermost of those on it.
pub fn top_at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    let mut here = mounts.iter().filter(|mount| mount.point == point);
    let covers = |upper: &&Mount, lower: &Mount| upper.parent == lower.id;
    let mut top = here.next()?;
    while let Some(upper) = mounts.iter().find(|m| m.point == point && covers(m, top)) {
        top = upper;
    }
    Some(top)
}

/// Whether the filesystem is mounted anywhere.
pub fn has(mounts: &[Mount], device: Device) -> bool {
    mounts.iter().any(|mount| mount.device == device)
}

/// `36 35 98:0 /root /point options [tags...] - type source options`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = device(fields.next()?)?;
    let point = fields.nth(1)?;
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = tail.next()?;
    let user = tail.nth(1).and_then(user);
    Some(Mount {
        id,
        parent,
        device,
        point: OsString::from_vec(unescaped(point)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        user,
    })
}

/// The number after `user_id=` in the filesystem's own options.
fn user(options: &[u8]) -> Option<u32> {
    options
        .split(|&b| b == b',')
        .find_map(|option| option.strip_prefix(b"user_id="))
        .and_then(number)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn device(field: &[u8]) -> Option<Device> {
    let colon = field.iter().position(|&b| b == b':')?;
    Some(Device { major: number(&field[..colon])?, minor: number(&field[colon + 1..])? })
}

/// The bytes with `\040` and its like undone.
fn unescaped(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    while let Some((&first, rest)) = field.split_first() {
        let escaped = (first == b'\\').then(|| rest.first_chunk().and_then(octal)).flatten();
        bytes.push(escaped.unwrap_or(first));
        field = if escaped.is_some() { &rest[3..] } else { rest };
    }
    bytes
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = br"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
41 27 0:50 / /mnt/a\040b\134c ro,nosuid shared:7 master:1 - fuse.btfs /dev/fuse ro,user_id=1000,group_id=7
43 41 0:52 / /mnt/a\040b\134c rw - tmpfs none rw
44 27 0:53 / /mnt/x rw - tmpfs none rw
nonsense
45 27 053 / /mnt/y rw - tmpfs none rw
";

    #[test]
    fn lines_are_read_and_nonsense_is_left_out() {
        let mounts = parse(TABLE);
        let ids: Vec<u32> = mounts.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [27, 41, 43, 44]);
        assert_eq!(
            mounts[1],
            Mount {
                id: 41,
                parent: 27,
                device: Device { major: 0, minor: 50 },
                point: PathBuf::from("/mnt/a b\\c"),
                kind: "fuse.btfs".to_owned(),
                user: Some(1000),
            }
        );
    }

    #[test]
    fn the_uppermost_mount_is_the_one_that_shows() {
        let mounts = parse(TABLE);
        let top = |path: &str| top_at(&mounts, Path::new(path)).map(|mount| mount.id);
        assert_eq!(top("/mnt/a b\\c"), Some(43));
        assert_eq!(top("/mnt/x"), Some(44));
        assert_eq!(top("/mnt"), None);
    }
}
