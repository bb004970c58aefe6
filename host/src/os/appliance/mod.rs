//! A box: what root's programs say of its system is told, and what is asked for they are asked to do.
//!
//! Two files say what there is: one of `punktfunk-os`, which looks after deployments, trials and verdicts, and one of
//! `punktfunk-update`, which looks after releases. This backend reads both, bounded, and never writes. The second program
//! does the work; it is asked over D-Bus, with nothing but names of systems, and verifies all by itself. The state machine
//! makes history and news of what is said, as of every backend's word. So a version that did not pass and was left by
//! root's program is told to the owner like one that the owner asked for.
//!
//! Deliberately absent: any decision of what may be installed. A daemon that was taken over cannot have more done than
//! root's program would do for its owner.

#[cfg(test)]
mod agreed;
#[cfg(test)]
mod asked;
mod bus;
mod file;
mod outlook;
mod refused;
#[cfg(test)]
mod tests;
mod word;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use bus::Bus;
use bus::Question;
use file::SaidFile;
use outlook::Outlook;

use super::power::{Power, PowerError, PowerVerb};
use super::release::{Channel, Digest, Inventory, Release};
use super::{Cancel, OsBackend, OsError, Presence};

/// The folder in which root's programs say what there is.
pub const FOLDER: &str = "/run/punktfunk-os";
/// Where in it, of the system.
const STATUS: &str = "status.json";
/// And of updates.
const OUTLOOK: &str = "updates.json";

/// Whatever writes a whole system, with what is left of processor and disk beside somebody who plays.
const SLOW: Duration = Duration::from_secs(7200);
/// What a download may take without saying how far it is. The network has limits of its own, in the program itself.
const SILENT: Duration = Duration::from_secs(1800);
/// Whatever else there is.
const QUICK: Duration = Duration::from_secs(300);

/// The system of a box.
pub struct Appliance {
    status: SaidFile,
    outlook: SaidFile,
    bus: Bus,
    power: Arc<dyn Power>,
    /// The program for updates was asked to say what there is.
    woken: AtomicBool,
}

impl Appliance {
    /// The box whose root's programs say in `folder` what there is, usually [`FOLDER`], and answer on this bus.
    pub fn at(folder: &Path, bus: Bus, power: Arc<dyn Power>) -> Self {
        Self {
            status: SaidFile::new(folder.join(STATUS)),
            outlook: SaidFile::new(folder.join(OUTLOOK)),
            bus,
            power,
            woken: AtomicBool::new(false),
        }
    }

    fn read(&self) -> Result<Inventory, String> {
        let outlook = self.outlook();
        let bytes = self.status.read()?.ok_or("it has not said so yet")?;
        let mut inventory = word::parse(&bytes, outlook.staged())?;
        outlook.add_to(&mut inventory);
        inventory.fault().map_or(Ok(inventory), |fault| Err(fault.to_owned()))
    }

    /// What is said of updates. What runs is known without it, so one that cannot be read is none.
    fn outlook(&self) -> Outlook {
        let read = self.outlook.read().and_then(|bytes| match bytes {
            None if !self.woken.swap(true, Ordering::Relaxed) => {
                // After a start nobody has said anything: the program is started by whoever asks it.
                self.bus.wake().map_err(|error| error.to_string())?;
                self.outlook.read()
            }
            read => Ok(read),
        });
        let parsed = read.and_then(|bytes| bytes.map(|bytes| Outlook::parse(&bytes)).transpose());
        parsed
            .unwrap_or_else(|error| {
                tracing::warn!(error, "what is known of updates cannot be read");
                None
            })
            .unwrap_or_default()
    }

    fn ask(&self, question: Question, digest: Digest, flag: bool) -> Result<(), OsError> {
        self.ask_until(question, digest, flag, &mut |_, _| {}, &Cancel::default())
    }

    fn ask_until(
        &self,
        question: Question,
        digest: Digest,
        flag: bool,
        progress: bus::Progress<'_>,
        cancel: &Cancel,
    ) -> Result<(), OsError> {
        let commit = word::commit(digest);
        self.bus.ask(question, &(&commit, flag), &commit, progress, cancel)
    }
}

impl OsBackend for Appliance {
    fn name(&self) -> &'static str {
        "appliance"
    }

    fn presence(&self) -> Presence {
        Presence::Appliance { simulated: false }
    }

    fn inventory(&self) -> Result<Inventory, OsError> {
        self.read().map_err(|why| OsError::Failed {
            doing: "learn from the box's own program what runs and what is on the disk",
            detail: why,
        })
    }

    fn is_stale(&self) -> bool {
        self.status.is_stale() || self.outlook.is_stale()
    }

    fn check(&self, cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        let doing = "check for updates";
        let question = Question { method: "Check", doing, limit: QUICK };
        let answer: String = self.bus.ask(question, &(), "", &mut |_, _| {}, cancel)?;
        outlook::releases(&answer).map_err(|why| not_understood(doing, &why))
    }

    fn import(&self, archive: OwnedFd, cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        let doing = "take in what was brought";
        let question = Question { method: "ImportArchive", doing, limit: SLOW };
        let body = (zbus::OwnedFd::from(archive),);
        let answer: String = self.bus.ask(question, &body, "", &mut |_, _| {}, cancel)?;
        outlook::releases(&answer).map_err(|why| not_understood(doing, &why))
    }

    fn download(
        &self,
        release: &Release,
        insist: bool,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<(), OsError> {
        let question = Question { method: "Download", doing: "download the update", limit: SILENT };
        let mut most_bytes = 0;
        let mut note = |done_bytes: u64, total_bytes: u64| {
            most_bytes = part(release.size_bytes, done_bytes, total_bytes).max(most_bytes);
            progress(most_bytes);
        };
        self.ask_until(question, release.digest, insist, &mut note, cancel)?;
        progress(release.size_bytes);
        Ok(())
    }

    fn stage(&self, release: &Release, insist: bool, cancel: &Cancel) -> Result<(), OsError> {
        let question = Question { method: "Stage", doing: "prepare the update", limit: SLOW };
        self.ask_until(question, release.digest, insist, &mut |_, _| {}, cancel)
    }

    fn arrange_boot(&self, digest: Digest, insist: bool) -> Result<(), OsError> {
        let doing = "tell the boot loader what to start next";
        self.ask(Question { method: "Apply", doing, limit: SLOW }, digest, insist)
    }

    fn reboot(&self, _cancel: &Cancel) -> Result<(), OsError> {
        self.power.switch(PowerVerb::Restart).map_err(|error| OsError::Failed {
            doing: "restart",
            detail: match error {
                PowerError::Failed { detail, .. } => detail,
                PowerError::Unavailable { reason } => reason,
            },
        })
    }

    fn pin(&self, digest: Digest, pinned: bool) -> Result<(), OsError> {
        let doing = if pinned { "pin the version" } else { "unpin the version" };
        self.ask(Question { method: "Pin", doing, limit: QUICK }, digest, pinned)
    }

    fn follow(&self, channel: Channel) -> Result<(), OsError> {
        let doing = "change where updates come from";
        let question = Question { method: "Follow", doing, limit: QUICK };
        let cancel = Cancel::default();
        self.bus.ask(question, &channel.to_string(), "", &mut |_, _| {}, &cancel)
    }
}

fn not_understood(doing: &'static str, why: &str) -> OsError {
    let detail = format!("the answer of the box's own program is not understood: {why}");
    OsError::Failed { doing, detail }
}

/// As much of a whole as `done` is of `total`. The two are the same unless root's program counts otherwise.
fn part(whole: u64, done: u64, total: u64) -> u64 {
    if total == 0 || done >= total {
        return whole;
    }
    let part = u128::from(whole) * u128::from(done) / u128::from(total);
    u64::try_from(part).unwrap_or(whole)
}
