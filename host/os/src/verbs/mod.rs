//! The verbs: each reads what is there, asks a policy, and carries out what follows.
//!
//! Deliberately absent: decisions. They are in [`crate::policy`] and [`crate::mirror`].

pub mod attend;
pub mod boot;
pub mod deploy;
pub mod grow;
pub mod keep;
pub mod verdict;

use std::path::Path;

use anyhow::Context as _;

use crate::ledger::{Held, Ledger};
use crate::mirror::{
    PRISTINE, Request, Tries, apply, link, plan, read_deployments, read_esp, read_pristine,
};
use crate::model::{Counter, Deployment, DeploymentId};
use crate::ostree::{Ostree, Program};
use crate::place::Place;
use crate::policy::{Start, role};
use crate::status::{self, Counted, Outcome, SCHEMA, Status};
use crate::{facts, files};

/// The owner's word on how often a deployment is tried.
const TRIES_FILE: &str = "/etc/punktfunk/boot-tries";

/// A machine, or a disk on a desk, that is worked on.
pub struct Site {
    /// Where everything lies.
    pub place: Place,
    /// OSTree.
    pub ostree: Box<dyn Ostree + Send>,
}

impl Site {
    /// The machine that runs, or another disk.
    pub fn new(sysroot: Option<&Path>, esp: Option<&Path>) -> anyhow::Result<Self> {
        let place = Place::new(sysroot, esp)?;
        let ostree = Box::new(Program::new(place.foreign_sysroot()));
        Ok(Self { place, ostree })
    }

    /// OSTree's deployments in the order in which they are started.
    pub fn deployments(&self) -> anyhow::Result<Vec<Deployment>> {
        read_deployments(&self.place.sysroot).context("OSTree's deployments could not be read")
    }

    /// Brings the loader's entries in step with the deployments.
    pub fn mirror(&self, tries: Option<u32>, uncounted: bool) -> anyhow::Result<usize> {
        self.mirror_without(&[], tries, uncounted)
    }

    /// Removes deployments. Their entries go first: an entry whose deployment is gone would be started, and started
    /// again, without end.
    pub fn retire(&self, ids: &[DeploymentId], tries: Option<u32>) -> anyhow::Result<()> {
        self.mirror_without(ids, tries, false)?;
        for id in ids {
            let pinned = self.deployments()?.iter().any(|one| one.id == *id && one.pinned);
            if let Some(index) = self.index(id)? {
                if pinned {
                    self.ostree.pin(index, false)?;
                }
                self.ostree.undeploy(index)?;
            }
        }
        Ok(())
    }

    fn mirror_without(
        &self,
        ids: &[DeploymentId],
        tries: Option<u32>,
        uncounted: bool,
    ) -> anyhow::Result<usize> {
        let tries = match tries.or_else(|| self.owners_tries()) {
            Some(tries) => Tries::new(tries)?,
            None => Tries::default(),
        };
        let mut deployments = self.deployments()?;
        deployments.retain(|one| !ids.contains(&one.id));
        let esp = read_esp(&self.place.esp)?;
        let (booted, pristine) = (self.place.booted(), read_pristine(&self.place.sysroot));
        let request = Request {
            esp: &esp,
            deployments: &deployments,
            booted: booted.as_ref(),
            counter: booted.as_ref().and_then(|id| self.counter(id)),
            pristine: pristine.as_ref(),
            tries,
            uncounted,
        };
        let steps = plan(&request)?;
        apply(&steps, &self.place.sysroot, &self.place.esp)?;
        Ok(steps.len())
    }

    fn owners_tries(&self) -> Option<u32> {
        self.place.live.then(|| files::read_word(Path::new(TRIES_FILE))?.parse().ok()).flatten()
    }

    /// Marks the only deployment as the one that the machine was set up with, and keeps it.
    pub fn mark_pristine(&self) -> anyhow::Result<()> {
        let deployments = self.deployments()?;
        let [only] = deployments.as_slice() else {
            anyhow::bail!("a pristine disk has one deployment, this one {}", deployments.len());
        };
        link(&self.place.sysroot.join(PRISTINE), &only.id.to_string())?;
        if !only.pinned {
            self.ostree.pin(0, true)?;
        }
        Ok(())
    }

    /// OSTree's own number of a deployment.
    pub fn index(&self, id: &DeploymentId) -> anyhow::Result<Option<usize>> {
        Ok(self.ostree.list()?.iter().position(|one| one == id))
    }

    /// This start, if what runs is one of ours.
    pub fn start(&self) -> Option<Start> {
        let id = self.place.booted()?;
        let about = self.ostree.about(id.commit());
        let counter = self.counter(&id);
        let boot_id = facts::read_boot_id(self.place.system.as_deref()?);
        Some(Start { boot_id, id, version: about.version, counter })
    }

    /// The loader's count of what runs; nothing when it does not count, or when the entry was blessed since.
    fn counter(&self, id: &DeploymentId) -> Option<Counter> {
        let counted = facts::read_counted(self.place.system.as_deref()?);
        let counted = counted.filter(|name| name.id == *id)?;
        let Ok(esp) = read_esp(&self.place.esp) else { return counted.counter };
        let mut there = esp.entries.keys().filter(|name| name.id == *id).peekable();
        if there.peek().is_none() {
            return counted.counter;
        }
        there.map(|name| name.counter).min().flatten()
    }

    /// What is to be said of the machine.
    pub fn status(&self, ledger: &Ledger, start: Option<&Start>) -> anyhow::Result<Status> {
        let deployments = self.deployments()?;
        let booted = start.map(|start| &start.id);
        let pristine = read_pristine(&self.place.sysroot);
        let describe = |(at, one): (usize, &Deployment)| {
            let about = self.ostree.about(one.id.commit());
            status::Deployment {
                commit: one.id.commit().to_owned(),
                version: about.version,
                made_at: about.made_at,
                role: role(&deployments, at, booted, pristine.as_ref()),
                pinned: one.pinned,
            }
        };
        let room = rustix::fs::statvfs(&self.place.sysroot)?;
        let boot_id = start.map(|start| start.boot_id.clone()).unwrap_or_default();
        let boot = ledger.boot.as_ref().filter(|boot| boot.boot_id == boot_id);
        // What has passed is being blessed, and nobody counts it any more.
        let passed = boot.is_some_and(|boot| matches!(boot.verdict, Some(Outcome::Passed { .. })));
        let counter = start.and_then(|start| start.counter).filter(|_| !passed);
        Ok(Status {
            schema: SCHEMA,
            deployments: deployments.iter().enumerate().map(describe).collect(),
            counted: counter.map(|Counter { left, done }| Counted { left, done }),
            attempts: ledger.attempts.iter().map(|record| record.attempt.clone()).collect(),
            bad: ledger.bad.clone(),
            verdict: boot.and_then(|boot| boot.verdict.clone()),
            free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
            presence_at: ledger.presence_at,
            remarks: boot.map(|boot| boot.remarks.clone()).unwrap_or_default(),
            boot_id,
        })
    }

    /// Says it to everybody. On a desk there is nobody to say it to.
    pub fn publish(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let Some(folder) = &self.place.run else { return Ok(()) };
        std::fs::create_dir_all(folder)?;
        Ok(self.status(ledger, self.start().as_ref())?.write(&folder.join(status::NAME))?)
    }

    /// Says it to everybody as it is remembered now. Nobody else changes that meanwhile, so what was said last holds.
    pub fn tell(&self) -> anyhow::Result<()> {
        if !self.remembers() {
            return self.publish(&Ledger::default());
        }
        let held = self.ledger()?;
        self.publish(&held.ledger)
    }

    /// The ledger, for this process alone.
    pub fn ledger(&self) -> anyhow::Result<Held> {
        Held::open(&self.place.state).context("what this machine remembers could not be opened")
    }

    /// The ledger as it lies there, if one does.
    pub fn known(&self) -> anyhow::Result<Ledger> {
        if self.remembers() { Ok(self.ledger()?.ledger.clone()) } else { Ok(Ledger::default()) }
    }

    /// Whether there is a ledger to read and write. A disk on a desk has none before its first start, and gets none
    /// from there; one that was in a box has.
    pub fn remembers(&self) -> bool {
        self.place.system.is_some() || self.place.state.join(crate::ledger::NAME).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_on_a_desk_knows_what_its_box_has_learnt() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new(Some(folder.path()), Some(&folder.path().join("esp"))).unwrap();
        // One that was never in a box gets no folder.
        assert_eq!(site.known().unwrap(), Ledger::default());
        assert!(!site.place.state.exists());
        let mut held = site.ledger().unwrap();
        let (commit, version, reason) = ("c".to_owned(), "0.9.0".to_owned(), "no tone".to_owned());
        held.ledger.bad.push(status::Bad { commit, version, reason, at: 1 });
        held.save().unwrap();
        drop(held);
        let refusal = crate::policy::offer(&site.known().unwrap(), "c", false).unwrap_err();
        assert_eq!(refusal.to_string(), "0.9.0 did not prove itself here: no tone");
    }
}
