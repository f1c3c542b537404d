//! A running program that is killed when dropped, and never waited for without end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};

/// Longest that a test waits for something that must happen; generous, since machines are shared.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A child and what it has said so far, both its outputs together, line by line.
pub(crate) struct Program {
    name: String,
    child: Child,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Program {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = Arc::new(Said::default());
        said.listen(child.stdout.take().unwrap());
        said.listen(child.stderr.take().unwrap());
        Self { name, child, said }
    }

    /// The btfs under test.
    pub(crate) fn btfs() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_btfs"));
        command.env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end, which must be a good one; what it said.
    #[track_caller]
    pub(crate) fn done(command: &mut Command) -> String {
        let mut program = Self::start(command);
        let status = program.ended();
        let said = program.said();
        assert!(status.success(), "{}: {status}: {said}", program.name);
        said
    }

    /// Runs it to its end; how it ended and what it said.
    #[track_caller]
    pub(crate) fn outcome(command: &mut Command) -> (ExitStatus, String) {
        let mut program = Self::start(command);
        (program.ended(), program.said())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs or was not yet waited for");
    }

    /// How it ended, which must happen soon.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let limit = Instant::now() + LIMIT;
        while Instant::now() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("{} does not end; it said: {}", self.name, self.said.so_far());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All that it has said; after its end, all that it ever will.
    pub(crate) fn said(&mut self) -> String {
        if !self.is_running() {
            self.said.await_silence();
        }
        self.said.so_far()
    }

    /// The first line that contains `part`, once it is said.
    #[track_caller]
    pub(crate) fn await_line(&self, part: &str) -> String {
        let limit = Instant::now() + LIMIT;
        let mut lines = self.said.lines.lock();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            if self.said.changed.wait_until(&mut lines, limit).timed_out() {
                panic!("{} never said {part:?}, but: {}", self.name, lines.join("\n"));
            }
        }
    }
}

impl Said {
    fn listen(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let said = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                said.lines.lock().push(String::from_utf8_lossy(&line).into_owned());
                said.changed.notify_all();
            }
        });
    }

    fn so_far(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// Waits until both listeners have come to the end of their pipes.
    fn await_silence(self: &Arc<Self>) {
        let limit = Instant::now() + LIMIT;
        while Arc::strong_count(self) > 1 && Instant::now() < limit {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let limit = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < limit {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "it never came to be that {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
