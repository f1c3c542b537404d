//! The program from outside: its help, its manual, its exit codes, and what it says to bad input.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use btfs::cli::args::Cli;
use clap::CommandFactory;

const NOBODY: u32 = 65534;

fn btfs(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    program().args(args).output().unwrap()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_btfs"));
    command.env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// One line on standard error that names the program, nothing on standard output, and the code.
#[track_caller]
fn assert_refusal(name: &str, output: &Output, code: i32, expected: &str) {
    let (told, printed) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(code), "{name}: {told}");
    assert_eq!(printed, "", "{name}");
    assert!(told.starts_with("btfs: ") && told.ends_with('\n'), "{name}: {told}");
    assert_eq!(told.lines().count(), 1, "{name}: {told}");
    assert!(told.contains(expected), "{name}: {told}");
}

/// Every command with the arguments that lead to it; the program itself first.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    let mut top = Cli::command();
    top.build();
    let below: Vec<clap::Command> = top.get_subcommands().cloned().collect();
    let mut all = vec![(Vec::new(), top)];
    all.extend(below.into_iter().map(|command| (vec![command.get_name().to_owned()], command)));
    all
}

#[test]
fn help_goes_to_standard_output_and_short_help_fits_a_screen() {
    for (args, _) in commands() {
        for flag in ["-h", "--help"] {
            let output = btfs(args.iter().map(String::as_str).chain([flag]));
            assert!(output.status.success() && output.stderr.is_empty(), "{args:?} {flag}");
            let help = text(&output.stdout);
            let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= 80, "{args:?} {flag} is {widest} wide:\n{help}");
            let lines = help.lines().count();
            assert!(flag == "--help" || lines <= 42, "{args:?} -h has {lines} lines:\n{help}");
        }
    }
}

#[test]
fn long_help_is_complete() {
    for (args, command) in commands() {
        let output = btfs(args.iter().map(String::as_str).chain(["--help"]));
        let help = text(&output.stdout);
        for arg in command.get_arguments() {
            let id = arg.get_id();
            assert!(arg.get_help().is_some(), "{args:?}: {id} has no help");
            for spelling in spellings(arg) {
                assert!(help.contains(&spelling), "{args:?} --help lacks {spelling}");
            }
        }
        for below in command.get_subcommands() {
            assert!(help.contains(below.get_name()), "{args:?} --help lacks {}", below.get_name());
        }
    }
}

fn spellings(arg: &clap::Arg) -> Vec<String> {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    short.into_iter().chain(long).collect()
}

#[test]
fn the_manual_names_every_command_flag_and_exit_code() {
    let manual = read("man/btfs.1");
    for (args, command) in commands() {
        for name in command.get_subcommands().map(clap::Command::get_name) {
            let mentions = manual.lines().filter(|line| line.starts_with(&format!(".Cm {name}")));
            assert!(mentions.count() > 0, "SYNOPSIS lacks {name}");
            assert!(manual.contains(&format!(".It Cm {name}")), "COMMANDS lacks {name}");
        }
        for arg in command.get_arguments() {
            let short = arg.get_short().map(|short| format!("Fl {short}"));
            let long = arg.get_long().map(|long| format!("Fl Fl {long}"));
            for flag in short.into_iter().chain(long) {
                let described = manual.lines().any(|line| is_item(line, &flag));
                assert!(described, "{args:?}: OPTIONS lacks .It {flag}");
            }
        }
    }
    for code in 0..=2 {
        assert!(manual.contains(&format!("\n.It {code}\n")), "EXIT STATUS lacks {code}");
    }
}

/// Whether a line of mdoc begins the description of the flag, among other spellings of it.
fn is_item(line: &str, flag: &str) -> bool {
    let Some(item) = line.strip_prefix(".It ") else { return false };
    item.split(" , ").any(|part| part == flag || part.starts_with(&format!("{flag} ")))
}

#[test]
fn the_readme_speaks_of_commands_and_flags_that_there_are() {
    let known: Vec<String> = commands().iter().flat_map(|(_, command)| words_of(command)).collect();
    let readme = read("README.md");
    let of_others = |code: &&str| code.contains("cargo") || code.starts_with("scripts/");
    for code in readme.split('`').skip(1).step_by(2).filter(|code| !of_others(code)) {
        for word in code.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(known.contains(&word.to_owned()), "README says {word}");
        }
        if let Some(("btfs", after)) = code.split_once(' ') {
            let command = after.split(' ').next().unwrap();
            let is_placeholder = command.chars().all(char::is_uppercase);
            assert!(
                is_placeholder || known.contains(&command.to_owned()),
                "README says btfs {command}"
            );
        }
    }
}

fn words_of(command: &clap::Command) -> Vec<String> {
    let flags = command.get_arguments().flat_map(spellings);
    flags.chain([command.get_name().to_owned()]).collect()
}

#[test]
fn the_version_is_the_packages() {
    let output = btfs(["--version"]);
    assert_eq!(text(&output.stdout), concat!("btfs ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = btfs(["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("unmount"), "{shell}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_status_2_with_a_hint() {
    let table: &[(&str, &[&str], &str)] = &[
        ("no command", &[], "no command given; try 'btfs --help'"),
        ("unknown command", &["mout"], "try 'btfs --help'"),
        (
            "unknown option",
            &["mount", "--no-fil", "a", "b"],
            "similar argument exists: '--no-fill'",
        ),
        ("option of another command", &["seed", "--no-fill", "a", "b"], "try 'btfs seed --help'"),
        ("no arguments", &["mount"], "<SOURCE>... <MOUNTPOINT>"),
        ("a magnet that the shell cut", &["mount", "magnet:?xt=urn:btih:00"], "single quotes"),
        ("an option without value", &["get", "a", "b", "--peer"], "--peer"),
        ("bad size", &["mount", "--cache-size", "big", "a", "b"], "--cache-size big: is no size"),
        ("too little memory", &["get", "--memory", "1MiB", "a", "b"], "--memory 1MiB: too small"),
        (
            "bad time",
            &["mount", "--read-timeout", "soon", "a", "b"],
            "--read-timeout soon: is no time",
        ),
        ("bad address", &["seed", "--listen", "here", "a", "/"], "--listen here: is no ADDR:PORT"),
        ("bad peer", &["mount", "--peer", "1.2.3.4:0", "a", "b"], "--peer 1.2.3.4:0: nobody"),
        ("bad ratio", &["seed", "--ratio=-1", "a", "/"], "--ratio -1: is no ratio"),
        ("endless ratio", &["get", "--ratio", "inf", "a", "b"], "--ratio inf: is no ratio"),
        ("bad seed time", &["seed", "--seed-time", "x", "a", "/"], "--seed-time x: is no time"),
        (
            "goals without uploading",
            &["get", "--no-upload", "--ratio", "1", "a", "b"],
            "--no-upload: contradicts --ratio",
        ),
        ("bad rate", &["seed", "--max-up", "fast", "a", "/"], "--max-up fast: is no rate"),
        ("no rate", &["get", "--max-down", "0", "a", "b"], "--max-down 0: nothing would ever move"),
        ("bad tracker", &["get", "--tracker", "x", "a", "b"], "--tracker x: is no tracker"),
        ("bad mount option", &["mount", "-o", "ro,alow_other", "a", "b"], "-o alow_other: unknown"),
        ("write access", &["mount", "-o", "rw", "a", "b"], "-o rw: a btfs mount is always ro"),
        (
            "store and keep",
            &["mount", "--store", "memory", "--keep", "k", "a", "b"],
            "--keep: contradicts",
        ),
        ("log and foreground", &["mount", "-f", "--log-file", "l", "a", "b"], "--log-file"),
        ("bad piece size", &["create", "--piece-size", "100", "a"], "power of two"),
        ("bad tracker to name", &["create", "--tracker", "x", "a"], "not a tracker's URL"),
        ("bad address to serve", &["tracker", "--listen", "here"], "--listen"),
        ("unknown level", &["--log", "loud", "unmount", "a"], "'loud'"),
    ];
    for (name, args, expected) in table {
        assert_refusal(name, &btfs(*args), 2, expected);
    }
}

#[test]
fn what_cannot_be_done_is_status_1_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (torrent, empty, full, file) = (at("x.torrent"), at("empty"), at("full"), at("file"));
    fs::write(&torrent, b"d4:infodee").unwrap();
    fs::write(&file, b"").unwrap();
    fs::create_dir(&empty).unwrap();
    fs::create_dir_all(Path::new(&full).join("entry")).unwrap();
    let table: &[(&str, &[&str], &str)] = &[
        (
            "no such torrent",
            &["mount", &at("none"), &empty],
            "none: cannot find the torrent: no such file",
        ),
        (
            "a directory for a torrent",
            &["mount", &full, &empty],
            "is a directory; SOURCE is a .torrent file",
        ),
        (
            "a magnet",
            &["mount", "magnet:?xt=urn:btih:00", &empty],
            "neither 40 hexadecimal digits nor 32",
        ),
        ("a URL of nowhere", &["get", "https://", &empty], "is no URL that can be asked"),
        (
            "no mount point",
            &["mount", &torrent, &at("none")],
            "none: no such directory; make it first",
        ),
        ("a file for a mount point", &["mount", &torrent, &file], "file: not a directory"),
        ("a mount point with entries", &["mount", &torrent, &full], "not empty; choose"),
        (
            "a busy mount point",
            &["mount", &torrent, "/proc"],
            "/proc: something is mounted there already",
        ),
        ("an unmount of nothing", &["unmount", &empty], "empty: nothing is mounted there"),
        ("an unmount of nowhere", &["unmount", &at("none/x")], "no such mount point"),
        (
            "an unmount of another's",
            &["unmount", "/proc"],
            "/proc: is a mount of proc, not of btfs",
        ),
        ("a garbled torrent", &["info", &torrent], "x.torrent"),
        ("a file that is no torrent", &["info", &file], "file"),
        ("a torrent of nowhere", &["create", &at("none")], "none"),
        ("a torrent that is there", &["create", &torrent, "-o", &torrent], "--force"),
        ("a format of later", &["create", &full, "--format", "v2"], "--format v1"),
        (
            "a tracker at a stranger's address",
            &["tracker", "--listen", "192.0.2.1:1"],
            "cannot listen on 192.0.2.1:1",
        ),
        ("a file for a download", &["get", &torrent, &file], "file: is not a directory"),
        ("no data to seed", &["seed", &torrent, &at("none")], "none: cannot seed from there"),
    ];
    for (name, args, expected) in table {
        assert_refusal(name, &btfs(*args), 1, expected);
    }
}

/// A foreign tracker could not tell who may have it.
#[test]
fn a_private_torrent_takes_no_tracker_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (data, torrent) = (dir.path().join("data"), dir.path().join("data.torrent"));
    fs::write(&data, b"bytes").unwrap();
    let own = ["--private", "--tracker", "http://own.example/announce", "-o"];
    let created = program().arg("create").args(own).args([&torrent, &data]).output().unwrap();
    assert!(created.status.success(), "{}", text(&created.stderr));
    let foreign = ["--listen", "127.0.0.1:0", "--tracker", "http://127.0.0.1:1/announce"];
    let expected = "data: the torrent is private (BEP 27), and http://127.0.0.1:1/announce is not \
                    one of its trackers; leave --tracker out for it";
    for (command, place) in [("seed", data.as_path()), ("get", dir.path())] {
        let mut program = program();
        program.env("XDG_CACHE_HOME", dir.path()).arg(command).args(foreign);
        let output = program.args([&torrent, place]).output().unwrap();
        assert_refusal(command, &output, 1, expected);
    }
    let shown = btfs(["info".as_ref(), torrent.as_os_str()]);
    assert!(text(&shown.stdout).lines().any(|line| line == "private     yes"));
}

#[test]
fn verify_tells_what_is_right_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let torrent = dir.path().join("data.torrent");
    fs::create_dir_all(data.join("sub")).unwrap();
    for (name, byte) in [("a", 1), ("b", 2), ("sub/c", 3), ("sub/d", 4)] {
        fs::write(data.join(name), vec![byte; 40_000]).unwrap();
    }
    std::os::unix::fs::symlink("sub/c", data.join("link")).unwrap();
    let created = program()
        .args(["create", "--piece-size", "16KiB", "-o"])
        .args([&torrent, &data])
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", text(&created.stderr));
    let verify = |json: &[&str], data: &Path| {
        program().arg("verify").args(json).args([&torrent, data]).output().unwrap()
    };

    for place in [data.as_path(), dir.path()] {
        let output = verify(&[], place);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "data: 5 of 5 files and 10 of 10 pieces are right\n");
    }

    fs::write(data.join("a"), vec![9; 40_000]).unwrap();
    fs::remove_file(data.join("sub/c")).unwrap();
    fs::remove_file(data.join("link")).unwrap();
    std::os::unix::fs::symlink("sub/d", data.join("link")).unwrap();
    let output = verify(&[], &data);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr).lines().last().unwrap();
    assert!(told.starts_with("btfs: ") && told.ends_with("5 of 5 files are not right"), "{told}");
    let expected = "\
wrong     a: 40000 of 40000 bytes are in pieces that are not right
wrong     b: 23616 of 40000 bytes are in pieces that are not right
missing   link
missing   sub/c
unproven  sub/d: 11072 of 40000 bytes share pieces with what is missing
data: 0 of 5 files and 3 of 10 pieces are right
";
    assert_eq!(text(&output.stdout), expected);
    let output = verify(&["--json"], &data);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["right"], &json["right_pieces"]), (&false.into(), &3.into()));
    let file = serde_json::json!({
        "path": "sub/d", "size": 40_000, "state": "unproven", "bytes": 11_072
    });
    assert!(json["files"].as_array().unwrap().contains(&file), "{json}");
}

#[test]
fn a_broken_log_filter_is_named() {
    let output = program().env("RUST_LOG", "btfs=loud").args(["unmount", "/"]).output().unwrap();
    assert_refusal("RUST_LOG", &output, 1, "RUST_LOG=btfs=loud");
}

#[test]
fn a_mount_point_that_may_not_be_seen_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let torrent = dir.path().join("x.torrent");
    let hidden = dir.path().join("hidden");
    fs::write(&torrent, b"d4:infodee").unwrap();
    fs::create_dir_all(hidden.join("mnt")).unwrap();
    set_mode(dir.path(), 0o755);
    set_mode(&hidden, 0);
    let mut command = program();
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.arg("mount").arg(&torrent).arg(hidden.join("mnt")).output();
    set_mode(&hidden, 0o700);
    match output {
        Ok(output) => assert_refusal("hidden", &output, 1, "Permission denied"),
        Err(error) => eprintln!("skipped: another user cannot run the program here: {error}"),
    }
}

#[test]
fn a_machine_without_fuse_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let torrent = dir.path().join("x.torrent");
    let mountpoint = dir.path().join("mnt");
    fs::write(&torrent, b"d4:infodee").unwrap();
    fs::create_dir(&mountpoint).unwrap();
    let Some(mut command) = with_empty("/dev", "4k", "exec \"$@\"") else { return };
    let output = command.arg("mount").arg(&torrent).arg(&mountpoint).output().unwrap();
    assert_refusal("no FUSE", &output, 1, "/dev/fuse");
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let full = dir.path().join("full");
    fs::File::create(&data).unwrap().set_len(16 << 20).unwrap();
    fs::create_dir(&full).unwrap();
    let script = "\"$@\"; status=$?; ls \"$0\"; exit $status";
    let Some(mut command) = with_empty(full.to_str().unwrap(), "4k", script) else { return };
    command
        .arg("create")
        .arg(&data)
        .args(["--piece-size", "16KiB", "-o"])
        .arg(full.join("x.torrent"));
    assert_refusal("no space", &command.output().unwrap(), 1, "No space left on device");
}

/// Runs `script` with the program as `$@` and `place` as `$0`, in a mount namespace of its own where `place`
/// is an empty filesystem of this size; `None`, said aloud, where that cannot be had.
fn with_empty(place: &str, size: &str, script: &str) -> Option<Command> {
    let bare = |script: &str| {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={size} none \"$0\" && {{ {script}; }}");
        command.args(["--mount", "--map-root-user", "sh", "-c", &script, place]);
        command.arg(env!("CARGO_BIN_EXE_btfs")).env_remove("RUST_LOG");
        command
    };
    match bare("true").output() {
        Ok(probe) if probe.status.success() => Some(bare(script)),
        probe => {
            eprintln!("skipped: no mount namespaces here: {probe:?}");
            None
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
