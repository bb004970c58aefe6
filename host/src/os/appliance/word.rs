//! What root's program says of the system, as it is read here: JSON, bounded in all that it counts.
//!
//! Fields that are not known are passed over, so that a newer program may say more. What cannot be understood of a
//! deployment makes the whole unbelievable, because what runs must be known; an attempt or a mark that cannot be
//! understood is left out.

use serde::Deserialize;

use crate::os::release::{
    Attempt, Channel, CheckResult, Deployment, Digest, Inventory, MAX_ATTEMPTS, MAX_CHECKS,
    MAX_DEPLOYMENTS, MAX_LOG_LINES, Outcome, Role, Version, bounded,
};
use crate::os::state::{BadMark, MAX_BAD};

/// As many remarks are told.
const MAX_REMARKS: usize = 16;

#[derive(Deserialize)]
struct Word {
    boot_id: String,
    deployments: Vec<SaidDeployment>,
    #[serde(default)]
    attempts: Vec<SaidAttempt>,
    #[serde(default)]
    verdict: Option<SaidOutcome>,
    #[serde(default)]
    bad: Vec<SaidBad>,
    #[serde(default)]
    free_bytes: u64,
    #[serde(default)]
    remarks: Vec<String>,
}

#[derive(Deserialize)]
struct SaidDeployment {
    commit: String,
    version: String,
    made_at: u64,
    role: SaidRole,
    #[serde(default)]
    pinned: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SaidRole {
    Booted,
    Staged,
    Rollback,
    Pinned,
    Pristine,
    #[serde(other)]
    Another,
}

#[derive(Deserialize)]
struct SaidAttempt {
    number: u64,
    commit: String,
    version: String,
    #[serde(default)]
    from: String,
    outcome: SaidOutcome,
}

#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum SaidOutcome {
    Pending,
    Passed {
        #[serde(default)]
        checks: Vec<SaidCheck>,
    },
    Failed {
        reason: String,
        #[serde(default)]
        checks: Vec<SaidCheck>,
        #[serde(default)]
        log: Vec<String>,
    },
    #[serde(other)]
    Another,
}

#[derive(Deserialize)]
struct SaidCheck {
    name: String,
    passed: bool,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
struct SaidBad {
    commit: String,
    version: String,
    reason: String,
    #[serde(default)]
    at: u64,
}

/// The inventory that these bytes say. `staged` waits to be applied, whatever else it would be here: what was deployed and
/// not started, because the restart into it was taken back, is nothing to go back to.
///
/// # Errors
/// Why they cannot be believed, as a part of a sentence.
pub(super) fn parse(bytes: &[u8], staged: Option<Digest>) -> Result<Inventory, String> {
    let word: Word = serde_json::from_slice(bytes).map_err(|error| bounded(&error.to_string()))?;
    let newest: Vec<Attempt> = attempts(&word.attempts);
    let mut earlier = newest;
    let attempt = earlier.pop();
    Ok(Inventory {
        boot: bounded(&word.boot_id),
        deployments: deployments(&word.deployments, staged)?,
        brought: Vec::new(),
        fetched: None,
        free_bytes: word.free_bytes,
        floor: Version::new(0, 0, 0),
        newest_manifest_at: 0,
        attempt,
        earlier,
        verdict: word.verdict.as_ref().and_then(outcome),
        bad: word.bad.iter().rev().take(MAX_BAD).rev().filter_map(bad).collect(),
        remarks: remarks(&word.remarks),
        channel: Channel::Stable,
    })
}

/// Each system once, under the first thing that it is there for.
fn deployments(said: &[SaidDeployment], staged: Option<Digest>) -> Result<Vec<Deployment>, String> {
    if said.len() > MAX_DEPLOYMENTS {
        return Err(format!("it names {} systems, more than {MAX_DEPLOYMENTS}", said.len()));
    }
    let mut found: Vec<Deployment> = Vec::new();
    for one in said {
        let digest = digest(&one.commit)
            .ok_or_else(|| format!("\"{}\" is no commit", short(&one.commit)))?;
        let version = one.version.parse().map_err(|error| bounded(&format!("{error}")))?;
        let role = match one.role {
            SaidRole::Booted => Role::Booted,
            _ if staged == Some(digest) => Role::Staged,
            SaidRole::Staged if staged.is_none() => Role::Staged,
            // One goes back to the first of them; the others are just there.
            SaidRole::Rollback if found.iter().all(|one| one.role != Role::Rollback) => {
                Role::Rollback
            }
            SaidRole::Pristine => Role::Pristine,
            SaidRole::Staged | SaidRole::Rollback | SaidRole::Pinned | SaidRole::Another => {
                Role::Pinned
            }
        };
        let (made_at, pinned) = (one.made_at, one.pinned);
        match found.iter_mut().find(|known| known.digest == digest) {
            // It lies there twice; if one of them runs, it runs.
            Some(known) => {
                known.pinned |= pinned;
                if role == Role::Booted {
                    known.role = role;
                }
            }
            None => found.push(Deployment { version, digest, made_at, role, pinned }),
        }
    }
    Ok(found)
}

/// The newest of those that can be understood, oldest first.
fn attempts(said: &[SaidAttempt]) -> Vec<Attempt> {
    let mut all: Vec<Attempt> = said.iter().filter_map(attempt).collect();
    all.sort_by_key(|attempt| attempt.number);
    all.dedup_by_key(|attempt| attempt.number);
    all.drain(..all.len().saturating_sub(MAX_ATTEMPTS));
    all
}

fn attempt(said: &SaidAttempt) -> Option<Attempt> {
    let version = said.version.parse().ok()?;
    Some(Attempt {
        number: said.number,
        digest: digest(&said.commit)?,
        version,
        // A machine that never ran anything else has nothing to name.
        from: said.from.parse().unwrap_or(version),
        outcome: outcome(&said.outcome)?,
    })
}

fn outcome(said: &SaidOutcome) -> Option<Outcome> {
    Some(match said {
        SaidOutcome::Pending => Outcome::Pending,
        SaidOutcome::Passed { checks } => Outcome::Passed { checks: bounded_checks(checks) },
        SaidOutcome::Failed { reason, checks, log } => Outcome::Failed {
            reason: bounded(reason),
            checks: bounded_checks(checks),
            log: log
                .iter()
                .skip(log.len().saturating_sub(MAX_LOG_LINES))
                .map(|line| bounded(line))
                .collect(),
        },
        SaidOutcome::Another => return None,
    })
}

fn bounded_checks(said: &[SaidCheck]) -> Vec<CheckResult> {
    let check = |said: &SaidCheck| CheckResult {
        name: bounded(&said.name),
        passed: said.passed,
        detail: bounded(&said.detail),
    };
    said.iter().take(MAX_CHECKS).map(check).collect()
}

fn bad(said: &SaidBad) -> Option<BadMark> {
    Some(BadMark {
        digest: digest(&said.commit)?,
        version: said.version.parse().ok()?,
        reason: bounded(&said.reason),
        at: said.at,
    })
}

/// A commit's checksum is a SHA-256.
pub(super) fn digest(commit: &str) -> Option<Digest> {
    format!("sha256:{commit}").parse().ok()
}

/// The commit of this system, as root's programs call it.
pub(super) fn commit(digest: Digest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What somebody ought to know.
pub(super) fn remarks(said: &[String]) -> Vec<String> {
    said.iter().take(MAX_REMARKS).map(|text| bounded(text)).collect()
}

fn short(text: &str) -> String {
    bounded(&text.chars().take(80).collect::<String>())
}
