//! `deploy-local`: brings a system in from a repository on this machine. And its second half, for what is here already.

use std::path::Path;

use anyhow::Context as _;

use super::Site;
use crate::mirror::{MirrorError, read_pristine};
use crate::model::DeploymentId;
use crate::policy;

/// Pulls, deploys and mirrors, and only then removes what nobody needs any more. When the boot partition has no room
/// for it, it is as if nothing had been asked.
pub fn deploy_local(
    site: &Site,
    repository: &Path,
    reference: &str,
    insist: bool,
    tries: Option<u32>,
) -> anyhow::Result<()> {
    site.place.open()?;
    let commit = site.ostree.resolve(repository, reference)?;
    policy::offer(&site.known()?, &commit, insist)?;
    site.ostree.pull_local(repository, &commit).context("the system could not be copied")?;
    deploy(site, &commit, insist, tries)
}

/// Deploys a commit that OSTree's repository has, mirrors, and removes what nobody needs any more. The place is open.
///
/// # Errors
/// [`policy::Refusal::Bad`] when it did not prove itself and nobody insists, [`MirrorError::NoRoom`] when the boot
/// partition has none - then it is as if nothing had been asked -, or what OSTree said.
pub fn deploy(site: &Site, commit: &str, insist: bool, tries: Option<u32>) -> anyhow::Result<()> {
    policy::offer(&site.known()?, commit, insist)?;
    let before = site.ostree.list()?;
    site.ostree.deploy(commit).context("the system could not be deployed")?;
    let (booted, pristine) = (site.place.booted(), read_pristine(&site.place.sysroot));
    let deployments = site.deployments()?;
    let others = policy::superfluous(&deployments, booted.as_ref(), pristine.as_ref());
    if site.remembers() {
        let mut held = site.ledger()?;
        policy::leave(&mut held.ledger, &others);
        // Or it would be removed when another is started.
        if let Some(first) = site.ostree.list()?.first() {
            held.ledger.risen(first);
        }
        if insist {
            held.ledger.bad.retain(|bad| bad.commit != commit);
        }
        held.save()?;
    }
    if let Err(error) = site.retire(&others, tries) {
        let no_room = matches!(error.downcast_ref(), Some(MirrorError::NoRoom { .. }));
        let first = site.ostree.list()?.into_iter().next();
        if no_room && first.is_some_and(|first| !before.contains(&first)) {
            site.ostree.undeploy(0)?;
            if site.remembers() {
                let mut held = site.ledger()?;
                others.iter().for_each(|id| held.ledger.risen(id));
                held.save()?;
            }
        }
        return Err(error.context("the system cannot be started"));
    }
    tell!("{commit} is started next");
    site.tell()
}

/// Removes deployments that nobody needs, so that what is removed is not brought back by a loss of power in between.
/// The place is open.
///
/// # Errors
/// What the ledger, the mirror or OSTree said.
pub fn remove(site: &Site, ids: &[DeploymentId]) -> anyhow::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    if site.remembers() {
        let mut held = site.ledger()?;
        policy::leave(&mut held.ledger, ids);
        held.save()?;
    }
    site.retire(ids, None)
}
