//! `attend`: stays, and lets root and the daemon talk about who is at the machine.

use std::path::{Path, PathBuf};

use super::Site;
use crate::attend::{bring, note, serve};
use crate::status::{self, Status};

/// The daemon's user.
const DAEMON_UID: u32 = 960;

/// Attends until it cannot any more.
pub fn attend(site: &Site) -> anyhow::Result<()> {
    site.place.part_mounts()?;
    let mut present = || {
        if let Err(error) = note_presence(site) {
            complain!("it could not be noted that somebody was here: {error:#}");
        }
    };
    let site = serve::Site {
        state: site.place.state.clone(),
        esp: site.place.esp.clone(),
        screens: note::SCREENS.iter().map(PathBuf::from).collect(),
        daemon_uid: DAEMON_UID,
        bring: bring::WORDS.map(str::to_owned).to_vec(),
        boot_id: crate::facts::read_boot_id(Path::new("/")),
        present: &mut present,
    };
    Ok(serve::serve(site)?)
}

/// Remembers it, and says it in the status as it lies there; what else it says has not changed.
fn note_presence(site: &Site) -> anyhow::Result<()> {
    let mut held = site.ledger()?;
    held.ledger.presence_at = Some(crate::calendar::now());
    held.save()?;
    let path = Path::new(status::PATH);
    let mut status = Status::read(path)?;
    status.presence_at = held.ledger.presence_at;
    Ok(status.write(path)?)
}
