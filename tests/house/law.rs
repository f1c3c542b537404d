//! The rules, and the arrows between files that they judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::scan::{Mention, SourceFile};

/// Layer, what it may import of the house, and what it never contains.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    (
        "proto",
        &["proto"],
        &[
            "tokio",
            "fuser",
            "libc",
            "nix",
            "rustix",
            "socket2",
            "reqwest",
            "crossbeam_channel",
            "parking_lot",
            "Instant::now",
            "SystemTime::now",
            "std::fs",
            "std::thread",
            "std::process",
            "std::env",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "rand::rng",
            "rand::random",
        ],
    ),
    ("engine", &["proto", "engine"], &["fuser", "clap", "indicatif"]),
    ("fs", &["proto", "fs"], &["tokio", "reqwest", "clap", "indicatif"]),
    ("cli", &["proto", "engine", "fs", "cli"], &[]),
    ("main", &["cli"], &[]),
    ("lib", &[], &[]),
];

/// What opens a socket or looks a name up. `engine/egress.rs` does both for everyone, as the user wants it done; only the
/// tracker that we serve is reached by whoever likes.
const SOCKETS: &[&str] = &[
    "TcpSocket::new_v4",
    "TcpSocket::new_v6",
    "TcpStream::connect",
    "TcpListener::bind",
    "UdpSocket::bind",
    "Socket::new",
    "Client::new",
    "Client::builder",
    "reqwest::get",
    "tokio::net::lookup_host",
];
const OPENS_SOCKETS: &[&str] = &["src/engine/egress.rs", "src/engine/tracker_server.rs"];

/// Names that hide what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"];

/// A rule that a line breaks.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// An import: from one file to another, by their places in the list.
#[derive(Clone, Copy, Debug)]
struct Arrow {
    from: usize,
    to: usize,
    line: usize,
}

/// All that the files break, in their order.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        found.extend(check_name(file));
        found.extend(check_text(file));
        found.extend(check_layer(file));
        found.extend(check_sockets(file));
    }
    found.extend(check_loops(files));
    found
}

fn check_name(file: &SourceFile) -> Option<Violation> {
    let name = file.module.iter().find(|name| EMPTY_NAMES.contains(&name.as_str()))?;
    Some(at(file, 1, format!("a file named {name}")))
}

fn check_text(file: &SourceFile) -> Vec<Violation> {
    let mut found = Vec::new();
    if !file.text.starts_with("//!") {
        found.push(at(file, 1, "does not begin with //!".into()));
    }
    for (number, line) in file.text.lines().enumerate() {
        for mark in ["TODO", "FIXME"] {
            let ownerless = line.split_once(mark).is_some_and(|(_, after)| !after.starts_with('('));
            if ownerless {
                found.push(at(file, number + 1, format!("{mark} without an owner")));
            }
        }
        if let Some((_, after)) = line.split_once("fn get_") {
            let name = after.split(['(', '<']).next().unwrap_or_default();
            found.push(at(file, number + 1, format!("get_{name}: no get_")));
        }
    }
    found
}

fn check_layer(file: &SourceFile) -> Vec<Violation> {
    let layer = layer(file);
    let Some((_, allowed, forbidden)) = LAYERS.iter().find(|(name, ..)| *name == layer) else {
        return vec![at(file, 1, format!("{layer} is no layer of the house"))];
    };
    let mut found = Vec::new();
    for mention in &file.mentions {
        let target = absolute(file, mention).and_then(|names| names.into_iter().next());
        if let Some(target) =
            target.filter(|name| is_layer(name) && !allowed.contains(&name.as_str()))
        {
            found.push(at(file, mention.line, format!("{layer} may not import {target}")));
        }
        if let Some(word) = forbidden.iter().find(|word| says(mention, word)) {
            found.push(at(file, mention.line, format!("{word} in {layer}")));
        }
    }
    found
}

fn check_sockets(file: &SourceFile) -> Vec<Violation> {
    if OPENS_SOCKETS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let opens = |mention: &&Mention| SOCKETS.iter().any(|word| says(mention, word));
    let told = |mention: &Mention| {
        at(file, mention.line, format!("{}: ask engine/egress.rs", mention.names.join("::")))
    };
    file.mentions.iter().filter(opens).map(told).collect()
}

fn layer(file: &SourceFile) -> &str {
    match file.module.first() {
        Some(name) => name,
        None if file.path.ends_with("main.rs") => "main",
        None => "lib",
    }
}

fn is_layer(name: &str) -> bool {
    LAYERS.iter().any(|(layer, ..)| *layer == name)
}

/// A crate or standard module must come first in the path; `Type::method` may stand anywhere in it.
fn says(mention: &Mention, word: &str) -> bool {
    let words: Vec<&str> = word.split("::").collect();
    let names: Vec<&str> = mention.names.iter().map(String::as_str).collect();
    match word.starts_with(char::is_uppercase) {
        true => names.windows(words.len()).any(|part| part == words),
        false => names.starts_with(&words),
    }
}

/// The path from the crate's root, for what names a part of this crate for certain.
fn absolute(file: &SourceFile, mention: &Mention) -> Option<Vec<String>> {
    let names = &mention.names;
    let supers = names.iter().take_while(|name| *name == "super").count();
    let (base, skip) = match names[0].as_str() {
        "crate" | "btfs" => (&[][..], 1),
        "self" => (&file.module[..], 1),
        "super" => (&file.module[..file.module.len().checked_sub(supers)?], supers),
        _ => return None,
    };
    Some(base.iter().chain(&names[skip..]).cloned().collect())
}

/// Every import between two files that could close a loop; a mention of a child module without `self::` is one too.
fn arrows(files: &[SourceFile]) -> Vec<Arrow> {
    let by_module: BTreeMap<&[String], usize> = files
        .iter()
        .enumerate()
        .filter(|(_, file)| !file.module.is_empty())
        .map(|(index, file)| (&file.module[..], index))
        .collect();
    let mut found = Vec::new();
    for (from, file) in files.iter().enumerate() {
        for mention in &file.mentions {
            let child = || file.module.iter().chain(&mention.names).cloned().collect::<Vec<_>>();
            let is_child =
                |names: &Vec<String>| by_module.contains_key(&names[..=file.module.len()]);
            let Some(names) = absolute(file, mention).or_else(|| Some(child()).filter(is_child))
            else {
                continue;
            };
            let target = (1..=names.len()).rev().find_map(|len| by_module.get(&names[..len]));
            if let Some(&to) = target.filter(|&&to| to != from && !is_own_room(file, &files[to])) {
                found.push(Arrow { from, to, line: mention.line });
            }
        }
    }
    found
}

/// A noun's file and the files below it are one room, whose parts may use what the noun defines; a whole layer
/// is no room.
fn is_own_room(file: &SourceFile, above: &SourceFile) -> bool {
    above.module.len() >= 2
        && file.module.len() > above.module.len()
        && file.module.starts_with(&above.module)
}

/// One violation for each knot of files that all reach each other, at its first import.
fn check_loops(files: &[SourceFile]) -> Vec<Violation> {
    let arrows = arrows(files);
    let reach: Vec<BTreeSet<usize>> =
        (0..files.len()).map(|from| reachable(from, &arrows)).collect();
    let knot = |of: usize| -> Vec<usize> {
        (0..files.len())
            .filter(|&other| reach[of].contains(&other) && reach[other].contains(&of))
            .collect()
    };
    let mut found = Vec::new();
    for first in 0..files.len() {
        let knot = knot(first);
        if knot.first() != Some(&first) {
            continue;
        }
        let arrow = arrows.iter().find(|arrow| arrow.from == first && knot.contains(&arrow.to));
        let names: Vec<&str> = knot.iter().map(|&index| files[index].path.as_str()).collect();
        found.extend(arrow.map(|arrow| {
            at(&files[first], arrow.line, format!("import loop: {}", names.join(", ")))
        }));
    }
    found
}

/// Every file that `from` imports, at any distance; itself only through a loop.
fn reachable(from: usize, arrows: &[Arrow]) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(here) = open.pop() {
        let next = arrows.iter().filter(|arrow| arrow.from == here).map(|arrow| arrow.to);
        open.extend(next.filter(|&to| seen.insert(to)));
    }
    seen
}

fn at(file: &SourceFile, line: usize, rule: String) -> Violation {
    Violation { path: file.path.clone(), line, rule }
}
