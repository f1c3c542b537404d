//! What the program tells about its work, on standard error.
//!
//! Invariant: without an option only warnings are shown; `RUST_LOG` wins over every option.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Nothing but what ends the command.
    Error,
    /// What a user may have to act on.
    Warn,
    /// What happens, once each.
    Info,
    /// Why it happens.
    Debug,
    /// Every message.
    Trace,
}

/// Options of every command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LoggingArgs {
    /// Say more: -v what happens, -vv why
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Messages")]
    verbose: u8,
    /// Log at this level: error, warn, info, debug, trace
    ///
    /// Overrides --verbose. The environment variable RUST_LOG overrides both and can name single parts of
    /// the program, such as RUST_LOG=btfs::engine=debug.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        hide_possible_values = true,
        help_heading = "Messages"
    )]
    log: Option<Level>,
}

impl LoggingArgs {
    fn level(self) -> Level {
        self.log.unwrap_or(match self.verbose {
            0 => Level::Warn,
            1 => Level::Info,
            2 => Level::Debug,
            _ => Level::Trace,
        })
    }
}

/// Starts to log to standard error.
///
/// # Errors
/// `RUST_LOG` is set and cannot be read.
pub fn start(args: &LoggingArgs) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives}"))?
        }
        _ => EnvFilter::new(format!("btfs={}", directive(args.level()))),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    Ok(())
}

const fn directive(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}
