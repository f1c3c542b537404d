//! A tracker over HTTPS: its certificate is checked, always.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For whatever must happen; far more than it takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A child that ends with the test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

impl Guarded {
    /// Starts the command and returns it with the first line that it says.
    fn start(command: &mut Command) -> (Self, String) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = Self(child.expect("the program is there"));
        let stdout = child.0.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        (child, line.trim().to_owned())
    }

    fn ends_well(mut self) -> bool {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.0.try_wait().expect("a child to wait for") {
                Some(status) => return status.success(),
                None if Instant::now() > deadline => return false,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn btfs(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_btfs"));
    command.current_dir(dir).env("XDG_CACHE_HOME", dir.join("cache")).env_remove("RUST_LOG");
    command
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.current_dir(dir).args(arguments.split_whitespace()).output();
    let output = output.expect("openssl is there (Debian package: openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority (`ca.pem`) and a certificate of it for localhost (`tracker.pem`, `tracker.key`).
fn certificates(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        dir,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
    );
    openssl(dir, &format!("req {key} -keyout tracker.key -out tracker.csr -subj /CN=localhost"));
    std::fs::write(
        dir.join("extensions"),
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .expect("room for a file");
    openssl(
        dir,
        "x509 -req -in tracker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out tracker.pem",
    );
}

#[test]
fn an_https_tracker_is_believed_by_its_certificate_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    certificates(dir);
    let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.join("data.bin"), &data).expect("room for a file");
    let create = |tracker: &str| {
        let arguments =
            ["create", "data.bin", "-o", "data.torrent", "--force", "--tracker", tracker];
        assert!(btfs(dir).args(arguments).output().expect("btfs runs").status.success());
    };
    create("https://localhost:1/announce");
    let seed = ["seed", "data.torrent", "data.bin", "--listen", "127.0.0.1:0"];
    let (_seed, said) = Guarded::start(btfs(dir).args(seed));
    let peer_port = said.rsplit(' ').next().expect("a port at the end").to_owned();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/https_tracker.py");
    let mut python = Command::new("/usr/bin/python3");
    python.current_dir(dir).args([script, "tracker.pem", "tracker.key", &peer_port]);
    let (_tracker, port) = Guarded::start(&mut python);
    create(&format!("https://localhost:{port}/announce"));

    let get = ["-vv", "get", "data.torrent", "believed", "--listen", "127.0.0.1:0"];
    let child =
        btfs(dir).args(get).env("SSL_CERT_FILE", dir.join("ca.pem")).stderr(Stdio::null()).spawn();
    assert!(
        Guarded(child.expect("btfs runs")).ends_well(),
        "no download by a tracker of a known authority"
    );
    assert_eq!(std::fs::read(dir.join("believed/data.bin")).expect("a download"), data);

    // It never ends by itself, so `timeout` bounds the reading of what it says.
    let get = ["-vv", "get", "data.torrent", "doubted", "--listen", "127.0.0.1:0"];
    let mut bounded = Command::new("timeout");
    bounded.arg("30").arg(env!("CARGO_BIN_EXE_btfs")).args(get).current_dir(dir);
    bounded
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env_remove("SSL_CERT_FILE")
        .stderr(Stdio::piped());
    let mut child = Guarded(bounded.spawn().expect("timeout is there"));
    let log = BufReader::new(child.0.stderr.take().expect("a pipe"));
    let refused = log.lines().map_while(Result::ok).find(|line| line.contains("certificate"));
    assert!(refused.is_some(), "the tracker of an unknown authority was not refused");
}
