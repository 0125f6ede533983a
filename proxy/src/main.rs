//! The program: arguments in, one command, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
