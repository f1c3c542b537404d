//! The roof: parses, wires engine and filesystem together, prints.
//!
//! Invariant: a command writes its result to standard output and everything else to standard error.
//! Invariant: an error is printed once, here, as one line `btfs: what: why; what to do`.
//! Not here: decisions on what to fetch (`proto`), and what each option means (`settings`).

pub mod admission;
pub mod args;
pub mod blocklist;
pub mod content_source;
pub mod create;
pub mod daemon;
pub mod diagnosis;
pub mod exit;
pub mod get;
pub mod goals;
pub mod info;
pub mod log;
pub mod mount;
pub mod mount_options;
pub mod mountpoint;
pub mod options;
pub mod progress;
pub mod proxy;
pub mod seed;
pub mod settings;
pub mod source;
pub mod start;
pub mod tracker;
pub mod unmount;
pub mod verify;
pub mod why;

use std::ffi::OsString;

use clap::Parser;

use args::Cli;
use exit::Exit;

/// Runs the command that `argv` asks for; `argv` begins with the program's name.
pub fn run(argv: impl IntoIterator<Item = OsString>) -> Exit {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(refusal) => return refuse(&refusal, &argv),
    };
    if let Err(error) = log::start(&cli.logging) {
        return fail(&error);
    }
    match cli.command.run() {
        Ok(()) => Exit::Done,
        Err(error) => fail(&error),
    }
}

/// Help and version are answers; all else that the parser turns away is one line on standard error.
fn refuse(refusal: &clap::Error, argv: &[OsString]) -> Exit {
    if !refusal.use_stderr() {
        return match refusal.print() {
            Ok(()) => Exit::Done,
            Err(_) => Exit::Failed,
        };
    }
    eprintln!("btfs: {}", args::explain(refusal, argv));
    Exit::Usage
}

fn fail(error: &anyhow::Error) -> Exit {
    eprintln!("btfs: {}", exit::one_line(error));
    Exit::of(error)
}
