//! `punktfunk-os VERB ..`: reads the command line and hands it to the verbs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use punktfunk_os::rescue;
use punktfunk_os::status::{self, Status};
use punktfunk_os::verbs::{Site, attend, boot, deploy, keep, verdict};

/// Root's program on the box: deployments, boot entries and the verdict
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// A disk that is mounted somewhere, instead of the machine that runs
#[derive(Debug, Args)]
struct Disk {
    /// Its root file system
    #[arg(long, value_name = "FOLDER", requires = "esp")]
    sysroot: Option<PathBuf>,
    /// Its boot partition
    #[arg(long, value_name = "FOLDER", requires = "sysroot")]
    esp: Option<PathBuf>,
}

impl Disk {
    fn site(&self) -> anyhow::Result<Site> {
        Site::new(self.sysroot.as_deref(), self.esp.as_deref())
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring the boot entries in step with the deployments
    Mirror {
        #[command(flatten)]
        disk: Disk,
        /// How often a new deployment is started before the one from before returns
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
        tries: Option<u32>,
        /// The only deployment is what the machine is set up with: it is kept, and nobody counts it
        #[arg(long)]
        pristine: bool,
    },
    /// Begin a start: forget the owner if that was asked for, grow, notice what fell back, number the attempt
    Boot,
    /// Remove what a factory reset has put aside
    Sweep,
    /// Give a counted try back, if the machine is being shut down before the verdict
    GiveBack,
    /// Stay, show the claim, watch the power button and sticks, and tell the daemon
    Attend,
    /// Answer every visitor with what was found; for a machine whose console does not answer
    Rescue {
        /// Where
        #[arg(long, value_name = "PORT", default_value_t = 80)]
        port: u16,
    },
    /// Look whether what was started is good, and act on it
    Verdict,
    /// Say what runs, what else could run, and what came of starting it
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make another deployment the one that is started next
    Rollback {
        /// The beginning of its commit; without, the one before
        commit: Option<String>,
        /// Even one that did not prove itself
        #[arg(long)]
        insist: bool,
    },
    /// Keep a deployment
    Pin {
        /// The beginning of its commit
        commit: String,
    },
    /// Let a deployment go when there is a newer one
    Unpin {
        /// The beginning of its commit
        commit: String,
    },
    /// Bring a system in from a repository on this machine
    DeployLocal {
        /// The repository's folder
        repository: PathBuf,
        /// What of it
        reference: String,
        #[command(flatten)]
        disk: Disk,
        /// How often it is started before the one from before returns
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
        tries: Option<u32>,
        /// Even if it did not prove itself before
        #[arg(long)]
        insist: bool,
    },
}

fn main() -> ExitCode {
    match take(Arguments::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "punktfunk-os: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether all is well.
fn take(verb: Verb) -> anyhow::Result<bool> {
    let live = || Site::new(None, None);
    match verb {
        Verb::Mirror { disk, tries, pristine } => mirror(&disk.site()?, tries, pristine)?,
        Verb::Boot => boot::boot(&live()?)?,
        Verb::Sweep => boot::sweep(&live()?)?,
        Verb::GiveBack => boot::give_back(&live()?)?,
        Verb::Attend => attend::attend(&live()?)?,
        Verb::Rescue { port } => rescue::serve(port, Path::new(status::PATH))?,
        Verb::Verdict => return verdict::verdict(&live()?),
        Verb::Status { json } => say(json)?,
        Verb::Rollback { commit, insist } => keep::rollback(&live()?, commit.as_deref(), insist)?,
        Verb::Pin { commit } => keep::pin(&live()?, &commit, true)?,
        Verb::Unpin { commit } => keep::pin(&live()?, &commit, false)?,
        Verb::DeployLocal { repository, reference, disk, tries, insist } => {
            deploy::deploy_local(&disk.site()?, &repository, &reference, insist, tries)?;
        }
    }
    Ok(true)
}

fn mirror(site: &Site, tries: Option<u32>, pristine: bool) -> anyhow::Result<()> {
    if pristine && site.place.live {
        bail!("what a machine was set up with is marked when its disk is made");
    }
    site.place.open()?;
    if pristine {
        site.mark_pristine()?;
    }
    let steps = site.mirror(tries, pristine)?;
    let _ = writeln!(std::io::stdout(), "{steps} steps");
    site.publish(&site.known()?)
}

/// Says what was last published, which everybody may read.
fn say(json: bool) -> anyhow::Result<()> {
    let status = Status::read(Path::new(status::PATH))?;
    let text =
        if json { serde_json::to_string_pretty(&status)? + "\n" } else { status.to_string() };
    // Whoever reads only the beginning has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
