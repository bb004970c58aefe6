//! What follows from what: the verdict, falling back, giving a try back, where to go back to.
//!
//! Every function is pure: what is known goes in, what is to be done comes out.
//!
//! Deliberately absent: whether a cable is plugged in or an adapter is there. A deployment is judged for what it is, so
//! units that speak for the hardware are never among those that count.

use crate::ledger::{Blessed, Boot, GivenBack, Ledger};
use crate::model::{Counter, Deployment, DeploymentId, EntryName, Esp, loader};
use crate::ostree::NO_VERSION;
use crate::status::{Bad, Check, Outcome, Role};

/// A deployment that kills itself in good order ends after so many tries given back.
const MAX_GIVEN_BACK: u32 = 3;

/// The owner keeps no more than so many, beside the one that the machine was set up with.
pub const MAX_PINNED: usize = 2;

/// What is said of a deployment that never came so far as to have its start noted.
pub const NEVER_CAME_UP: &str =
    "it did not come up: its kernel, its initramfs or what it starts first failed or hung";

/// What is said of one whose start was noted and never judged.
const CUT_OFF: &str = "it ended before it was judged: it hung, crashed or lost its power";

/// Units that stand for hardware or for the network beyond it, by the beginning of their names.
const HARDWARE: &[&str] = &[
    "NetworkManager",
    "bluetooth",
    "bolt",
    "fwupd",
    "iwd",
    "nvidia-",
    "rtkit",
    "systemd-backlight",
    "systemd-fsck",
    "systemd-modules-load",
    "systemd-networkd-wait-online",
    "systemd-rfkill",
    "systemd-time-wait-sync",
    "systemd-timesyncd",
    "systemd-udev-settle",
    "wpa_supplicant",
];

/// This start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The kernel's name for it.
    pub boot_id: String,
    /// What runs.
    pub id: DeploymentId,
    /// What it is called.
    pub version: String,
    /// The loader's count of it, if it counts.
    pub counter: Option<Counter>,
}

/// Whether a failed unit speaks against the deployment.
pub fn unit_counts(unit: &str, blessed: Option<&Blessed>) -> bool {
    let Some(name) = unit.strip_suffix(".service") else { return false };
    // Instances are named after devices, users and sessions.
    if name.contains('@') || name.starts_with("punktfunk-session") {
        return false;
    }
    if name.starts_with("punktfunk-") {
        // It is what asks.
        return name != "punktfunk-verdict";
    }
    !HARDWARE.iter().any(|prefix| name.starts_with(prefix))
        && blessed.is_some_and(|blessed| blessed.units.iter().any(|good| good == unit))
}

/// What the checks and the failed units come to.
pub fn judge(mut checks: Vec<Check>, failed: &[String], blessed: Option<&Blessed>) -> Outcome {
    let against: Vec<&str> =
        failed.iter().map(String::as_str).filter(|unit| unit_counts(unit, blessed)).collect();
    let detail = match against.as_slice() {
        [] => "no unit failed that has to run".to_owned(),
        some => format!("failed: {}", some.join(", ")),
    };
    checks.push(Check {
        name: "units".to_owned(),
        passed: against.is_empty(),
        detail: crate::status::bounded(&detail),
    });
    let red = checks.iter().find(|check| !check.passed);
    match red.map(|check| format!("{}: {}", check.name, check.detail)) {
        None => Outcome::Passed { checks },
        Some(reason) => {
            Outcome::Failed { reason: crate::status::bounded(&reason), checks, log: Vec::new() }
        }
    }
}

/// What is done about a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The loader's count may be taken away, if there is one.
    Bless,
    /// It stays up as it is.
    Stay,
    /// The loader is to decide anew.
    Reboot,
}

/// What is done about a verdict. A start that nobody counts stays up whatever comes of it, and so does one after which
/// the loader would only start the same again without counting it down.
pub fn act(outcome: &Outcome, start: &Start, esp: &Esp) -> Act {
    if matches!(outcome, Outcome::Passed { .. }) {
        return Act::Bless;
    }
    let Some(counter) = start.counter else { return Act::Stay };
    let next = loader::choice(esp);
    let same = next.is_none_or(|name| name.id == start.id);
    if counter.left == 0 && same { Act::Stay } else { Act::Reboot }
}

/// Deployments whose tries are used up and that do not run.
pub fn fallen(esp: &Esp, booted: &DeploymentId) -> Vec<DeploymentId> {
    let spent = |name: &&EntryName| name.counter.is_some_and(|counter| counter.left == 0);
    let blessed = |id: &DeploymentId| {
        let mut names = esp.entries.keys().filter(|name| name.id == *id);
        names.any(|name| name.counter.is_none_or(|counter| counter.left > 0))
    };
    let names = esp.entries.keys().filter(spent).map(|name| &name.id);
    let mut fallen: Vec<_> = names.filter(|id| *id != booted && !blessed(id)).cloned().collect();
    fallen.dedup();
    fallen
}

/// A deployment that the loader gave up, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallen {
    /// Which.
    pub id: DeploymentId,
    /// What it is called.
    pub version: String,
}

/// Notes in the ledger that a start begins, and what it says about those before it.
pub fn begin(ledger: &mut Ledger, start: &Start, fallen: &[Fallen], at: u64) {
    // Begun twice it is still one start.
    if ledger.boot.as_ref().is_some_and(|boot| boot.boot_id == start.boot_id) {
        return;
    }
    for fallen in fallen {
        remember_fallen(ledger, start, fallen, at);
    }
    // It was asked for again, and is tried again.
    ledger.risen(&start.id);
    for record in &mut ledger.attempts {
        if record.attempt.outcome == Outcome::Pending {
            record.attempt.outcome = failed(CUT_OFF);
        }
    }
    let before = ledger.boot.take();
    let commit = start.id.commit();
    let another =
        before.as_ref().is_some_and(|boot| boot.commit != commit && !boot.commit.is_empty());
    // Coming back is no attempt; that what was there before returns is how the last one ended.
    let returned = !fallen.is_empty();
    if start.counter.is_some() || (another && !returned) {
        let blessed = ledger.blessed.as_ref().map(|blessed| blessed.version.clone());
        let from = match before.as_ref().filter(|boot| boot.commit != commit) {
            Some(boot) => boot.version.clone(),
            None => blessed.unwrap_or_else(|| NO_VERSION.to_owned()),
        };
        ledger.attempt(&start.boot_id, commit, &start.version, &from);
    }
    let remarks = before.filter(|boot| boot.boot_id.is_empty()).map(|boot| boot.remarks);
    ledger.boot = Some(Boot {
        boot_id: start.boot_id.clone(),
        commit: commit.to_owned(),
        version: start.version.clone(),
        verdict: None,
        remarks: remarks.unwrap_or_default(),
    });
}

fn remember_fallen(ledger: &mut Ledger, start: &Start, fallen: &Fallen, at: u64) {
    leave(ledger, std::slice::from_ref(&fallen.id));
    let commit = fallen.id.commit();
    let of_it = |record: &&mut crate::ledger::Record| record.attempt.commit == commit;
    let attempt = ledger.attempts.iter_mut().rev().find(of_it).map(|record| &mut record.attempt);
    let reason = match attempt.map(|attempt| &mut attempt.outcome) {
        Some(Outcome::Failed { reason, .. }) => reason.clone(),
        Some(outcome @ Outcome::Pending) => {
            *outcome = failed(CUT_OFF);
            CUT_OFF.to_owned()
        }
        // What it was found to be in an earlier start stays what it was.
        Some(_) | None => {
            let record = ledger.attempt("", commit, &fallen.version, &start.version);
            record.attempt.outcome = failed(NEVER_CAME_UP);
            NEVER_CAME_UP.to_owned()
        }
    };
    // The same system once more, of which another deployment runs: that one did not fail.
    if commit == start.id.commit() {
        return;
    }
    ledger.bad.retain(|bad| bad.commit != commit);
    let (commit, version) = (commit.to_owned(), fallen.version.clone());
    ledger.bad.push(Bad { commit, version, reason, at });
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), checks: Vec::new(), log: Vec::new() }
}

/// Notes a verdict. `units` are the services that are up.
pub fn conclude(ledger: &mut Ledger, start: &Start, outcome: &Outcome, units: Vec<String>) {
    if let Some(record) = ledger.attempt_of(&start.boot_id) {
        record.attempt.outcome = outcome.clone();
    }
    if matches!(outcome, Outcome::Passed { .. }) {
        let (commit, version) = (start.id.commit().to_owned(), start.version.clone());
        ledger.bad.retain(|bad| bad.commit != commit);
        ledger.given_back.retain(|given| given.id != start.id.to_string());
        ledger.blessed = Some(Blessed { commit, version, units });
    }
    if let Some(boot) = ledger.boot.as_mut().filter(|boot| boot.boot_id == start.boot_id) {
        boot.verdict = Some(outcome.clone());
    }
}

/// The name that the entry of this start gets when the machine is shut down before the verdict: as if it had not been
/// started. The ledger forgets the attempt.
pub fn give_back(ledger: &mut Ledger, start: &Start) -> Option<(EntryName, EntryName)> {
    let counter = start.counter.filter(|counter| counter.done > 0)?;
    let boot = ledger.boot.as_ref().filter(|boot| boot.boot_id == start.boot_id)?;
    if boot.verdict.is_some() {
        return None;
    }
    let id = start.id.to_string();
    let at = ledger.given_back.iter().position(|given| given.id == id);
    let given = at.map(|at| ledger.given_back.remove(at));
    let times = given.map_or(0, |given| given.times);
    let more = times < MAX_GIVEN_BACK;
    ledger.given_back.push(GivenBack { id, times: times + u32::from(more) });
    if !more {
        return None;
    }
    ledger.attempts.retain(|record| record.boot_id != start.boot_id);
    let back = Counter { left: counter.left.saturating_add(1), done: counter.done - 1 };
    let name = |counter| EntryName { id: start.id.clone(), counter: Some(counter) };
    Some((name(counter), name(back)))
}

/// Why something that the owner asks for is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It did not prove itself.
    #[error("{version} did not prove itself here: {reason}")]
    Bad {
        /// What it is called.
        version: String,
        /// Why.
        reason: String,
    },
    /// There is no such deployment.
    #[error("no deployment on this machine begins with `{0}`")]
    Unknown(String),
    /// There are several.
    #[error("more than one deployment begins with `{0}`")]
    Ambiguous(String),
    /// There is nothing to go back to.
    #[error("there is no other deployment to go back to")]
    NothingElse,
    /// That is what runs and what is started.
    #[error("that one is started already")]
    Already,
    /// Too many are kept.
    #[error("{max} deployments are kept already; let one of them go first")]
    TooManyPinned {
        /// The bound.
        max: usize,
    },
    /// What the machine was set up with stays.
    #[error("what this machine was set up with is always kept")]
    Pristine,
}

/// Whether a commit may be deployed.
pub fn offer(ledger: &Ledger, commit: &str, insist: bool) -> Result<(), Refusal> {
    match ledger.bad(commit).filter(|_| !insist) {
        None => Ok(()),
        Some(bad) => Err(Refusal::Bad { version: bad.version.clone(), reason: bad.reason.clone() }),
    }
}

/// The deployment whose commit begins so, by its place. Of several of one commit the first.
pub fn find(deployments: &[Deployment], commit: &str) -> Result<usize, Refusal> {
    let short = || Refusal::Unknown(commit.chars().take(64).collect());
    if commit.len() < 6 {
        return Err(short());
    }
    let mut fitting =
        deployments.iter().enumerate().filter(|(_, one)| one.id.commit().starts_with(commit));
    let (at, first) = fitting.next().ok_or_else(short)?;
    let other = fitting.any(|(_, other)| other.id.commit() != first.id.commit());
    if other { Err(Refusal::Ambiguous(commit.chars().take(64).collect())) } else { Ok(at) }
}

/// Where to go back to, by its place among the deployments in their order. Without a wish it is the next after the one
/// that runs; when something new waits to be started, that is what is taken back, and what runs is started again.
pub fn rollback_target(
    deployments: &[Deployment],
    booted: Option<&DeploymentId>,
    ledger: &Ledger,
    wish: Option<&str>,
    insist: bool,
) -> Result<usize, Refusal> {
    let at = match wish {
        Some(commit) => find(deployments, commit)?,
        None => {
            let running = deployments.iter().position(|one| Some(&one.id) == booted);
            match running {
                Some(running) if running > 0 => running,
                _ => {
                    let good = |one: &Deployment| ledger.bad(one.id.commit()).is_none();
                    let others = deployments.iter().enumerate().skip(1);
                    let mut others = others.filter(|(_, one)| good(one));
                    others.next().ok_or(Refusal::NothingElse)?.0
                }
            }
        }
    };
    offer(ledger, deployments[at].id.commit(), insist)?;
    if at == 0 { Err(Refusal::Already) } else { Ok(at) }
}

/// Whether one more deployment may be kept, and which, by its place.
pub fn pin_target(
    deployments: &[Deployment],
    pristine: Option<&DeploymentId>,
    commit: &str,
) -> Result<usize, Refusal> {
    let at = find(deployments, commit)?;
    let kept = deployments.iter().filter(|one| one.pinned && Some(&one.id) != pristine).count();
    if !deployments[at].pinned && kept >= MAX_PINNED {
        return Err(Refusal::TooManyPinned { max: MAX_PINNED });
    }
    Ok(at)
}

/// Which deployment is let go of, by its place.
pub fn unpin_target(
    deployments: &[Deployment],
    pristine: Option<&DeploymentId>,
    commit: &str,
) -> Result<usize, Refusal> {
    let at = find(deployments, commit)?;
    if pristine == Some(&deployments[at].id) { Err(Refusal::Pristine) } else { Ok(at) }
}

/// Deployments that nobody needs once the first of them is there: all but the first, what runs and the one after it,
/// what is kept, and what the machine was set up with.
pub fn superfluous(
    deployments: &[Deployment],
    booted: Option<&DeploymentId>,
    pristine: Option<&DeploymentId>,
) -> Vec<DeploymentId> {
    let running = deployments.iter().position(|one| Some(&one.id) == booted);
    let running = running.unwrap_or(0);
    let needed = |at: usize| at == 0 || at == running || at == running + 1;
    let kept = |one: &Deployment| one.pinned || Some(&one.id) == pristine;
    let others = deployments.iter().enumerate().filter(|(at, one)| !needed(*at) && !kept(one));
    others.map(|(_, one)| one.id.clone()).collect()
}

/// Notes what is about to be removed. Its entries go first: when the power goes in between, the next start removes the
/// deployment, too, and does not give it an entry with all its tries anew.
pub fn leave(ledger: &mut Ledger, ids: &[DeploymentId]) {
    for id in ids {
        ledger.risen(id);
        ledger.fallen.push(id.to_string());
    }
}

/// Deployments that are not to be started again: what fell now, and what is known to have fallen, unless it runs. The
/// second matters when the power went after the first had been noted. It is never told by the commit: another
/// deployment of the same system may be what the machine was set up with, or may have proved itself.
pub fn condemned(
    ledger: &Ledger,
    deployments: &[Deployment],
    booted: &DeploymentId,
    fallen: &[Fallen],
) -> Vec<DeploymentId> {
    let fell = |id: &DeploymentId| fallen.iter().any(|fallen| fallen.id == *id);
    let ids = deployments.iter().map(|one| &one.id).filter(|id| *id != booted);
    ids.filter(|id| fell(id) || ledger.has_fallen(id)).cloned().collect()
}

/// What a deployment is there for. `at` is its place in the order in which they are started.
pub fn role(
    deployments: &[Deployment],
    at: usize,
    booted: Option<&DeploymentId>,
    pristine: Option<&DeploymentId>,
) -> Role {
    let one = &deployments[at];
    let running = deployments.iter().position(|one| Some(&one.id) == booted);
    if Some(at) == running {
        return Role::Booted;
    }
    if running.is_some_and(|running| at < running) && at == 0 {
        return Role::Staged;
    }
    if pristine == Some(&one.id) {
        return Role::Pristine;
    }
    if running.is_some_and(|running| at == running + 1) || !one.pinned {
        return Role::Rollback;
    }
    Role::Pinned
}

/// Below this nothing can be brought in any more, in bytes: one system, unpacked, that shares nothing with another.
const ONE_SYSTEM_BYTES: u64 = 4 << 30;

/// What of a file system only root may fill, in bytes, so that games which fill the rest never block an update: room
/// for one system, but not more than an eighth of a small disk.
pub const fn reserve_bytes(total_bytes: u64) -> u64 {
    let eighth = total_bytes / 8;
    if eighth < ONE_SYSTEM_BYTES { eighth } else { ONE_SYSTEM_BYTES }
}

#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;
