//! Files that are here in full: the kernel reads them by itself, and nothing is taken from under it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::unistd::{Pid, geteuid};
use rustix::fs::Advice;

use super::program::until;
use super::stage::{Mounted, Stage};

const MIB: u64 = 1 << 20;

/// Bytes that the process has read so far, from whatever.
fn read_by(process: Pid) -> u64 {
    let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

/// Opens a file that is complete, once the kernel has closed it for those before.
fn by_kernel(mounted: &Mounted, name: &str) -> File {
    let mut found = None;
    until("the kernel reads it by itself", || {
        let file = File::open(mounted.path(name)).unwrap();
        let len = file.metadata().unwrap().len();
        forget(&file);
        let before = read_by(mounted.program.pid());
        read(&file, len);
        let served = read_by(mounted.program.pid()) - before;
        found = (served < len).then_some(file);
        found.is_some()
    });
    found.unwrap()
}

/// Has the kernel drop what it keeps of a served file.
fn forget(file: &File) {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
}

/// What there is to read, up to `len` bytes.
fn read(file: &File, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(&mut bytes[at..], at as u64).unwrap() {
            0 => break,
            now => at += now,
        }
    }
    bytes.truncate(at);
    bytes
}

#[test]
fn what_the_kernel_reads_by_itself_is_not_evicted_for_others() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root's processes have the kernel read files");
        return;
    }
    let stage = Stage::new();
    let (a, b) = (stage.file("a.bin", 12 * MIB), stage.file("b.bin", 32 * MIB));
    let args = ["--piece-size", "256KiB"];
    let torrents = [stage.torrent(&a, &args), stage.torrent(&b, &args)];
    let seeds = [stage.seed(&torrents[0], &a), stage.seed(&torrents[1], &b)];
    let point = stage.dir("mnt");
    let sources = [torrents[0].as_path(), torrents[1].as_path()];
    let mut command = stage.mount_command(&sources, &point, &[seeds[0].addr, seeds[1].addr]);
    command.args(["--foreground", "--no-fill", "--cache-size", "24MiB"]);
    let mounted = Mounted::start(&mut command, &point);
    let here = |name| mounted.attribute(name, "user.btfs.have").parse::<u64>().unwrap();
    fs::read(mounted.path("a.bin")).unwrap();
    until("a is here", || here("a.bin") == 12 * MIB);
    let held = by_kernel(&mounted, "a.bin");
    assert!(fs::read(mounted.path("b.bin")).unwrap() == fs::read(&b).unwrap());
    until("b has gone in part", || here("b.bin") <= 12 * MIB);
    assert_eq!(here("a.bin"), 12 * MIB);
    assert!(read(&held, 12 * MIB) == fs::read(&a).unwrap());
    // Closed, it goes like all that was not read for long.
    drop(held);
    until("a makes room", || {
        let file = File::open(mounted.path("b.bin")).unwrap();
        forget(&file);
        assert!(read(&file, 32 * MIB) == fs::read(&b).unwrap());
        here("a.bin") < 12 * MIB
    });
    assert!(fs::read(mounted.path("a.bin")).unwrap() == fs::read(&a).unwrap());
    mounted.unmount();
}

#[test]
fn a_file_cut_by_somebody_ends_there_for_those_who_have_it_open_and_is_whole_for_the_next() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root's processes have the kernel read files");
        return;
    }
    let stage = Stage::new();
    let data = stage.file("x.bin", 8 * MIB);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let kept = stage.dir("kept");
    let mounted = stage.mount(&torrent, &[seed.addr], &["--keep", kept.to_str().unwrap()]);
    let whole = fs::read(&data).unwrap();
    assert!(fs::read(mounted.path("x.bin")).unwrap() == whole);
    until("it is on disk", || mounted.here() == 8 * MIB);
    let held = by_kernel(&mounted, "x.bin");
    let on_disk = OpenOptions::new().write(true).open(kept.join("x.bin")).unwrap();
    on_disk.set_len(3 * MIB).unwrap();
    assert!(read(&held, 8 * MIB) == whole[..3 * MIB as usize]);
    assert_eq!(held.metadata().unwrap().size(), 8 * MIB);
    drop(held);
    until("the next reader has all of it", || fs::read(mounted.path("x.bin")).unwrap() == whole);
    mounted.unmount();
}
