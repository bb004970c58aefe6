//! `boot` and `give-back`: how a start begins, and how it ends before its time. What a start has to forget, it forgets
//! first: everybody else waits for it.

use std::path::Path;

use anyhow::Context as _;

use super::Site;
use super::grow::grow;
use crate::files;
use crate::ledger::{Held, Ledger};
use crate::mirror::read_esp;
use crate::model::esp::entry_path;
use crate::policy::{self, Fallen, Start};
use crate::programs::{run, run_well};
use crate::reset::{self, Ground};

/// Making a few folders takes no time.
const QUICK: std::time::Duration = std::time::Duration::from_secs(30);

/// Begins a start: the file system grows, what did not come up is remembered and removed, the attempt gets its number.
/// A part that fails is said and does not keep the others from their turn.
pub fn boot(site: &Site) -> anyhow::Result<()> {
    // It needs neither a boot partition nor one of OSTree's deployments.
    let forgot = forget(site, &crate::facts::read_boot_id(Path::new("/")));
    let forgot = forgot.map_err(|error| {
        let what = format!("the factory reset that was asked for was not made whole: {error:#}");
        complain!("{what}");
        what
    });
    site.place.open()?;
    let start =
        site.start().context("what runs is none of OSTree's deployments under our links")?;
    let before = read_esp(&site.place.esp)?;
    let mut book = Book::new(site.ledger());
    let fallen: Vec<Fallen> = policy::fallen(&before, &start.id)
        .into_iter()
        .map(|id| Fallen { version: site.ostree.about(id.commit()).version, id })
        .collect();
    policy::begin(&mut book.ledger, &start, &fallen, crate::calendar::now());
    // Removing what failed makes room on a full disk.
    book.save();
    for fallen in &fallen {
        tell!("{:?} ({}) did not prove itself and is removed", fallen.id, fallen.version);
    }
    let mirrored = site.deployments().and_then(|deployments| {
        let condemned = policy::condemned(&book.ledger, &deployments, &start.id, &fallen);
        site.retire(&condemned, None)
    });
    forgot.err().iter().for_each(|what| book.ledger.remark(what));
    book.part("the boot entries could not be brought in step", mirrored);
    let grown = grow(site, &mut book.ledger);
    book.part("the file system could not be grown", grown);
    say(&start);
    book.close(|ledger| site.publish(ledger));
    Ok(())
}

/// Forgets everything of the owner, if the owner has proved to want that, and makes the folders anew that others expect.
fn forget(site: &Site, boot_id: &str) -> anyhow::Result<()> {
    let state = &site.place.state;
    if !site.place.live || !reset::is_due(state, boot_id)? {
        return Ok(());
    }
    let product = state.parent().context("root's folder of state lies in no other")?;
    tell!("everything of the owner is forgotten");
    let forgot = reset::forget(&Ground { product: product.to_path_buf(), state: state.clone() });
    // What was put aside before something failed is needed again, too.
    let prefix = format!("--prefix={}", product.display());
    run_well(&["systemd-tmpfiles", "--create", &prefix], QUICK)?;
    Ok(forgot?)
}

/// Removes what was forgotten; it takes as long as it takes.
pub fn sweep(site: &Site) -> anyhow::Result<()> {
    let count = crate::sweep::sweep(&site.place.state)?;
    if count > 0 {
        tell!("what was forgotten is removed");
    }
    Ok(())
}

/// The ledger of a start that is not to fail because something cannot be remembered or said: that is no fault of the
/// deployment, which the verdict would call red for it.
struct Book {
    ledger: Ledger,
    /// Nothing when it could not be opened. Then it is empty and is never saved, for it may lie there and be good.
    held: Option<Held>,
}

impl Book {
    fn new(opened: anyhow::Result<Held>) -> Self {
        let mut book = Self { ledger: Ledger::default(), held: None };
        match opened {
            Ok(mut held) => {
                book.ledger = std::mem::take(&mut held.ledger);
                book.held = Some(held);
            }
            Err(error) => book.part("nothing is remembered of earlier starts", Err(error)),
        }
        book
    }

    /// Says and notes a part that failed.
    fn part(&mut self, what: &str, done: anyhow::Result<()>) {
        if let Err(error) = done {
            complain!("{what}: {error:#}");
            self.ledger.remark(&format!("{what}: {error:#}"));
        }
    }

    fn save(&mut self) {
        let Some(held) = &mut self.held else { return };
        // It keeps itself to its limits when it is saved, and so is published.
        std::mem::swap(&mut held.ledger, &mut self.ledger);
        let saved = held.save().map_err(Into::into);
        std::mem::swap(&mut held.ledger, &mut self.ledger);
        self.part("what is remembered could not be kept", saved);
    }

    /// Saves and publishes. What could not be said now is said with the verdict.
    fn close(&mut self, publish: impl FnOnce(&Ledger) -> anyhow::Result<()>) {
        self.save();
        if let Err(error) = publish(&self.ledger) {
            self.part("what became of this start could not be said", Err(error));
            self.save();
        }
    }
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

    fn remarks(ledger: &Ledger) -> Vec<String> {
        ledger.boot.as_ref().unwrap().remarks.clone()
    }

    #[test]
    fn a_ledger_that_cannot_be_opened_stops_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::write(&state, "a file where the folder should be").unwrap();
        let mut book = Book::new(Held::open(&state).map_err(Into::into));
        policy::begin(&mut book.ledger, &start(), &[], 1);
        let mut said = Vec::new();
        book.close(|ledger| {
            said = remarks(ledger);
            Ok(())
        });
        assert!(said[0].starts_with("nothing is remembered of earlier starts: "), "{said:?}");
    }

    #[test]
    fn what_cannot_be_kept_or_said_stops_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let obstacle = folder.path().join("ledger.json.part");
        fs::create_dir(&obstacle).unwrap();
        let mut book = Book::new(Held::open(folder.path()).map_err(Into::into));
        policy::begin(&mut book.ledger, &start(), &[], 1);
        book.close(|ledger| {
            assert!(remarks(ledger)[0].starts_with("what is remembered could not be kept: "));
            fs::remove_dir(&obstacle).unwrap();
            anyhow::bail!("no room")
        });
        drop(book);
        let kept = Held::open(folder.path()).unwrap().ledger;
        assert_eq!(remarks(&kept)[1], "what became of this start could not be said: no room");
        assert_eq!(kept.attempts.len(), 1);
    }

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
