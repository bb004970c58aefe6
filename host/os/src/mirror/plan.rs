//! The plan: from what is there and what is meant to the steps between.

use std::collections::{BTreeMap, BTreeSet};

use super::MirrorError;
use crate::model::entry::{KERNELS, with_stable_link};
use crate::model::esp::{ENTRIES, entry_path, in_set};
use crate::model::{Counter, Deployment, DeploymentId, Entry, EntryName, Esp, KernelSet, loader};

/// Folders, markers and entries: what is written beside kernels never takes more than so many clusters.
const SMALL_FILES: u64 = 64;

/// What is written when the loader has no settings.
const SETTINGS: &str = "timeout 1\nconsole-mode keep\neditor no\n";

/// How often a new deployment is started before the one from before returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries(u32);

impl Tries {
    const MIN: u32 = 1;
    const MAX: u32 = 9;

    /// A number from 1 to 9.
    pub const fn new(got: u32) -> Result<Self, MirrorError> {
        if got < Self::MIN || got > Self::MAX {
            return Err(MirrorError::Tries { got, min: Self::MIN, max: Self::MAX });
        }
        Ok(Self(got))
    }
}

impl Default for Tries {
    fn default() -> Self {
        Self(3)
    }
}

/// What is there and what is meant.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The ESP as it is.
    pub esp: &'a Esp,
    /// OSTree's deployments.
    pub deployments: &'a [Deployment],
    /// What runs, if something of ours does.
    pub booted: Option<&'a DeploymentId>,
    /// The loader's count of what runs, if it counts.
    pub counter: Option<Counter>,
    /// What remains when all else has failed.
    pub pristine: Option<&'a DeploymentId>,
    /// How often a new deployment is tried.
    pub tries: Tries,
    /// New deployments are not counted: nothing would be there to return to.
    pub uncounted: bool,
}

/// One step. A file or a link appears whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a folder on the ESP.
    Folder(String),
    /// Copies a file from below `/boot` to a path on the ESP.
    Copy {
        /// The path below `/boot`.
        from: String,
        /// The path on the ESP.
        to: String,
        /// Its length.
        bytes: u64,
    },
    /// Writes a small file on the ESP.
    Write {
        /// Its path.
        to: String,
        /// Its content.
        text: String,
    },
    /// Removes a file from the ESP.
    Remove(String),
    /// Removes what an interrupted write left on the ESP, if that can be done.
    Clean(String),
    /// Removes a folder from the ESP, if it is empty.
    RemoveFolder(String),
    /// Makes the link of a deployment that does not move.
    Link {
        /// Which.
        id: DeploymentId,
        /// Where it leads.
        target: String,
    },
    /// Removes such a link.
    Unlink(DeploymentId),
}

/// The steps that bring the ESP in step with the deployments, in the order in which they are to be taken.
pub fn plan(request: &Request<'_>) -> Result<Vec<Step>, MirrorError> {
    if request.deployments.is_empty() {
        return Err(MirrorError::NothingDeployed);
    }
    let esp = request.esp;
    let entries = wanted_entries(request);
    let gone = gone_entries(request, &entries);
    let removal = removal(request, &entries, &gone);
    let mut steps: Vec<Step> = esp.leftovers.keys().cloned().map(Step::Clean).collect();
    let early = make_room(request, &entries, &gone, &removal)?;
    steps.extend(junk(esp).into_iter().flat_map(|kernel| remove_set(esp, &kernel)));
    if early {
        steps.extend(removal.iter().cloned());
    }
    steps.push(Step::Folder(ENTRIES.to_owned()));
    if !esp.has_settings {
        steps.push(Step::Write { to: "loader/loader.conf".to_owned(), text: SETTINGS.to_owned() });
    }
    for deployment in missing_sets(request) {
        steps.extend(copy_set(esp, deployment));
    }
    for deployment in request.deployments {
        let (id, target) = (deployment.id.clone(), deployment.target.clone());
        steps.push(Step::Link { id, target });
    }
    let stale = entries.iter().filter(|(name, text)| esp.entries.get(name) != Some(text));
    let write = |(name, text): &(EntryName, String)| {
        let last = Entry::parse(text).is_some_and(|entry| entry.last);
        let steps_back = last && esp.entries.contains_key(name);
        (steps_back, Step::Write { to: entry_path(name), text: text.clone() })
    };
    let (last, first): (Vec<_>, Vec<_>) = stale.map(write).partition(|(back, _)| *back);
    steps.extend(first.into_iter().map(|(_, step)| step));
    if !early {
        steps.extend(removal);
    }
    // What steps back to the last place does so when nothing that is gone can come up for it.
    steps.extend(last.into_iter().map(|(_, step)| step));
    // The links go last: an entry that leads nowhere would be worse than a link that nobody follows.
    let kept = |id: &DeploymentId| entries.iter().any(|(name, _)| name.id == *id);
    let gone: BTreeSet<_> = gone.into_iter().map(|name| name.id).filter(|id| !kept(id)).collect();
    let running = |id: &DeploymentId| request.booted == Some(id);
    steps.extend(gone.into_iter().filter(|id| !running(id)).map(Step::Unlink));
    Ok(steps)
}

/// All entries that are meant, with their text, from the first that the loader will take to the last.
fn wanted_entries(request: &Request<'_>) -> Vec<(EntryName, String)> {
    let mut sorted: Vec<&Deployment> = request.deployments.iter().collect();
    sorted.sort_by_key(|deployment| std::cmp::Reverse(deployment.number));
    let mut named: Vec<(&Deployment, EntryName, bool)> = sorted
        .iter()
        .enumerate()
        .map(|(at, deployment)| {
            // Asked for by its owner it comes first like any other.
            let last = at > 0 && request.pristine == Some(&deployment.id);
            (*deployment, kept_name(request, &deployment.id), last)
        })
        .collect();
    let mut versions = versions(request.esp, &named).into_iter();
    let mut entries: Vec<(bool, bool, EntryName, String)> = Vec::with_capacity(named.len());
    for (deployment, name, last) in named.drain(..) {
        let entry = Entry {
            title: deployment.title.clone(),
            version: versions.next().unwrap_or_default(),
            last,
            kernel: deployment.kernel.clone(),
            initrd: deployment.initrd.is_some(),
            options: with_stable_link(&deployment.options, &deployment.id),
        };
        entries.push((is_spent(&name), last, name, entry.to_string()));
    }
    entries.sort_by_key(|(spent, last, ..)| (*spent, *last));
    entries.into_iter().map(|(_, _, name, text)| (name, text)).collect()
}

/// The name of a deployment's entry: what is there stays, and of several the one that the loader trusts most.
fn kept_name(request: &Request<'_>, id: &DeploymentId) -> EntryName {
    let there = request.esp.entries.keys().filter(|name| name.id == *id);
    // No count is a blessing; of two counts the one with fewer tries left is the later.
    let kept = there.min_by_key(|name| name.counter);
    let counter = if request.uncounted || request.pristine == Some(id) {
        None
    } else if request.booted == Some(id) {
        // That it runs is no verdict: what was counted is counted on.
        request.counter
    } else {
        Some(Counter { left: request.tries.0, done: 0 })
    };
    kept.cloned().unwrap_or_else(|| EntryName { id: id.clone(), counter })
}

/// The versions of the entries, which give their order. From the bottom up, a version stays if it lies above all below
/// it; from the first that does not, all get new ones above every other that is there. What the loader is to take gets
/// a new one, too, unless it lies above all that it could take instead: then the one write decides.
fn versions(esp: &Esp, named: &[(&Deployment, EntryName, bool)]) -> Vec<u64> {
    let listed = esp.entries.iter().filter_map(|(name, text)| Some((name, Entry::parse(text)?)));
    let there: Vec<(&EntryName, Entry)> = listed.collect();
    let chosen = named.iter().find(|(_, name, last)| !last && !is_spent(name));
    let chosen = chosen.map(|(_, name, _)| name);
    let rivals =
        there.iter().filter(|(name, entry)| !entry.last && !is_spent(name) && chosen != Some(name));
    let rival = rivals.map(|(_, entry)| entry.version).max();
    let mut next = there.iter().map(|(_, entry)| entry.version).max().unwrap_or(0);
    let mut floor = 0;
    let mut versions: Vec<u64> = Vec::with_capacity(named.len());
    for (_, name, last) in named.iter().rev() {
        let own = there.iter().find(|(there, _)| *there == name).map(|(_, entry)| entry.version);
        let beaten = |version| Some(name) == chosen && Some(version) <= rival;
        // What comes last has an order of its own, in which it is alone.
        let fits = own.filter(|version| *last || (*version > floor && !beaten(*version)));
        let given = fits.unwrap_or_else(|| {
            next = next.saturating_add(1);
            next
        });
        if !last {
            floor = given;
        }
        versions.push(given);
    }
    versions.reverse();
    versions
}

/// The loader takes any other before it.
fn is_spent(name: &EntryName) -> bool {
    name.counter.is_some_and(|counter| counter.left == 0)
}

/// Entries of deployments that are gone, and others of a deployment that has a better one. What runs is never gone.
/// What the loader would take last goes first, so that nothing else comes up for its choice meanwhile.
fn gone_entries(request: &Request<'_>, wanted: &[(EntryName, String)]) -> Vec<EntryName> {
    let is_wanted = |name: &EntryName| wanted.iter().any(|(wanted, _)| wanted == name);
    let deployed = |id: &DeploymentId| wanted.iter().any(|(wanted, _)| wanted.id == *id);
    let runs = |id: &DeploymentId| request.booted == Some(id) && !deployed(id);
    let order = loader::order(request.esp);
    let place = |name: &&EntryName| order.iter().position(|listed| listed == *name);
    let all = request.esp.entries.keys();
    let mut gone: Vec<_> = all.filter(|name| !is_wanted(name) && !runs(&name.id)).collect();
    gone.sort_by_key(|name| std::cmp::Reverse(place(name).unwrap_or(usize::MAX)));
    gone.into_iter().cloned().collect()
}

/// Deployments whose kernel set is not on the ESP, one for each set.
fn missing_sets<'a>(request: &Request<'a>) -> Vec<&'a Deployment> {
    let mut seen = BTreeSet::new();
    let whole = |deployment: &Deployment| {
        let there = request.esp.sets.get(&deployment.kernel);
        there.is_some_and(|set| {
            let same = set.linux == Some(deployment.linux.bytes)
                && set.initrd == deployment.initrd.as_ref().map(|source| source.bytes);
            same && set.is_whole()
        })
    };
    let missing = request.deployments.iter().filter(|deployment| !whole(deployment));
    missing.filter(|deployment| seen.insert(&deployment.kernel)).collect()
}

/// Sets that are not whole and that no entry names: what a copy left that was cut off.
fn junk(esp: &Esp) -> Vec<String> {
    let named: BTreeSet<String> = esp.named_sets().collect();
    let sets = esp.sets.iter();
    let junk = sets.filter(|(kernel, set)| !set.is_whole() && !named.contains(*kernel));
    junk.map(|(kernel, _)| kernel.clone()).collect()
}

/// The steps that remove entries that are gone, and then the kernel sets that no entry names any more.
fn removal(request: &Request<'_>, wanted: &[(EntryName, String)], gone: &[EntryName]) -> Vec<Step> {
    let mut steps: Vec<Step> = gone.iter().map(|name| Step::Remove(entry_path(name))).collect();
    for kernel in unneeded_sets(request, wanted, gone) {
        steps.extend(remove_set(request.esp, &kernel));
    }
    steps
}

/// Kernel sets that nothing names once the entries are as they are meant. A set that an entry names as it now lies
/// there is needed as long as the entry stays, whatever its new text will say.
fn unneeded_sets(
    request: &Request<'_>,
    wanted: &[(EntryName, String)],
    gone: &[EntryName],
) -> Vec<String> {
    let texts: BTreeMap<&EntryName, &String> =
        request.esp.entries.iter().filter(|(name, _)| !gone.contains(name)).collect();
    let now = texts.values().filter_map(|text| Some(Entry::parse(text)?.kernel));
    let then = wanted.iter().filter_map(|(_, text)| Some(Entry::parse(text)?.kernel));
    let needed: BTreeSet<String> = now.chain(then).collect();
    let junk = junk(request.esp);
    let sets = request.esp.sets.keys();
    sets.filter(|kernel| !needed.contains(*kernel) && !junk.contains(kernel)).cloned().collect()
}

fn remove_set(esp: &Esp, kernel: &str) -> Vec<Step> {
    let set = esp.sets.get(kernel).cloned().unwrap_or_default();
    // The marker first: from then on nobody takes the set for whole.
    let files = [
        ("ok", set.marker.is_some()),
        ("linux", set.linux.is_some()),
        ("initrd", set.initrd.is_some()),
    ];
    let there = files.into_iter().filter(|(_, there)| *there);
    let mut steps: Vec<Step> = there.map(|(file, _)| Step::Remove(in_set(kernel, file))).collect();
    steps.push(Step::RemoveFolder(format!("{KERNELS}/{kernel}")));
    steps
}

fn copy_set(esp: &Esp, deployment: &Deployment) -> Vec<Step> {
    let kernel = &deployment.kernel;
    let mut steps = vec![Step::Folder(format!("{KERNELS}/{kernel}"))];
    if esp.sets.get(kernel).is_some_and(|set| set.marker.is_some()) && !junk(esp).contains(kernel) {
        steps.push(Step::Remove(in_set(kernel, "ok")));
    }
    let copy = |source: &crate::model::deployment::Source, file| Step::Copy {
        from: source.path.clone(),
        to: in_set(kernel, file),
        bytes: source.bytes,
    };
    steps.push(copy(&deployment.linux, "linux"));
    steps.extend(deployment.initrd.iter().map(|source| copy(source, "initrd")));
    let initrd = deployment.initrd.as_ref().map(|source| source.bytes);
    let text = KernelSet::marker(deployment.linux.bytes, initrd);
    steps.push(Step::Write { to: in_set(kernel, "ok"), text });
    steps
}

/// Whether what is not needed any more must go before the new kernels come; refuses when even that is not enough.
fn make_room(
    request: &Request<'_>,
    wanted: &[(EntryName, String)],
    gone: &[EntryName],
    removal: &[Step],
) -> Result<bool, MirrorError> {
    let esp = request.esp;
    let cluster = esp.cluster_bytes.max(512);
    let rounded = |bytes: u64| bytes.div_ceil(cluster).saturating_mul(cluster);
    let missing = missing_sets(request);
    if missing.is_empty() {
        return Ok(false);
    }
    let needed: u64 = missing
        .iter()
        .flat_map(|deployment| std::iter::once(&deployment.linux).chain(&deployment.initrd))
        .fold(cluster * SMALL_FILES, |sum, source| sum.saturating_add(rounded(source.bytes)));
    let bytes = |kernel: &String| esp.sets.get(kernel).map_or(0, KernelSet::bytes);
    let junk: u64 = junk(esp).iter().map(bytes).sum();
    let leftovers: u64 = esp.leftovers.values().sum();
    let free = esp.free_bytes.saturating_add(junk).saturating_add(leftovers);
    if free >= needed {
        return Ok(false);
    }
    // Only if something that can be started stays meanwhile.
    let stays = |name: &EntryName| !gone.contains(name) && !is_spent(name) && esp.is_bootable(name);
    let unneeded: u64 = unneeded_sets(request, wanted, gone).iter().map(bytes).sum();
    let then = free.saturating_add(unneeded);
    if then >= needed && !removal.is_empty() && esp.entries.keys().any(stays) {
        return Ok(true);
    }
    let missing_bytes = needed - free;
    Err(MirrorError::NoRoom { missing_bytes, needed_bytes: needed, free_bytes: free })
}
