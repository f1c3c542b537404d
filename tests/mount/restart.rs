//! Mounts that end in every way and begin again: what was here stays, and no wrong byte is shown.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::program::{Program, until};
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Stage, undo};

const MIB: u64 = 1 << 20;

/// Kills the mount, and takes away what it leaves.
pub(crate) fn kill(mut mounted: Mounted) {
    mounted.program.signal(Signal::SIGKILL);
    mounted.program.ended();
    undo(&mounted.point);
}

/// The one stored file of the torrent.
fn stored(stage: &Stage, name: &str) -> PathBuf {
    let mut all = super::content::walk(&stage.path("cache")).into_keys();
    let found = all.find(|path| path.file_name().is_some_and(|file| file == name));
    stage.path("cache").join(found.unwrap())
}

/// Bytes of the file that lie on the disk.
fn on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(0, |seen| seen.blocks() * 512)
}

#[track_caller]
fn is_the_same(mounted: &Mounted, name: &str, data: &Path) {
    Program::done(Command::new("cmp").arg(mounted.path(name)).arg(data));
}

#[test]
fn kills_at_any_moment_of_a_download_cost_nothing_that_was_written() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 96 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest);
    let piece = 256 * 1024;
    let mut kept = 0;
    // Moments that have nothing to do with what the program does then.
    for part in [7, 19, 20, 43, 71] {
        let mounted = stage.mount(&torrent, &[relay.addr], &[]);
        let mut reader =
            Program::start(Command::new("cat").arg(mounted.path("x.bin")).stdout(Stdio::null()));
        until("a part has come", || relay.payload() >= part * MIB);
        kill(mounted);
        reader.ended();
        let now = on_disk(&stored(&stage, "x.bin"));
        assert!(now + piece >= kept, "{now} of {kept} bytes are on the disk");
        kept = now;
    }
    let before = relay.payload();
    let mounted = stage.mount(&torrent, &[relay.addr], &[]);
    is_the_same(&mounted, "x.bin", &data);
    let came = relay.payload() - before;
    // At most the half-written ones come again, and what is asked of a second peer at the end.
    assert!(came <= 96 * MIB - kept + 4 * MIB, "{came} bytes came for {}", 96 * MIB - kept);
    mounted.unmount();
}

#[test]
fn what_was_saved_before_a_kill_is_vouched_for_after_it() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 32 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let read = |mounted: &Mounted, at: u64| {
        let file = File::open(mounted.path("x.bin")).unwrap();
        let mut bytes = vec![0; 4 << 20];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes == fs::read(&data).unwrap()[at as usize..][..4 << 20]);
    };
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    read(&mounted, 0);
    mounted.unmount();
    let mounted = stage.mount(&torrent, &[seed.addr], &["--no-fill"]);
    let saved = mounted.here();
    assert!(saved >= 4 * MIB);
    // To the end of the file, beyond which there is nothing to read ahead. A kill between a write and the note
    // of its time is another matter: then all is hashed.
    read(&mounted, 28 * MIB);
    until("what was read is stored", || mounted.here() >= saved + 4 * MIB);
    kill(mounted);
    // Without a peer, and with nobody who reads: what is here was believed, and nothing was hashed.
    let mounted = stage.mount(&torrent, &[], &["--no-fill"]);
    assert_eq!(mounted.here(), saved);
    read(&mounted, 0);
    read(&mounted, 28 * MIB);
    assert!(mounted.here() > saved);
    mounted.unmount();
}

#[test]
fn a_mount_of_unknown_data_is_there_at_once_and_hashes_what_is_read() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 256 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "1MiB"]);
    let kept = stage.dir("kept");
    fs::copy(&data, kept.join("x.bin")).unwrap();
    // Nobody vouches for any of it, and no peer is there: all that is read is hashed first.
    let args = ["--no-fill", "--keep", kept.to_str().unwrap()];
    let mounted = stage.mount(&torrent, &[], &args);
    let file = File::open(mounted.path("x.bin")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 200 * MIB).unwrap();
    assert!(mounted.here() <= 8 * MIB, "{} bytes were hashed for one", mounted.here());
    is_the_same(&mounted, "x.bin", &data);
    assert_eq!(mounted.here(), 256 * MIB);
    drop(file);
    mounted.unmount();
}

#[test]
fn what_is_damaged_between_two_runs_is_found_on_its_first_read_and_fetched_again() {
    for end in ["unmount", "kill"] {
        let stage = Stage::new();
        let data = stage.file("x.bin", 16 * MIB);
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let seed = stage.seed(&torrent, &data);
        let relay = Relay::before(seed.addr, Manner::Honest);
        let mounted = stage.mount(&torrent, &[relay.addr], &[]);
        is_the_same(&mounted, "x.bin", &data);
        until("all of it is stored", || mounted.here() == 16 * MIB);
        match end {
            "kill" => kill(mounted),
            _ => drop(mounted.unmount()),
        }
        // Damage that changes no length; the clock of the file system ticks meanwhile.
        let file = File::options().write(true).open(stored(&stage, "x.bin")).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        until("the clock has ticked", || {
            file.write_all_at(&[0; 1000], 5 * MIB + 10).unwrap();
            file.metadata().unwrap().modified().unwrap() > before + Duration::from_millis(20)
        });
        file.set_modified(before).unwrap();
        let payload = relay.payload();
        let mounted = stage.mount(&torrent, &[relay.addr], &["--no-fill"]);
        is_the_same(&mounted, "x.bin", &data);
        let came = relay.payload() - payload;
        assert_eq!(came, 256 * 1024, "one piece was damaged");
        mounted.unmount();
    }
}

#[test]
fn offline_what_nobody_vouches_for_is_read_if_it_is_right_and_fails_if_not() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 8 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let kept = stage.dir("kept");
    fs::copy(&data, kept.join("x.bin")).unwrap();
    let file = File::options().write(true).open(kept.join("x.bin")).unwrap();
    file.write_all_at(&[0; 1000], 5 * MIB + 10).unwrap();
    let args = ["--offline", "--no-fill", "--keep", kept.to_str().unwrap()];
    let mounted = stage.mount(&torrent, &[], &args);
    let reader = File::open(mounted.path("x.bin")).unwrap();
    let mut read = vec![0; 4 << 20];
    reader.read_exact_at(&mut read, 0).unwrap();
    assert!(read == fs::read(&data).unwrap()[..4 << 20]);
    let failed = reader.read_at(&mut [0], 5 * MIB + 4096).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ENODATA));
    drop(reader);
    mounted.unmount();
    // What is kept is the user's: it is not made worse.
    assert_eq!(on_disk(&kept.join("x.bin")), 8 * MIB);
}

#[test]
fn a_download_goes_on_after_a_kill_and_takes_up_what_others_left() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 48 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest).after(20 * MIB, Manner::Silent);
    let out = stage.dir("out");
    let get = || {
        let mut command = Program::btfs();
        command.arg("get").arg(&torrent).arg(&out).args(["--listen", "127.0.0.1:0"]);
        command.arg("--peer").arg(relay.addr.to_string()).env("XDG_CACHE_HOME", stage.path("c"));
        command
    };
    let mut first = Program::start(&mut get());
    until("a part has come", || relay.payload() >= 20 * MIB);
    first.signal(Signal::SIGKILL);
    first.ended();
    let kept = on_disk(&out.join("x.bin"));
    // One that knows nothing of the first: it goes by what lies there.
    fs::remove_dir_all(stage.path("c")).unwrap();
    relay.become_(Manner::Honest);
    let before = relay.payload();
    Program::done(&mut get());
    Program::done(Command::new("cmp").arg(out.join("x.bin")).arg(&data));
    let came = relay.payload() - before;
    assert!(came <= 48 * MIB - kept + 4 * MIB, "{came} bytes came for {}", 48 * MIB - kept);
}
