//! `rollback`, `pin` and `unpin`: which deployment is started, and which are kept.

use super::Site;
use crate::mirror::read_pristine;
use crate::model::DeploymentId;
use crate::policy;

/// Makes another deployment the one that is started next.
pub fn rollback(site: &Site, wish: Option<&str>, insist: bool) -> anyhow::Result<()> {
    site.place.open()?;
    let ledger = site.known()?;
    let deployments = site.deployments()?;
    let booted = site.place.booted();
    let at = policy::rollback_target(&deployments, booted.as_ref(), &ledger, wish, insist)?;
    start_next(site, &deployments[at].id)
}

/// Makes a deployment that is there the one that is started next; the one that is so already stays it. The place is
/// open.
///
/// # Errors
/// What the mirror or OSTree said, which is also that it does not know it.
pub fn start_next(site: &Site, id: &DeploymentId) -> anyhow::Result<()> {
    let Some(index) = site.index(id)? else { anyhow::bail!("OSTree does not know {id}") };
    if index > 0 {
        site.ostree.set_default(index)?;
    }
    site.mirror(None, false)?;
    tell!("{id} is started next");
    site.tell()
}

/// Keeps a deployment, or lets it go.
pub fn pin(site: &Site, commit: &str, pinned: bool) -> anyhow::Result<()> {
    site.place.open()?;
    keep(site, commit, pinned)
}

/// The same, on a place that is open.
///
/// # Errors
/// A [`policy::Refusal`], or what OSTree said.
pub fn keep(site: &Site, commit: &str, pinned: bool) -> anyhow::Result<()> {
    let deployments = site.deployments()?;
    let pristine = read_pristine(&site.place.sysroot);
    let at = if pinned {
        policy::pin_target(&deployments, pristine.as_ref(), commit)?
    } else {
        policy::unpin_target(&deployments, pristine.as_ref(), commit)?
    };
    let one = &deployments[at];
    let Some(index) = site.index(&one.id)? else {
        anyhow::bail!("OSTree does not know {}", one.id)
    };
    if one.pinned != pinned {
        site.ostree.pin(index, pinned)?;
    }
    tell!("{} is {}", one.id, if pinned { "kept" } else { "not kept any more" });
    site.tell()
}
