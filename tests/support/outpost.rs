//! A host outside the [`Lan`], behind lines of its own, whose every packet is seen.
//!
//! Invariant: it reaches all hosts of the Lan directly, so that what stays away does so by choice; it knows no name.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::lan::{Lan, Running, host, tool};

/// Where it asks for names; nobody answers.
pub(crate) const NAMESERVER: u8 = 7;

/// Where the packet goes that marks the end of a watch.
const MARK: u8 = 6;

/// A network namespace with an interface for each of its lines: `line1`, `line2` …
pub(crate) struct Outpost<'a> {
    lan: &'a Lan,
    holder: Child,
}

impl<'a> Outpost<'a> {
    /// With so many lines; its packets take the first unless they are bound to another.
    pub(crate) fn new(lan: &'a Lan, lines: u8) -> Self {
        let resolv = lan.path("resolv.conf");
        fs::write(&resolv, format!("nameserver {}\n", host(NAMESERVER))).unwrap();
        let mut holder = lan.command(&tool("unshare", "util-linux"));
        let script = "mount --bind \"$0\" /etc/resolv.conf && mount --bind /dev/null /etc/hosts && \
                      ip link set lo up && echo ready && read _";
        holder.args(["--net", "--mount", "sh", "-c", script]).arg(&resolv);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no second namespace can be made here");
        let outpost = Self { lan, holder };
        for n in 1..=lines {
            outpost.lay_line(n);
        }
        outpost
    }

    /// Its address on the line.
    pub(crate) fn addr(n: u8) -> String {
        format!("10.8.{n}.1")
    }

    /// Its router's on the line.
    pub(crate) fn router(n: u8) -> String {
        format!("10.8.{n}.2")
    }

    fn lay_line(&self, n: u8) {
        let pid = self.holder.id();
        let (near, far) = (Self::addr(n), Self::router(n));
        let out = format!(
            "ip link add far{n} type veth peer name line{n} netns {pid} && \
             ip addr add {far}/24 dev far{n} && ip link set far{n} up"
        );
        self.lan.run(Path::new("sh"), &["-c", &out]);
        let inside = format!(
            "ip addr add {near}/24 dev line{n} && ip link set line{n} up && \
             ip route add default via {far} dev line{n} metric {n}"
        );
        let output = self.command(Path::new("sh")).args(["-c", &inside]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// A command that runs inside and does not outlive the thread that starts it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.lan.command_at(self.holder.id(), program)
    }

    /// Starts a program that goes on.
    pub(crate) fn start(&self, name: &str, program: &Path, args: &[&str]) -> Running<'a> {
        let mut command = self.command(program);
        command.args(args);
        self.lan.launch(name, command)
    }

    /// Watches what leaves by the line from now on.
    pub(crate) fn watch(&self, n: u8) -> Running<'a> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/watch_packets.py");
        let python = tool("python3", "python3");
        let name = format!("packets-{n}");
        let line = format!("line{n}");
        let watch = self.start(&name, &python, &[script.to_str().unwrap(), &line]);
        watch.until_says("watching");
        watch
    }

    /// All ways that packets took out of the watched line until now.
    #[track_caller]
    pub(crate) fn seen(&self, watch: &Running<'_>, n: u8) -> BTreeSet<String> {
        let (to, from) = (host(MARK), Self::addr(n));
        let mark = format!(
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'line{n}'); \
             s.bind(('{from}', 0)); s.sendto(b'.', ('{to}', 9))"
        );
        let output = self.command(Path::new("python3")).args(["-c", &mark]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mark = format!("udp {to} 9");
        watch.until_says(&mark);
        let said = watch.said();
        said.lines().skip(1).filter(|line| *line != mark).map(str::to_owned).collect()
    }
}

impl Drop for Outpost<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
