//! How readers, mounts and their process end, also while reads wait.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::program::{Program, until};
use super::relay::{Manner, Relay};
use super::stage::{Mounted, Stage, attribute, is_mounted, undo};

/// A mount of one file whose only peer gives nothing, and a `cat` of it that waits.
struct Stuck {
    mounted: Mounted,
    cat: Program,
    _relay: Relay,
    _seed: super::stage::Seed,
    stage: Stage,
}

impl Stuck {
    #[track_caller]
    fn new() -> Self {
        let stage = Stage::new();
        let data = stage.file("x.bin", 2 << 20);
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let seed = stage.seed(&torrent, &data);
        let relay = Relay::before(seed.addr, Manner::Silent);
        let mounted = stage.mount(&torrent, &[relay.addr], &[]);
        let cat = Program::start(Command::new("cat").arg(mounted.path("x.bin")));
        await_waiting(&mounted);
        Self { mounted, cat, _relay: relay, _seed: seed, stage }
    }

    /// The process ends well, the mount is gone, and `cat` was told.
    #[track_caller]
    fn ends_well(mut self) {
        let status = self.mounted.program.ended();
        assert!(status.success(), "{status}: {}", self.mounted.program.said());
        assert!(!is_mounted(&self.mounted.point));
        let status = self.cat.ended();
        assert!(!status.success());
        assert!(
            self.cat.said().contains("Software caused connection abort"),
            "{}",
            self.cat.said()
        );
        // What ended in order can begin again at the same place with the same cache.
        let point = &self.mounted.point;
        assert_eq!(std::fs::read_dir(point).unwrap().count(), 0);
        let torrent = self.stage.path("x.bin.torrent");
        self.stage.mount(&torrent, &[], &["--offline"]).unmount();
    }
}

/// Waits until a read of the mount waits.
#[track_caller]
fn await_waiting(mounted: &Mounted) {
    until("a read waits", || {
        mounted.attribute("x.bin", "user.btfs.why").contains("the longest for")
    });
}

#[test]
fn a_waiting_cat_can_be_interrupted_and_killed_and_the_mount_goes_on() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut stuck = Stuck::new();
        stuck.cat.signal(signal);
        let status = stuck.cat.ended();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(signal as i32));
        until("nobody waits", || {
            let why = stuck.mounted.attribute("x.bin", "user.btfs.why");
            !why.contains("the longest for")
        });
        let mut again = Program::start(Command::new("cat").arg(stuck.mounted.path("x.bin")));
        await_waiting(&stuck.mounted);
        again.signal(signal);
        again.ended();
        stuck.mounted.unmount();
    }
}

#[test]
fn signals_to_the_process_end_the_mount_while_a_read_waits() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let stuck = Stuck::new();
        stuck.mounted.program.signal(signal);
        stuck.ends_well();
    }
}

#[test]
fn btfs_unmount_ends_the_mount_while_a_read_waits() {
    let stuck = Stuck::new();
    Program::done(Program::btfs().arg("unmount").arg(&stuck.mounted.point));
    stuck.ends_well();
}

#[test]
fn umount_is_refused_while_a_file_is_open_and_ends_the_mount_when_none_is() {
    let mut stuck = Stuck::new();
    let (status, said) = Program::outcome(Command::new("umount").arg(&stuck.mounted.point));
    assert!(!status.success() && said.contains("busy"), "{said}");
    stuck.cat.signal(Signal::SIGKILL);
    stuck.cat.ended();
    until("nothing is open", || {
        Program::outcome(Command::new("umount").arg(&stuck.mounted.point)).0.success()
    });
    let status = stuck.mounted.program.ended();
    assert!(status.success() && !is_mounted(&stuck.mounted.point), "{status}");
}

#[test]
fn a_lazy_umount_ends_the_mount_while_a_read_waits() {
    let stuck = Stuck::new();
    Program::done(Command::new("umount").arg("-l").arg(&stuck.mounted.point));
    stuck.ends_well();
}

#[test]
fn a_killed_process_leaves_a_mount_that_is_named_and_cleared_and_its_pieces() {
    for clear in ["btfs unmount", "umount"] {
        let stage = Stage::new();
        let data = stage.file("x.bin", 64 << 20);
        let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
        let seed = stage.seed(&torrent, &data);
        let relay = Relay::before(seed.addr, Manner::Honest).after(24 << 20, Manner::Silent);
        let mut mounted = stage.mount(&torrent, &[relay.addr], &[]);
        let mut cat = Program::start(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
        until("a part has come", || relay.payload() >= 24 << 20);
        let before = mounted.here();
        await_waiting(&mounted);
        mounted.program.signal(Signal::SIGKILL);
        mounted.program.ended();
        cat.ended();
        assert!(is_mounted(&mounted.point));
        // A second mount says what is in its way.
        let mut command = stage.mount_command(&[&torrent], &mounted.point, &[]);
        let (status, said) = Program::outcome(&mut command);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("btfs unmount") && said.lines().count() == 1, "{said}");
        let mut command = match clear {
            "umount" => Command::new("umount"),
            _ => Program::btfs(),
        };
        if clear != "umount" {
            command.arg("unmount");
        }
        Program::done(command.arg(&mounted.point));
        assert!(!is_mounted(&mounted.point));
        // Nothing that was here comes a second time.
        relay.become_(Manner::Honest);
        let mounted = stage.mount(&torrent, &[relay.addr], &[]);
        until("what was here is found again", || mounted.here() + (1 << 20) >= before);
        Program::done(Command::new("cmp").arg(mounted.path("x.bin")).arg(&data));
        let all = relay.payload();
        assert!(all < (64 << 20) + (10 << 20), "{all} bytes came for 64 MiB");
        mounted.unmount();
    }
}

#[test]
fn a_background_mount_is_there_when_the_command_returns_and_a_new_session_serves_it() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 2 << 20);
    let torrent = stage.torrent(&data, &[]);
    let seed = stage.seed(&torrent, &data);
    let point = stage.dir("mnt");
    let mut command = stage.mount_command(&[&torrent], &point, &[seed.addr]);
    // Its output ends when the command does: the background process holds on to nothing.
    let output = command.stdin(Stdio::null()).output().unwrap();
    let background = Background(point);
    let point = &background.0;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    assert!(is_mounted(point));
    Program::done(Command::new("cmp").arg(point.join("x.bin")).arg(&data));
    let pid = Pid::from_raw(attribute(point, "user.btfs.pid").parse().unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
    let second = stage.dir("second");
    let (status, said) = Program::outcome(&mut stage.mount_command(&[&torrent], &second, &[]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another btfs is using") && said.lines().count() == 1, "{said}");
    let (status, said) = Program::outcome(&mut stage.mount_command(&[&torrent], point, &[]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("mounted there already") && said.lines().count() == 1, "{said}");
    Program::done(Program::btfs().arg("unmount").arg(point));
    assert!(!is_mounted(point));
    until("its process is gone", || !is_alive(pid));
}

#[test]
fn a_mount_that_nobody_waits_for_does_not_keep_its_process() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 2 << 20);
    let torrent = stage.torrent(&data, &[]);
    let mut mounted = stage.mount(&torrent, &[], &[]);
    // A directory of it is somebody's working directory when it is taken away.
    let sleeper = Program::start(Command::new("sleep").arg("1000").current_dir(&mounted.point));
    Program::done(Command::new("umount").arg("-l").arg(&mounted.point));
    let status = mounted.program.ended();
    assert!(status.success(), "{status}: {}", mounted.program.said());
    drop(sleeper);
}

/// A mount whose process is nobody's child.
struct Background(std::path::PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            let mut command = Program::btfs();
            let _ = Program::outcome(command.arg("unmount").arg(&self.0));
            undo(&self.0);
        }
    }
}

/// Whether the process runs; one that has ended and that nobody has asked for does not.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    kill(pid, None).is_ok() && stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn a_process_that_ends_saves_what_it_has_while_others_wait() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 32 << 20);
    let torrent = stage.torrent(&data, &["--piece-size", "256KiB"]);
    let seed = stage.seed(&torrent, &data);
    let relay = Relay::before(seed.addr, Manner::Honest).after(8 << 20, Manner::Silent);
    let mounted = stage.mount(&torrent, &[relay.addr], &[]);
    let cats: Vec<_> = (0..8)
        .map(|_| {
            Program::start(Command::new("cat").arg(mounted.path("x.bin")).stdout(Stdio::null()))
        })
        .collect();
    until("a part has come", || relay.payload() >= 8 << 20);
    await_waiting(&mounted);
    let before = mounted.here();
    std::thread::sleep(Duration::from_millis(300));
    mounted.unmount();
    for mut cat in cats {
        assert!(!cat.ended().success());
    }
    let mounted = stage.mount(&torrent, &[], &["--offline"]);
    assert!(mounted.here() >= before, "{} of {before}", mounted.here());
    mounted.unmount();
}
