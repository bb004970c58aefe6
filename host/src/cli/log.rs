//! Logging: to the standard error stream, which systemd leads into the journal, and into the book that the owner reads.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::LogConfig;
use crate::logbook::Logbook;

/// Starts logging; what is logged is also in the book.
pub(super) fn start(config: &LogConfig) -> anyhow::Result<Logbook> {
    // The configuration checked it; what it passed over is told once logging runs.
    let filter: Targets = config.filter.parse().context("the log filter is malformed")?;
    // The journal stamps every line itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match (config.json, journal) {
        (true, _) => lines.json().boxed(),
        (false, true) => lines.without_time().boxed(),
        (false, false) => lines.boxed(),
    };
    let book = Logbook::default();
    // A host that is to write little still remembers what nobody would turn off.
    let remembered = FilterExt::or(filter.clone(), LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(book.layer().with_filter(remembered))
        .try_init()
        .context("logging could not be started")?;
    Ok(book)
}
