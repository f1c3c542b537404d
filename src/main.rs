//! The program: arguments in, exit code out; everything else is `btfs::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    btfs::cli::run(std::env::args_os()).into()
}
