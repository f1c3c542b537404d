//! How much is uploaded before it is enough, and uploading until then.
//!
//! Invariant: what is counted is uploaded by this run, for each torrent by itself.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::info;

use super::exit::UsageError;
use super::progress::{Progress, Reporter, Seeding};
use super::start::Endings;
use crate::engine::handle::{Handle, Status};

/// When to stop uploading.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Seeding")]
pub struct GoalArgs {
    /// Upload R times the torrent's size, no more
    ///
    /// Each torrent by itself, in this run. Then get and seed end; a mount stays, and no longer uploads it.
    #[arg(long, value_name = "R")]
    pub ratio: Option<String>,
    /// Upload for so long once all is here
    ///
    /// A time such as 30min or 2days. With --ratio as well, the first of both ends it.
    #[arg(long, value_name = "TIME")]
    pub seed_time: Option<String>,
}

/// When a seed has done its part; whichever comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goals {
    /// Bytes uploaded, in sizes of the torrent.
    pub ratio: Option<f64>,
    /// Time with all of the torrent.
    pub time: Option<Duration>,
}

/// Why it is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reached {
    /// So many sizes of the torrent have been uploaded.
    Ratio(f64),
    /// It was here for so long.
    Time(Duration),
}

impl Goals {
    /// Gives the options their meaning; `uploads`: without `--no-upload`.
    ///
    /// # Errors
    /// One of them is no number, or no time, or nothing is uploaded anyway.
    pub fn of(args: &GoalArgs, uploads: bool) -> Result<Self, UsageError> {
        if !uploads && (args.ratio.is_some() || args.seed_time.is_some()) {
            return Err(UsageError("--no-upload: contradicts --ratio and --seed-time".into()));
        }
        Ok(Self {
            ratio: args.ratio.as_deref().map(ratio).transpose()?,
            time: args.seed_time.as_deref().map(time).transpose()?,
        })
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.ratio.is_some() || self.time.is_some()
    }

    /// The goal that is reached when `uploaded` of `size` bytes have been uploaded, `seeded` after the torrent
    /// was complete.
    pub fn reached(&self, uploaded: u64, size: u64, seeded: Duration) -> Option<Reached> {
        let by_ratio = self.ratio.filter(|ratio| uploaded as f64 >= ratio * size as f64);
        let by_time = self.time.filter(|&time| seeded >= time);
        by_ratio.map(Reached::Ratio).or(by_time.map(Reached::Time))
    }

    /// Time until the first goal at this rate of upload, in whole seconds.
    fn eta(&self, status: &Status, size: u64, seeded: Duration) -> Option<Duration> {
        let missing = self.ratio.map(|ratio| ratio * size as f64 - status.totals.uploaded as f64);
        let by_ratio = missing.filter(|_| status.up_rate >= 1.0).and_then(|missing| {
            Duration::try_from_secs_f64((missing / status.up_rate).max(0.0).ceil()).ok()
        });
        let by_time = self.left(seeded).map(|left| Duration::from_secs(left.as_secs()));
        by_ratio.into_iter().chain(by_time).min()
    }

    /// Time until the goal that time alone reaches.
    pub fn left(&self, seeded: Duration) -> Option<Duration> {
        Some(self.time?.saturating_sub(seeded))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(ratio) => write!(f, "uploaded {ratio} times its size, as --ratio asked"),
            Self::Time(time) => {
                write!(f, "seeded for {}, as --seed-time asked", humantime::format_duration(*time))
            }
        }
    }
}

fn ratio(typed: &str) -> Result<f64, UsageError> {
    typed
        .parse()
        .ok()
        .filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0)
        .ok_or_else(|| UsageError(format!("--ratio {typed}: is no ratio; write it as 1, 1.5 or 2")))
}

fn time(typed: &str) -> Result<Duration, UsageError> {
    humantime::parse_duration(typed).map_err(|_| {
        UsageError(format!("--seed-time {typed}: is no time; write it as 30min, 12h or 2days"))
    })
}

/// Uploads until a goal is reached, which is returned, or a signal comes.
pub async fn seed_on(
    handle: &Handle,
    goals: &Goals,
    reporter: &mut Reporter,
    endings: &mut Endings,
) -> Option<Reached> {
    let size = handle.metainfo().geometry.total();
    let since = Instant::now();
    let show = |status: &Status| {
        let left = goals.eta(status, size, since.elapsed());
        let seeding = Some(Seeding { uploaded: status.totals.uploaded, left });
        let progress = Progress { seeding, ..Progress::of(status, size) };
        reporter.tick(&progress, Instant::now());
    };
    tokio::select! {
        reached = until_reached(handle, goals, Some(since), show) => reached,
        () = endings.wait() => None,
    }
}

/// Uploads until a goal is reached, and then no more. To be spawned; ends with the torrent.
pub async fn end_upload_when_reached(handle: Handle, goals: Goals) {
    if let Some(reached) = until_reached(&handle, &goals, None, |_| {}).await {
        handle.end_upload().await;
        info!(name = handle.metainfo().name, "{reached}; no longer uploading");
    }
}

/// Waits for a goal; `None` when the torrent is no longer served. `since`: when seeding began, otherwise it does
/// once all is here. `seen` gets what is known on the way.
async fn until_reached(
    handle: &Handle,
    goals: &Goals,
    mut since: Option<Instant>,
    mut seen: impl FnMut(&Status),
) -> Option<Reached> {
    let size = handle.metainfo().geometry.total();
    let mut status = handle.watch();
    loop {
        let now = status.borrow_and_update().clone();
        seen(&now);
        if now.have_bytes == size {
            since.get_or_insert_with(Instant::now);
        }
        let seeded = since.map_or(Duration::ZERO, |since| since.elapsed());
        let reached = goals.reached(now.totals.uploaded, size, seeded);
        if reached.is_some() {
            return reached;
        }
        let left = goals.left(seeded).filter(|_| since.is_some());
        tokio::select! {
            changed = status.changed() => changed.ok()?,
            () = sleep(left.unwrap_or_default()), if left.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goal_ends_it() {
        let hour = Duration::from_secs(3600);
        let both = Goals { ratio: Some(1.5), time: Some(hour) };
        let table = [
            ("none is never reached", Goals::default(), u64::MAX, hour * 1000, None),
            ("neither yet", both, 149, hour - Duration::from_secs(1), None),
            ("ratio", both, 150, Duration::ZERO, Some(Reached::Ratio(1.5))),
            ("time", both, 0, hour, Some(Reached::Time(hour))),
            (
                "ratio zero",
                Goals { ratio: Some(0.0), time: None },
                0,
                Duration::ZERO,
                Some(Reached::Ratio(0.0)),
            ),
        ];
        for (name, goals, uploaded, seeded, expected) in table {
            assert_eq!(goals.reached(uploaded, 100, seeded), expected, "{name}");
        }
        let status = |up_rate| Status { up_rate, ..Status::default() };
        let quarter = Duration::from_secs(900);
        assert_eq!(both.eta(&status(0.0), 1500, quarter), Some(hour - quarter));
        assert_eq!(both.eta(&status(2.0), 1500, quarter), Some(Duration::from_secs(1125)));
        assert_eq!(Goals::default().eta(&status(2.0), 1500, quarter), None);
        assert_eq!(both.left(hour / 4), Some(hour / 4 * 3));
        assert_eq!(Goals { ratio: Some(1.0), time: None }.left(hour), None);
    }

    #[test]
    fn goals_mean_what_they_say() {
        let args = |ratio: Option<&str>, time: Option<&str>| GoalArgs {
            ratio: ratio.map(str::to_owned),
            seed_time: time.map(str::to_owned),
        };
        let hour = Some(Duration::from_secs(3600));
        let table = [
            (args(None, None), Some(Goals::default())),
            (args(Some("1.5"), Some("1h")), Some(Goals { ratio: Some(1.5), time: hour })),
            (args(Some("-1"), None), None),
            (args(Some("inf"), None), None),
            (args(Some("NaN"), None), None),
            (args(None, Some("long")), None),
        ];
        for (args, expected) in table {
            assert_eq!(Goals::of(&args, true).ok(), expected, "{args:?}");
        }
        assert!(Goals::of(&args(None, None), false).is_ok());
        assert!(Goals::of(&args(Some("1"), None), false).is_err());
    }

    #[test]
    fn the_reason_is_told() {
        let time = Duration::from_secs(90);
        let told = [Reached::Ratio(1.5).to_string(), Reached::Time(time).to_string()];
        let expected = [
            "uploaded 1.5 times its size, as --ratio asked",
            "seeded for 1m 30s, as --seed-time asked",
        ];
        assert_eq!(told, expected);
    }
}
