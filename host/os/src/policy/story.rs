//! Whole stories on a machine in memory: systems come, start, hang, are judged and fall back, while the power goes at
//! any moment. The loader, OSTree and the disk behave as the real ones do; what decides is the product's own code.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mirror::memory::{deployment, id, take, torn};
use crate::mirror::{Request, Tries, plan};

/// How a system turns out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    /// The kernel panics or never ends.
    Dead,
    /// It begins, and hangs before it is judged.
    Hangs,
    /// It is judged, and is red.
    Red,
    /// It shuts the machine down in good order before it is judged, again and again.
    Quits,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Op {
    /// A system is brought in, and the power may go after so many half steps of the mirror.
    Deploy(u8, Option<usize>),
    /// The owner goes back.
    Rollback(Option<usize>),
    /// The machine is started until it stays up; the power may go in the mirror of the first start.
    Start(Option<usize>),
    /// It is started and shut down in good order before the verdict.
    Visit,
}

const TRIES: u32 = 3;

/// System 0 is what the machine was set up with.
struct Machine {
    esp: Esp,
    deployments: Vec<Deployment>,
    ledger: Ledger,
    kinds: Vec<Kind>,
    /// How system 0 turns out when it is brought in once more.
    again: Kind,
    booted: Option<DeploymentId>,
    starts: u64,
    /// How often each was started since it was last brought in, while it was counted.
    counted: BTreeMap<DeploymentId, u32>,
    blessed: Vec<DeploymentId>,
}

/// The power went.
struct Cut;

/// System 0, deployed once more beside what the machine was set up with.
fn again() -> DeploymentId {
    format!("{}.1", id(0).commit()).parse().unwrap()
}

impl Machine {
    fn new(kinds: Vec<Kind>) -> Self {
        let mut machine = Self {
            esp: Esp { free_bytes: u64::MAX / 2, cluster_bytes: 4096, ..Esp::default() },
            deployments: vec![deployment(0, 1)],
            ledger: Ledger::default(),
            kinds,
            again: Kind::Good,
            booted: None,
            starts: 0,
            counted: BTreeMap::new(),
            blessed: vec![],
        };
        assert!(machine.retire(&[], None).is_ok());
        machine
    }

    fn kind(&self, id: &DeploymentId) -> Kind {
        let n = usize::from_str_radix(&id.commit()[..2], 16).unwrap();
        if *id == again() { self.again } else { self.kinds[n] }
    }

    /// The mirror, until the power goes; at every moment the loader finds something that it can start. Then what was
    /// to be left out is removed, one after the other.
    fn retire(&mut self, ids: &[DeploymentId], mut cut: Option<usize>) -> Result<(), Cut> {
        let pristine = id(0);
        let mut deployments = self.deployments.clone();
        deployments.retain(|one| !ids.contains(&one.id));
        let request = Request {
            esp: &self.esp,
            deployments: &deployments,
            booted: self.booted.as_ref(),
            counter: None,
            pristine: Some(&pristine),
            tries: Tries::new(TRIES).unwrap(),
            uncounted: false,
        };
        let first = self.esp.entries.is_empty();
        for step in &plan(&request).unwrap() {
            self.power(&mut cut)?;
            let halfway = torn(&self.esp, step);
            if self.power(&mut cut).is_err() {
                self.esp = halfway;
                return Err(Cut);
            }
            take(&mut self.esp, step);
            if !first {
                self.check();
            }
        }
        for id in ids {
            self.power(&mut cut)?;
            assert!(*id != pristine, "what the machine was set up with stays");
            self.deployments.retain(|one| one.id != *id);
            self.check();
        }
        self.renumber();
        Ok(())
    }

    /// Whether the power is still there.
    fn power(&self, cut: &mut Option<usize>) -> Result<(), Cut> {
        match cut {
            Some(0) => Err(Cut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[track_caller]
    fn check(&self) {
        let choice = loader::choice(&self.esp).expect("the loader finds an entry");
        assert!(self.esp.is_bootable(&choice), "{choice:?}");
        assert!(self.deployments.iter().any(|one| one.id == choice.id), "{choice:?} is gone");
    }

    fn renumber(&mut self) {
        let count = self.deployments.len() as u64;
        for (at, one) in self.deployments.iter_mut().enumerate() {
            one.number = count - at as u64;
        }
    }

    /// The new one comes first; what nobody needs any more goes when the loader knows.
    fn deploy(&mut self, n: u8, cut: Option<usize>) {
        let id_of_it = if n == 0 { again() } else { id(n) };
        let known = self.deployments.iter().any(|one| one.id == id_of_it);
        if known || self.booted.is_none() || offer(&self.ledger, id(n).commit(), false).is_err() {
            return;
        }
        let target = format!("../deploy/punktfunk/deploy/{id_of_it}");
        self.deployments.insert(0, Deployment { id: id_of_it.clone(), target, ..deployment(n, 0) });
        self.renumber();
        self.counted.remove(&id_of_it);
        self.ledger.risen(&id_of_it);
        let others = superfluous(&self.deployments, self.booted.as_ref(), Some(&id(0)));
        leave(&mut self.ledger, &others);
        if self.retire(&others, cut).is_err() {
            self.booted = None;
        }
    }

    fn rollback(&mut self, cut: Option<usize>) {
        let booted = self.booted.clone();
        let to = rollback_target(&self.deployments, booted.as_ref(), &self.ledger, None, false);
        if let (Some(_), Ok(at)) = (booted, to) {
            let one = self.deployments.remove(at);
            self.deployments.insert(0, one);
            self.renumber();
            if self.retire(&[], cut).is_err() {
                self.booted = None;
            }
        }
    }

    /// The loader takes an entry and counts it down.
    fn load(&mut self) -> Start {
        self.check();
        self.starts += 1;
        let name = loader::choice(&self.esp).unwrap();
        let started = loader::started(&name);
        let text = self.esp.entries.remove(&name).unwrap();
        self.esp.entries.insert(started.clone(), text);
        self.booted = Some(name.id.clone());
        if started.counter.is_some() {
            *self.counted.entry(name.id.clone()).or_default() += 1;
        }
        let boot_id = format!("boot {}", self.starts);
        Start { boot_id, id: name.id, version: "0.0.1".to_owned(), counter: started.counter }
    }

    /// `boot`: what fell is removed and the entries are brought in step.
    fn begin(&mut self, start: &Start, cut: Option<usize>) -> Result<(), Cut> {
        let fallen: Vec<Fallen> = fallen(&self.esp, &start.id)
            .into_iter()
            .map(|id| Fallen { id, version: "0.0.2".to_owned() })
            .collect();
        begin(&mut self.ledger, start, &fallen, 1);
        for fallen in &fallen {
            assert!(self.kind(&fallen.id) != Kind::Good || !self.blessed.contains(&fallen.id));
        }
        let condemned = condemned(&self.ledger, &self.deployments, &start.id, &fallen);
        self.retire(&condemned, cut)
    }

    fn rename(&mut self, from: &EntryName, to: EntryName) {
        let text = self.esp.entries.remove(from).unwrap();
        self.esp.entries.insert(to, text);
    }

    /// Starts until it stays up. Says what came up.
    fn start(&mut self, mut cut: Option<usize>) -> Kind {
        for _ in 0..40 {
            let start = self.load();
            let kind = self.kind(&start.id);
            if kind == Kind::Dead {
                continue;
            }
            if self.begin(&start, cut.take()).is_err() || kind == Kind::Hangs {
                // Nobody stands there to press the button when nobody counts either; the watchdog does it.
                if start.counter.is_none() && kind == Kind::Hangs {
                    return kind;
                }
                continue;
            }
            if kind == Kind::Quits && start.counter.is_some() {
                if let Some((now, then)) = give_back(&mut self.ledger, &start) {
                    self.rename(&now, then);
                }
                continue;
            }
            let outcome = if kind == Kind::Good {
                Outcome::Passed { checks: vec![] }
            } else {
                failed("it is red")
            };
            let act = act(&outcome, &start, &self.esp);
            conclude(&mut self.ledger, &start, &outcome, vec![]);
            match act {
                Act::Reboot => {}
                Act::Stay => return kind,
                Act::Bless => {
                    let name = EntryName { id: start.id.clone(), counter: start.counter };
                    self.rename(&name, EntryName { id: start.id.clone(), counter: None });
                    self.blessed.push(start.id);
                    return kind;
                }
            }
        }
        panic!("it never stays up");
    }

    /// Started, and shut down before the verdict.
    fn visit(&mut self) {
        let start = self.load();
        if self.kind(&start.id) == Kind::Dead || self.begin(&start, None).is_err() {
            return;
        }
        if let Some((now, then)) = give_back(&mut self.ledger, &start) {
            self.rename(&now, then);
            *self.counted.entry(start.id).or_default() -= 1;
        }
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Good),
        Just(Kind::Good),
        Just(Kind::Dead),
        Just(Kind::Hangs),
        Just(Kind::Red),
        Just(Kind::Quits)
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let cut = || prop::option::of(0..40usize);
    prop_oneof![
        3 => (0..8u8, cut()).prop_map(|(n, cut)| Op::Deploy(n, cut)),
        1 => cut().prop_map(Op::Rollback),
        3 => cut().prop_map(Op::Start),
        1 => Just(Op::Visit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, and whenever the power goes: the machine comes up with a good system, a bad one is started no
    /// more often than it is given tries, and it is not started again.
    #[test]
    fn the_machine_heals_itself(
        kinds in prop::collection::vec(any_kind(), 7),
        second in any_kind(),
        ops in prop::collection::vec(any_op(), 1..14),
    ) {
        let kinds = std::iter::once(Kind::Good).chain(kinds).collect();
        let mut machine = Machine { again: second, ..Machine::new(kinds) };
        prop_assert_eq!(machine.start(None), Kind::Good);
        for op in ops.into_iter().chain([Op::Start(None)]) {
            match op {
                Op::Deploy(n, cut) => machine.deploy(n, cut),
                Op::Rollback(cut) => machine.rollback(cut),
                Op::Start(cut) => prop_assert_eq!(machine.start(cut), Kind::Good),
                Op::Visit => machine.visit(),
            }
            let given = MAX_GIVEN_BACK;
            for (id, times) in &machine.counted {
                prop_assert!(*times <= TRIES + given, "{id:?} was started {times} times");
            }
        }
        // What fell is remembered, and nothing good is.
        for bad in &machine.ledger.bad {
            let id: DeploymentId = format!("{}.0", bad.commit).parse().unwrap();
            let other = id == self::id(0);
            let kind = machine.kind(&if other { again() } else { id });
            prop_assert!(kind != Kind::Good, "{bad:?}");
        }
        let number: Vec<u64> = machine.ledger.attempts.iter().map(|one| one.attempt.number).collect();
        prop_assert!(number.is_sorted());
    }
}

#[test]
fn a_bad_system_returns_what_was_there_before() {
    for (kind, reason) in
        [(Kind::Red, "it is red"), (Kind::Dead, NEVER_CAME_UP), (Kind::Hangs, CUT_OFF)]
    {
        let mut machine = Machine::new(vec![Kind::Good, Kind::Good, Kind::Good, kind]);
        machine.start(None);
        machine.deploy(2, None);
        machine.start(None);
        assert_eq!(machine.booted, Some(id(2)));
        machine.deploy(3, None);
        assert_eq!(machine.start(None), Kind::Good);
        assert_eq!((machine.booted.clone(), machine.counted[&id(3)]), (Some(id(2)), TRIES));
        assert_eq!(machine.ledger.bad(id(3).commit()).unwrap().reason, reason);
        let left: Vec<&DeploymentId> = machine.deployments.iter().map(|one| &one.id).collect();
        assert_eq!(left, [&id(2), &id(0)]);
        // It is not taken again.
        machine.deploy(3, None);
        assert_eq!(machine.deployments.len(), 2);
    }
}

#[test]
fn a_second_deployment_that_falls_leaves_the_first_of_its_commit() {
    let kinds = vec![Kind::Good, Kind::Good, Kind::Good];
    let mut machine = Machine { again: Kind::Dead, ..Machine::new(kinds) };
    machine.start(None);
    machine.deploy(2, None);
    machine.start(None);
    machine.deploy(0, None);
    assert_eq!(machine.start(None), Kind::Good);
    assert_eq!((machine.booted.clone(), machine.counted[&again()]), (Some(id(2)), TRIES));
    let left: Vec<&DeploymentId> = machine.deployments.iter().map(|one| &one.id).collect();
    assert_eq!(left, [&id(2), &id(0)]);
}

#[test]
fn what_was_to_be_removed_when_the_power_went_is_not_tried_anew() {
    for cut in 0..40 {
        let mut kinds = vec![Kind::Good; 5];
        kinds[3] = Kind::Dead;
        kinds[4] = Kind::Dead;
        let mut machine = Machine::new(kinds);
        machine.start(None);
        machine.deploy(2, None);
        machine.start(None);
        machine.deploy(3, None);
        // Version 3 is tried once; then the owner has enough of it, and takes another.
        machine.load();
        machine.booted = Some(id(2));
        machine.deploy(4, Some(cut));
        assert_eq!(machine.start(None), Kind::Good);
        assert_eq!(machine.start(None), Kind::Good);
        assert!(machine.counted[&id(3)] <= TRIES, "{cut}: {:?}", machine.counted);
    }
}
