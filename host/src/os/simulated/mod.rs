//! A system that is not there: it downloads nothing, installs nothing and restarts nothing, and says so in every answer.
//!
//! Its disk is a value; whoever makes it says where that is written down. It follows a script, which says what can be had
//! and which call fails, how, and after how many bytes; starting a system whose verdict fails goes back by itself, as
//! the boot loader of a real one does. Time is an argument: nothing takes any in tests, and a demonstration can be
//! watched.
//!
//! Deliberately absent: signatures. What cannot be installed needs none; a script says when one is to be wrong.

mod archive;
mod file;
mod power;
mod script;
mod scripted;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::release::{
    Attempt, Channel, Deployment, Digest, Fetched, Inventory, Outcome, Release, Role, Version,
};
use super::{Cancel, OsBackend, OsError, Presence};
use crate::clock;

pub use archive::archive;
pub use file::DiskFile;
pub use power::SimulatedPower;
pub use script::{Call, How, Mishap, Pace, Script, Verdict, demonstration, digest};
pub use scripted::script;

/// A system on the simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// What it is called.
    pub version: Version,
    /// Which it is.
    pub digest: Digest,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
}

/// The simulated disk: all that a loss of power leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Counts starts.
    pub boot: u64,
    /// What lies there.
    pub systems: Vec<System>,
    /// What runs.
    pub booted: Digest,
    /// What ran before.
    pub previous: Option<Digest>,
    /// What waits to be applied.
    pub staged: Option<Digest>,
    /// What is kept.
    pub pinned: BTreeSet<Digest>,
    /// What the boot loader starts next, if that is not what runs.
    pub next: Option<Digest>,
    /// What was downloaded.
    pub fetched: Option<Fetched>,
    /// As much is free, in bytes.
    pub free_bytes: u64,
    /// The oldest version that is safe.
    pub floor: Version,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// Where releases come from.
    #[serde(default)]
    pub channel: Channel,
}

impl Default for Disk {
    /// Version 1.4.2 runs, and 1.4.1 ran before.
    fn default() -> Self {
        let system = |patch, byte| System {
            version: Version::new(1, 4, patch),
            digest: digest(byte),
            made_at: script::MADE_AT,
        };
        let (running, previous) = (system(2, 0x42), system(1, 0x41));
        Self {
            boot: 1,
            systems: vec![running, previous],
            booted: running.digest,
            previous: Some(previous.digest),
            staged: None,
            pinned: BTreeSet::new(),
            next: None,
            fetched: None,
            free_bytes: 20_000_000_000,
            floor: Version::new(1, 4, 0),
            attempt: None,
            channel: Channel::Stable,
        }
    }
}

impl Disk {
    fn system(&self, digest: Digest) -> Option<System> {
        self.systems.iter().copied().find(|system| system.digest == digest)
    }

    /// What nobody needs goes.
    fn prune(&mut self) {
        let needed = [Some(self.booted), self.previous, self.staged];
        self.systems.retain(|system| {
            needed.contains(&Some(system.digest)) || self.pinned.contains(&system.digest)
        });
    }

    /// The machine starts: into what the boot loader was told, and back again if that does not work.
    fn start(&mut self, script: &Script) {
        self.boot += 1;
        let next = self.next.take().filter(|digest| *digest != self.booted);
        let Some(target) = next.and_then(|digest| self.system(digest)) else { return };
        let verdict = script.verdicts.get(&target.digest);
        let from = self.system(self.booted).map_or(self.floor, |system| system.version);
        if self.staged == Some(target.digest) {
            self.staged = None;
        }
        if verdict == Some(&Verdict::NeverBoots) {
            self.boot += 1;
            return self.prune();
        }
        self.attempt = Some(Attempt {
            number: self.attempt.as_ref().map_or(0, |attempt| attempt.number) + 1,
            digest: target.digest,
            version: target.version,
            from,
            outcome: Outcome::Pending,
        });
        self.previous = Some(self.booted);
        self.booted = target.digest;
        self.prune();
    }

    /// The system that was just started is judged.
    fn judge(&mut self, script: &Script) {
        let Some(attempt) = &mut self.attempt else { return };
        match script.verdicts.get(&attempt.digest) {
            Some(Verdict::Fails(reason)) => {
                let checks = script::checks(Some(reason));
                attempt.outcome =
                    Outcome::Failed { reason: reason.clone(), checks, log: Vec::new() };
                self.boot += 1;
                if let Some(back) = self.previous.take() {
                    self.booted = back;
                }
                self.prune();
            }
            Some(Verdict::NeverComes) => {}
            Some(Verdict::NeverBoots) | None => {
                attempt.outcome = Outcome::Passed { checks: script::checks(None) };
            }
        }
    }

    fn inventory(&self) -> Inventory {
        let role = |digest| {
            if digest == self.booted {
                Role::Booted
            } else if self.staged == Some(digest) {
                Role::Staged
            } else if self.previous == Some(digest) {
                Role::Rollback
            } else {
                Role::Pinned
            }
        };
        let deployment = |system: &System| Deployment {
            version: system.version,
            digest: system.digest,
            made_at: system.made_at,
            role: role(system.digest),
            pinned: self.pinned.contains(&system.digest),
        };
        Inventory {
            boot: self.boot.to_string(),
            deployments: self.systems.iter().map(deployment).collect(),
            brought: Vec::new(),
            fetched: self.fetched,
            free_bytes: self.free_bytes,
            floor: self.floor,
            newest_manifest_at: script::MADE_AT,
            attempt: self.attempt.clone(),
            earlier: Vec::new(),
            verdict: None,
            bad: Vec::new(),
            remarks: Vec::new(),
            channel: self.channel,
        }
    }
}

/// Writes the disk down; an error is a sentence.
pub type SaveDisk = Box<dyn Fn(&Disk) -> Result<(), String> + Send + Sync>;

/// The simulation.
pub struct Simulated {
    inside: Mutex<Inside>,
    save: SaveDisk,
    pace: Pace,
}

struct Inside {
    disk: Disk,
    script: Script,
    /// When the verdict on what was started comes.
    verdict_at: Timestamp,
}

impl Simulated {
    /// A system with this disk, which `save` writes down whenever it changes.
    pub fn new(disk: Disk, script: Script, pace: Pace, save: SaveDisk) -> Self {
        let verdict_at = later(pace.verdict);
        Self { inside: Mutex::new(Inside { disk, script, verdict_at }), save, pace }
    }

    /// The disk as it is.
    pub fn disk(&self) -> Disk {
        self.lock().disk.clone()
    }

    /// From now on it goes by this script.
    pub fn go_by(&self, script: Script) {
        self.lock().script = script;
    }

    /// Power is lost and comes back: the machine starts as the boot loader was told.
    ///
    /// # Errors
    /// The disk could not be written down.
    pub fn power_cycle(&self) -> Result<(), OsError> {
        let mut inside = self.lock();
        let Inside { disk, script, verdict_at } = &mut *inside;
        disk.start(script);
        *verdict_at = later(self.pace.verdict);
        self.keep(disk)
    }

    /// What can be had, if this version is among it.
    fn releases_of(&self, version: Version) -> Result<Vec<Release>, OsError> {
        let inside = self.lock();
        let found = inside.script.releases.iter().find(|release| release.version == version);
        let detail = format!("the script knows no version {version}");
        found.map(|release| vec![release.clone()]).ok_or(OsError::Signature { detail })
    }

    fn mishap(&self, call: Call, bytes: u64, cancel: &Cancel) -> Result<(), OsError> {
        let due = self.lock().script.due(call, bytes);
        match due {
            None => Ok(()),
            Some(How::Fail(error)) => Err(error),
            Some(How::Stall) => {
                cancel.wait_forever();
                Err(OsError::Stopped)
            }
        }
    }

    fn keep(&self, disk: &Disk) -> Result<(), OsError> {
        let doing = "write down the simulated disk";
        (self.save)(disk).map_err(|detail| OsError::Failed { doing, detail })
    }

    // What lies behind the lock is whole between statements; a panic elsewhere changes nothing in it.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OsBackend for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn presence(&self) -> Presence {
        Presence::Appliance { simulated: true }
    }

    fn inventory(&self) -> Result<Inventory, OsError> {
        self.mishap(Call::Inventory, 0, &Cancel::default())?;
        let mut inside = self.lock();
        let Inside { disk, script, verdict_at } = &mut *inside;
        let pending =
            disk.attempt.as_ref().is_some_and(|attempt| attempt.outcome == Outcome::Pending);
        if pending && clock::now() >= *verdict_at {
            disk.judge(script);
            self.keep(disk)?;
        }
        Ok(disk.inventory())
    }

    fn check(&self, cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        if cancel.wait(self.pace.check) {
            return Err(OsError::Stopped);
        }
        self.mishap(Call::Check, 0, cancel)?;
        let inside = self.lock();
        // What is for everybody is for those who want it early, too.
        let is_for = |release: &&Release| {
            inside.disk.channel == Channel::Next || release.channel == Channel::Stable
        };
        Ok(inside.script.releases.iter().filter(is_for).cloned().collect())
    }

    fn import(&self, archive: OwnedFd, cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        let mut taken = archive::Taken::default();
        archive::read(&archive, cancel, &mut |piece| {
            taken.more(piece)?;
            self.mishap(Call::Import, taken.bytes(), cancel)?;
            // Who made it is asked before the rest has come.
            taken.version().map_or(Ok(()), |version| self.releases_of(version).map(drop))
        })?;
        self.releases_of(taken.whole()?)
    }

    fn download(
        &self,
        release: &Release,
        _insist: bool,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<(), OsError> {
        let total_bytes = release.size_bytes;
        let there = self.lock().disk.fetched.filter(|fetched| fetched.digest == release.digest);
        let mut done_bytes = there.map_or(0, |fetched| fetched.done_bytes);
        loop {
            progress(done_bytes);
            self.mishap(Call::Download, done_bytes, cancel)?;
            if done_bytes >= total_bytes {
                return Ok(());
            }
            if cancel.wait(self.pace.part) {
                return Err(OsError::Stopped);
            }
            done_bytes = done_bytes.saturating_add(self.pace.part_bytes.max(1)).min(total_bytes);
            let mut inside = self.lock();
            inside.disk.fetched = Some(Fetched { digest: release.digest, done_bytes, total_bytes });
            self.keep(&inside.disk)?;
        }
    }

    fn stage(&self, release: &Release, _insist: bool, cancel: &Cancel) -> Result<(), OsError> {
        if cancel.wait(self.pace.stage) {
            return Err(OsError::Stopped);
        }
        self.mishap(Call::Stage, 0, cancel)?;
        let mut inside = self.lock();
        let disk = &mut inside.disk;
        if disk.staged == Some(release.digest) {
            return Ok(());
        }
        let fetched = disk.fetched.filter(|fetched| fetched.digest == release.digest);
        if !fetched.is_some_and(|fetched| fetched.is_whole()) {
            return Err(OsError::NothingDownloaded);
        }
        let Release { version, digest, made_at, .. } = *release;
        disk.systems.retain(|system| system.digest != digest);
        disk.systems.push(System { version, digest, made_at });
        disk.staged = Some(digest);
        disk.fetched = None;
        disk.prune();
        self.keep(disk)
    }

    fn arrange_boot(&self, digest: Digest, _insist: bool) -> Result<(), OsError> {
        self.mishap(Call::ArrangeBoot, 0, &Cancel::default())?;
        let mut inside = self.lock();
        let disk = &mut inside.disk;
        disk.system(digest).ok_or(OsError::UnknownDeployment)?;
        disk.next = (digest != disk.booted).then_some(digest);
        self.keep(disk)
    }

    fn reboot(&self, cancel: &Cancel) -> Result<(), OsError> {
        self.mishap(Call::Reboot, 0, cancel)?;
        if cancel.wait(self.pace.reboot) {
            return Err(OsError::Stopped);
        }
        self.power_cycle()
    }

    fn pin(&self, digest: Digest, pinned: bool) -> Result<(), OsError> {
        self.mishap(Call::Pin, 0, &Cancel::default())?;
        let mut inside = self.lock();
        let disk = &mut inside.disk;
        disk.system(digest).ok_or(OsError::UnknownDeployment)?;
        if pinned {
            disk.pinned.insert(digest);
        } else {
            disk.pinned.remove(&digest);
        }
        disk.prune();
        self.keep(disk)
    }

    fn follow(&self, channel: Channel) -> Result<(), OsError> {
        self.mishap(Call::Follow, 0, &Cancel::default())?;
        let mut inside = self.lock();
        inside.disk.channel = channel;
        self.keep(&inside.disk)
    }
}

fn later(time: Duration) -> Timestamp {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(clock::now().as_micros().saturating_add(micros))
}
