//! The figure of `scripts/distribution` in virtual time, for swarms that no machine holds.
//!
//! `distribution_sim MBIT MIB PIECE_BYTES ROUND_TRIP_MS MODE N…`: for each N one line `N SECONDS`, until
//! everyone had everything.
//!
//! Not here: the swarm itself (`tests/support/distribution.rs`), the table and the drawing (the script).

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use anyhow::{Context, bail};
use support::distribution::{Distribution, Mode, line};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rate, mib, piece_len, round_trip, mode, leeches @ ..] = args.as_slice() else {
        bail!(
            "usage: distribution_sim MBIT MIB PIECE_BYTES ROUND_TRIP_MS client-server|peer-to-peer N…"
        );
    };
    let mode = match mode.as_str() {
        "client-server" => Mode::ClientServer,
        "peer-to-peer" => Mode::PeerToPeer,
        _ => bail!("{mode} is neither client-server nor peer-to-peer"),
    };
    let round_trip = Duration::from_secs_f64(round_trip.parse::<f64>()? / 1000.0);
    for leeches in leeches {
        let swarm = Distribution {
            line: line(rate.parse::<f64>()? * 1e6, round_trip),
            total: mib.parse::<u64>()? << 20,
            piece_len: piece_len.parse()?,
            ..Distribution::of(leeches.parse()?, mode, 1)
        };
        let outcome = swarm.run().with_context(|| format!("{leeches} leeches never end"))?;
        println!("{leeches} {:.3}", outcome.seconds);
    }
    Ok(())
}
