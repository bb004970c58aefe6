//! `punktfunk-update`: root's service for updates on the system bus, and who hands a file over to it.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use punktfunk_os::verbs::Site;
use punktfunk_os::{calendar, facts, files};
use punktfunk_update::engine::{Engine, Settings};
use punktfunk_update::service::bring::bring;
use punktfunk_update::service::{Options, serve};
use punktfunk_update::statement::keys;
use punktfunk_update::transport::{Patience, Registry, Source};

/// Where the image and its owner say where releases come from; the owner's word holds.
const REGISTRY: [&str; 2] = ["/etc/punktfunk/registry", "/usr/lib/punktfunk/registry"];
/// Whom the system believes to be who they say they are.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What says which kind of system this is.
const OS_RELEASE: &str = "/usr/lib/os-release";
/// No such file is longer, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Root's service for updates; without a verb it serves, and the bus starts it when somebody asks
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Where releases come from, such as ghcr.io/punktfunk/box, instead of what the files say
    #[arg(long, value_name = "REGISTRY/NAME")]
    registry: Option<String>,
    /// Where the public keys are that are believed
    #[arg(long, value_name = "FOLDER", default_value = keys::FOLDER)]
    keys: PathBuf,
    /// Another bus than the system's
    #[arg(long, value_name = "ADDRESS")]
    bus: Option<String>,
    /// After how long without a question it ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Hand the file on standard input over to the service, as an update for a box without a network
    Import,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "punktfunk-update: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { verb, registry, keys, bus, idle }: Arguments) -> anyhow::Result<()> {
    if let Some(Verb::Import) = verb {
        let file = std::io::stdin().as_fd().try_clone_to_owned()?;
        let brought = bring(bus.as_deref(), file.into())?;
        let _ = writeln!(std::io::stdout(), "the update was taken: {brought}");
        return Ok(());
    }
    let site = Site::new(None, None)?;
    let clock = Box::new(calendar::now);
    let (steady, registry) = (Box::new(facts::since_start), source(registry));
    let settings = Settings { keys, flavour: flavour()?, clock, steady, registry };
    let engine = Engine::open(site, settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options { bus, idle: Duration::from_secs(idle) };
    let served = runtime.block_on(serve(engine, options, std::future::pending()));
    served.context("the bus cannot be served").map(drop)
}

/// Where releases come from, or why that is not known.
fn source(said: Option<String>) -> Result<Box<dyn Source>, String> {
    let file = || REGISTRY.iter().find_map(|path| said_in(Path::new(path)));
    let Some(said) = said.or_else(file) else {
        return Err(format!("nobody has said where updates come from; {} can", REGISTRY[0]));
    };
    let mut words = said.split_whitespace();
    let address = words.next().unwrap_or_default();
    let plain = match (words.next(), words.next()) {
        (None, _) => false,
        (Some("plain"), None) => true,
        _ => {
            return Err(format!("\"{said}\" is no registry; there may be only \"plain\" after it"));
        }
    };
    let address = address.parse().map_err(|error| format!("{error}"))?;
    Ok(Box::new(Registry::new(address, Path::new(ROOTS), plain, Patience::default())))
}

/// The first line of a file that is neither empty nor a comment.
fn said_in(path: &Path) -> Option<String> {
    let text = String::from_utf8(files::read(path, MAX_BYTES).ok()?).ok()?;
    let mut lines = text.lines().map(str::trim);
    let said = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(punktfunk_os::status::bounded(said))
}

/// Which kind of system this is.
fn flavour() -> anyhow::Result<String> {
    let text = String::from_utf8(files::read(Path::new(OS_RELEASE), MAX_BYTES)?)?;
    let said = text.lines().find_map(|line| line.strip_prefix("VARIANT_ID="));
    let said = said.map(|word| word.trim_matches('"').to_owned());
    said.context("the system does not say which kind it is")
}
