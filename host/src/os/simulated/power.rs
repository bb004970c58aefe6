//! The switch of the simulated machine, so that whoever shows or tests the host sees what becomes of such a request. It
//! switches nothing but the simulation, and says so.

use std::sync::Arc;

use super::Simulated;
use crate::os::{OsDesk, Power, PowerError, PowerVerb};

/// The switch of a simulated machine.
pub struct SimulatedPower {
    system: Arc<Simulated>,
    desk: OsDesk,
}

impl SimulatedPower {
    /// Switches this system, which that desk looks after.
    pub const fn new(system: Arc<Simulated>, desk: OsDesk) -> Self {
        Self { system, desk }
    }
}

impl Power for SimulatedPower {
    fn is_simulated(&self) -> bool {
        true
    }

    fn unable(&self, _verb: PowerVerb) -> Option<String> {
        None
    }

    /// It starts again, after a shutdown too, because there is nobody to switch it on; out of sleep it wakes at once.
    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError> {
        tracing::info!(%verb, "only the simulated machine is switched");
        if verb == PowerVerb::Sleep {
            return Ok(());
        }
        let failed =
            |error: crate::os::OsError| PowerError::Failed { verb, detail: error.to_string() };
        self.system.power_cycle().map_err(failed)?;
        self.desk.look();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::{Disk, Pace, demonstration};
    use super::*;
    use crate::os::{MemoryKeep, OsBackend as _, OsOptions};

    #[test]
    fn a_switch_starts_the_simulated_machine_and_what_it_finds_is_seen() {
        let disk = Disk { next: Some(Disk::default().systems[1].digest), ..Disk::default() };
        let system = Simulated::new(disk, demonstration(), Pace::INSTANT, Box::new(|_| Ok(())));
        let system = Arc::new(system);
        let options =
            OsOptions::new(system.clone(), Arc::new(MemoryKeep::default()), Arc::new(Vec::new));
        let desk = OsDesk::open(options).unwrap();
        let seen = |boot: &str| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while desk.view().state.inventory.is_none_or(|inventory| inventory.boot != boot) {
                assert!(Instant::now() < deadline, "start {boot} is not seen");
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        seen("1");
        let power = SimulatedPower::new(system.clone(), desk.clone());
        assert!(power.is_simulated() && PowerVerb::ALL.iter().all(|v| power.unable(*v).is_none()));
        power.switch(PowerVerb::Sleep).unwrap();
        assert_eq!(system.inventory().unwrap().boot, "1");
        power.switch(PowerVerb::Restart).unwrap();
        assert_eq!(system.disk().booted, Disk::default().systems[1].digest);
        seen("2");
        power.switch(PowerVerb::Shutdown).unwrap();
        assert_eq!(system.disk().boot, 3);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told() {
        let save = Box::new(|_: &Disk| Err("the disk is full".to_owned()));
        let system =
            Arc::new(Simulated::new(Disk::default(), demonstration(), Pace::INSTANT, save));
        let power = SimulatedPower::new(system, OsDesk::absent());
        let error = power.switch(PowerVerb::Restart).unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}
