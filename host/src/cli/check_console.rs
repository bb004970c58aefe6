//! `check-console`: asks the console for its page and its API, and says in one line whether they answer.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::selftest::console::{Options, check};

#[derive(Debug, Args)]
pub(super) struct CheckConsoleArguments {
    /// Where the console is; an address of this machine itself
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = USUAL, value_parser = on_loopback)]
    address: SocketAddr,
    /// The host's local socket, if it is not where it is looked for; it says which certificate the console has
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How many seconds a host may take to start
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    patience: u64,
}

/// Where a box has its console.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 47_990);

fn on_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    let is_near = address.ip().to_canonical().is_loopback();
    is_near.then_some(address).ok_or_else(|| "only an address of this machine itself".to_owned())
}

/// One line; 0 if the console answers and a client could play, else 1.
pub(super) fn command(arguments: &CheckConsoleArguments) -> anyhow::Result<ExitCode> {
    let options = Options {
        address: arguments.address,
        socket: arguments.socket.clone(),
        patience: Duration::from_secs(arguments.patience),
    };
    let (line, code) = match check(&options) {
        Ok(found) => (format!("green: {found}"), ExitCode::SUCCESS),
        Err(reason) => (format!("red: {reason}"), ExitCode::FAILURE),
    };
    // A terminal that was closed is no reason to panic.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(code)
}
