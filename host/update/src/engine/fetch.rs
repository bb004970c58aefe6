//! From a registry or an archive into the repository: download, stage, import.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use punktfunk_os::files;

use super::{Engine, Offer, Progress};
use crate::error::UpdateError;
use crate::name::{Channel, Commit};
use crate::statement::{Envelope, Release, Statement};
use crate::transport::{Archive, Cancel, Expected, Limits, Source};

/// What somebody gave, in root's folder of state.
const ARCHIVE: &str = "import.tar";
/// What somebody gives, until it is known to be signed.
const INCOMING: &str = "import-incoming.tar";
/// What an archive may take.
pub const LIMITS: Limits = Limits {
    max_bytes: 16 << 30,
    keep_free_bytes: 1 << 30,
    stated_within: Duration::from_secs(60),
};

impl Engine {
    /// Fetches a release as far as it is not here. What came before the end, whichever it is, is kept. What is staged or
    /// deployed is here.
    ///
    /// # Errors
    /// Why it may not be had, what the source says, [`UpdateError::NoSpace`], [`UpdateError::Stopped`] or
    /// [`UpdateError::Failed`].
    pub fn download(
        &mut self,
        commit: Commit,
        insist: bool,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        cancel.check()?;
        let release = self.may_have(commit, insist)?;
        if self.is_here(commit)? {
            progress(release.size_bytes, release.size_bytes);
            return Ok(());
        }
        let done = self.fetch(&release, progress, cancel);
        self.say_room();
        self.said(done)
    }

    /// From what somebody gave if it is in there, or else from the registry.
    fn fetch(
        &self,
        release: &Release,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        let mut most = 0;
        let mut note = |done: u64, total: u64| {
            // What turned out to be wrong is fetched again, and is not told of twice.
            most = done.max(most);
            progress(most, total);
        };
        let mut from = |source: &dyn Source| {
            self.store.download(source, release, &self.repository(), &mut note, cancel).map(drop)
        };
        let missing = match Archive::open(&self.archive()) {
            Ok(archive) => match from(&archive) {
                Err(
                    missing @ (UpdateError::NothingDownloaded
                    | UpdateError::Content { .. }
                    | UpdateError::Unreachable { .. }),
                ) => missing,
                done => return done,
            },
            Err(missing) => missing,
        };
        match (self.registry(), missing) {
            (Ok(registry), _) => from(registry),
            (Err(unknown), UpdateError::NothingDownloaded) => Err(unknown),
            (Err(_), missing) => Err(missing),
        }
    }

    /// Brings what was fetched into the repository, where it waits to be applied; what waited before waits no more.
    /// Nothing is deployed. What is staged or deployed already stays as it is.
    ///
    /// # Errors
    /// Why it may not be had, [`UpdateError::NothingDownloaded`] when it is not whole, [`UpdateError::NoSpace`],
    /// [`UpdateError::Content`], [`UpdateError::Stopped`] or [`UpdateError::Failed`].
    pub fn stage(
        &mut self,
        commit: Commit,
        insist: bool,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        cancel.check()?;
        if self.is_here(commit)? {
            return Ok(());
        }
        let release = self.may_have(commit, insist)?;
        let whole = self.store.fetched().filter(|one| one.commit == commit);
        if whole.is_none_or(|one| one.done_bytes < one.total_bytes) {
            return Err(UpdateError::NothingDownloaded);
        }
        self.writable()?;
        let before = self.held()?;
        let done = self.store.stage(&release, &self.repository(), cancel);
        let done = done.and_then(|()| {
            if before.is_some() {
                let tidied = self.site.ostree.tidy();
                tidied
                    .map_err(|error| UpdateError::failed("remove what was staged before", error))?;
            }
            self.forget_archive()
        });
        self.say_room();
        self.said(done)
    }

    /// Takes in what somebody gives: copies it, and keeps it if a statement in it is believed. Gives what may be had of what
    /// is in it. From when the statement is believed it yields to nothing ([`Cancel::stay`]).
    ///
    /// # Errors
    /// What [`Archive::take_in`] says, why the statement is not believed, or [`UpdateError::Failed`]. What was given
    /// before stays then.
    pub fn import_archive(
        &mut self,
        from: OwnedFd,
        cancel: &Cancel,
    ) -> Result<Vec<Offer>, UpdateError> {
        cancel.check()?;
        let incoming = self.site.place.state.join(INCOMING);
        let offers = self.take_in(from, cancel);
        if offers.is_err() {
            absent(fs::remove_file(&incoming))?;
        }
        self.said(offers)
    }

    fn take_in(&mut self, from: OwnedFd, cancel: &Cancel) -> Result<Vec<Offer>, UpdateError> {
        let incoming = self.site.place.state.join(INCOMING);
        let memory = self.memory()?;
        let channel = memory.channel();
        let mut judge = |envelope: &[u8]| {
            let statement = self.judge(envelope, &memory, channel)?.statement;
            cancel.stay();
            Ok(Expected::of(statement.releases.iter().map(|release| release.size_bytes)))
        };
        let archive =
            Archive::take_in(from, &incoming, LIMITS, &*self.settings.steady, &mut judge, cancel)?;
        let bytes = archive.envelope(channel, &self.settings.flavour, cancel)?;
        let believed = self.believe(&bytes, memory, channel)?;
        self.clean_staged()?;
        let offers = self.offers_in(&archive, believed.statement)?;
        let kept = self.archive();
        let moved = fs::rename(&incoming, &kept)
            .map_err(|error| UpdateError::failed("keep the archive", error));
        moved?;
        files::sync_folder_of(&kept)
            .map_err(|error| UpdateError::failed("keep the archive", error))?;
        Ok(offers)
    }

    /// What may be had of what somebody gave, as long as that lies here. What cannot be read or is not believed now brings
    /// nothing, and its reason is told to whoever asks for it.
    pub(super) fn brought(&mut self) -> Vec<Offer> {
        let Ok(archive) = Archive::open(&self.archive()) else { return Vec::new() };
        let Ok(Some(statement)) = self.stated() else { return Vec::new() };
        self.offers_in(&archive, statement).unwrap_or_default()
    }

    /// What may be had of what is stated without asking anybody but this archive.
    fn offers_in(
        &mut self,
        archive: &Archive,
        mut statement: Statement,
    ) -> Result<Vec<Offer>, UpdateError> {
        statement.releases.retain(|release| archive.has(release.image));
        self.offers(&statement)
    }

    /// It needs nobody to bring it.
    fn is_here(&self, commit: Commit) -> Result<bool, UpdateError> {
        Ok(self.held()? == Some(commit) || self.is_deployed(commit)?)
    }

    /// Removes what was fetched or given and is of no use any more: it is here, older than what runs, or not offered now.
    pub(super) fn clean(&mut self) -> Result<(), UpdateError> {
        let incoming = self.site.place.state.join(INCOMING);
        absent(fs::remove_file(files::part(&incoming)))?;
        absent(fs::remove_file(incoming))?;
        if let Some(fetched) = self.store.fetched() {
            // Of what is not believed now nothing is known.
            let stated = self.stated().ok().flatten();
            let release = stated.map(|statement| statement.release(fetched.commit).cloned());
            let is_over = match release {
                Some(release) => !self.is_wanted(release.as_ref())?,
                None => self.is_here(fetched.commit)?,
            };
            if is_over {
                self.store.forget()?;
            }
        }
        self.clean_staged()?;
        self.clean_archive()
    }

    /// What was withdrawn waits no more.
    pub(super) fn clean_staged(&mut self) -> Result<(), UpdateError> {
        let Some(commit) = self.held()? else { return Ok(()) };
        let Ok(Some(statement)) = self.stated() else { return Ok(()) };
        if statement.release(commit).is_some() || self.is_deployed(commit)? {
            return Ok(());
        }
        self.writable()?;
        self.let_go()?;
        let tidied = self.site.ostree.tidy();
        tidied.map_err(|error| UpdateError::failed("remove what was withdrawn", error))
    }

    /// Whether a release is one to go to.
    fn is_wanted(&self, release: Option<&Release>) -> Result<bool, UpdateError> {
        let Some(release) = release else { return Ok(false) };
        Ok(release.version >= self.running()? && !self.is_here(release.commit)?)
    }

    /// What is in it need not be believed to be thrown away.
    fn clean_archive(&self) -> Result<(), UpdateError> {
        let read = || {
            let archive = Archive::open(&self.archive())?;
            let bytes = archive.envelope(Channel::default(), "", &Cancel::default())?;
            Statement::parse(&Envelope::parse(&bytes)?.statement)
        };
        let releases = match read() {
            Ok(statement) => statement.releases,
            Err(UpdateError::Content { .. }) => Vec::new(),
            Err(UpdateError::NothingDownloaded) => return Ok(()),
            Err(error) => return Err(error),
        };
        for release in &releases {
            if self.is_wanted(Some(release))? {
                return Ok(());
            }
        }
        self.forget_archive()
    }

    fn forget_archive(&self) -> Result<(), UpdateError> {
        absent(fs::remove_file(self.archive()))
    }

    fn archive(&self) -> PathBuf {
        self.site.place.state.join(ARCHIVE)
    }
}

fn absent(done: std::io::Result<()>) -> Result<(), UpdateError> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(UpdateError::failed("remove an archive", error))
        }
        _ => Ok(()),
    }
}
