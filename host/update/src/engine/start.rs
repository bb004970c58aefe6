//! What is started next, and what is kept.
//!
//! A staged system is deployed when its start is arranged, and its reference is let go of when the deployment is there.
//! When something else is arranged before it was ever started, it goes back to where it was: into the repository, staged.
//! So what was to be started and is not is no version that one goes back to.

use punktfunk_os::facts::since_start;
use punktfunk_os::mirror::{read_esp, read_pristine};
use punktfunk_os::model::{Deployment, DeploymentId};
use punktfunk_os::permit;
use punktfunk_os::policy;
use punktfunk_os::verbs::{deploy, keep};

use super::{Engine, told};
use crate::error::UpdateError;
use crate::name::{Commit, Version};
use crate::transport::STAGED_REF;

impl Engine {
    /// The next start is into this system: one that is staged is deployed, one that is deployed is put first. What runs
    /// can be asked for, too, and takes back what was arranged.
    ///
    /// # Errors
    /// [`UpdateError::UnknownDeployment`] when it is neither or was staged and has been withdrawn, [`UpdateError::Bad`] unless somebody insists,
    /// [`UpdateError::BelowFloor`], [`UpdateError::Downgrade`] for a staged one that is older than what runs,
    /// [`UpdateError::NoSpace`] when the boot partition has none, or [`UpdateError::Failed`].
    pub fn apply(&mut self, commit: Commit, insist: bool) -> Result<(), UpdateError> {
        let deployments = self.deployments()?;
        let name = commit.to_string();
        let booted = self.site.place.booted();
        let of_it = |one: &&Deployment| one.id.commit() == name;
        let runs = |one: &&Deployment| Some(&one.id) == booted.as_ref();
        // Of several deployments of one system the one that runs has shown that it does.
        let there = deployments.iter().filter(of_it).find(runs);
        let there = there.or_else(|| deployments.iter().find(of_it)).map(|one| one.id.clone());
        let done = match there {
            Some(id) => self.arrange(&deployments, &id, commit, insist),
            None if self.held()? == Some(commit) => self.deploy(commit, insist),
            None => return Err(UpdateError::UnknownDeployment),
        };
        self.said(done)
    }

    fn deploy(&mut self, commit: Commit, insist: bool) -> Result<(), UpdateError> {
        let version = self.version(commit).unwrap_or(Version::new(0, 0, 0));
        let running = self.running()?;
        if version < running {
            return Err(UpdateError::Downgrade { version, floor: running });
        }
        self.above_floor(version)?;
        self.not_bad(commit, version, insist)?;
        // It may have been withdrawn since, or who signed it is trusted no more. What has only grown old was good when it
        // was staged, and may have waited long for a moment in which nobody plays.
        match self.may_have(commit, insist) {
            Ok(_) | Err(UpdateError::Expired { .. }) => {}
            Err(error) => return Err(error),
        }
        self.writable()?;
        let deployed = deploy::deploy(&self.site, &commit.to_string(), insist, None);
        deployed.map_err(|error| told("deploy the update", error))?;
        self.let_go()?;
        self.clean()
    }

    fn arrange(
        &mut self,
        deployments: &[Deployment],
        id: &DeploymentId,
        commit: Commit,
        insist: bool,
    ) -> Result<(), UpdateError> {
        let doing = "change what is started next";
        // What runs already may go on.
        if self.site.place.booted().as_ref() != Some(id) {
            let version = self.version(commit).unwrap_or(Version::new(0, 0, 0));
            self.not_bad(commit, version, insist)?;
            if let Err(below) = self.above_floor(version)
                && !self.is_permitted(commit)?
            {
                return Err(below);
            }
        }
        self.writable()?;
        self.take_back(deployments, Some(id))?;
        keep::start_next(&self.site, id).map_err(|error| told(doing, error))
    }

    /// Whether the owner has proved in this start of the machine to want this version, however old it is. That holds once.
    fn is_permitted(&self, commit: Commit) -> Result<bool, UpdateError> {
        let Some(start) = self.site.start() else { return Ok(false) };
        let taken = permit::take(
            &self.site.place.state,
            &commit.to_string(),
            &start.boot_id,
            since_start(),
        );
        taken.map_err(|error| UpdateError::failed("look whether the owner permitted it", error))
    }

    /// Takes the deployments away that wait for their first start, but one. The first of them is staged again, unless
    /// something newer is. A power cut at any moment leaves it deployed or staged, or both, which [`Engine::settle`]
    /// brings in order.
    fn take_back(
        &mut self,
        deployments: &[Deployment],
        but: Option<&DeploymentId>,
    ) -> Result<(), UpdateError> {
        let doing = "take back what was arranged";
        let waiting = self.waiting(deployments)?;
        let waiting: Vec<_> = waiting.into_iter().filter(|id| Some(id) != but).collect();
        let Some(first) = waiting.first() else { return Ok(()) };
        if self.held()?.is_none() {
            let held = self.site.ostree.hold(STAGED_REF, first.commit());
            held.map_err(|error| UpdateError::failed(doing, error))?;
        }
        deploy::remove(&self.site, &waiting).map_err(|error| told(doing, error))
    }

    /// Deployments before the one that runs which the loader has yet to start for the first time.
    fn waiting(&self, deployments: &[Deployment]) -> Result<Vec<DeploymentId>, UpdateError> {
        let booted = self.site.place.booted();
        let Some(running) = deployments.iter().position(|one| Some(&one.id) == booted.as_ref())
        else {
            return Ok(Vec::new());
        };
        let esp = read_esp(&self.site.place.esp);
        let esp = esp.map_err(|error| UpdateError::failed("read the boot partition", error))?;
        let fresh = |one: &&Deployment| {
            let mut names = esp.entries.keys().filter(|name| name.id == one.id);
            !one.pinned && names.any(|name| name.counter.is_some_and(|counter| counter.done == 0))
        };
        Ok(deployments[..running].iter().filter(fresh).map(|one| one.id.clone()).collect())
    }

    /// Keeps a deployment, or lets it go; what nobody needs then is removed.
    ///
    /// # Errors
    /// [`UpdateError::UnknownDeployment`], [`UpdateError::TooManyPins`], or [`UpdateError::Failed`], which is also said
    /// of what the machine was set up with: that is kept always.
    pub fn pin(&mut self, commit: Commit, pinned: bool) -> Result<(), UpdateError> {
        let doing = if pinned { "keep the version" } else { "let the version go" };
        if !self.is_deployed(commit)? {
            return Err(UpdateError::UnknownDeployment);
        }
        self.writable()?;
        let name = commit.to_string();
        let done = keep::keep(&self.site, &name, pinned).map_err(|error| told(doing, error));
        let done = done.and_then(|()| if pinned { Ok(()) } else { self.remove_unneeded(&name) });
        self.said(done)
    }

    fn remove_unneeded(&self, commit: &str) -> Result<(), UpdateError> {
        let doing = "remove a version that nobody needs";
        let (place, deployments) = (&self.site.place, self.deployments()?);
        let (booted, pristine) = (place.booted(), read_pristine(&place.sysroot));
        let mut ids = policy::superfluous(&deployments, booted.as_ref(), pristine.as_ref());
        ids.retain(|id| id.commit() == commit);
        if ids.is_empty() {
            return Ok(());
        }
        let removed = deploy::remove(&self.site, &ids).and_then(|()| self.site.tell());
        removed.map_err(|error| told(doing, error))
    }

    /// Brings in order what a loss of power has left between staging, deploying and taking back: what is staged and
    /// deployed is one or the other.
    pub(super) fn settle(&mut self) -> Result<(), UpdateError> {
        let Some(commit) = self.held()? else { return Ok(()) };
        if !self.is_deployed(commit)? {
            return Ok(());
        }
        self.writable()?;
        let deployments = self.deployments()?;
        let ledger =
            self.site.known().map_err(|error| told("look at what was taken back", error))?;
        let name = commit.to_string();
        // It was about to be taken back, and stays staged.
        let mut gone = self.waiting(&deployments)?;
        gone.retain(|id| id.commit() == name && ledger.has_fallen(id));
        if gone.is_empty() {
            return self.let_go();
        }
        let removed = deploy::remove(&self.site, &gone).and_then(|()| self.site.tell());
        removed.map_err(|error| told("take back what was arranged", error))
    }

    pub(super) fn let_go(&self) -> Result<(), UpdateError> {
        let gone = self.site.ostree.let_go(STAGED_REF);
        gone.map_err(|error| UpdateError::failed("let go of what was staged", error))
    }

    fn deployments(&self) -> Result<Vec<Deployment>, UpdateError> {
        self.site.deployments().map_err(|error| told("look at what is deployed", error))
    }
}
