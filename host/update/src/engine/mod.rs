//! What a box does for its updates, one thing after the other.
//!
//! What may be installed is what a statement names that is believed now. The envelope that was believed last is kept for
//! each channel, and judged again whenever it is read, so nothing is offered out of a file alone. Whatever is refused is
//! refused before anything is written; a power cut leaves what [`Engine::begin`] brings in order again: a download goes on
//! where it was, what is staged is named by a reference of OSTree's, what is deployed is `punktfunk-os`'s.
//!
//! - `offers`: what is stated, and whether a release of it may be had.
//! - `fetch`: from a registry or an archive to the repository.
//! - `start`: what is started next, and what is kept.
//!
//! Deliberately absent: when any of it is done, and what the owner reads of it.

mod fetch;
mod offers;
mod start;

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use punktfunk_os::files;
use punktfunk_os::mirror::MirrorError;
use punktfunk_os::policy::Refusal;
use punktfunk_os::verbs::Site;

use crate::error::UpdateError;
use crate::name::{Commit, Version};
use crate::outlook::{self, Outlook, Staged};
use crate::statement::Memory;
use crate::transport::{STAGED_REF, Source, Steady, Store};

pub use fetch::LIMITS;
pub use offers::Offer;

/// Root's folder of blobs, in its folder of state.
const BLOBS: &str = "updates";
/// Held as long as an engine lives, in root's folder of state.
const LOCK: &str = "updates.lock";
/// So long an engine waits for one that ends.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long it is waited before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// So many remarks are told.
const MAX_REMARKS: usize = 16;

/// The wall clock, in seconds since 1970.
pub type Clock = Box<dyn Fn() -> u64 + Send>;
/// Told how much is there and how much it will be, in bytes.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What an engine needs to know.
pub struct Settings {
    /// The folder of the keys that are believed.
    pub keys: PathBuf,
    /// Which kind of system this is, `slim` or `full`.
    pub flavour: String,
    /// What time it is.
    pub clock: Clock,
    /// How long something takes.
    pub steady: Box<Steady>,
    /// Where releases come from, or why that is not known.
    pub registry: Result<Box<dyn Source>, String>,
}

/// Does it, for one machine. One at a time does.
pub struct Engine {
    site: Site,
    settings: Settings,
    store: Store,
    /// The machine's disks are writable for this thread.
    is_open: bool,
    remarks: Vec<String>,
    /// What somebody at the machine ought to know of the stick that they plugged in last.
    of_stick: Option<String>,
    _lock: File,
}

impl Engine {
    /// The engine of a site. It waits a minute for one that is about to end.
    ///
    /// # Errors
    /// [`UpdateError::Busy`] when another one does not end, or [`UpdateError::Failed`].
    pub fn open(site: Site, settings: Settings) -> Result<Self, UpdateError> {
        Self::open_within(site, settings, MAX_WAIT)
    }

    fn open_within(site: Site, settings: Settings, most: Duration) -> Result<Self, UpdateError> {
        let lock = lock(&site.place.state, most)?;
        let store = Store::open(&site.place.state.join(BLOBS))?;
        let remarks = Vec::new();
        let of_stick = None;
        Ok(Self { site, settings, store, is_open: false, remarks, of_stick, _lock: lock })
    }

    /// Brings in order what a loss of power has left, and says what there is. What fails of it is said and keeps nobody
    /// from the rest. From here on the engine stays on one thread: its disks are writable for that one alone.
    pub fn begin(&mut self) {
        let settled = self.settle().and_then(|()| self.clean());
        if let Err(error) = settled {
            self.remark(format!("what was left of an update could not be put in order: {error}"));
        }
        if let Err(error) = self.say() {
            self.remark(error.to_string());
        }
    }

    /// Adds to what somebody ought to know.
    fn remark(&mut self, text: String) {
        if self.remarks.len() < MAX_REMARKS && !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    /// Says what came of what a stick brought: whoever plugged it in has no other answer.
    pub fn tell_of_stick(&mut self, refused: Option<&UpdateError>) {
        self.of_stick = refused.map(|error| {
            format!("what a stick brought was not taken, and nothing has changed: {error}")
        });
        if let Err(error) = self.say() {
            self.remark(error.to_string());
        }
    }

    /// What everybody may know.
    ///
    /// # Errors
    /// [`UpdateError::Failed`] when it cannot be found out.
    pub fn outlook(&mut self) -> Result<Outlook, UpdateError> {
        let memory = self.memory()?;
        let staged = self.staged()?;
        let fetched = self.store.fetched();
        Ok(Outlook {
            schema: outlook::SCHEMA,
            channel: memory.channel(),
            floor: memory.floor,
            newest_made_at: memory.newest_made_at(),
            fetched: fetched.filter(|one| staged.is_none_or(|staged| staged.commit != one.commit)),
            staged,
            brought: self.brought(),
            remarks: self.remarks.iter().chain(&self.of_stick).cloned().collect(),
        })
    }

    /// What is in the repository and not deployed.
    fn staged(&self) -> Result<Option<Staged>, UpdateError> {
        let Some(commit) = self.held()? else { return Ok(None) };
        if self.is_deployed(commit)? {
            return Ok(None);
        }
        let about = self.site.ostree.about(&commit.to_string());
        let version = self.version(commit).unwrap_or(Version::new(0, 0, 0));
        Ok(Some(Staged { commit, version, made_at: about.made_at }))
    }

    /// Writes what everybody may know.
    fn say(&mut self) -> Result<(), UpdateError> {
        let outlook = self.outlook()?;
        let Some(folder) = &self.site.place.run else { return Ok(()) };
        let failed =
            |error: &dyn std::fmt::Display| UpdateError::failed("say what there is", error);
        let text = serde_json::to_vec_pretty(&outlook).map_err(|error| failed(&error))?;
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        files::replace(&folder.join(outlook::NAME), &text, 0o644).map_err(|error| failed(&error))
    }

    /// Says how much room is left now, which is a part of what is said of deployments.
    fn say_room(&mut self) {
        if let Err(error) = self.site.tell() {
            self.remark(format!("how much room is left could not be said: {error:#}"));
        }
    }

    /// Says what there is after something was done; what went wrong with that is told before what goes wrong now.
    fn said<T>(&mut self, done: Result<T, UpdateError>) -> Result<T, UpdateError> {
        let said = self.say();
        let done = done?;
        said.map(|()| done)
    }

    fn memory(&mut self) -> Result<Memory, UpdateError> {
        let read = Memory::read(&self.site.place.state);
        let (memory, damage) = read.map_err(|error| UpdateError::failed("remember", error))?;
        damage.into_iter().for_each(|text| self.remark(text));
        Ok(memory)
    }

    fn save(&self, memory: &Memory) -> Result<(), UpdateError> {
        let saved = memory.save(&self.site.place.state);
        saved.map_err(|error| UpdateError::failed("write down what was seen", error))
    }

    /// Makes the machine's disks writable for this thread.
    fn writable(&mut self) -> Result<(), UpdateError> {
        if !self.is_open {
            let opened = self.site.place.open();
            opened.map_err(|error| UpdateError::failed("open the disks of this machine", error))?;
            self.is_open = true;
        }
        Ok(())
    }

    fn repository(&self) -> PathBuf {
        self.site.place.sysroot.join("ostree/repo")
    }

    /// What the reference of what is staged names.
    fn held(&self) -> Result<Option<Commit>, UpdateError> {
        let held = self.site.ostree.held(STAGED_REF);
        let held = held.map_err(|error| UpdateError::failed("look for what is staged", error))?;
        Ok(held.and_then(|commit| commit.parse().ok()))
    }

    fn is_deployed(&self, commit: Commit) -> Result<bool, UpdateError> {
        let commit = commit.to_string();
        let deployments =
            self.site.deployments().map_err(|error| told("look at what is deployed", error))?;
        Ok(deployments.iter().any(|one| one.id.commit() == commit))
    }

    /// What a commit that is here is called, if that can be read.
    fn version(&self, commit: Commit) -> Option<Version> {
        self.site.ostree.about(&commit.to_string()).version.parse().ok()
    }

    /// What the system that runs is called.
    fn running(&self) -> Result<Version, UpdateError> {
        let doing = "find out what runs";
        let id = self.site.place.booted();
        let id = id.ok_or_else(|| UpdateError::failed(doing, "it is no system of ours"))?;
        let version = self.site.ostree.about(id.commit()).version;
        version.parse().map_err(|error| UpdateError::failed(doing, error))
    }
}

/// The lock of a folder, which is made for root alone when it is not there.
fn lock(folder: &Path, most: Duration) -> Result<File, UpdateError> {
    let failed = |error| UpdateError::failed("lock what is remembered of updates", error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let file = File::create(folder.join(LOCK)).map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if began.elapsed() < most => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(UpdateError::Busy { doing: "another program's update".to_owned() });
            }
        }
    }
}

/// What root's program said, in the words of updates.
fn told(doing: &str, error: anyhow::Error) -> UpdateError {
    match error.downcast_ref::<Refusal>() {
        Some(Refusal::Bad { version, reason }) => {
            let version = version.parse().unwrap_or(Version::new(0, 0, 0));
            return UpdateError::Bad { version, reason: reason.clone() };
        }
        Some(Refusal::Unknown(_) | Refusal::Ambiguous(_)) => return UpdateError::UnknownDeployment,
        Some(Refusal::TooManyPinned { max }) => return UpdateError::TooManyPins { max: *max },
        Some(Refusal::NothingElse | Refusal::Already | Refusal::Pristine) | None => {}
    }
    if let Some(MirrorError::NoRoom { needed_bytes, free_bytes, .. }) = error.downcast_ref() {
        return UpdateError::NoSpace { needed_bytes: *needed_bytes, free_bytes: *free_bytes };
    }
    UpdateError::failed(doing, format!("{error:#}"))
}
