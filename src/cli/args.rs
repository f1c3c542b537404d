//! The command line as clap sees it: the commands, and what is said when one cannot be read.
//!
//! Invariant: a flag is one field with one doc comment, in the file of its command; its first line is the
//! `-h` text, all of it the `--help` text.
//! Not here: what the values mean (`settings`).

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use super::log::LoggingArgs;
use super::{create, get, info, mount, seed, tracker, unmount, verify, why};

const EXAMPLES: &str = "\
Examples:
  btfs mount debian.torrent /mnt/debian    see the torrent's files at once
  btfs unmount /mnt/debian                 end the mount and its process
  btfs get debian.torrent ~/Downloads      download it as any other client does

The manual is btfs(1).";

/// Torrents as files: what is read is fetched first
#[derive(Debug, Parser)]
#[command(name = "btfs", version, disable_help_subcommand = true, after_help = EXAMPLES, max_term_width = 80)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much to say.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// What btfs can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show torrents as files below a directory
    ///
    /// Each torrent appears below MOUNTPOINT under its own name, whole and read-only. What is read is fetched
    /// first; the rest follows behind. btfs returns once the mount is there and serves it in the background.
    Mount(mount::Mount),
    /// End a mount, or clear a dead one
    ///
    /// Asks the process behind the mount to end and waits until both are gone. Reads that wait fail. A mount
    /// whose process died ("Transport endpoint is not connected") is cleared.
    #[command(visible_alias = "umount")]
    Unmount(unmount::Unmount),
    /// Download a torrent
    ///
    /// Puts the torrent's files into DIR and returns when all of it is there and verified; with --ratio or
    /// --seed-time it uploads until then.
    Get(get::Get),
    /// Upload a torrent's data that is on disk
    ///
    /// Verifies DATA, announces it to the torrent's trackers and serves peers until SIGINT, SIGTERM, or a goal
    /// that --ratio or --seed-time sets.
    Seed(seed::Seed),
    /// Make a torrent of a file or a directory
    ///
    /// Hashes the data on all cores and writes a .torrent file. Links inside a directory become links in the
    /// torrent; what a torrent cannot hold is an error, except for empty directories, which are named and left
    /// out.
    Create(create::Create),
    /// Show what is in a torrent
    Info(info::Info),
    /// Check data on disk against its torrent
    ///
    /// Hashes DATA on all cores and tells which files are missing or wrong. Nothing is changed. The exit status
    /// is 0 when all of it is right, and else 1.
    Verify(verify::Verify),
    /// Run a tracker, over HTTP and UDP
    ///
    /// Peers find each other through http://HOST:PORT/announce or udp://HOST:PORT/announce. All is kept in
    /// memory: peers announce again after a restart, and the tracker knows them again. It runs until it is
    /// interrupted or terminated.
    Tracker(tracker::Tracker),
    /// Say what a file in a mount waits for
    ///
    /// Prints the pieces that readers wait for, which peers have them and which of these choke us or are silent, what
    /// was asked of whom and when, what each tracker said last, and whether the rest is fetched behind. A directory
    /// stands for its torrent, the mount's root for all. It answers at once, however stuck the swarm is.
    Why(why::Why),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What was asked for is not done; the error says why.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Mount(args) => args.run(),
            Self::Unmount(args) => args.run(),
            Self::Get(args) => args.run(),
            Self::Seed(args) => args.run(),
            Self::Create(args) => args.run(),
            Self::Info(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Tracker(args) => args.run(),
            Self::Why(args) => args.run(),
            Self::Completions(args) => {
                args.run();
                Ok(())
            }
        }
    }
}

/// Options of `btfs completions`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell, zsh
    #[arg(hide_possible_values = true)]
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    fn run(self) {
        clap_complete::generate(self.shell, &mut Cli::command(), "btfs", &mut std::io::stdout());
    }
}

/// Why `argv` was turned away, on one line: what, why, what to do.
pub fn explain(refusal: &clap::Error, argv: &[OsString]) -> String {
    let command = command_named(argv);
    let place = command.as_ref().map_or_else(String::new, |name| format!("{name}: "));
    let help =
        command.map_or_else(|| "btfs --help".to_owned(), |name| format!("btfs {name} --help"));
    if let Some(advice) = cut_magnet(refusal, argv) {
        return format!("{place}{advice}");
    }
    let text = refusal.render().to_string();
    let told = text.split("\n\n").filter(|part| is_told(part));
    let parts: Vec<String> = told.map(one_line).collect();
    if parts.is_empty() {
        return format!("{place}no command given; try '{help}'");
    }
    format!("{place}{}; try '{help}'", parts.join("; "))
}

/// Keeps the error itself and its tips; drops usage and the pointer to help, which get their own words.
fn is_told(part: &str) -> bool {
    let part = part.trim_start();
    part.starts_with("error:") || part.starts_with("tip:")
}

fn one_line(part: &str) -> String {
    let lines = part.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix("error: ").or_else(|| line.strip_prefix("tip: ")).unwrap_or(line)
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The subcommand that `argv` names, if it is one.
fn command_named(argv: &[OsString]) -> Option<String> {
    let cli = Cli::command();
    let typed =
        argv.iter().skip(1).find(|arg| !arg.as_encoded_bytes().starts_with(b"-"))?.to_str()?;
    cli.find_subcommand(typed).map(|found| found.get_name().to_owned())
}

/// The shell takes an unquoted magnet link apart at its first `&`, and the rest never arrives.
fn cut_magnet(refusal: &clap::Error, argv: &[OsString]) -> Option<String> {
    if refusal.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let last = argv.last()?.to_str()?;
    if !last.starts_with("magnet:") {
        return None;
    }
    Some(
        "an argument is missing after the magnet link; put the link in single quotes, as the shell cuts it at '&'"
            .to_owned(),
    )
}
