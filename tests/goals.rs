//! `--ratio` and `--seed-time`: a seed and a download that end by themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/torrent.rs"]
mod torrent;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn btfs(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_btfs"));
    command.env_remove("RUST_LOG").env("XDG_CACHE_HOME", home);
    command
}

/// What the process said on standard error and how it ended; a process that does not end is killed.
fn ending(mut child: Child) -> (String, Option<i32>) {
    let mut told = child.stderr.take().unwrap();
    let (done, ended) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        told.read_to_string(&mut text).unwrap();
        done.send(()).unwrap();
        text
    });
    if ended.recv_timeout(PATIENCE).is_err() {
        child.kill().unwrap();
    }
    (reader.join().unwrap(), child.wait().unwrap().code())
}

#[test]
fn a_seed_ends_at_its_ratio_and_a_download_at_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("data.torrent"));
    fs::write(&data, torrent::noise(3, 1 << 20)).unwrap();
    let created = btfs(dir.path()).args(["create", "-o"]).args([&file, &data]).output().unwrap();
    assert!(created.status.success());

    let mut seed = btfs(dir.path())
        .args(["seed", "--listen", "127.0.0.1:0", "--ratio", "1"])
        .args([&file, &data])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(seed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim_end().rsplit(' ').next().unwrap();

    let get = btfs(dir.path())
        .args(["get", "--listen", "127.0.0.1:0", "--seed-time", "1ms", "--peer"])
        .arg(format!("127.0.0.1:{port}"))
        .args([&file, &dir.path().join("got")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (told, code) = ending(get);
    let last = told.lines().last().unwrap();
    assert!(last.ends_with("got; seeded for 1ms, as --seed-time asked"), "{told}");
    assert_eq!(code, Some(0), "{told}");
    assert!(fs::read(dir.path().join("got/data")).unwrap() == fs::read(&data).unwrap());

    let (told, code) = ending(seed);
    assert_eq!(told.lines().last(), Some("data: uploaded 1 times its size, as --ratio asked"));
    assert_eq!(code, Some(0), "{told}");
}
