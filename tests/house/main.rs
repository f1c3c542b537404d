//! The law of the house, read from `src/` itself: which layer may import which, what a layer never
//! contains, where sockets are opened, no loops, and how files begin and are named.
//!
//! A failure names file, line and rule. Each rule has a row below that shows it broken.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod law;
mod scan;

use std::fs;
use std::path::Path;

use law::check;
use scan::SourceFile;

/// Name, files by path and text, and the first violation.
type Row = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

#[test]
fn the_house_keeps_its_law() {
    let mut files = Vec::new();
    read_below(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new("src"), &mut files);
    assert!(files.len() > 5, "src was not found");
    let violations = check(&files);
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "the house breaks its law:\n{}", told.join("\n"));
}

#[test]
fn every_rule_catches_its_violation() {
    let table: &[Row] = &[
        ("a clean pair", &[("src/proto/a.rs", "use super::b::B;"), ("src/proto/b.rs", "")], None),
        (
            "proto climbs",
            &[("src/proto/a.rs", "\nuse crate::engine::e::X;"), ("src/engine/e.rs", "")],
            Some("src/proto/a.rs:3: proto may not import engine"),
        ),
        (
            "fs knows engine",
            &[("src/fs/a.rs", "use crate::{engine::e::X, proto};"), ("src/engine/e.rs", "")],
            Some("src/fs/a.rs:2: fs may not import engine"),
        ),
        (
            "engine knows cli in passing",
            &[("src/engine/a.rs", "fn f() { crate::cli::run(); }"), ("src/cli.rs", "")],
            Some("src/engine/a.rs:2: engine may not import cli"),
        ),
        (
            "main knows more than cli",
            &[("src/main.rs", "use btfs::fs::S;"), ("src/fs.rs", "")],
            Some("src/main.rs:2: main may not import fs"),
        ),
        ("main knows cli", &[("src/main.rs", "use btfs::cli::run;"), ("src/cli.rs", "")], None),
        (
            "a loop of two",
            &[("src/fs/a.rs", "use super::b::B;"), ("src/fs/b.rs", "use super::a::A;")],
            Some("src/fs/a.rs:2: import loop: src/fs/a.rs, src/fs/b.rs"),
        ),
        (
            "a loop of parent and child",
            &[("src/cli.rs", "mod a;\nuse a::A;"), ("src/cli/a.rs", "use super::Thing;")],
            Some("src/cli.rs:3: import loop: src/cli.rs, src/cli/a.rs"),
        ),
        (
            "a loop of three",
            &[
                ("src/fs/a.rs", "use super::b;"),
                ("src/fs/b.rs", "use super::c;"),
                ("src/fs/c.rs", "fn f() { super::a::g() }"),
            ],
            Some("src/fs/a.rs:2: import loop: src/fs/a.rs, src/fs/b.rs, src/fs/c.rs"),
        ),
        (
            "a noun and its parts are one room",
            &[("src/fs/a.rs", "mod b;\nuse b::B;"), ("src/fs/a/b.rs", "use super::Thing;")],
            None,
        ),
        (
            "a loop between two rooms",
            &[
                ("src/fs/a.rs", "mod b;\nuse b::B;"),
                ("src/fs/a/b.rs", "use crate::fs::c::C;"),
                ("src/fs/c.rs", "use super::a::A;"),
            ],
            Some("src/fs/a.rs:3: import loop: src/fs/a.rs, src/fs/a/b.rs, src/fs/c.rs"),
        ),
        (
            "a diamond is no loop",
            &[
                ("src/fs/a.rs", "use super::{b, c};"),
                ("src/fs/b.rs", "use super::d;"),
                ("src/fs/c.rs", "use super::d;"),
                ("src/fs/d.rs", ""),
            ],
            None,
        ),
        (
            "tokio in proto",
            &[("src/proto/a.rs", "use tokio::sync;")],
            Some("src/proto/a.rs:2: tokio in proto"),
        ),
        (
            "the clock in proto",
            &[("src/proto/a.rs", "use std::time::Instant;\nfn f() { Instant::now(); }")],
            Some("src/proto/a.rs:3: Instant::now in proto"),
        ),
        (
            "the wall clock in proto",
            &[("src/proto/a.rs", "fn f() { std::time::SystemTime :: now(); }")],
            Some("src/proto/a.rs:2: SystemTime::now in proto"),
        ),
        ("an instant as a value", &[("src/proto/a.rs", "use std::time::Instant;")], None),
        (
            "files in proto",
            &[("src/proto/a.rs", "use std::{fmt, fs};")],
            Some("src/proto/a.rs:2: std::fs in proto"),
        ),
        (
            "threads in proto",
            &[("src/proto/a.rs", "fn f() { std::thread::spawn(f); }")],
            Some("src/proto/a.rs:2: std::thread in proto"),
        ),
        (
            "sockets in proto",
            &[("src/proto/a.rs", "use std::net::{IpAddr, UdpSocket};")],
            Some("src/proto/a.rs:2: std::net::UdpSocket in proto"),
        ),
        ("an address in proto", &[("src/proto/a.rs", "use std::net::SocketAddr;")], None),
        (
            "entropy in proto",
            &[("src/proto/a.rs", "fn f() { rand::rng(); }")],
            Some("src/proto/a.rs:2: rand::rng in proto"),
        ),
        ("a seeded generator in proto", &[("src/proto/a.rs", "use rand::rngs::StdRng;")], None),
        (
            "fuser in engine",
            &[("src/engine/a.rs", "use fuser::Errno;")],
            Some("src/engine/a.rs:2: fuser in engine"),
        ),
        (
            "tokio in fs",
            &[("src/fs/a.rs", "fn f(h: tokio::runtime::Handle) {}")],
            Some("src/fs/a.rs:2: tokio in fs"),
        ),
        (
            "words in comments and strings",
            &[(
                "src/proto/a.rs",
                "// tokio::spawn and std::fs\nconst A: &str = \"tokio::x\";\nconst B: &str = r#\"std::fs::x \" \"#;\n\
             const C: char = '\"';\n/* rand::rng() */ fn f<'a>(x: &'a str) {}",
            )],
            None,
        ),
        (
            "tests may do what they like",
            &[("src/proto/a.rs", "#[cfg(test)]\nmod tests {\n use std::fs;\n}")],
            None,
        ),
        (
            "a socket beside the proxy",
            &[("src/engine/a.rs", "use tokio::net;\nfn f() { net::UdpSocket::bind(a) }")],
            Some("src/engine/a.rs:3: net::UdpSocket::bind: ask engine/egress.rs"),
        ),
        (
            "a socket where they are opened",
            &[("src/engine/egress.rs", "fn f() { Socket::new(a) }")],
            None,
        ),
        (
            "a name that says nothing",
            &[("src/fs/utils.rs", "")],
            Some("src/fs/utils.rs:1: a file named utils"),
        ),
        (
            "a directory that says nothing",
            &[("src/common/a.rs", "")],
            Some("src/common/a.rs:1: a file named common"),
        ),
        (
            "work without an owner",
            &[("src/fs/a.rs", "fn f() {}\n// TODO: later")],
            Some("src/fs/a.rs:3: TODO without an owner"),
        ),
        ("work with an owner", &[("src/fs/a.rs", "// TODO(picker): later")], None),
        ("get_", &[("src/fs/a.rs", "fn get_size() {}")], Some("src/fs/a.rs:2: get_size: no get_")),
    ];
    for (name, files, expected) in table {
        let files: Vec<SourceFile> = files
            .iter()
            .map(|(path, text)| SourceFile::new(path, &format!("//! A file.\n{text}")))
            .collect();
        let told: Vec<String> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(told.first().map(String::as_str), *expected, "{name}: {told:?}");
    }
    let bare = check(&[SourceFile::new("src/fs/a.rs", "use std::fmt;\n")]);
    assert_eq!(bare[0].to_string(), "src/fs/a.rs:1: does not begin with //!");
}

fn read_below(root: &Path, below: &Path, files: &mut Vec<SourceFile>) {
    let mut entries: Vec<_> =
        fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let relative = path.strip_prefix(root).unwrap().to_owned();
        if path.is_dir() {
            read_below(root, &relative, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(SourceFile::new(
                relative.to_str().unwrap(),
                &fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}
