//! Which system the host is part of: none of ours on a desk, a simulated one for a demonstration.

use std::path::Path;
use std::sync::Arc;

use crate::mgmt::wire::Backend;
use crate::os::absent::Absent;
use crate::os::simulated::{DiskFile, Pace, Simulated, demonstration};
use crate::os::{NoPower, OsBackend, OsDesk, OsError, OsOptions, Power};
use crate::session::SessionDesk;
use crate::store::Store;

/// Where the demonstration's disk lies, in the state folder.
const DEMO_DISK: &str = "simulated-system.json";

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
    ///
    /// # Errors
    /// Not even the answer "there is none" can be given.
    pub(super) fn open(
        demo: bool,
        state_dir: &Path,
        store: &Store,
        sessions: Arc<dyn SessionDesk>,
    ) -> Result<Self, OsError> {
        let opened = |backend: Arc<dyn OsBackend>| {
            let names = store.clone();
            let sessions = Arc::clone(&sessions);
            let streaming = Arc::new(move || who_streams(&*sessions, &names));
            OsDesk::open(OsOptions::new(backend, Arc::new(store.clone()), streaming))
        };
        if !demo {
            return Ok(Self {
                os: opened(Arc::new(Absent::default()))?,
                power: Arc::new(NoPower::default()),
                found: None,
                problem: None,
            });
        }
        let disk = DiskFile::new(state_dir.join(DEMO_DISK));
        let simulated = Simulated::new(disk.load(), demonstration(), Pace::VISIBLE, disk.saver());
        let (os, problem) = match opened(Arc::new(simulated)) {
            Ok(os) => (os, None),
            Err(error) => {
                let problem = format!("updates cannot be shown: {error}");
                (opened(Arc::new(Absent::new(problem.clone())))?, Some(problem))
            }
        };
        let power = NoPower::new(
            "this host shows a simulated system (--demo), which has no switch; use the machine's own means",
        );
        let found = Backend {
            room: "system".to_owned(),
            chosen: "simulated".to_owned(),
            why: "--demo: updates look real, and nothing is installed or restarted".to_owned(),
        };
        Ok(Self { os, power: Arc::new(power), found: Some(found), problem })
    }
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
