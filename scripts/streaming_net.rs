//! Carries packets between network namespaces as thin and long lines would, for `scripts/bench-streaming`.
//!
//! Every host has a TUN device; what it sends passes the limit of its own line up, takes the delay of both lines,
//! and passes the limit of the receiver's line down. Commands come on standard input, one a line, each answered by
//! one line:
//!
//! `host NAME ADDR UP DOWN DELAY LOSS`: makes the device NAME, for the script to move into a namespace, or changes
//! the line of a host that is there. Mbit/s (0: no limit), milliseconds one way, per cent (100: a black hole).
//! `count NAME`: how many bytes of TCP payload were delivered to it.
//!
//! Invariant: packets of one host to another keep their order.
//! Not here: namespaces and addresses, which the script makes; the devices go when standard input ends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// A packet that would wait longer than this for a line is dropped.
const QUEUE: Duration = Duration::from_millis(200);

/// Packets taken from one host before the others have their turn.
const TURN: usize = 64;

const COMMANDS: u64 = u64::MAX;

fn main() -> anyhow::Result<()> {
    let mut net = Net::new()?;
    let mut events = Vec::with_capacity(64);
    let mut typed = Vec::new();
    loop {
        let wait = net.carry();
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        events.clear();
        match epoll::wait(&net.epoll, spare_capacity(&mut events), Some(&wait)) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        for event in &events {
            if event.data.u64() != COMMANDS {
                net.take(event.data.u64() as usize);
            } else if !net.listen(&mut typed)? {
                return Ok(());
            }
        }
    }
}

/// What a line lets pass, one packet after the other.
struct Limit {
    bytes_per_second: f64,
    free_at: Instant,
}

impl Limit {
    fn new(mbits: f64) -> Self {
        Self { bytes_per_second: mbits * 1e6 / 8.0, free_at: Instant::now() }
    }

    /// When the last bit has passed; none when the queue is full.
    fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.bytes_per_second == 0.0 {
            return Some(now);
        }
        let begin = self.free_at.max(now);
        if begin - now > QUEUE {
            return None;
        }
        self.free_at = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        Some(self.free_at)
    }
}

/// How a host is joined to the others.
struct Line {
    up: Limit,
    down: Limit,
    delay: Duration,
    /// Of 1.
    loss: f64,
}

impl Line {
    fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let numbers: Vec<f64> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        let &[up, down, delay, loss] = numbers.as_slice() else {
            bail!("four numbers make a line")
        };
        ensure!(numbers.iter().all(|number| (0.0..1e6).contains(number)), "a number out of range");
        let delay = Duration::from_secs_f64(delay / 1e3);
        Ok(Self { up: Limit::new(up), down: Limit::new(down), delay, loss: loss / 100.0 })
    }
}

struct Host {
    device: File,
    line: Line,
    /// Bytes of TCP payload that reached it.
    delivered: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Comes to the receiver's line.
    Arrives,
    /// Has passed it.
    Passed,
}

/// A packet under way; the order of fields is that of delivery.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    number: u64,
    stage: Stage,
    to: usize,
    packet: Vec<u8>,
}

struct Net {
    epoll: std::os::fd::OwnedFd,
    hosts: Vec<Host>,
    by_name: HashMap<String, usize>,
    by_addr: HashMap<Ipv4Addr, usize>,
    flights: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    chance: u64,
}

impl Net {
    fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            io::stdin(),
            epoll::EventData::new_u64(COMMANDS),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            hosts: Vec::new(),
            by_name: HashMap::new(),
            by_addr: HashMap::new(),
            flights: BinaryHeap::new(),
            sent: 0,
            chance: 0x2545_f491_4f6c_dd1d,
        })
    }

    /// Answers the commands that came; false at their end.
    fn listen(&mut self, typed: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut some = [0; 4096];
        let len = rustix::io::read(io::stdin().as_fd(), &mut some)?;
        typed.extend(&some[..len]);
        while let Some(end) = typed.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = typed.drain(..=end).collect();
            let line = std::str::from_utf8(&line)?.trim();
            let answer = self.obey(line).with_context(|| line.to_owned())?;
            writeln!(io::stdout(), "{answer}")?;
        }
        Ok(len > 0)
    }

    fn obey(&mut self, command: &str) -> anyhow::Result<String> {
        match command.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["host", name, addr, line @ ..] => {
                let line = Line::parse(line)?;
                match self.by_name.get(*name) {
                    Some(&host) => self.hosts[host].line = line,
                    None => self.add(name, addr.parse()?, line)?,
                }
                Ok("ok".to_owned())
            }
            ["count", name] => {
                let host = *self.by_name.get(*name).context("no such host")?;
                Ok(self.hosts[host].delivered.to_string())
            }
            _ => bail!("is neither host nor count"),
        }
    }

    fn add(&mut self, name: &str, addr: Ipv4Addr, line: Line) -> anyhow::Result<()> {
        let device = open_device(name)?;
        let number = self.hosts.len();
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &device, data, epoll::EventFlags::IN)?;
        self.hosts.push(Host { device, line, delivered: 0 });
        self.by_name.insert(name.to_owned(), number);
        self.by_addr.insert(addr, number);
        Ok(())
    }

    /// Takes what a host has sent.
    fn take(&mut self, from: usize) {
        let mut packet = [0; 2048];
        for _ in 0..TURN {
            // Nothing more to read, or the device is gone.
            let Ok(len) = (&self.hosts[from].device).read(&mut packet) else { return };
            self.send(from, &packet[..len]);
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return;
        }
        let addr = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        let Some(&to) = self.by_addr.get(&addr) else { return };
        let kept = (1.0 - self.hosts[from].line.loss) * (1.0 - self.hosts[to].line.loss);
        if self.draw() >= kept {
            return;
        }
        let far = self.hosts[to].line.delay;
        let near = &mut self.hosts[from].line;
        let Some(passed) = near.up.pass(Instant::now(), packet.len()) else { return };
        let at = passed + near.delay + far;
        self.sent += 1;
        let flight =
            Flight { at, number: self.sent, stage: Stage::Arrives, to, packet: packet.to_vec() };
        self.flights.push(Reverse(flight));
    }

    /// From 0 to below 1.
    fn draw(&mut self) -> f64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.chance >> 40) as f64 / (1u64 << 24) as f64
    }

    /// Moves what is due; how long until something else is.
    fn carry(&mut self) -> Duration {
        loop {
            let now = Instant::now();
            match self.flights.peek() {
                None => return Duration::from_secs(1),
                Some(Reverse(first)) if first.at > now => return first.at - now,
                Some(_) => {}
            }
            let Some(Reverse(flight)) = self.flights.pop() else { return Duration::ZERO };
            match flight.stage {
                Stage::Arrives => self.arrive(flight),
                Stage::Passed => self.hosts[flight.to].deliver(&flight.packet),
            }
        }
    }

    fn arrive(&mut self, flight: Flight) {
        let limit = &mut self.hosts[flight.to].line.down;
        if let Some(at) = limit.pass(flight.at, flight.packet.len()) {
            self.flights.push(Reverse(Flight { at, stage: Stage::Passed, ..flight }));
        }
    }
}

impl Host {
    fn deliver(&mut self, packet: &[u8]) {
        // A device that is full or gone loses it, as a network card would.
        if (&self.device).write_all(packet).is_ok() {
            self.delivered += payload(packet) as u64;
        }
    }
}

/// Bytes of TCP payload in an IPv4 packet.
fn payload(packet: &[u8]) -> usize {
    let header = usize::from(packet[0] & 15) * 4;
    match packet.get(header + 12) {
        Some(offset) if packet[9] == 6 => {
            packet.len().saturating_sub(header + usize::from(offset >> 4) * 4)
        }
        _ => 0,
    }
}

/// A TUN device of this name, in this process's network namespace at first.
#[allow(unsafe_code)]
fn open_device(name: &str) -> anyhow::Result<File> {
    ensure!(name.len() < libc::IFNAMSIZ, "the name is too long");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let device = options.open("/dev/net/tun").context("/dev/net/tun")?;
    let mut request = [0u8; size_of::<libc::ifreq>()];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    request[libc::IFNAMSIZ..][..2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as large as the kernel's struct ifreq, which is plain data.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error()).context("TUNSETIFF");
    }
    Ok(device)
}
