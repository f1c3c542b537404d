//! How far a long command is, on standard error: a bar on a terminal, a line now and then elsewhere.
//!
//! Invariant: a bar never reaches a file or a pipe.
//! Not here: the figures; whoever does the work gives them at each tick.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::check::Checked;
use crate::engine::handle::Status;
use crate::engine::introduction;
use crate::proto::geometry::Geometry;
use crate::proto::magnet::Magnet;
use crate::proto::names::printable;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The figures of one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second that arrive, or are read from disk.
    pub down_rate: u64,
    /// Bytes a second that are uploaded.
    pub up_rate: u64,
    /// Connected peers; `None` where there are none to have.
    pub peers: Option<usize>,
    /// Of an upload with nothing to wait for but its goals.
    pub seeding: Option<Seeding>,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeding {
    /// Bytes uploaded in this run.
    pub uploaded: u64,
    /// Time until the first goal is reached, if that can be told.
    pub left: Option<Duration>,
}

impl Progress {
    /// How a torrent of `total` bytes stands.
    pub fn of(status: &Status, total: u64) -> Self {
        Self {
            done: status.have_bytes,
            total,
            down_rate: status.down_rate as u64,
            up_rate: status.up_rate as u64,
            peers: Some(status.peers.len()),
            seeding: None,
        }
    }

    /// Time until all is done at this rate.
    fn left(&self) -> Option<Duration> {
        let bytes = self.total.saturating_sub(self.done);
        let moves = bytes > 0 && self.down_rate > 0;
        moves.then(|| Duration::from_secs(bytes.div_ceil(self.down_rate)))
    }

    fn percent(&self) -> u64 {
        match self.total {
            0 => 100,
            total => u64::try_from(u128::from(self.done) * 100 / u128::from(total)).unwrap_or(100),
        }
    }

    fn rates(&self) -> String {
        let (down, up) = (size(self.down_rate), size(self.up_rate));
        let plural = if self.peers == Some(1) { "" } else { "s" };
        let (told, left) = match (self.peers, self.seeding) {
            (None, _) => (format!("{down}/s"), self.left()),
            (Some(peers), None) => {
                (format!("down {down}/s, up {up}/s, {peers} peer{plural}"), self.left())
            }
            (Some(peers), Some(Seeding { uploaded, left })) => {
                let ratio = uploaded as f64 / self.total.max(1) as f64;
                let uploaded = size(uploaded);
                let told = format!(
                    "up {up}/s, {peers} peer{plural}, {uploaded} uploaded, ratio {ratio:.2}"
                );
                (told, left)
            }
        };
        match left {
            Some(left) => format!("{told}, {} left", humantime::format_duration(left)),
            None => told,
        }
    }

    fn line(&self) -> String {
        let (done, total) = (size(self.done), size(self.total));
        match self.seeding {
            Some(_) if self.done == self.total => format!("seeding {total}, {}", self.rates()),
            Some(_) => format!("seeding {done} of {total}, {}", self.rates()),
            None => format!("{}% ({done} of {total}), {}", self.percent(), self.rates()),
        }
    }
}

/// Tells now and then how it goes to learn from peers what a link's torrent is.
pub fn asking(magnet: &Magnet) -> impl FnMut(&introduction::Status) + use<> {
    let what = printable(&magnet.directory());
    print(&what, "asking peers what is in it");
    let mut next = Instant::now() + LINE_INTERVAL;
    move |status| {
        let now = Instant::now();
        if now < next {
            return;
        }
        next = now + LINE_INTERVAL;
        let introduction::Status { standing, connected, dials, .. } = status;
        let (here, blocks, tellers) = (standing.here, standing.blocks, standing.tellers);
        print(
            &what,
            &format!(
                "still asking: {connected} connected, {dials} being dialled, {tellers} have its \
                 metadata, {here} of {blocks} blocks here"
            ),
        );
    }
}

/// Shows how far a check is, and nothing more once all is checked.
pub fn checking(geometry: Geometry, name: &str) -> impl FnMut(&Checked) + Send + 'static {
    let total = geometry.total();
    let mut show = hashing(&format!("checking {name}"), total);
    move |checked| {
        let piece_len = u64::from(geometry.nominal_piece_len());
        show((u64::from(checked.pieces) * piece_len).min(total));
    }
}

/// Shows how many of `total` bytes have been read, and nothing more once that is all, or it is dropped.
pub fn hashing(what: &str, total: u64) -> impl FnMut(u64) + Send + use<> {
    let started = Instant::now();
    let mut reporter = Some(Reporter::after(what, started + LINE_INTERVAL));
    move |done| {
        let rate = done as f64 / started.elapsed().as_secs_f64().max(0.001);
        let progress = Progress { done, total, down_rate: rate as u64, ..Progress::default() };
        if let Some(reporter) = &mut reporter {
            reporter.tick(&progress, Instant::now());
        }
        if done == total {
            reporter.take().into_iter().for_each(Reporter::clear);
        }
    }
}

/// The reporter of one command.
#[derive(Debug)]
pub struct Reporter {
    what: String,
    face: Face,
}

#[derive(Debug)]
enum Face {
    Bar(ProgressBar),
    Lines { next: Option<Instant> },
}

impl Reporter {
    /// Reports on `what`: a bar if standard error is a terminal, lines otherwise.
    pub fn new(what: &str) -> Self {
        Self::on(what, None)
    }

    /// The same with no line before this instant: most are done by then.
    fn after(what: &str, first: Instant) -> Self {
        Self::on(what, Some(first))
    }

    fn on(what: &str, next: Option<Instant>) -> Self {
        let face = if std::io::stderr().is_terminal() {
            Face::Bar(bar(what))
        } else {
            Face::Lines { next }
        };
        Self { what: what.to_owned(), face }
    }

    /// Shows the figures; call it as often as they change.
    pub fn tick(&mut self, progress: &Progress, now: Instant) {
        match &mut self.face {
            Face::Bar(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(progress.rates());
            }
            Face::Lines { next } => {
                if next.is_some_and(|next| now < next) {
                    return;
                }
                *next = Some(now + LINE_INTERVAL);
                print(&self.what, &progress.line());
            }
        }
    }

    /// Says something while the bar stays below it.
    pub fn note(&self, words: &str) {
        match &self.face {
            Face::Bar(bar) => bar.suspend(|| print(&self.what, words)),
            Face::Lines { .. } => print(&self.what, words),
        }
    }

    /// Ends the report without a last line.
    pub fn clear(self) {
        if let Face::Bar(bar) = &self.face {
            bar.finish_and_clear();
        }
    }

    /// Ends the report with a last line.
    pub fn finish(self, words: &str) {
        if let Face::Bar(bar) = &self.face {
            bar.finish_and_clear();
        }
        print(&self.what, words);
    }
}

fn size(bytes: u64) -> impl std::fmt::Display {
    ByteSize(bytes).display().iec()
}

fn bar(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:24} {percent:>3}% {msg}")
        .expect("the template is a constant that a test draws");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.with_style(style).with_prefix(what.to_owned())
}

/// A closed standard error is no reason to stop the work.
fn print(what: &str, words: &str) {
    let _ = writeln!(std::io::stderr(), "{what}: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_sentences() {
        let half = Progress {
            done: 512 << 20,
            total: 1 << 30,
            down_rate: 8 << 20,
            up_rate: 1 << 10,
            peers: Some(1),
            seeding: None,
        };
        let seeding = |uploaded, left| {
            let seeding = Some(Seeding { uploaded, left });
            Progress { done: 1 << 30, down_rate: 0, seeding, ..half }
        };
        let table = [
            (
                "half",
                half,
                "50% (512.0 MiB of 1.0 GiB), down 8.0 MiB/s, up 1.0 KiB/s, 1 peer, 1m 4s left",
            ),
            (
                "no rate",
                Progress { down_rate: 0, peers: None, ..half },
                "50% (512.0 MiB of 1.0 GiB), 0 B/s",
            ),
            (
                "a check",
                Progress { peers: None, ..half },
                "50% (512.0 MiB of 1.0 GiB), 8.0 MiB/s, 1m 4s left",
            ),
            (
                "a seed",
                seeding(1 << 28, None),
                "seeding 1.0 GiB, up 1.0 KiB/s, 1 peer, 256.0 MiB uploaded, ratio 0.25",
            ),
            (
                "a seed of a part, with a goal",
                Progress { done: 1 << 20, ..seeding(0, Some(Duration::from_secs(90))) },
                "seeding 1.0 MiB of 1.0 GiB, up 1.0 KiB/s, 1 peer, 0 B uploaded, ratio 0.00, 1m 30s left",
            ),
            (
                "done",
                Progress { done: 1 << 30, down_rate: 0, peers: Some(3), ..half },
                "100% (1.0 GiB of 1.0 GiB), down 0 B/s, up 1.0 KiB/s, 3 peers",
            ),
            ("nothing to do", Progress::default(), "100% (0 B of 0 B), 0 B/s"),
        ];
        for (name, progress, expected) in table {
            assert_eq!(progress.line(), expected, "{name}");
        }
    }

    #[test]
    fn the_bar_can_be_drawn() {
        let bar = bar("x");
        bar.set_draw_target(ProgressDrawTarget::hidden());
        let mut reporter = Reporter { what: "x".into(), face: Face::Bar(bar) };
        reporter.tick(&Progress { done: 1, total: 2, ..Progress::default() }, Instant::now());
        let Face::Bar(bar) = &reporter.face else { unreachable!() };
        assert_eq!((bar.position(), bar.length()), (1, Some(2)));
    }

    #[test]
    fn lines_come_at_intervals() {
        let mut reporter = Reporter { what: "x".into(), face: Face::Lines { next: None } };
        let start = Instant::now();
        let next = |reporter: &Reporter| match reporter.face {
            Face::Lines { next } => next,
            Face::Bar(_) => None,
        };
        reporter.tick(&Progress::default(), start);
        reporter.tick(&Progress::default(), start + LINE_INTERVAL / 2);
        assert_eq!(next(&reporter), Some(start + LINE_INTERVAL));
        reporter.tick(&Progress::default(), start + LINE_INTERVAL);
        assert_eq!(next(&reporter), Some(start + LINE_INTERVAL * 2));
    }
}
