//! The one binary of the host: the daemon and the commands that talk to it.

use std::process::ExitCode;

use clap::Parser;
use punktfunk_host::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // What happened, then what led to it, each on a line of its own.
            eprintln!("punktfunk-host: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
