//! `-o`, as mount(8) and fstab(5) write it: a list with commas.
//!
//! Invariant: an option is obeyed, ignored because it speaks to mount(8), or refused; none is dropped in
//! silence.

use super::exit::UsageError;
use crate::fs::attach::Access;

/// What `-o` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Who may look into the mount.
    pub access: Access,
    /// Mount over a directory that has entries.
    pub nonempty: bool,
    /// No file of the mount can be executed.
    pub noexec: bool,
}

impl MountOptions {
    /// Reads each list of `-o`; later options win.
    ///
    /// # Errors
    /// An option is unknown, or cannot be granted by a filesystem that is read-only.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Self, UsageError> {
        let mut options = Self::default();
        for option in lists.into_iter().flat_map(|list| list.split(',')) {
            options.apply(option.trim())?;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<(), UsageError> {
        match option {
            "allow_other" => self.access = Access::All,
            "allow_root" => self.access = Access::OwnerAndRoot,
            "nonempty" => self.nonempty = true,
            "noexec" => self.noexec = true,
            "exec" => self.noexec = false,
            // What every btfs mount is anyway.
            "ro" | "nosuid" | "nodev" | "noatime" | "nodiratime" => {}
            // For mount(8), systemd and the reader of fstab.
            "" | "defaults" | "auto" | "noauto" | "_netdev" | "nofail" | "user" | "users"
            | "nouser" | "group" | "owner" => {}
            other if ["x-", "X-", "comment="].iter().any(|prefix| other.starts_with(prefix)) => {}
            "rw" | "suid" | "dev" => {
                return Err(UsageError(format!(
                    "-o {option}: a btfs mount is always ro,nosuid,nodev; leave it out"
                )));
            }
            other => {
                return Err(UsageError(format!(
                    "-o {other}: unknown; known are allow_other, allow_root, nonempty, noexec, ro, nosuid, nodev"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_mean_what_fstab_means() {
        let plain = MountOptions::default();
        let table = [
            ("nothing", vec![], Some(plain)),
            (
                "of fstab",
                vec!["defaults,_netdev,nofail,user,x-systemd.automount,,noauto"],
                Some(plain),
            ),
            ("what it is anyway", vec!["ro,nosuid,nodev"], Some(plain)),
            ("all", vec!["allow_other"], Some(MountOptions { access: Access::All, ..plain })),
            (
                "root",
                vec!["allow_root"],
                Some(MountOptions { access: Access::OwnerAndRoot, ..plain }),
            ),
            (
                "two lists, the later wins",
                vec!["noexec,nonempty", "exec"],
                Some(MountOptions { nonempty: true, ..plain }),
            ),
            ("writing", vec!["ro,rw"], None),
            ("unknown", vec!["allow-other"], None),
        ];
        for (name, lists, expected) in table {
            assert_eq!(MountOptions::parse(lists).ok(), expected, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_option() {
        let told = MountOptions::parse(["ro,allow_othr"]).unwrap_err().to_string();
        assert!(told.starts_with("-o allow_othr: unknown"), "{told}");
    }
}
