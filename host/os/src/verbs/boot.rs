//! `boot` and `give-back`: how a start begins, and how it ends before its time.

use std::path::Path;

use anyhow::Context as _;

use super::Site;
use super::grow::grow;
use crate::files;
use crate::ledger::{Held, Ledger};
use crate::mirror::read_esp;
use crate::model::esp::entry_path;
use crate::policy::{self, Fallen, Start};
use crate::programs::run;

/// Begins a start: the file system grows, what did not come up is remembered and removed, the attempt gets its number.
/// A part that fails is said and does not keep the others from their turn.
pub fn boot(site: &Site) -> anyhow::Result<()> {
    site.place.open()?;
    let start =
        site.start().context("what runs is none of OSTree's deployments under our links")?;
    let mut held = site.ledger()?;
    let before = read_esp(&site.place.esp)?;
    let fallen: Vec<Fallen> = policy::fallen(&before, &start.id)
        .into_iter()
        .map(|id| Fallen { version: site.ostree.about(id.commit()).version, id })
        .collect();
    policy::begin(&mut held.ledger, &start, &fallen, crate::calendar::now());
    let saved = held.save();
    let part = |ledger: &mut Ledger, what: &str, done: anyhow::Result<()>| {
        if let Err(error) = done {
            complain!("{what}: {error:#}");
            ledger.remark(&format!("{what}: {error:#}"));
        }
    };
    // Removing what failed makes room on a full disk.
    part(&mut held.ledger, "what is remembered could not be kept", saved.map_err(Into::into));
    for fallen in &fallen {
        tell!("{:?} ({}) did not prove itself and is removed", fallen.id, fallen.version);
    }
    let mirrored = site.deployments().and_then(|deployments| {
        let condemned = policy::condemned(&held.ledger, &deployments, &start.id, &fallen);
        site.retire(&condemned, None)
    });
    part(&mut held.ledger, "the boot entries could not be brought in step", mirrored);
    let grown = grow(site, &mut held.ledger);
    part(&mut held.ledger, "the file system could not be grown", grown);
    let saved = held.save();
    part(&mut held.ledger, "what is remembered could not be kept", saved.map_err(Into::into));
    say(&start);
    site.publish(&held.ledger)
}

fn say(start: &Start) {
    let count = start.counter.map_or_else(
        || "nobody counts".to_owned(),
        |counter| format!("start {}, {} left", counter.done, counter.left),
    );
    tell!("{:?} ({}): {count}", start.id, start.version);
}

/// Gives a counted try back, if the machine is being shut down before the verdict.
pub fn give_back(site: &Site) -> anyhow::Result<()> {
    let state = run(&["systemctl", "is-system-running"], std::time::Duration::from_secs(20))?;
    if state.stdout.trim() != "stopping" {
        tell!("the machine is not being shut down, so no try is given back");
        return Ok(());
    }
    site.place.open()?;
    let Some(start) = site.start() else { return Ok(()) };
    let mut held = site.ledger()?;
    if give_try_back(&mut held, &site.place.esp, &start)? {
        tell!("the try is given back");
    } else {
        tell!("there is no try to give back");
    }
    Ok(())
}

/// Says whether there was one. It is noted first: what is not known to have been given back would be given back without
/// end, while a cut between the two costs one try.
fn give_try_back(held: &mut Held, esp: &Path, start: &Start) -> anyhow::Result<bool> {
    let Some((now, then)) = policy::give_back(&mut held.ledger, start) else { return Ok(false) };
    held.save().context("no try is given back, because that could not be noted")?;
    let (now, then) = (esp.join(entry_path(&now)), esp.join(entry_path(&then)));
    std::fs::rename(&now, &then).with_context(|| format!("{} stays counted", now.display()))?;
    files::sync_folder_of(&then)?;
    rustix::fs::sync();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mirror::memory::id;
    use crate::model::Counter;

    fn start() -> Start {
        let counter = Some(Counter { left: 2, done: 1 });
        Start { boot_id: "b".to_owned(), id: id(2), version: "0.2.0".to_owned(), counter }
    }

    #[test]
    fn no_try_is_given_back_that_is_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (state, esp) = (folder.path().join("state"), folder.path().join("esp"));
        let mut held = Held::open(&state).unwrap();
        policy::begin(&mut held.ledger, &start(), &[], 1);
        held.save().unwrap();
        let entry = |counter: &str| esp.join(format!("loader/entries/pf-{}{counter}.conf", id(2)));
        fs::create_dir_all(entry("").parent().unwrap()).unwrap();
        fs::write(entry("+2-1"), "").unwrap();
        // Where the new content is to be written lies a folder.
        let obstacle = state.join("ledger.json.part");
        fs::create_dir(&obstacle).unwrap();
        assert!(give_try_back(&mut held, &esp, &start()).is_err());
        assert!(entry("+2-1").exists());
        // The obstacle is gone.
        fs::remove_dir(&obstacle).unwrap();
        drop(held);
        let mut held = Held::open(&state).unwrap();
        assert!(give_try_back(&mut held, &esp, &start()).unwrap());
        assert!(entry("+3").exists());
        drop(held);
        assert_eq!(Held::open(&state).unwrap().ledger.given_back[0].times, 1);
    }
}
