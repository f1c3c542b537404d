//! One open handle, and where in its file somebody reads on.
//!
//! A player looks at the index at the end of a film and comes back; sound may lie far from its picture, and both are
//! read by turns. So a jump begins another run, and those before it stay: each has its position and a window that
//! grows with the bytes read on. A run that was left and not taken up again comes after the others, and wants
//! nothing more after a while; the one that was read last keeps its window, so that a pause fills it.
//!
//! Invariant: runs stand in the order of their last use, and there are at most four.
//! Invariant: whoever only looks at a place, and reads no further, has no window there.
//!
//! Not here: pieces, and how much all windows together may have ([`super::readahead`]).

use std::ops::Range;
use std::time::{Duration, Instant};

/// Places of one handle that are remembered: head, tail, sound and picture.
const MAX_RUNS: usize = 4;

/// Jumps shorter than this are no jumps: the kernel reorders the reads of one stream.
const NEAR: u64 = 1 << 20;

/// What the kernel asks for, by its own read-ahead, when somebody only looks at a place.
const LOOK: u64 = 256 * 1024;

/// Time over which the first reads of a run are taken to be spread.
const BURST: Duration = Duration::from_secs(1);

/// Time that a run keeps its window while others are read.
const LEFT_WINDOW: Duration = Duration::from_secs(5);

/// An open handle.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The file, as a range of the torrent's bytes.
    file: Range<u64>,
    runs: Vec<Run>,
}

/// Reads that follow each other.
#[derive(Clone, Debug)]
struct Run {
    /// End of the furthest byte.
    position: u64,
    /// Bytes read on.
    len: u64,
    begun: Instant,
    /// Times that it was taken up.
    turns: u32,
    used: Instant,
}

/// What a run will want next.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// From its position on, as much as it would like.
    pub range: Range<u64>,
    /// Bytes a second that were read on since its run began.
    pub rate: f64,
    /// Whether it was left, perhaps for ever.
    pub left: bool,
}

impl Reader {
    /// A handle on a file that fills this range of the torrent.
    pub fn new(file: Range<u64>) -> Self {
        Self { file, runs: Vec::new() }
    }

    /// This range of the torrent is read.
    pub fn read(&mut self, range: &Range<u64>, now: Instant) {
        let near = self.runs.iter().rposition(|run| run.is_near(range.start));
        let goes_on = near.is_some_and(|at| at + 1 == self.runs.len());
        let mut run = match near {
            Some(at) => self.runs.remove(at),
            None => Run { position: range.start, len: 0, begun: now, turns: 0, used: now },
        };
        run.turns += u32::from(!goes_on);
        run.read(range, now);
        if self.runs.len() == MAX_RUNS {
            self.runs.remove(0);
        }
        self.runs.push(run);
    }

    /// What its runs will want next.
    pub fn windows(&self, now: Instant) -> impl Iterator<Item = Window> {
        let last = self.runs.len().saturating_sub(1);
        self.runs.iter().enumerate().filter_map(move |(at, run)| {
            let ahead = run.ahead();
            let fresh = at == last || now.saturating_duration_since(run.used) < LEFT_WINDOW;
            let range = run.position..(run.position + ahead).min(self.file.end);
            let left = at != last && run.turns < 2;
            (fresh && !range.is_empty()).then(|| Window { range, rate: run.rate(now), left })
        })
    }

    /// The first and the last bytes of the file, so many.
    pub fn edges(&self, len: u64) -> [Range<u64>; 2] {
        let Range { start, end } = self.file;
        [start..(start + len).min(end), end.saturating_sub(len).max(start)..end]
    }
}

impl Run {
    fn is_near(&self, at: u64) -> bool {
        let ahead = NEAR.max(self.len.min(4 * NEAR));
        (self.position.saturating_sub(NEAR)..=self.position + ahead).contains(&at)
    }

    fn read(&mut self, range: &Range<u64>, now: Instant) {
        let new = range.end.saturating_sub(self.position);
        // What was skipped was not read.
        self.len += new.min(range.end - range.start);
        self.position = self.position.max(range.end);
        self.used = now;
    }

    fn rate(&self, now: Instant) -> f64 {
        // A first burst is no rate.
        let age = now.saturating_duration_since(self.begun).max(BURST);
        self.len as f64 / age.as_secs_f64()
    }

    /// As much as was read: whoever stops has moved at most as much in vain.
    fn ahead(&self) -> u64 {
        if self.len > LOOK { self.len } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const READ: u64 = 128 * 1024;

    /// Reads of the kernel's size at these places, one after the other, a tenth of a second apart.
    fn after(reads: impl IntoIterator<Item = u64>) -> (Reader, Instant) {
        let mut now = Instant::now();
        let mut reader = Reader::new(0..100 * MIB);
        for at in reads {
            now += Duration::from_millis(100);
            reader.read(&(at..at + READ), now);
        }
        (reader, now)
    }

    fn windows(reader: &Reader, now: Instant) -> Vec<(u64, u64, bool)> {
        let seen = reader.windows(now);
        seen.map(|w| (w.range.start / READ, w.range.end / READ, w.left)).collect()
    }

    fn run(from: u64, reads: u64) -> impl Iterator<Item = u64> + Clone {
        (0..reads).map(move |nth| from + nth * READ)
    }

    #[test]
    fn a_look_opens_no_window_and_reading_on_does() {
        let reordered = [0, 2, 1, 3, 5, 4].map(|nth| nth * READ).to_vec();
        let looks: Vec<_> = [0, 10, 99, 40].iter().flat_map(|mib| run(mib * MIB, 2)).collect();
        let table = [
            ("a look", run(0, 2).collect(), vec![]),
            ("looks here and there", looks, vec![]),
            ("more than a look", run(0, 3).collect(), vec![(3, 6, false)]),
            ("as much as was read", run(0, 16).collect(), vec![(16, 32, false)]),
            ("not in order", reordered, vec![(6, 10, false)]),
            ("the same again", [0; 9].to_vec(), vec![]),
            ("to the end", run(98 * MIB, 12).collect(), vec![(796, 800, false)]),
        ];
        for (name, reads, expected) in table {
            let (reader, now) = after(reads);
            assert_eq!(windows(&reader, now), expected, "{name}");
        }
    }

    #[test]
    fn a_look_elsewhere_keeps_the_window_for_a_while() {
        let (mut reader, mut now) = after(run(0, 16).chain(run(99 * MIB, 1)));
        assert_eq!(windows(&reader, now), [(16, 32, true)]);
        now += Duration::from_secs(5);
        assert_eq!(windows(&reader, now), []);
        reader.read(&(2 * MIB..2 * MIB + READ), now);
        assert_eq!(windows(&reader, now), [(17, 34, false)]);
        // Nobody reads elsewhere: it is a pause, in which the window fills.
        assert_eq!(windows(&reader, now + Duration::from_secs(60)), [(17, 34, false)]);
    }

    #[test]
    fn two_runs_by_turns_have_a_window_each() {
        let by_turns =
            run(0, 8).zip(run(50 * MIB, 8)).flat_map(|(picture, sound)| [picture, sound]);
        let (reader, now) = after(by_turns);
        assert_eq!(windows(&reader, now), [(8, 16, false), (408, 416, false)]);
    }

    #[test]
    fn of_many_places_the_last_are_remembered() {
        let (mut reader, mut now) = after((1..=5).flat_map(|nth| run(nth * 10 * MIB, 4)));
        assert_eq!(windows(&reader, now).len(), 4);
        now += Duration::from_millis(100);
        reader.read(&(10 * MIB + 4 * READ..10 * MIB + 5 * READ), now);
        let seen = windows(&reader, now);
        assert!(seen.iter().all(|(start, _, left)| *left && *start > 100), "{seen:?}");
    }

    #[test]
    fn edges_lie_inside_the_file() {
        let reader = Reader::new(10..20);
        assert_eq!(reader.edges(4), [10..14, 16..20]);
        assert_eq!(reader.edges(40), [10..20, 10..20]);
    }
}
