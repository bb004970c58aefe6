//! `doctor`: what works on this machine, what does not, and what to do about it.
//!
//! A running host is asked, because its user and its rights are what a stream will have. Only where none runs are the
//! checks made under the user who asks, and the answer says so. In both cases each check runs as `probe`, a process of
//! its own.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::agents::Agents;
use super::{OutputArguments, ProbeArguments};
use crate::config::{self, Config, Layers, Loaded, Stored};
use crate::health::child::Examiner;
use crate::health::{self, Check, Diagnosis, Door, Examined, Finding, Surroundings};
use crate::listen::any_address;
use crate::mgmt::client::{Client, ClientError};
use crate::store::Store;

/// What keeps the checks from being made at all.
const COULD_NOT_RUN: u8 = 2;

/// Makes every check. The status says whether a stream is possible.
pub(super) fn doctor(output: &OutputArguments) -> ExitCode {
    match diagnose(output) {
        Ok(diagnosis) => ExitCode::from(u8::from(!diagnosis.stream_possible)),
        Err(error) => {
            // As `main` prints it, but with a status of its own.
            say_aside(&format!("punktfunk-host: {error:#}"));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn diagnose(output: &OutputArguments) -> anyhow::Result<Diagnosis> {
    let progress = |examined: &Examined| {
        if output.json {
            say_aside(&format!("{}: {}", examined.check, examined.finding));
        } else {
            say(&in_words(examined));
        }
    };
    let diagnosis = match Client::find() {
        Ok(host) => {
            let mut checks = Vec::new();
            for check in host.checks()? {
                let finding = host.examine(&check)?;
                checks.push(Examined { check, finding });
                checks.last().into_iter().for_each(progress);
            }
            Diagnosis::of(checks, true)
        }
        Err(ClientError::NotRunning { .. }) => {
            say_aside("No host is running, so the checks are made as the user who asks.");
            without_a_host(progress)?
        }
        Err(error) => return Err(error.into()),
    };
    if output.json {
        say(&serde_json::to_string_pretty(&diagnosis)?);
    } else if diagnosis.stream_possible {
        say("\nA client can play.");
    } else {
        say("\nNo client can play until this is mended.");
    }
    Ok(diagnosis)
}

fn without_a_host(progress: impl Fn(&Examined)) -> anyhow::Result<Diagnosis> {
    let scratch = Scratch::make()?;
    let layers = Layers::of_machine(None, vec![]);
    let configured = config::load(&layers).config.state_folder;
    let folder = configured.or_else(config::default_state_folder);
    // Root tries no store in a folder that is another user's.
    let own = |folder: &Path| {
        let metadata = std::fs::metadata(folder);
        metadata.is_ok_and(|folder| folder.uid() == rustix::process::geteuid().as_raw())
    };
    let loaded =
        as_the_host_would(&layers, folder.as_deref().filter(|folder| folder.exists()), own);
    let state_dir = folder.filter(|folder| own(folder)).unwrap_or_else(|| scratch.0.clone());
    let places =
        Places { state_dir: &state_dir, scratch: scratch.0.join("sessions"), config: None };
    let examiner = examiner(&places, &loaded);
    let mut checks = Vec::new();
    for check in health::checks() {
        let finding = examiner.examine(&check)?;
        checks.push(Examined { check: check.name, finding });
        checks.last().into_iter().for_each(&progress);
    }
    Ok(Diagnosis::of(checks, false))
}

/// The settings that a host with this state would begin with. Where its database is not for whoever asks, what was set
/// in the console is not known, and that is said.
fn as_the_host_would(
    layers: &Layers,
    folder: Option<&Path>,
    own: impl Fn(&Path) -> bool,
) -> Loaded {
    let opened = match folder {
        Some(folder) if !own(folder) => {
            Err(format!("{} belongs to the host's own user; ask as that user", folder.display()))
        }
        Some(folder) if Store::is_in(folder) => {
            Store::open(folder).map_err(|error| error.to_string())
        }
        _ => return config::load(layers),
    };
    match opened {
        Ok(store) => config::with_stored(layers, &store),
        Err(error) => {
            say_aside(&format!(
                "What was set in the console is not known, so the checks are made without it: {error}."
            ));
            config::load(layers)
        }
    }
}

/// A private folder that goes with the doctor.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("punktfunk-doctor-{}", std::process::id()));
        // What somebody has laid there is not used.
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("the folder {} could not be made", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies where such things lie, and is empty but for what a check could not remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a host has its things.
pub(super) struct Places<'a> {
    pub(super) state_dir: &'a Path,
    pub(super) scratch: PathBuf,
    pub(super) config: Option<&'a Path>,
}

/// Runs checks as `probe` of this program, with the settings of a host that loaded these: what the console set is told
/// them, because the database is in use.
pub(super) fn examiner(places: &Places<'_>, loaded: &Loaded) -> Examiner {
    // Where it cannot be found, each check says that it could not be started.
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    Examiner::new(program, probe_arguments(places, loaded))
}

fn probe_arguments(places: &Places<'_>, loaded: &Loaded) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["probe".into()];
    arguments.extend(["--state-dir".into(), places.state_dir.into()]);
    arguments.extend(["--scratch".into(), places.scratch.as_os_str().to_owned()]);
    if let Some(config) = places.config {
        arguments.extend(["--config".into(), config.into()]);
    }
    for (key, value) in loaded.set_in_console() {
        arguments.push(format!("--set={key}={value}").into());
    }
    arguments
}

/// Makes one check, in this process, and prints its finding.
pub(super) fn probe(arguments: &ProbeArguments) -> anyhow::Result<ExitCode> {
    // A stream that runs meanwhile comes first. Without the right to step back the check is made all the same.
    let _ = rustix::process::nice(10);
    let config = config_of(arguments, Layers::of_machine(arguments.config.clone(), vec![]));
    let checks = health::checks();
    let check: &Check = checks
        .iter()
        .find(|check| check.name == arguments.check)
        .with_context(|| format!("there is no check \"{}\"", arguments.check))?;
    let around = surroundings(arguments, &config);
    // What panics is this check's finding; without one, all the others would be given up as well.
    let finding = catch_unwind(AssertUnwindSafe(|| check.run(&around))).unwrap_or_else(|_| {
        Finding::Broken { reason: "the check itself failed, which is a bug of the host".to_owned() }
    });
    say(&serde_json::to_string(&finding)?);
    Ok(ExitCode::SUCCESS)
}

/// The settings of the host that is looked at, as far as they are told here or stand in files.
fn config_of(arguments: &ProbeArguments, layers: Layers) -> Config {
    let set = arguments.set.iter().filter_map(|set| set.split_once('='));
    let settings = set.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let stored = Stored { settings, ..Stored::default() };
    config::load(&Layers { stored, ..layers }).config
}

fn surroundings(arguments: &ProbeArguments, config: &Config) -> Surroundings {
    let gamestream = &config.gamestream;
    let configured: IpAddr = config.listen.address;
    Surroundings {
        state_dir: arguments.state_dir.clone(),
        agents: Agents::choose(config, arguments.scratch.clone(), &[]).starter,
        doors: vec![
            Door::Http(gamestream.port),
            Door::Tcp(gamestream.https_port()),
            Door::Tcp(gamestream.rtsp_port()),
            Door::Udp(gamestream.video_port()),
            Door::Udp(gamestream.control_port()),
            Door::Udp(gamestream.audio_port()),
        ],
        console: config.console_port(),
        listen: if configured.is_unspecified() { any_address() } else { configured },
        announced: config.discovery.then(|| config.name.clone()),
        running: arguments.running,
    }
}

/// A finding for people: what, how it is, and below it what to do.
fn in_words(examined: &Examined) -> String {
    let check = &examined.check;
    match &examined.finding {
        Finding::Works { evidence } => format!("  ok        {check:<18}{evidence}"),
        Finding::Missing { reason, remedy } => {
            format!("  missing   {check:<18}{reason}\n{:30}do: {remedy}", "")
        }
        Finding::Broken { reason } => format!("  BROKEN    {check:<18}{reason}"),
        Finding::Unproven { reason } => format!("  unproven  {check:<18}{reason}"),
    }
}

/// Prints. A reader who has seen enough is no reason to panic: the exit status still says what was found.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tells whoever watches, beside what is printed for programs.
fn say_aside(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The folder for the checks of a host with this socket.
pub(super) fn scratch_of(socket: &Path) -> PathBuf {
    socket.with_extension("doctor")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn a_check_knows_what_was_set_in_the_console() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let layers = Layers::default();
        let own = |_: &Path| true;
        assert_eq!(as_the_host_would(&layers, Some(&state), own), config::load(&layers));
        assert!(!state.exists(), "nothing is made where nothing was");
        let set = [("name", "\"so = fa\""), ("discovery", "false"), ("limits.sessions", "2")];
        let rows = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Store::open(&state).unwrap().put_settings(&rows).unwrap();
        // Another user's is not looked into.
        let others = as_the_host_would(&layers, Some(&state), |_| false);
        assert_eq!(others, config::load(&layers));
        let loaded = as_the_host_would(&layers, Some(&state), own);
        assert_eq!(loaded.config.name, "so = fa");

        let places = Places { state_dir: &state, scratch: "/s".into(), config: None };
        let mut words: Vec<OsString> = vec!["punktfunk-host".into()];
        words.extend(probe_arguments(&places, &loaded));
        words.push("network".into());
        let Command::Probe(arguments) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command")
        };
        assert_eq!((arguments.check.as_str(), arguments.running), ("network", false));
        assert_eq!(config_of(&arguments, layers), loaded.config);
    }

    #[test]
    fn a_reader_sees_what_to_do() {
        let finding = Finding::Missing {
            reason: "the program `sway` is not installed".to_owned(),
            remedy: "apt install sway".to_owned(),
        };
        let text = in_words(&Examined { check: "display:sway".to_owned(), finding });
        assert!(text.lines().any(|line| line.trim() == "do: apt install sway"), "{text}");
        assert!(text.starts_with("  missing   display:sway"), "{text}");
    }
}
