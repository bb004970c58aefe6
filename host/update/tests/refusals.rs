//! What is refused is refused before anything is written: everything that lies on the box is the same before and after.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use punktfunk_os::facts::since_start;
use punktfunk_os::permit;
use punktfunk_update::engine::Engine;
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel, Commit, Version};
use punktfunk_update::statement::Statement;
use punktfunk_update::transport::Cancel;
use punktfunk_update_rig::{Outcome, Rig};

const OLDEST: Version = Version::new(1, 4, 0);
const RUNS: Version = Version::new(1, 4, 2);
const NEW: Version = Version::new(1, 5, 0);

/// All that lies on a box: each file with the digest of what is in it, each link with where it leads.
fn listing(rig: &Rig) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let place = rig.site().place;
    for folder in [
        rig.state_folder(),
        rig.esp(),
        place.sysroot.join("ostree/repo"),
        place.sysroot.join("boot"),
    ] {
        list(&folder, &mut found);
    }
    let names = fs::read_dir(place.sysroot.join("ostree/deploy/punktfunk/deploy")).unwrap();
    found.extend(names.map(|name| (name.unwrap().path(), String::new())));
    found.extend([(
        rig.run_folder(),
        fs::read_to_string(rig.run_folder().join("updates.json")).unwrap(),
    )]);
    found
}

fn list(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            found.insert(path.clone(), String::new());
            list(&path, found);
        } else if about.is_symlink() {
            found.insert(path.clone(), fs::read_link(&path).unwrap().display().to_string());
        } else {
            found.insert(path.clone(), BlobDigest::of(&fs::read(&path).unwrap()).to_string());
        }
    }
}

/// A box on which a release was found, and nothing fetched of it.
struct Scene {
    rig: Rig,
    engine: Engine,
    commit: Commit,
}

impl Scene {
    fn new() -> Self {
        let mut rig = Rig::new();
        rig.stop();
        let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
        let mut engine = rig.engine();
        engine.begin();
        engine.check(&Cancel::default()).unwrap();
        // What is made once when it is first needed is there from now on.
        assert_eq!(engine.apply(Commit([1; 32]), false), Err(UpdateError::UnknownDeployment));
        rig.site().known().unwrap();
        Self { rig, engine, commit }
    }

    /// Does something that is refused, and gives how.
    #[track_caller]
    fn refused<T>(
        &mut self,
        what: impl FnOnce(&mut Engine) -> Result<T, UpdateError>,
    ) -> UpdateError {
        let before = listing(&self.rig);
        let given = self.rig.given_bytes();
        let Err(error) = what(&mut self.engine) else { panic!("it is not refused") };
        let after = listing(&self.rig);
        let changed: Vec<_> =
            after.iter().filter(|(path, is)| before.get(*path) != Some(is)).collect();
        assert!(changed.is_empty() && before.len() == after.len(), "{error}: {changed:?}");
        // A statement and no more.
        assert!(self.rig.given_bytes() - given < 100_000, "{error}");
        error
    }

    #[track_caller]
    fn download(&mut self, commit: Commit) -> UpdateError {
        self.refused(|engine| engine.download(commit, false, &mut |_, _| {}, &Cancel::default()))
    }

    #[track_caller]
    fn stage(&mut self, commit: Commit) -> UpdateError {
        self.refused(|engine| engine.stage(commit, false, &Cancel::default()))
    }

    #[track_caller]
    fn check(&mut self) -> UpdateError {
        self.refused(|engine| engine.check(&Cancel::default()))
    }

    fn state(&mut self, change: impl FnOnce(&mut Statement)) {
        self.rig.state(Channel::Stable, change);
    }
}

#[test]
#[ignore = "needs root and ostree"]
fn statements_that_are_not_believed_change_nothing() {
    let mut scene = Scene::new();
    let good = scene.rig.envelope(Channel::Stable);
    let text = String::from_utf8(good.clone()).unwrap();
    let now = scene.rig.now();

    scene.rig.tell(Channel::Stable, text.replace("1.5.0", "9.9.9").as_bytes());
    assert!(matches!(scene.check(), UpdateError::Signature { .. }));
    for garbage in [&good[..good.len() / 2], b"<html>", &[b'x'; 60_000]] {
        scene.rig.tell(Channel::Stable, garbage);
        assert!(matches!(scene.check(), UpdateError::Content { .. }));
    }
    scene.state(|statement| statement.flavour = "full".to_owned());
    assert!(matches!(scene.check(), UpdateError::Content { .. }));
    scene.state(|statement| {
        statement.flavour = punktfunk_update_rig::FLAVOUR.to_owned();
        statement.expires_at = now;
    });
    assert!(matches!(scene.check(), UpdateError::Expired { version: NEW }));
    scene.state(|statement| {
        statement.expires_at = now + 86_400;
        statement.made_at -= 500;
    });
    assert!(matches!(scene.check(), UpdateError::Downgrade { .. }));
    scene.state(|statement| statement.made_at += 2000);
    assert!(matches!(scene.check(), UpdateError::ClockBehind { .. }));
    scene.rig.tell(Channel::Stable, &good);
    assert!(scene.engine.check(&Cancel::default()).is_ok());

    // What was believed is judged again when something is done because of it.
    scene.rig.set_clock(now - 10_000);
    let commit = scene.commit;
    assert!(matches!(scene.download(commit), UpdateError::ClockBehind { .. }));
    scene.rig.set_clock(now + 40 * 86_400);
    assert!(matches!(scene.download(commit), UpdateError::Expired { .. }));
    assert!(matches!(scene.stage(commit), UpdateError::Expired { .. }));
    scene.rig.set_clock(now);
    // A file that somebody has put there is believed as little.
    let kept = scene.rig.state_folder().join("statement-stable.json");
    fs::write(&kept, text.replace("1.5.0", "1.5.1")).unwrap();
    assert!(matches!(scene.download(commit), UpdateError::Signature { .. }));
    fs::write(&kept, &good[..100]).unwrap();
    assert_eq!(scene.download(commit), UpdateError::UnknownDeployment);
    // Nor is a key that is not there.
    fs::write(&kept, &good).unwrap();
    let key = scene.rig.run_folder().parent().unwrap().join("keys/current.pub");
    let its = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(scene.download(commit), UpdateError::Failed { .. }));
    assert!(matches!(scene.check(), UpdateError::Failed { .. }));
    fs::write(&key, its).unwrap();
    assert_eq!(scene.stage(commit), UpdateError::NothingDownloaded);
}

#[test]
#[ignore = "needs root and ostree"]
fn releases_that_do_not_fit_change_nothing() {
    let mut scene = Scene::new();
    let unknown = Commit([0xEE; 32]);
    assert_eq!(scene.download(unknown), UpdateError::UnknownDeployment);
    assert_eq!(scene.stage(unknown), UpdateError::UnknownDeployment);
    let apply = |commit| move |engine: &mut Engine| engine.apply(commit, false);
    assert_eq!(scene.refused(apply(unknown)), UpdateError::UnknownDeployment);
    assert_eq!(scene.refused(|engine| engine.pin(unknown, true)), UpdateError::UnknownDeployment);
    let commit = scene.commit;
    assert_eq!(scene.stage(commit), UpdateError::NothingDownloaded);
    assert_eq!(scene.refused(apply(commit)), UpdateError::UnknownDeployment);

    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(scene.refused(|engine| engine.check(&cancel)), UpdateError::Stopped);
    let download = |engine: &mut Engine| engine.download(commit, false, &mut |_, _| {}, &cancel);
    assert_eq!(scene.refused(download), UpdateError::Stopped);

    let older = scene.rig.publish(Version::new(1, 4, 1), OLDEST, Outcome::Passes);
    let later = scene.rig.publish(Version::new(2, 0, 0), NEW, Outcome::Passes);
    let offers = scene.engine.check(&Cancel::default()).unwrap();
    assert_eq!(offers.iter().map(|offer| offer.commit).collect::<Vec<_>>(), [commit]);
    let downgrade = UpdateError::Downgrade { version: Version::new(1, 4, 1), floor: RUNS };
    assert_eq!(scene.download(older), downgrade);
    assert_eq!(scene.download(later), UpdateError::UnknownDeployment);
    assert!(scene.rig.site().known().unwrap().attempts.is_empty());

    // What is below the oldest that is safe is not started; what runs may go on, whatever it is.
    let floor = Version::new(1, 4, 9);
    scene.state(|statement| {
        statement.floor = Some(floor);
        statement.releases.retain(|release| release.version >= floor);
    });
    scene.engine.check(&Cancel::default()).unwrap();
    let deployments = scene.rig.site().deployments().unwrap();
    let at = |at: usize| -> Commit { deployments[at].id.commit().parse().unwrap() };
    for (place, patch) in [(1, 1), (2, 0)] {
        let below = UpdateError::BelowFloor { version: Version::new(1, 4, patch), floor };
        assert_eq!(scene.refused(apply(at(place))), below);
    }
    // The owner's permit is for one of them, in this start of the machine, once.
    let site = scene.rig.site();
    let start = site.start().unwrap();
    permit::write(&site.place.state, &at(2).to_string(), &start.boot_id, since_start()).unwrap();
    assert!(matches!(scene.refused(apply(at(1))), UpdateError::BelowFloor { .. }));
    scene.engine.apply(at(2), false).unwrap();
    scene.engine.apply(at(0), false).unwrap();
    assert!(matches!(scene.refused(apply(at(2))), UpdateError::BelowFloor { .. }));
    scene.engine.apply(at(0), false).unwrap();
    assert_eq!(scene.engine.outlook().unwrap().floor, Some(floor));
    // It stays, though nobody states it any more.
    scene.state(|statement| statement.floor = None);
    scene.engine.check(&Cancel::default()).unwrap();
    assert!(matches!(scene.refused(apply(at(1))), UpdateError::BelowFloor { .. }));
    // Another channel has said nothing yet, and nothing of this one is offered in it.
    scene.engine.follow(Channel::Next).unwrap();
    assert_eq!(scene.engine.outlook().unwrap().channel, Channel::Next);
    assert_eq!(scene.download(commit), UpdateError::UnknownDeployment);
    assert!(matches!(scene.check(), UpdateError::Unreachable { .. }));
}
