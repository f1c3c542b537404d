//! Reads that wait, through the kernel: who can be killed, who goes on, and what ends them.

mod support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use btfs::fs::attach::Options;
use btfs::fs::session::Ended;
use btfs::fs::source::ReadError;
use nix::sys::signal::Signal;
use support::content::{self, file, single, torrent};
use support::fake::{at, seed};
use support::mount::{Reader, TestMount, assert_over, fuse, within};

/// A mount of one file of which nothing is here.
fn stuck() -> TestMount {
    stuck_with(&Options::default())
}

fn stuck_with(options: &Options) -> TestMount {
    let mount = TestMount::with(&[single("data", 1_000_000)], options);
    mount.fake.lose(at(0), 0..1_000_000);
    mount
}

/// A `cat` of the file that waits already.
fn blocked_cat(mount: &TestMount) -> Reader {
    let cat = Reader::start("cat", &[&mount.path("data").to_string_lossy()]);
    mount.fake.until("cat waits", |seen| seen.later > 0);
    cat
}

/// A python that reads the file and says how its read ended; with a handler for SIGINT, as always.
fn python(path: &Path, flags: &str) -> Reader {
    let program = format!(
        "import os, sys, mmap, signal\n\
         signal.signal(signal.SIGINT, signal.default_int_handler)\n\
         buf = mmap.mmap(-1, 131072)\n\
         fd = os.open(sys.argv[1], os.O_RDONLY | {flags})\n\
         try:\n    print('read', os.readv(fd, [buf]))\n\
         except KeyboardInterrupt:\n    print('interrupted')\n\
         except OSError as e:\n    print('errno', e.errno)\n"
    );
    Reader::start("python3", &["-c", &program, &path.to_string_lossy()])
}

#[test]
fn a_waiting_read_gets_its_bytes() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let path = mount.path("data");
    let wait = std::thread::spawn(move || fs::read(path));
    mount.fake.until("the read waits", |seen| seen.later > 0);
    mount.fake.arrive(at(0));
    let bytes = within("the read", move || wait.join().expect("no panic")).expect("read");
    assert!(bytes == content::bytes(seed(at(0)), 0, 1_000_000));
    assert_eq!(mount.mount.waiting_reads(), 0);
}

#[test]
fn a_second_open_does_not_hang_behind_a_waiting_read() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    mount.fake.lose(at(0), 500_000..1_000_000);
    let path = mount.path("data");
    let far = path.to_string_lossy().into_owned();
    let _tail = Reader::start("tail", &["-c", "1000", &far]);
    mount.fake.until("tail waits", |seen| seen.later > 0);
    let head = within("open and read", move || {
        let fd = File::open(path)?;
        let mut buf = [0; 1000];
        fd.read_exact_at(&mut buf, 0)?;
        Ok::<_, io::Error>((buf, fd.metadata()?.len()))
    });
    let (bytes, length) = head.expect("read");
    assert!(bytes[..] == content::bytes(seed(at(0)), 0, 1000));
    assert_eq!(length, 1_000_000);
}

#[test]
fn ctrl_c_and_kill_end_a_blocked_cat() {
    if !fuse() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mount = stuck();
        let mut cat = blocked_cat(&mount);
        cat.signal(signal);
        assert_eq!(cat.ended().signal(), Some(signal as i32), "{signal}");
        let name = format!("the source hears that nobody waits after {signal}");
        let seen = mount.fake.until(&name, |seen| seen.closed == 1);
        assert!(seen.cancelled > 0);
        assert_eq!(mount.mount.waiting_reads(), 0);
    }
}

#[test]
fn ctrl_c_reaches_a_handler() {
    if !fuse() {
        return;
    }
    for flags in ["0", "os.O_DIRECT"] {
        let mount = stuck();
        let mut reader = python(&mount.path("data"), flags);
        mount.fake.until("python waits", |seen| seen.later > 0);
        reader.signal(Signal::SIGINT);
        let (_, out, err) = reader.output();
        assert_eq!(out.trim(), "interrupted", "{flags}: {err}");
    }
}

#[test]
fn kill_ends_a_blocked_direct_reader() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let mut reader = python(&mount.path("data"), "os.O_DIRECT");
    mount.fake.until("python waits", |seen| seen.later > 0);
    reader.signal(Signal::SIGKILL);
    assert_eq!(reader.ended().signal(), Some(9));
    mount.fake.until("the source hears of it", |seen| seen.cancelled > 0);
}

#[test]
fn a_signal_that_only_tells_leaves_the_read_alone() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let mut reader = python(&mount.path("data"), "0");
    mount.fake.until("python waits", |seen| seen.later > 0);
    reader.signal(Signal::SIGWINCH);
    reader.signal(Signal::SIGURG);
    mount.fake.arrive(at(0));
    let (_, out, err) = reader.output();
    assert_eq!(out.trim(), "read 131072", "{err}");
    assert_eq!(mount.fake.seen().cancelled, 0);
}

#[test]
fn sixty_four_stuck_readers_leave_the_rest_alone() {
    if !fuse() {
        return;
    }
    let mut items: Vec<_> = (0..64).map(|n| file(format!("{n:02}"), 200_000)).collect();
    items.push(file("here", 300_000));
    let mount = TestMount::of(&[torrent("t", &items)]);
    for n in 0..64 {
        mount.fake.lose(at(n), 0..200_000);
    }
    let readers: Vec<Reader> = (0..64)
        .map(|n| Reader::start("cat", &[&mount.path(&format!("t/{n:02}")).to_string_lossy()]))
        .collect();
    mount.fake.until("all wait", |seen| seen.opened == 64 && seen.later >= 64);
    let (path, root) = (mount.path("t/here"), mount.path("t"));
    let read = within("another file", move || fs::read(path)).expect("read");
    assert!(read == content::bytes(seed(at(64)), 0, 300_000));
    let names = within("a listing", move || fs::read_dir(root).map(Iterator::count));
    assert_eq!(names.expect("listed"), 65);
    drop(readers);
    mount.fake.until("all have gone", |seen| seen.closed == 65);
}

#[test]
fn a_read_ends_with_the_errno_of_its_failure() {
    if !fuse() {
        return;
    }
    for (error, expected) in [
        (ReadError::Offline, libc::ENODATA),
        (ReadError::Storage, libc::EIO),
        (ReadError::Removed, libc::ESTALE),
        (ReadError::Abandoned, libc::EIO),
        (ReadError::TimedOut, libc::ETIMEDOUT),
    ] {
        for flags in [0, libc::O_DIRECT] {
            let mount = stuck();
            mount.fake.fail(error);
            let path = mount.path("data");
            let errno = within("the read", move || {
                let fd = File::options().read(true).custom_flags(flags).open(path)?;
                fd.read_at(&mut [0; 5000], 10)
            });
            assert_eq!(errno.expect_err("fails").raw_os_error(), Some(expected), "{error} {flags}");
            let size = fs::metadata(mount.path("data")).expect("stat").len();
            assert_eq!(size, 1_000_000, "{error}: the size stays");
        }
    }
}

#[test]
fn a_read_past_its_deadline_times_out_once() {
    if !fuse() {
        return;
    }
    let timeout = Duration::from_millis(50);
    let mount = stuck_with(&Options { read_timeout: Some(timeout), ..Options::default() });
    let path = mount.path("data");
    let read = within("the read", move || File::open(path)?.read_at(&mut [0; 4096], 0));
    assert_eq!(read.expect_err("fails").raw_os_error(), Some(libc::ETIMEDOUT));
    let seen = mount.fake.seen();
    assert_eq!((seen.later, seen.cancelled), (1, 1), "the kernel's second try waits no more");
}

#[test]
fn umount_is_busy_while_a_reader_waits_and_works_when_it_is_killed() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let mut cat = blocked_cat(&mount);
    let point = mount.point().to_string_lossy().into_owned();
    assert!(!Reader::start("umount", &[&point]).ended().success(), "busy");
    cat.signal(Signal::SIGKILL);
    assert_eq!(cat.ended().signal(), Some(9));
    assert!(Reader::start("umount", &[&point]).ended().success());
    assert_over(&within_wait(&mount));
}

#[test]
fn a_lazy_umount_fails_those_who_wait_and_ends_the_session() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let mut cat = blocked_cat(&mount);
    let mut direct = python(&mount.path("data"), "os.O_DIRECT");
    mount.fake.until("both wait", |seen| seen.opened == 2 && seen.later >= 2);
    let status = Command::new("umount").arg("-l").arg(mount.point()).status().expect("umount");
    assert!(status.success());
    let (status, _, err) = cat.output();
    assert_eq!(status.code(), Some(1), "{err}");
    let (_, out, _) = direct.output();
    assert_eq!(out.trim(), format!("errno {}", libc::ECONNABORTED));
    assert_over(&within_wait(&mount));
}

#[test]
fn our_own_unmount_fails_those_who_wait_and_is_not_held_up() {
    if !fuse() {
        return;
    }
    let mount = stuck();
    let mut cat = blocked_cat(&mount);
    let held = File::open(mount.path("data")).expect("readable");
    assert_eq!(mount.mount.unmount().expect("unmounted"), Ended::InUse);
    assert!(!mount.is_mounted());
    let (status, _, err) = cat.output();
    assert_eq!(status.code(), Some(1));
    assert!(err.contains("abort") || err.contains("not connected"), "{err}");
    let late = within("a late read", move || held.read_at(&mut [0; 10], 0));
    assert_eq!(late.expect_err("fails").raw_os_error(), Some(libc::ECONNABORTED));
}

/// Waits for the end, with a limit.
fn within_wait(mount: &TestMount) -> Ended {
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || tell.send(mount.mount.wait()));
        told.recv_timeout(support::fake::LIMIT).expect("the session ends")
    })
}
