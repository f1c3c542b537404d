//! A mount's beginning and end: what is refused, who may mount, and that nothing else is ever unmounted.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use btfs::fs::attach::{Access, MountError, Options};
use btfs::fs::detach::DetachError;
use btfs::fs::mountinfo;
use btfs::fs::session::{Ended, Mount};
use nix::mount::{MntFlags, MsFlags, umount2};
use parking_lot::RwLock;
use support::content::{self, single};
use support::fake::{Fake, at, seed};
use support::mount::{Reader, TestMount, assert_over, fuse, tree, within};

/// Where the daemon below mounts.
const POINT: &str = "BTFS_TEST_POINT";

/// A user who is nobody.
const NOBODY: u32 = 65_534;

fn try_mount(point: &Path, options: &Options) -> Result<Mount, MountError> {
    mount_backed(point, options, None).map(|(mount, _)| mount)
}

/// Mounts, perhaps with a file on disk behind the one that is shown.
fn mount_backed(
    point: &Path,
    options: &Options,
    backing: Option<fs::File>,
) -> Result<(Mount, Arc<Fake>), MountError> {
    let torrents = [single("data", 100_000)];
    let tree = Arc::new(RwLock::new(tree(&torrents)));
    let fake = Fake::of(&torrents);
    backing.into_iter().for_each(|file| fake.back(at(0), file));
    Mount::new(point, tree, Arc::clone(&fake) as _, options).map(|mount| (mount, fake))
}

#[track_caller]
fn refusal(point: &Path) -> String {
    try_mount(point, &Options::default()).expect_err("refused").to_string()
}

/// A mount by another process, detached when dropped.
struct Daemon {
    child: Child,
    point: PathBuf,
}

impl Daemon {
    /// Starts this test program again, and waits until it has mounted.
    fn start(point: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a program"))
            .args(["--ignored", "--exact", "daemon", "--nocapture"])
            .env(POINT, point)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a daemon");
        let out = child.stdout.take().expect("piped");
        let daemon = Self { child, point: point.to_owned() };
        let mounted = within("the daemon", move || {
            BufReader::new(out).lines().map_while(Result::ok).any(|line| line.ends_with("MOUNTED"))
        });
        assert!(mounted, "the daemon did not mount");
        daemon
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if mounts_at(&self.point) > 0 {
            let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        }
    }
}

/// No test: what [`Daemon`] runs. Mounts, says so, and unmounts when its input ends.
#[test]
#[ignore = "the daemon of other tests"]
fn daemon() {
    let Some(point) = std::env::var_os(POINT) else { return };
    let mount = try_mount(Path::new(&point), &Options::default()).expect("a mount");
    println!("MOUNTED");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("an end");
    mount.unmount().expect("unmounted");
}

fn mounts_at(point: &Path) -> usize {
    let mounts = mountinfo::read().expect("a table");
    mounts.iter().filter(|mount| mount.point == point).count()
}

/// A directory that everybody may pass, with an empty one in it that belongs to `uid`.
fn place(uid: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    let point = dir.path().join("mnt");
    fs::create_dir(&point).expect("a mount point");
    chown(&point, Some(uid), Some(uid)).expect("given away");
    (dir, point)
}

#[test]
fn an_unfit_place_is_refused_with_one_line() {
    if !fuse() {
        return;
    }
    let (dir, point) = place(0);
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("a file");
    let p = |path: &Path| path.display().to_string();
    let missing = dir.path().join("missing");
    assert_eq!(refusal(&missing), format!("{}: no such directory; make it first", p(&missing)));
    assert_eq!(refusal(&file), format!("{}: not a directory", p(&file)));
    let below = file.join("x");
    assert_eq!(refusal(&below), format!("{}: not a directory", p(&below)));
    assert_eq!(
        refusal(dir.path()),
        format!("{}: not empty; choose an empty directory, or pass -o nonempty", p(dir.path()))
    );
    let first = try_mount(&point, &Options::default()).expect("a mount");
    assert_eq!(
        refusal(&point),
        format!("{}: something is mounted there already; unmount it first", p(&point))
    );
    assert_over(&first.unmount().expect("unmounted"));
    assert_eq!(mounts_at(&point), 0);
}

#[test]
fn a_full_directory_may_be_asked_for() {
    if !fuse() {
        return;
    }
    let (_dir, point) = place(0);
    fs::write(point.join("below"), "x").expect("a file");
    let options = Options { nonempty: true, ..Options::default() };
    let mount = try_mount(&point, &options).expect("a mount");
    assert!(point.join("data").exists() && !point.join("below").exists());
    drop(mount);
    assert!(point.join("below").exists());
}

#[test]
fn the_mount_shows_what_it_is() {
    if !fuse() {
        return;
    }
    let options =
        Options { source_name: "a, \\ name".to_owned(), noexec: true, ..Options::default() };
    let mount = TestMount::with(&[single("data", 1)], &options);
    let table = fs::read_to_string(mountinfo::TABLE).expect("a table");
    let point = mount.point().display().to_string();
    let line = table.lines().find(|line| line.contains(&point)).expect("listed");
    for part in [
        " - fuse.btfs ",
        "ro,nosuid,nodev,noexec,noatime",
        "default_permissions",
        "a,\\040\\134\\040name",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("allow_other"));
}

#[test]
fn what_a_killed_process_leaves_is_named_and_cleared() {
    if !fuse() {
        return;
    }
    let (_dir, point) = place(0);
    let mut daemon = Daemon::start(&point);
    assert_eq!(fs::read(point.join("data")).expect("read").len(), 100_000);
    daemon.kill();
    assert!(matches!(
        try_mount(&point, &Options::default()),
        Err(MountError::Stale(path)) if path == point
    ));
    assert!(refusal(&point).contains("Transport endpoint is not connected"));
    let status = Command::new("umount").arg(&point).status().expect("umount");
    assert!(status.success());
    drop(try_mount(&point, &Options::default()).expect("a mount again"));
}

/// In a namespace of its own, where the device is for everybody, as it is on most machines.
#[test]
fn a_user_mounts_reads_and_unmounts() {
    if !fuse() {
        return;
    }
    let (dir, point) = place(NOBODY);
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().expect("a program"), &program).expect("a copy");
    let script = "set -e; cd /; mknod -m 666 \"$1/fuse\" c 10 229; \
        mount --bind \"$1/fuse\" /dev/fuse; \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \
            \"$1/program\" --ignored --exact user --nocapture";
    let dir = dir.path().display().to_string();
    let mut user = Reader::start_with(
        "unshare",
        &["--mount", "--propagation", "private", "sh", "-c", script, "sh", &dir],
        &[(POINT, &point)],
    );
    let (status, out, err) = user.output();
    assert!(status.success() && out.contains("READ AND UNMOUNTED"), "{out}\n{err}");
}

/// No test: what the one above runs, as nobody.
#[test]
#[ignore = "the user of another test"]
fn user() {
    let Some(point) = std::env::var_os(POINT).map(PathBuf::from) else { return };
    let denied = Options { access: Access::All, ..Options::default() };
    assert!(matches!(try_mount(&point, &denied), Err(MountError::AllowOther)));
    let mut backing = tempfile::tempfile().expect("a file");
    backing.write_all(&content::bytes(seed(at(0)), 0, 100_000)).expect("room");
    let mounted = mount_backed(&point, &Options::default(), Some(backing));
    let (mount, fake) = mounted.expect("a mount by the helper");
    assert!(!nix::unistd::geteuid().is_root());
    for _ in 0..2 {
        let cat = Command::new("cat").arg(point.join("data")).output().expect("cat");
        assert!(cat.stdout == content::bytes(seed(at(0)), 0, 100_000));
    }
    let seen = fake.seen();
    assert!(seen.lent <= 1 && seen.now > 0 && fake.holds(at(0)) == 0, "for root alone: {seen:?}");
    let held = fs::File::open(point.join("data")).expect("readable");
    assert_eq!(mount.unmount().expect("by the helper"), Ended::InUse);
    assert_eq!(mounts_at(&point), 0);
    drop(held);
    println!("READ AND UNMOUNTED");
}

#[test]
fn a_stranger_on_our_mount_point_stays() {
    if !fuse() {
        return;
    }
    let tmpfs = |point: &Path| {
        let kind = Some("tmpfs");
        nix::mount::mount(kind, point, kind, MsFlags::empty(), Some("size=64k")).expect("a tmpfs");
    };
    let (_dir, point) = place(0);
    let mount = try_mount(&point, &Options::default()).expect("a mount");
    tmpfs(&point);
    let covered = mount.unmount();
    assert!(matches!(covered, Err(DetachError::Covered(_))), "{covered:?}");
    assert_eq!(mounts_at(&point), 2, "over ours");
    umount2(&point, MntFlags::MNT_DETACH).expect("the tmpfs goes");
    let status = Command::new("umount").arg(&point).status().expect("umount");
    assert!(status.success());
    tmpfs(&point);
    assert_over(&mount.unmount().expect("nothing to do"));
    drop(mount);
    assert_eq!(mounts_at(&point), 1, "in place of ours");
    umount2(&point, MntFlags::MNT_DETACH).expect("the tmpfs goes");
}
