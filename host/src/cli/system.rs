//! Which system the host is part of: none of ours on a desk, a box's own, a simulated one for a demonstration.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::ServeArguments;
use crate::backup::Backups;
use crate::config::Config;
use crate::mgmt::wire::Backend;
use crate::os::absent::Absent;
use crate::os::appliance::{Appliance, Bus};
use crate::os::simulated::{DiskFile, Pace, Simulated, SimulatedPower, demonstration, script};
use crate::os::{Keep, Logind, MemoryKeep, NoPower, OsBackend, OsDesk, OsError, OsOptions, Power};
use crate::session::SessionDesk;
use crate::store::Store;

/// Where the demonstration's disk lies, in the state folder.
const DEMO_DISK: &str = "simulated-system.json";
/// What it does and where it fails, beside it, if somebody has written that down.
const DEMO_SCRIPT: &str = "simulated-script.json";
/// How often it is looked whether somebody at the machine has changed the system of a box.
const WATCH: Duration = Duration::from_secs(30);

/// The sessions, once there can be any: the system is there before, and also where there never are.
pub(super) type Playing = Arc<OnceLock<Arc<dyn SessionDesk>>>;

/// What a restart would cut off.
pub(super) struct CutOff {
    pub(super) playing: Playing,
    /// Of this host, if it can make any.
    pub(super) backups: Option<Backups>,
}

impl CutOff {
    /// As the owner reads it: the names of devices, and what is done with a backup.
    fn names(&self, store: Option<&Store>) -> Vec<String> {
        let mut names = match (self.playing.get(), store) {
            (Some(sessions), Some(store)) => who_streams(&**sessions, store),
            _ => vec![],
        };
        let backup = self.backups.as_ref().and_then(Backups::under_way);
        names.extend(backup.map(str::to_owned));
        names
    }
}

/// The system, and how it is told.
pub(super) struct System {
    pub(super) os: OsDesk,
    pub(super) power: Arc<dyn Power>,
    /// What was chosen, where that is worth telling.
    pub(super) found: Option<Backend>,
    /// What is wrong.
    pub(super) problem: Option<String>,
}

impl System {
    /// Opens what there is. The console comes up whatever comes of it.
    pub(super) fn open(
        config: &Config,
        arguments: &ServeArguments,
        state_dir: Option<&Path>,
        store: Option<&Store>,
        cut_off: CutOff,
    ) -> Self {
        let Some(folder) = state_dir.filter(|_| arguments.demo) else {
            let system_dir = &arguments.system_dir;
            return match (config.appliance, system_dir.is_dir()) {
                (true, true) => Self::of_box(system_dir, store, cut_off),
                (appliance, _) => Self::none(appliance),
            };
        };
        let disk = DiskFile::new(folder.join(DEMO_DISK));
        let (script, unread) = match script(&folder.join(DEMO_SCRIPT)) {
            Ok(script) => (script, None),
            Err(error) => {
                let sentence = format!(
                    "{DEMO_SCRIPT} is no script for the demonstration ({error}), which goes as it would without one"
                );
                ((demonstration(), Pace::VISIBLE), Some(sentence))
            }
        };
        let simulated = Arc::new(Simulated::new(disk.load(), script.0, script.1, disk.saver()));
        let (os, problem) = told(open(simulated.clone(), None, store, cut_off));
        let problem = problem.or(unread);
        let power = SimulatedPower::new(simulated, os.clone());
        let found = Backend {
            room: "system".to_owned(),
            chosen: "simulated".to_owned(),
            why: "--demo: updates look real, and nothing is installed or restarted".to_owned(),
        };
        Self { os, power: Arc::new(power), found: Some(found), problem }
    }

    /// A box, whose root's program says what there is.
    fn of_box(system_dir: &Path, store: Option<&Store>, cut_off: CutOff) -> Self {
        let power: Arc<dyn Power> = Arc::new(Logind::default());
        let backend = Arc::new(Appliance::at(system_dir, Bus::default(), Arc::clone(&power)));
        let (os, problem) = told(open(backend, Some(WATCH), store, cut_off));
        let found = Backend {
            room: "system".to_owned(),
            chosen: "box".to_owned(),
            why: format!("what {} says", system_dir.display()),
        };
        Self { os, power, found: Some(found), problem }
    }

    /// Nothing that this host could look after. A box can be switched all the same.
    fn none(appliance: bool) -> Self {
        let (absent, power): (_, Arc<dyn Power>) = if appliance {
            (Absent::on_an_appliance(), Arc::new(Logind::default()))
        } else {
            (Absent::default(), Arc::new(NoPower::default()))
        };
        Self { os: OsDesk::without(absent), power, found: None, problem: None }
    }
}

/// The desk, or one that says why there is none.
fn told(opened: Result<OsDesk, OsError>) -> (OsDesk, Option<String>) {
    match opened {
        Ok(os) => (os, None),
        Err(error) => {
            let problem = format!("updates cannot be shown: {error}");
            (OsDesk::without(Absent::new(problem.clone())), Some(problem))
        }
    }
}

/// Where there is no store, what is being done is forgotten at the end: what is on the disk says enough to go on.
fn open(
    backend: Arc<dyn OsBackend>,
    watch: Option<Duration>,
    store: Option<&Store>,
    cut_off: CutOff,
) -> Result<OsDesk, OsError> {
    let keep: Arc<dyn Keep> = match store {
        Some(store) => Arc::new(store.clone()),
        None => Arc::new(MemoryKeep::default()),
    };
    let store = store.cloned();
    let streaming = Arc::new(move || cut_off.names(store.as_ref()));
    OsDesk::open(OsOptions { watch, ..OsOptions::new(backend, keep, streaming) })
}

/// The names of the devices that stream. The self-test is nobody whom a restart cuts off.
fn who_streams(sessions: &dyn SessionDesk, store: &Store) -> Vec<String> {
    let streaming = sessions
        .sessions()
        .into_iter()
        .filter(|session| session.streaming && session.ended.is_none() && !session.self_test);
    streaming
        .map(|session| match store.client(session.client) {
            Some(client) => client.name,
            None => "a forgotten device".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Agent, AgentError, AgentStarter, Place, ProfileNumber};
    use crate::backup::homes::Homes;
    use crate::backup::{Passphrase, Strength};
    use crate::os::When;
    use crate::os::simulated::Disk;

    /// Devices have homes here, and none has played.
    struct Apart;

    impl AgentStarter for Apart {
        fn describe(&self) -> String {
            "each its own".to_owned()
        }

        fn isolates(&self) -> bool {
            true
        }

        fn take(&self, _: ProfileNumber, _: &'static str) -> Result<Place, AgentError> {
            unreachable!("nobody has played")
        }

        fn start_in(&self, _: &Place) -> Result<Arc<dyn Agent>, AgentError> {
            unreachable!("nobody has played")
        }
    }

    #[test]
    fn a_restart_waits_for_a_backup_unless_somebody_insists() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let backups = Backups::new(store.clone(), Strength { memory_kib: 8, passes: 1 });
        let save = Box::new(|_: &Disk| Ok(()));
        let disk = Simulated::new(Disk::default(), demonstration(), Pace::INSTANT, save);
        let cut_off = CutOff { playing: Playing::default(), backups: Some(backups.clone()) };
        let os = open(Arc::new(disk), None, Some(&store), cut_off).unwrap();
        while os.view().state.inventory.is_none() {
            std::thread::yield_now();
        }
        let homes = Homes::new(&backups, Arc::new(Apart));
        let passphrase = Passphrase::new("correct horse battery");
        let making = homes.begin(&passphrase, false).unwrap();
        assert_eq!(os.view().streaming, ["a backup of homes"]);
        let refused = os.rollback(None, When::Now, false).unwrap_err();
        assert_eq!(refused, OsError::SomeoneStreams { who: vec!["a backup of homes".to_owned()] });
        assert!(os.rollback(None, When::Now, true).is_ok());
        drop(making);
        assert_eq!(os.view().streaming, [""; 0]);
    }
}
