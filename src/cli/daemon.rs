//! Into the background: the parent returns once the mount is there, or with the reason why it is not.
//!
//! ```text
//! parent   fork ── waits on the pipe ───────────────▶ "mounted": exit 0 · a reason: exit 1 · nothing: died
//! child      └── setsid, serve(Ready) ── Ready::mounted: stdio goes, the pipe speaks ── … ── exit
//! ```
//!
//! Invariant: the fork comes before any thread, so the child is a whole process.
//! Invariant: the child keeps standard error until the mount is there; what it warns of is seen.
//! Not here: what is served, and the signals that end it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{self, ForkResult};

use super::exit::one_line;

/// First byte on the pipe: the mount is there.
const MOUNTED: u8 = b'M';
/// First byte on the pipe: the mount failed, and the rest says why.
const FAILED: u8 = b'F';
/// Longest reason that the parent takes.
const REASON_MAX_BYTES: u64 = 64 << 10;

/// The right to say that the mount is there.
#[derive(Debug)]
pub struct Ready(Waiting);

/// Who waits to hear it.
#[derive(Debug)]
enum Waiting {
    Nobody,
    Parent { pipe: File, log: Option<File>, gone: Arc<AtomicBool> },
}

impl Ready {
    /// For a mount in the foreground, where nobody waits.
    pub const fn foreground() -> Self {
        Self(Waiting::Nobody)
    }

    /// The mount is there: lets the parent go and gives up the terminal.
    ///
    /// # Errors
    /// The parent is gone, so whoever asked for the mount gave up; end it.
    pub fn mounted(self) -> io::Result<()> {
        let Waiting::Parent { mut pipe, log, gone } = self.0 else { return Ok(()) };
        prctl::set_pdeathsig(None)?;
        leave_terminal(log)?;
        gone.store(true, Ordering::Relaxed);
        pipe.write_all(&[MOUNTED])
    }
}

/// Runs `serve` in a background process and returns once it says that the mount is there.
///
/// `serve` runs until the mount ends; that it fails before [`Ready::mounted`] is told to the parent. Its
/// working directory is `/`. With `log`, what it writes to standard error goes there from then on.
/// Call it while the process has one thread.
///
/// # Errors
/// `serve` failed before the mount was there; the error is its own, as one line.
pub fn background<F>(log: Option<&Path>, serve: F) -> anyhow::Result<()>
where
    F: FnOnce(Ready) -> anyhow::Result<()>,
{
    let log = log.map(open_log).transpose()?;
    let (reader, writer) =
        unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    match fork().context("cannot start a background process")? {
        ForkResult::Parent { .. } => {
            drop(writer);
            outcome(File::from(reader))
        }
        ForkResult::Child => {
            drop(reader);
            serve_and_exit(log, writer, serve)
        }
    }
}

#[allow(unsafe_code)]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the command line runs on the one thread that `main` got and starts others only in `serve`,
    // so no lock can be held by a thread that the child does not have.
    unsafe { unistd::fork() }
}

fn serve_and_exit<F>(log: Option<File>, pipe: OwnedFd, serve: F) -> !
where
    F: FnOnce(Ready) -> anyhow::Result<()>,
{
    let gone = Arc::new(AtomicBool::new(false));
    let parent = |pipe| Ready(Waiting::Parent { pipe, log, gone: Arc::clone(&gone) });
    let result = detach(&pipe).and_then(|pipe| serve(parent(pipe)));
    let Err(error) = result else { process::exit(0) };
    let reason = one_line(&error);
    // Whoever is still there prints it; later the log alone can have it.
    if gone.load(Ordering::Relaxed) {
        tracing::error!("{reason}");
    } else {
        let _ = File::from(pipe).write_all(&[&[FAILED], reason.as_bytes()].concat());
    }
    process::exit(1)
}

/// Makes the child a session of its own; until it is ready it ends when the parent does.
fn detach(pipe: &OwnedFd) -> anyhow::Result<File> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot watch the parent")?;
    unistd::setsid().context("cannot leave the session")?;
    unistd::chdir("/").context("cannot change to /")?;
    Ok(File::from(pipe.try_clone().context("cannot share the pipe")?))
}

fn leave_terminal(log: Option<File>) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    unistd::dup2_stderr(log.as_ref().unwrap_or(&null))?;
    Ok(())
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("--log-file {}: cannot open", path.display()))
}

/// What the child says; a child that says nothing died.
fn outcome(pipe: File) -> anyhow::Result<()> {
    let mut pipe = pipe.take(REASON_MAX_BYTES);
    let mut first = [0];
    if pipe.read(&mut first).context("cannot hear from the background process")? == 0 {
        bail!(
            "the background process died before the mount was there; run with --foreground to see why"
        );
    }
    if first[0] == MOUNTED {
        return Ok(());
    }
    let mut reason = Vec::new();
    pipe.read_to_end(&mut reason).context("cannot hear from the background process")?;
    bail!("{}", String::from_utf8_lossy(&reason))
}
