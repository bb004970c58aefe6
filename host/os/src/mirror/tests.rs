//! The mirror under power cuts, on an ESP in memory that behaves as the real one: states at random, a cut after every
//! step and in the middle of it.

use proptest::prelude::*;

use super::memory::{bootable, deployment, entry, id, sum, take, torn, whole};
use super::{MirrorError, Request, Step, Tries, plan};
use crate::model::esp::{ENTRIES, entry_path, in_set};
use crate::model::{Counter, Deployment, DeploymentId, Entry, EntryName, Esp, KernelSet, loader};

/// What a plan is made from.
#[derive(Debug, Clone)]
struct Case {
    esp: Esp,
    deployments: Vec<Deployment>,
    booted: Option<DeploymentId>,
    pristine: Option<DeploymentId>,
}

impl Case {
    fn request(&self) -> Request<'_> {
        Request {
            esp: &self.esp,
            deployments: &self.deployments,
            booted: self.booted.as_ref(),
            counter: None,
            pristine: self.pristine.as_ref(),
            tries: Tries::default(),
            uncounted: false,
        }
    }
}

/// All states that a plan leads through, the first and the last among them, and those in the middle of a step.
fn states(case: &Case, steps: &[Step]) -> Vec<Esp> {
    let mut esp = case.esp.clone();
    let mut states = vec![esp.clone()];
    for step in steps {
        states.push(torn(&esp, step));
        take(&mut esp, step);
        states.push(esp.clone());
    }
    states
}

fn any_counter() -> impl Strategy<Value = Option<Counter>> {
    prop_oneof![
        Just(None),
        (0..4u32, 0..4u32).prop_map(|(left, done)| Some(Counter { left, done })),
    ]
}

/// Some deployments, in some order, with some of them and some others on an ESP that may be damaged.
fn any_case(damaged: bool) -> impl Strategy<Value = Case> {
    let numbers = prop::sample::subsequence((0..8u8).collect::<Vec<_>>(), 1..5).prop_shuffle();
    let there = prop::collection::vec((0..8u8, any_counter(), 1..9u64, any::<bool>()), 0..6);
    let harm = prop::collection::vec((0..6u8, 0..4u8), if damaged { 0..4 } else { 0..1 });
    let free = prop_oneof![Just(u64::MAX / 2), 0..9_000_000u64];
    let who = (prop::option::of(0..4usize), prop::option::of(0..4usize));
    (numbers, there, harm, free, who).prop_map(move |(numbers, there, harm, free_bytes, who)| {
        let count = numbers.len();
        let deployments: Vec<Deployment> =
            (0..count).map(|at| deployment(numbers[at], (count - at) as u64)).collect();
        let mut esp = Esp { free_bytes, cluster_bytes: 4096, ..Esp::default() };
        for (n, counter, version, last) in there {
            // Two entries of one deployment are left when the power goes while one is renamed.
            if !damaged && esp.entries.keys().any(|name| name.id == id(n)) {
                continue;
            }
            let name = EntryName { id: id(n), counter };
            esp.entries.insert(name, entry(n, version, last).to_string());
            esp.sets.insert(sum(0x80 + n / 2), whole(n));
        }
        for (kernel, how) in harm {
            let set = esp.sets.entry(sum(0x80 + kernel)).or_default();
            match how {
                0 => set.linux = Some(7),
                1 => set.initrd = None,
                2 => set.marker = None,
                _ => {
                    for (name, text) in &mut esp.entries {
                        if name.id == id(kernel) {
                            text.truncate(40);
                        }
                    }
                }
            }
        }
        let pick = |at: Option<usize>| deployments.get(at?).map(|one| one.id.clone());
        Case { booted: pick(who.0), pristine: pick(who.1), esp, deployments }
    })
}

fn refused(case: &Case) -> bool {
    matches!(plan(&case.request()), Err(MirrorError::NoRoom { missing_bytes, .. }) if missing_bytes > 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever the power goes, what could be started can still be, or something that is meant to can.
    #[test]
    fn something_can_always_be_started(case in any_case(true)) {
        let Ok(steps) = plan(&case.request()) else {
            prop_assert!(refused(&case));
            return Ok(());
        };
        let before = bootable(&case.esp);
        for state in states(&case, &steps) {
            let now = bootable(&state);
            prop_assert!(before.is_empty() || !now.is_empty(), "{steps:?}");
            // What runs can be started for as long as it could be.
            if let Some(booted) = case.booted.as_ref().filter(|id| before.contains(id)) {
                prop_assert!(now.contains(booted), "{steps:?}");
            }
        }
    }

    /// On an ESP without damage no entry ever leads to a kernel that is not whole, and the loader's choice is the old
    /// one or the new one.
    #[test]
    fn no_entry_leads_nowhere(case in any_case(false)) {
        let Ok(steps) = plan(&case.request()) else { return Ok(()) };
        let states = states(&case, &steps);
        let choice = |esp: &Esp| loader::choice(esp).map(|name| name.id);
        let (old, new) = (choice(&states[0]), choice(&states[states.len() - 1]));
        for state in &states {
            for name in state.entries.keys() {
                prop_assert!(state.is_bootable(name), "{name:?} {steps:?}");
            }
            // Where entries go before others come, what is left of the old ones is chosen among.
            let chosen = choice(state);
            let freed = case.esp.free_bytes < 9_000_000;
            prop_assert!(freed || chosen == old || chosen == new, "{chosen:?} {old:?} {new:?} {steps:?}");
        }
    }

    /// In the end each deployment has one entry, in OSTree's order, with the count that it had.
    #[test]
    fn in_the_end_the_entries_are_the_deployments(case in any_case(true)) {
        let Ok(steps) = plan(&case.request()) else { return Ok(()) };
        let mut last = states(&case, &steps).pop().unwrap();
        let mut listed: Vec<&EntryName> = last.entries.keys().collect();
        listed.sort_by_key(|name| {
            let entry = Entry::parse(&last.entries[name]).unwrap();
            (entry.last, std::cmp::Reverse(entry.version))
        });
        let mut meant: Vec<DeploymentId> = case.deployments.iter().map(|one| one.id.clone()).collect();
        if let Some(at) = meant.iter().skip(1).position(|id| Some(id) == case.pristine.as_ref()) {
            let pristine = meant.remove(at + 1);
            meant.push(pristine);
        }
        prop_assert_eq!(listed.iter().map(|name| name.id.clone()).collect::<Vec<_>>(), meant);
        for name in listed {
            prop_assert!(last.is_bootable(name));
            let mut there: Vec<_> =
                case.esp.entries.keys().filter(|old| old.id == name.id).map(|old| old.counter).collect();
            there.sort();
            let proven = case.booted.as_ref() == Some(&name.id) || case.pristine.as_ref() == Some(&name.id);
            let fresh = if proven { None } else { Some(Counter { left: 3, done: 0 }) };
            prop_assert_eq!(name.counter, there.first().copied().unwrap_or(fresh));
        }
        prop_assert!(last.leftovers.is_empty());
        prop_assert!(last.sets.values().all(KernelSet::is_whole));
        // Once more there is nothing to do but to look at folder and links.
        last.free_bytes = 0;
        let again = plan(&Request { esp: &last, ..case.request() }).unwrap();
        let idle = |step: &Step| matches!(step, Step::Folder(_) | Step::Link { .. });
        prop_assert!(again.iter().all(idle), "{again:?}");
    }

    /// A plan that was cut off is made anew, and comes to the same end.
    #[test]
    fn what_was_cut_off_is_finished_later(case in any_case(true), cut in 0..40usize) {
        let Ok(steps) = plan(&case.request()) else { return Ok(()) };
        let all = states(&case, &steps);
        let mut esp = all[cut.min(all.len() - 1)].clone();
        let whole_end = &all[all.len() - 1];
        esp.free_bytes = u64::MAX / 2;
        let rest = plan(&Request { esp: &esp, ..case.request() }).unwrap();
        let end = states(&Case { esp, ..case.clone() }, &rest).pop().unwrap();
        prop_assert_eq!(
            end.entries.keys().collect::<Vec<_>>(),
            whole_end.entries.keys().collect::<Vec<_>>()
        );
        prop_assert_eq!(&end.sets, &whole_end.sets);
        prop_assert_eq!(loader::order(&end), loader::order(whole_end));
    }

    /// What does not fit is refused before anything is written, and what fits is not.
    #[test]
    fn a_full_partition_is_not_written_to(case in any_case(false)) {
        let Ok(steps) = plan(&case.request()) else { return Ok(()) };
        let mut free = i128::from(case.esp.free_bytes);
        let mut esp = case.esp.clone();
        for step in &steps {
            let before: u64 = esp.sets.values().map(KernelSet::bytes).sum();
            take(&mut esp, step);
            let after: u64 = esp.sets.values().map(KernelSet::bytes).sum();
            free -= i128::from(after) - i128::from(before);
            prop_assert!(free >= 0, "{steps:?}");
        }
    }
}

#[test]
fn a_link_comes_before_its_entry_and_goes_after_it() {
    let mut esp = Esp { free_bytes: u64::MAX / 2, cluster_bytes: 4096, ..Esp::default() };
    let gone = EntryName { id: id(1), counter: None };
    esp.entries.insert(gone.clone(), entry(1, 1, false).to_string());
    esp.sets.insert(sum(0x80), whole(1));
    let deployments = [deployment(4, 1)];
    let case = Case { esp, deployments: deployments.to_vec(), booted: None, pristine: None };
    let steps = plan(&case.request()).unwrap();
    let at = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let new = EntryName { id: id(4), counter: Some(Counter { left: 3, done: 0 }) };
    let link = at(&|step| matches!(step, Step::Link { id, .. } if *id == new.id));
    let write = at(&|step| matches!(step, Step::Write { to, .. } if *to == entry_path(&new)));
    let remove = at(&|step| *step == Step::Remove(entry_path(&gone)));
    let unlink = at(&|step| *step == Step::Unlink(gone.id.clone()));
    assert!(link < write && write < remove && remove < unlink, "{steps:?}");
}

/// What the loader would take from state to state; entries are number, count and version, the highest number on top.
fn choices(entries: &[(u8, Option<u32>, u64)], deployed: &[u8], pristine: u8) -> Vec<DeploymentId> {
    let mut esp = Esp { free_bytes: u64::MAX / 2, cluster_bytes: 4096, ..Esp::default() };
    for (n, left, version) in entries {
        let counter = left.map(|left| Counter { left, done: 1 });
        let name = EntryName { id: id(*n), counter };
        esp.entries.insert(name, entry(*n, *version, false).to_string());
        esp.sets.insert(sum(0x80 + n / 2), whole(*n));
    }
    let number = |at: usize| (deployed.len() - at) as u64;
    let all = deployed.iter().enumerate().map(|(at, n)| deployment(*n, number(at)));
    let case = Case { esp, deployments: all.collect(), booted: None, pristine: Some(id(pristine)) };
    let states = states(&case, &plan(&case.request()).unwrap());
    let mut choices: Vec<_> = states.iter().map(|esp| loader::choice(esp).unwrap().id).collect();
    choices.dedup();
    choices
}

#[test]
fn nothing_between_the_old_choice_and_the_new_comes_up() {
    // The pristine one stood in the middle and steps back; the one on top is gone.
    assert_eq!(choices(&[(0, None, 9), (6, None, 5), (2, None, 1)], &[2, 6], 6), [id(0), id(2)]);
    // The pristine one steps back and stays the choice, since the first has no tries left; another is gone.
    assert_eq!(choices(&[(4, Some(0), 1), (6, None, 5), (2, None, 3)], &[4, 6], 6), [id(6)]);
}

#[test]
fn a_lost_entry_of_what_runs_is_counted_on() {
    let esp = Esp { free_bytes: u64::MAX / 2, cluster_bytes: 4096, ..Esp::default() };
    let deployments = vec![deployment(2, 2), deployment(0, 1)];
    let case = Case { esp, deployments, booted: Some(id(2)), pristine: Some(id(0)) };
    let counter = Some(Counter { left: 1, done: 2 });
    for counter in [counter, None] {
        let mut esp = case.esp.clone();
        for step in &plan(&Request { counter, ..case.request() }).unwrap() {
            take(&mut esp, step);
        }
        let names: Vec<&EntryName> = esp.entries.keys().collect();
        let pristine = EntryName { id: id(0), counter: None };
        assert_eq!(names, [&pristine, &EntryName { id: id(2), counter }]);
    }
}

#[test]
fn a_set_that_is_not_the_deployments_is_copied_again() {
    let mut esp = Esp { free_bytes: u64::MAX / 2, cluster_bytes: 4096, ..Esp::default() };
    let name = EntryName { id: id(2), counter: None };
    esp.entries.insert(name.clone(), entry(2, 1, false).to_string());
    // Whole by its own word, and of other lengths than what OSTree has.
    let marker = Some(KernelSet::marker(5, Some(6)));
    esp.sets.insert(sum(0x81), KernelSet { linux: Some(5), initrd: Some(6), marker });
    let case = Case { esp, deployments: vec![deployment(2, 1)], booted: None, pristine: None };
    let last = states(&case, &plan(&case.request()).unwrap()).pop().unwrap();
    assert_eq!(last.sets[&sum(0x81)], whole(2));
}

#[test]
fn nothing_deployed_changes_nothing() {
    let case = Case { esp: Esp::default(), deployments: vec![], booted: None, pristine: None };
    assert!(matches!(plan(&case.request()), Err(MirrorError::NothingDeployed)));
}

#[test]
fn a_refusal_says_how_much_is_missing() {
    let esp = Esp { free_bytes: 1_000_000, cluster_bytes: 4096, ..Esp::default() };
    let case = Case { esp, deployments: vec![deployment(2, 1)], booted: None, pristine: None };
    let Err(MirrorError::NoRoom { missing_bytes, needed_bytes, free_bytes }) =
        plan(&case.request())
    else {
        panic!()
    };
    assert_eq!((missing_bytes, free_bytes), (needed_bytes - 1_000_000, 1_000_000));
    assert!((3_000_003..3_300_000).contains(&needed_bytes), "{needed_bytes}");
}

#[test]
fn the_number_of_tries_has_bounds() {
    assert!(Tries::new(0).is_err() && Tries::new(10).is_err());
    assert!(Tries::new(1).is_ok() && Tries::new(9).is_ok());
}

#[test]
fn real_folders_follow_the_plan() {
    let disk = tempfile::tempdir().unwrap();
    let (sysroot, esp_folder) = (disk.path().join("s"), disk.path().join("e"));
    let mut one = deployment(3, 1);
    (one.linux.bytes, one.initrd.as_mut().unwrap().bytes) = (3, 4);
    let boot = sysroot.join("boot");
    for (source, text) in [(&one.linux, "lin"), (one.initrd.as_ref().unwrap(), "init")] {
        let path = boot.join(&source.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::create_dir_all(esp_folder.join(ENTRIES)).unwrap();
    let old = EntryName { id: id(1), counter: Some(Counter { left: 0, done: 3 }) };
    std::fs::write(esp_folder.join(entry_path(&old)), entry(1, 1, false).to_string()).unwrap();
    std::fs::write(esp_folder.join(ENTRIES).join("x.conf.part"), "torn").unwrap();
    // Folders where files are meant, and where nothing is.
    let (set, dead) = (in_set(&one.kernel, "linux"), in_set(&sum(0x99), "linux"));
    let wanted = entry_path(&EntryName { id: id(3), counter: Some(Counter { left: 3, done: 0 }) });
    let conf = format!("{ENTRIES}/y.conf.part");
    for folder in [&set, &format!("{set}.part"), &dead, &conf, &wanted] {
        std::fs::create_dir_all(esp_folder.join(folder).join("x")).unwrap();
    }
    let read = || super::read_esp(&esp_folder).unwrap();
    let esp = read();
    assert_eq!((esp.entries.len(), esp.leftovers.len()), (1, 1));
    let case = Case { esp, deployments: vec![one], booted: None, pristine: None };
    super::apply(&plan(&case.request()).unwrap(), &sysroot, &esp_folder).unwrap();
    let after = read();
    let [name] = after.entries.keys().collect::<Vec<_>>()[..] else { panic!("{after:?}") };
    assert!(after.is_bootable(name) && after.leftovers.is_empty() && after.has_settings);
    assert_eq!(name.to_string(), format!("pf-{}+3.conf", id(3)));
    let link = std::fs::read_link(sysroot.join(format!("ostree/pf/{}", id(3)))).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("../deploy/punktfunk/deploy/{}", id(3)));
}
