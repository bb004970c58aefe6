//! The commands of the binary: `serve` runs the daemon, the others talk to a running one over its local socket.

mod agents;
mod attendant;
mod check_console;
mod doctor;
mod doors;
mod found;
mod log;
#[expect(unsafe_code, reason = "glibc is asked for free memory by a function of its own")]
mod memory;
mod prepare;
mod prepared;
mod report;
mod rooms;
mod selftest;
mod serve;
mod system;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Streams games and desktops from this machine to Moonlight clients.
#[derive(Debug, Parser)]
#[command(name = "punktfunk-host", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until it is stopped
    Serve(ServeArguments),
    /// Answer a device that asks to be paired with the PIN it shows
    Pair(PairArguments),
    /// See who asks to be paired; allow or stop asking
    #[command(subcommand)]
    Pairing(PairingCommand),
    /// The paired devices
    #[command(subcommand)]
    Clients(ClientsCommand),
    /// Who plays what
    Sessions(SessionsArguments),
    /// What the host runs on, and why
    Status(OutputArguments),
    /// Try everything a stream needs; exits with 0 if one is possible, 1 if not, 2 if it could not be tried
    Doctor(OutputArguments),
    /// Make one of the doctor's checks in this process
    #[command(hide = true)]
    Probe(ProbeArguments),
    /// Play the Test card from the running host, through every door, and say whether it could
    ///
    /// Needs no paired device and disturbs none. Exit status: 0 green, 1 red, 2 it could not be run.
    Selftest(selftest::SelfTestArguments),
    /// Ask the running host's console, on this machine, for its page and its API, and say whether they answer
    ///
    /// Waits for a host that is starting. Exit status: 0 it answers and a client could play, 1 it does not.
    CheckConsole(check_console::CheckConsoleArguments),
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// Where identity and pairings are kept [default: /var/lib/punktfunk/host as the user "punktfunk" or root, else
    /// $XDG_STATE_HOME/punktfunk]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The local socket for the other commands [default: /run/punktfunk/host.sock if that folder may be written to,
    /// else $XDG_RUNTIME_DIR/punktfunk/host.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Read this configuration file instead of those in /usr/lib/punktfunk and /etc/punktfunk
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What an owner prepared before the first start: a JSON file with "name" and "claim_secret" (32 hex digits); taken
    /// once, and no error if it is not there
    #[arg(long, value_name = "FILE")]
    prepared: Option<PathBuf>,
    /// One more user who may use the local socket, beside root and the host's own
    #[arg(long, value_name = "UID")]
    owner_uid: Option<u32>,
    /// On a box: the folder in which root's program says what there is, and answers
    #[arg(long, value_name = "DIR", hide = true, default_value = crate::os::appliance::FOLDER)]
    system_dir: PathBuf,
    /// Someone watches this terminal: show pairing requests here and let them in without arming
    #[arg(long)]
    foreground: bool,
    /// Show a simulated system that can be updated and switched: nothing is installed and nothing restarts
    #[arg(long)]
    demo: bool,
}

#[derive(Debug, Args)]
struct PairArguments {
    /// The four digits that the device shows
    pin: String,
    /// Which request to answer, if several wait (see `pairing list`)
    #[arg(long, value_name = "ID")]
    request: Option<u64>,
    /// What to call the device
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum PairingCommand {
    /// Show the devices that wait for their PIN
    List(OutputArguments),
    /// Let devices ask for the next five minutes
    Arm,
    /// Let no device ask
    Disarm,
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// Show the paired devices
    List(OutputArguments),
    /// Forget a device; it must pair again
    Remove {
        /// The device's id, or as many of its first digits as make it unique
        id: String,
    },
}

#[derive(Debug, Args)]
struct SessionsArguments {
    /// Show what became of each captured picture of this session
    #[arg(long, value_name = "SESSION")]
    trace: Option<u64>,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Debug, Args)]
struct ProbeArguments {
    /// Its name
    check: String,
    /// Where the host keeps its state
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// A folder that the check may make, for what a session of the host's own user needs
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,
    /// The configuration file, if the host was given one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What was set in the console when the host started, as KEY=VALUE with the value in JSON
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A host is running
    #[arg(long)]
    running: bool,
}

#[derive(Debug, Args)]
struct OutputArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done, with its causes.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Pair(arguments) => talk::pair(arguments),
        Command::Pairing(command) => talk::pairing(&command),
        Command::Clients(command) => talk::clients(&command),
        Command::Sessions(arguments) => talk::sessions(&arguments),
        Command::Status(output) => talk::status(&output),
        Command::Doctor(output) => Ok(doctor::doctor(&output)),
        Command::Probe(arguments) => doctor::probe(&arguments),
        Command::Selftest(arguments) => selftest::command(&arguments),
        Command::CheckConsole(arguments) => check_console::command(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
