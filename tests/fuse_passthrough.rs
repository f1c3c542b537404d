//! Complete files, which the kernel reads by itself where it can, and all others beside them.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use btfs::fs::attach::Options;
use support::content::{self, file, single, torrent};
use support::fake::{Fake, LIMIT, at, seed};
use support::mount::{Reader, TestMount, fuse, passthrough, within};

/// Bytes of the file that the tests read.
const LEN: u64 = 300_000;

/// A file on disk with the bytes that the fake has for file `index`, the first `len` of them.
fn on_disk(index: u32, len: u64) -> File {
    let mut backing = tempfile::tempfile().expect("a file");
    backing.write_all(&content::bytes(seed(at(index)), 0, len as usize)).expect("room");
    backing
}

#[track_caller]
fn assert_right(file: &File) {
    let mut bytes = vec![0; LEN as usize];
    file.read_exact_at(&mut bytes, 0).expect("all of it");
    assert!(bytes == content::bytes(seed(at(0)), 0, LEN as usize));
}

/// Waits until nothing that was lent of the first file is held.
#[track_caller]
fn await_return(fake: &Fake) {
    // Nobody tells when the kernel has closed a file; it does so soon after the last handle is.
    let limit = Instant::now() + LIMIT;
    while fake.holds(at(0)) > 0 {
        assert!(Instant::now() < limit, "it is not given back");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_complete_file_is_read_without_asking_us() {
    if !fuse() || !passthrough() {
        return;
    }
    let mount = TestMount::of(&[single("x", LEN)]);
    mount.fake.back(at(0), on_disk(0, LEN));
    let first = File::open(mount.path("x")).expect("readable");
    let second = File::open(mount.path("x")).expect("readable");
    assert_right(&first);
    assert_right(&second);
    let seen = mount.fake.seen();
    assert_eq!((seen.opened, seen.now, seen.lent), (2, 0, 1), "one backing, no reads");
    drop(first);
    assert_eq!(mount.fake.holds(at(0)), 1);
    assert_right(&second);
    drop(second);
    await_return(&mount.fake);
    assert_right(&File::open(mount.path("x")).expect("readable"));
    assert_eq!((mount.fake.seen().now, mount.fake.seen().lent), (0, 2));
    assert_eq!(fs::metadata(mount.path("x")).expect("there").len(), LEN);
}

#[test]
fn what_becomes_complete_while_it_is_open_is_served_until_all_have_closed_it() {
    if !fuse() || !passthrough() {
        return;
    }
    let mount = TestMount::of(&[single("x", LEN)]);
    let early = File::open(mount.path("x")).expect("readable");
    assert_right(&early);
    mount.fake.back(at(0), on_disk(0, LEN));
    let late = File::open(mount.path("x")).expect("opened beside the other");
    assert_right(&late);
    assert_eq!((mount.fake.seen().lent, mount.fake.seen().opened), (0, 2));
    drop((early, late));
    mount.fake.until("both are closed", |seen| seen.closed == 2);
    let served = mount.fake.seen().now;
    let after = File::open(mount.path("x")).expect("readable");
    assert_right(&after);
    assert_eq!((mount.fake.seen().lent, mount.fake.seen().now), (1, served));
}

#[test]
fn a_file_on_disk_of_another_length_is_not_read_in_its_place() {
    if !fuse() {
        return;
    }
    for len in [0, LEN - 1, LEN + 1] {
        let mount = TestMount::of(&[single("x", LEN)]);
        mount.fake.back(at(0), on_disk(0, len));
        assert_right(&File::open(mount.path("x")).expect("readable"));
        assert!(mount.fake.seen().now > 0, "{len}");
        assert_eq!(mount.fake.holds(at(0)), 0, "{len}");
    }
}

#[test]
fn a_reader_that_waits_for_one_file_holds_up_no_other() {
    if !fuse() || !passthrough() {
        return;
    }
    let mount = TestMount::of(&[torrent("t", &[file("whole", LEN), file("missing", LEN)])]);
    mount.fake.back(at(0), on_disk(0, LEN));
    mount.fake.lose(at(1), 0..LEN);
    let missing = mount.path("t/missing");
    let reader = Reader::start("cat", &[missing.to_str().expect("plain")]);
    mount.fake.until("it waits", |seen| seen.later > 0);
    let whole = File::open(mount.path("t/whole")).expect("readable");
    within("the other file", move || assert_right(&whole));
    drop(reader);
}

#[test]
fn mapped_copied_and_direct_reads_are_right_too() {
    if !fuse() || !passthrough() {
        return;
    }
    let mount = TestMount::of(&[single("x", LEN)]);
    mount.fake.back(at(0), on_disk(0, LEN));
    let (path, copy) = (mount.path("x"), tempfile::NamedTempFile::new().expect("a file"));
    // Opened over and over while another handle keeps it so.
    let held = File::open(&path).expect("readable");
    let args = [path.to_str().expect("plain"), copy.path().to_str().expect("plain")];
    assert!(Reader::start("cp", &args).ended().success());
    assert_right(&File::open(copy.path()).expect("the copy"));
    // Maps what it compares.
    assert!(Reader::start("grep", &["-c", "-a", "x", args[0]]).ended().code().is_some());
    let (from, to) = (format!("if={}", args[0]), format!("of={}", args[1]));
    let mut direct = Reader::start("dd", &[&from, &to, "iflag=direct", "bs=64k", "status=none"]);
    assert!(direct.ended().success(), "aligned as the file system on disk wants it");
    assert_right(&File::open(copy.path()).expect("the copy"));
    assert_right(&held);
    assert_eq!((mount.fake.seen().now, mount.fake.seen().lent), (0, 1));
}

#[test]
fn the_mount_ends_while_the_kernel_reads_by_itself() {
    if !fuse() || !passthrough() {
        return;
    }
    let mount = TestMount::with(&[single("x", LEN)], &Options::default());
    mount.fake.back(at(0), on_disk(0, LEN));
    let held = File::open(mount.path("x")).expect("readable");
    assert_right(&held);
    mount.mount.unmount().expect("unmounted");
    // What is open can be read to its end, as with the file itself.
    assert_right(&held);
    drop(held);
    drop(mount);
}
