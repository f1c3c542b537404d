//! Going to the background, with real processes: this program starts itself in a role and watches.
//!
//! It has its own `main`, since a fork is right only in a process of one thread, which the usual test
//! runner is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;

use anyhow::bail;
use btfs::cli::daemon::{Ready, background};

/// Tells the started process which role it plays.
const ROLE: &str = "BTFS_TEST_ROLE";

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let tests: &[alone::Test] = &[
        ("a_mount_that_is_there_lets_the_parent_go", a_mount_that_is_there_lets_the_parent_go),
        ("a_failure_before_the_mount_is_the_parents", a_failure_before_the_mount_is_the_parents),
        ("a_child_that_dies_is_not_waited_for", a_child_that_dies_is_not_waited_for),
        ("warnings_before_the_mount_are_seen_and_later_ones_logged", warnings_are_seen_then_logged),
        ("the_terminal_is_given_up", the_terminal_is_given_up),
        ("the_foreground_waits_for_nobody", || Ready::foreground().mounted().unwrap()),
    ];
    alone::run(tests)
}

/// One role of the started process; the log file's path is its first argument.
fn play(role: &str) -> ExitCode {
    let log = std::env::args_os().nth(1);
    let log = log.as_deref().map(Path::new);
    let result = background(log, |ready| match role {
        "mounts" => {
            eprintln!("early word");
            ready.mounted()?;
            eprintln!("late word");
            Ok(())
        }
        // Ends when the pipe that it got for standard input would, were it still open.
        "stays" => {
            let session = nix::unistd::getsid(None)?;
            ready.mounted()?;
            assert_eq!(std::env::current_dir()?, Path::new("/"));
            assert_eq!(session, nix::unistd::getpid());
            assert_eq!(std::io::stdin().read(&mut [0])?, 0);
            eprintln!("left alone");
            Ok(())
        }
        "fails" => bail!("no room: give it more"),
        "dies" => std::process::abort(),
        _ => bail!("no role {role}"),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(role: &str, log: Option<&Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).args(log).stdin(Stdio::null()).output().unwrap()
}

fn told(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// `output` reads to the end of the pipes, so that it returns shows that the child closed them.
fn a_mount_that_is_there_lets_the_parent_go() {
    let output = start("mounts", None);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(told(&output), "early word\n");
}

fn a_failure_before_the_mount_is_the_parents() {
    let output = start("fails", None);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(told(&output), "no room: give it more\n");
}

fn a_child_that_dies_is_not_waited_for() {
    let output = start("dies", None);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("died before the mount was there"), "{output:?}");
}

fn warnings_are_seen_then_logged() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let output = start("mounts", Some(&log));
    assert_eq!(told(&output), "early word\n");
    wait_for(&log, "late word\n");
    let output = start("mounts", Some(dir.path()));
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("--log-file"), "{output:?}");
}

fn the_terminal_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.env(ROLE, "stays").arg(&log).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let open_input = child.stdin.take();
    assert!(child.wait().unwrap().success());
    wait_for(&log, "left alone\n");
    drop(open_input);
}

fn wait_for(file: &Path, expected: &str) {
    let start = Instant::now();
    while fs::read_to_string(file).unwrap() != expected {
        assert!(
            start.elapsed().as_secs() < 10,
            "{}: {:?}",
            file.display(),
            fs::read_to_string(file)
        );
        std::thread::yield_now();
    }
}
