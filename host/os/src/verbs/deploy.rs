//! `deploy-local`: brings a system in from a repository on this machine.

use std::path::Path;

use anyhow::Context as _;

use super::Site;
use crate::mirror::{MirrorError, read_pristine};
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
    let before = site.ostree.list()?;
    site.ostree.deploy(&commit).context("the system could not be deployed")?;
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
    site.publish(&site.known()?)
}
