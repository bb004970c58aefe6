//! `selftest`: plays the Test card from the running host and ends with the verdict as its exit status.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use punktfunk_core::media::Mode;
use tokio::signal::unix::{SignalKind, signal};

use crate::capture::testcard::has_code;
use crate::selftest::{Detours, Eraser, Options, PATIENCE, Taken, Verdict, run};

/// Some stretch of a stream is needed to see anything; more than this many frames never ends in time.
const FRAMES: std::ops::RangeInclusive<u64> = 10..=1800;

/// The host bounds the whole at five minutes; a stretch that is not good may be followed by another.
const LONGEST_SECONDS: u64 = 120;

#[derive(Debug, Args)]
pub(super) struct SelfTestArguments {
    /// Print JSON when it is over
    #[arg(long)]
    json: bool,
    /// How many frames to look at
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(FRAMES))]
    frames: u64,
    /// Width of the picture
    #[arg(long, value_name = "PIXELS", default_value_t = 1280)]
    width: u32,
    /// Height of the picture
    #[arg(long, value_name = "PIXELS", default_value_t = 720)]
    height: u32,
    /// Pictures per second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// How many seconds may pass without progress before it is red
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs(), value_parser = clap::value_parser!(u64).range(1..=120))]
    patience: u64,
    /// The host's local socket, if it is not where it is looked for
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where the host's plain HTTP is, instead of where the host says
    #[arg(long, value_name = "ADDRESS:PORT", hide = true)]
    http: Option<SocketAddr>,
}

/// Green is 0, red 1, and 2 says that nothing can be said.
pub(super) fn command(arguments: &SelfTestArguments) -> anyhow::Result<ExitCode> {
    match prepare(arguments) {
        Ok(prepared) => test(arguments, &prepared),
        // Nothing was learnt about the host, and 1 would say so.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the self-test could not be run: {error:#}");
            Ok(ExitCode::from(COULD_NOT_BE_RUN))
        }
    }
}

/// All that a test needs.
struct Prepared {
    options: Options,
    eraser: Eraser,
    interrupted: Interrupted,
}

/// Set before anything is erased because of a signal: what fails from then on fails by our own doing.
#[derive(Clone, Default)]
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Nothing is said of the host any more. The thread that erases ends the process.
    fn ends_here(&self) {
        while self.0.load(Ordering::Acquire) {
            std::thread::park();
        }
    }
}

fn prepare(arguments: &SelfTestArguments) -> anyhow::Result<Prepared> {
    // What cannot be green on any host is a slip of the keyboard and no fault of this one.
    Mode::new(arguments.width, arguments.height, arguments.fps * 1000)?;
    if !has_code(arguments.width, arguments.height) {
        bail!("a picture of this size has no room for its number; 640x360 has");
    }
    let seconds = arguments.frames.div_ceil(arguments.fps.into());
    if seconds > LONGEST_SECONDS {
        bail!("so many frames take {seconds} seconds, the longest test {LONGEST_SECONDS}");
    }
    let options = Options {
        socket: arguments.socket.clone(),
        width: arguments.width,
        height: arguments.height,
        fps: arguments.fps,
        frames: usize::try_from(arguments.frames)?,
        patience: Duration::from_secs(arguments.patience),
        detours: Detours { http: arguments.http, ..Detours::default() },
        ..Options::default()
    };
    let eraser = Eraser::default();
    let interrupted = Interrupted::default();
    erase_when_interrupted(&eraser, &interrupted)?;
    Ok(Prepared { options, eraser, interrupted })
}

fn test(arguments: &SelfTestArguments, prepared: &Prepared) -> anyhow::Result<ExitCode> {
    let Prepared { options, eraser, interrupted } = prepared;
    let report = run(options, eraser, &mut |taken| {
        interrupted.ends_here();
        if !arguments.json {
            show(taken);
        }
    });
    interrupted.ends_here();
    if arguments.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        let reason = report.reason.as_deref().unwrap_or_default();
        say(&match report.verdict {
            Verdict::Green => format!(
                "green: {} frames and the tone, through every door, in {:.1} s",
                report.counts.frames_decoded,
                Duration::from_millis(report.took_ms).as_secs_f64()
            ),
            Verdict::Red => format!("red: {reason}"),
            Verdict::NotRun => format!("the self-test could not be run: {reason}"),
        });
    }
    Ok(ExitCode::from(match report.verdict {
        Verdict::Green => 0,
        Verdict::Red => 1,
        Verdict::NotRun => COULD_NOT_BE_RUN,
    }))
}

fn show(taken: &Taken) {
    let sign = if taken.passed { "ok" } else { "FAILED" };
    let Taken { step, took_ms, detail, .. } = taken;
    say(&format!("  {step:<8} {sign:<6} {took_ms:>6} ms  {detail}"));
}

/// A terminal that was closed is no reason to panic.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Whoever interrupts the test leaves nothing behind.
fn erase_when_interrupted(eraser: &Eraser, interrupted: &Interrupted) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime could be started")?;
    let guard = runtime.enter();
    let listen = |kind| signal(kind).context("signals cannot be listened for");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    drop(guard);
    let (eraser, interrupted) = (eraser.clone(), interrupted.clone());
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        interrupted.0.store(true, Ordering::Release);
        if let Err(error) = eraser.erase() {
            let _ = writeln!(
                std::io::stderr(),
                "the host will erase the self-test by itself in half a minute: {error}"
            );
        }
        std::process::exit(COULD_NOT_BE_RUN.into());
    };
    // Ends with the process.
    std::thread::Builder::new()
        .name("pf-signals".to_owned())
        .spawn(wait)
        .context("no thread could be started")?;
    Ok(())
}

const COULD_NOT_BE_RUN: u8 = 2;
