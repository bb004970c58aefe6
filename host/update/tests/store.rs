//! What is fetched and what is not, what a break costs, and what is refused before anything is written.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use punktfunk_update::error::UpdateError;
use punktfunk_update::statement::Release;
use punktfunk_update::transport::{Cancel, Source, Store};

mod support;

use support::made::{Made, Shelf, noise, repository};

/// A folder for a store and a repository of nothing.
struct Desk {
    folder: tempfile::TempDir,
    store: Store,
}

impl Desk {
    fn new(there: &[&[u8]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        repository(&folder.path().join("repo"), there);
        let store = Store::open(&folder.path().join("updates")).unwrap();
        Self { folder, store }
    }

    fn blobs(&self) -> PathBuf {
        self.folder.path().join("updates/blobs/sha256")
    }

    /// The names of what lies there.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.blobs()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Downloads, and holds progress to what is promised of it. Gives what was told first.
    fn download(&self, source: &dyn Source, release: &Release) -> Result<u64, UpdateError> {
        let mut told: Vec<u64> = Vec::new();
        let mut tell = |done, total| {
            assert_eq!(total, release.size_bytes);
            assert!(told.last().is_none_or(|last| *last < done) && done <= total);
            told.push(done);
        };
        let repo = self.folder.path().join("repo");
        let fetched = self.store.download(source, release, &repo, &mut tell, &Cancel::default())?;
        assert_eq!(told.last(), Some(&release.size_bytes));
        assert_eq!(
            (fetched.done_bytes, fetched.total_bytes),
            (release.size_bytes, release.size_bytes)
        );
        assert_eq!(self.store.fetched(), Some(fetched));
        Ok(told[0])
    }
}

#[test]
fn what_is_there_is_not_fetched() {
    let (one, two, three) = (noise(1, 9000), noise(2, 9000), noise(3, 9000));
    let made = Made::new("a", &[&[], &[&one, &two], &[&three]]);
    let desk = Desk::new(&[&one, &two]);
    assert_eq!(desk.store.fetched(), None);
    let shelf = Shelf::new(&made);
    let first = desk.download(&shelf, &made.release).unwrap();
    let asked: Vec<_> = shelf.asked().into_iter().map(|(digest, _)| digest).collect();
    assert!(asked.contains(&made.layers[0]) && asked.contains(&made.layers[2]));
    assert!(!asked.contains(&made.layers[1]));
    assert!(first >= made.blobs[&made.layers[1]].len() as u64);
    // Once more asks nobody, and neither does another program that comes later.
    assert_eq!(desk.download(&shelf, &made.release).unwrap(), made.release.size_bytes);
    assert_eq!(shelf.asked(), []);
    let names = desk.names();
    let again = Store::open(&desk.folder.path().join("updates")).unwrap();
    assert_eq!(again.fetched().unwrap().commit, made.release.commit);
    // One object is enough to want its layer.
    let desk = Desk::new(&[&one, &three]);
    desk.download(&shelf, &made.release).unwrap();
    assert!(shelf.asked().iter().any(|(digest, _)| *digest == made.layers[1]));
    assert_ne!(desk.names(), names);
    desk.store.forget().unwrap();
    assert_eq!((desk.names(), desk.store.fetched()), (vec![], None));
}

#[test]
fn another_release_replaces_what_was_fetched() {
    let (old, new) = (noise(1, 5000), noise(2, 5000));
    let (before, after) = (Made::new("a", &[&[&old]]), Made::new("b", &[&[&new]]));
    let desk = Desk::new(&[]);
    desk.download(&Shelf::new(&before), &before.release).unwrap();
    fs::write(desk.blobs().join("junk"), "").unwrap();
    desk.download(&Shelf::new(&after), &after.release).unwrap();
    let mut expected: Vec<String> = after.blobs.keys().map(|digest| digest.digits()).collect();
    expected.sort();
    assert_eq!(desk.names(), expected);
    // What cannot be had costs nothing of what is there.
    let mut wrong = before.release.clone();
    wrong.size_bytes = 10;
    assert!(desk.download(&Shelf::new(&before), &wrong).is_err());
    assert_eq!(desk.names(), expected);
    assert_eq!(desk.store.fetched().unwrap().commit, after.release.commit);
}

#[test]
fn what_is_wrong_is_removed_and_blamed() {
    let made = Made::new("a", &[&[&noise(1, 9000)], &[&noise(2, 9000)]]);
    for wrong in made.blobs.keys() {
        let desk = Desk::new(&[]);
        let shelf = Shelf::new(&made);
        shelf.blobs.lock().unwrap().get_mut(wrong).unwrap()[40] ^= 1;
        let error = desk.download(&shelf, &made.release).unwrap_err();
        assert!(matches!(error, UpdateError::Content { .. }), "{error}");
        assert!(!desk.names().iter().any(|name| name.starts_with(&wrong.digits())));
        assert!(desk.store.fetched().is_none_or(|it| it.done_bytes < it.total_bytes));
        desk.download(&Shelf::new(&made), &made.release).unwrap();
    }
    // What a power cut tore is fetched once more, and nobody is blamed.
    let desk = Desk::new(&[]);
    let torn = desk.blobs().join(format!("{}.part", made.layers[1].digits()));
    fs::write(&torn, noise(9, 500)).unwrap();
    let shelf = Shelf::new(&made);
    desk.download(&shelf, &made.release).unwrap();
    let asked: Vec<u64> =
        shelf.asked().iter().filter(|it| it.0 == made.layers[1]).map(|it| it.1).collect();
    assert_eq!(asked, [500, 0]);
    // One that is too long is none.
    let desk = Desk::new(&[]);
    fs::write(desk.blobs().join(torn.file_name().unwrap()), noise(9, 90_000)).unwrap();
    desk.download(&Shelf::new(&made), &made.release).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let mut made = Made::new("a", &[&[&noise(1, 9000)]]);
    let manifest =
        punktfunk_update::transport::bundle::Manifest::parse(&made.blobs[&made.release.image])
            .unwrap();
    let mut layer = manifest.layers[0];
    layer.unpacked_bytes = 1 << 55;
    made = Made::of("a", manifest.index, &[layer], made.blobs);
    let desk = Desk::new(&[]);
    let error = desk.download(&Shelf::new(&made), &made.release).unwrap_err();
    assert!(
        matches!(error, UpdateError::NoSpace { needed_bytes, free_bytes }
            if needed_bytes > free_bytes && needed_bytes > 2 << 55 && free_bytes > 0),
        "{error}"
    );
    assert_eq!((desk.names(), desk.store.fetched()), (vec![], None));
    // More than was signed is not even compared with the disk.
    for shrink in [|it: &mut Release| it.size_bytes -= 1, |it: &mut Release| it.unpacked_bytes -= 1]
    {
        let mut release = made.release.clone();
        shrink(&mut release);
        let error = desk.download(&Shelf::new(&made), &release).unwrap_err();
        assert!(matches!(error, UpdateError::Content { .. }), "{error}");
    }
    assert_eq!(desk.names(), Vec::<String>::new());
}

#[test]
fn a_stop_leaves_what_came() {
    let made = Made::new("a", &[&[&noise(1, 50_000)]]);
    let desk = Desk::new(&[]);
    let cancel = Cancel::default();
    let repo = desk.folder.path().join("repo");
    let half = made.release.size_bytes / 2;
    struct Stopping<'a>(Shelf, &'a Cancel);
    impl Source for Stopping<'_> {
        fn envelope(
            &self,
            _: punktfunk_update::name::Channel,
            _: &str,
            _: &Cancel,
        ) -> Result<Vec<u8>, UpdateError> {
            Err(UpdateError::Stopped)
        }

        fn blob(
            &self,
            blob: punktfunk_update::transport::Wanted,
            offset: u64,
            take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
            cancel: &Cancel,
        ) -> Result<(), UpdateError> {
            let mut take = |piece: &[u8]| self.1.check().and_then(|()| take(piece));
            self.0.blob(blob, offset, &mut take, cancel)
        }
    }
    let source = Stopping(Shelf::new(&made), &cancel);
    let mut tell = |done, _| {
        if done >= half {
            cancel.cancel()
        }
    };
    let error = desk.store.download(&source, &made.release, &repo, &mut tell, &cancel).unwrap_err();
    assert_eq!(error, UpdateError::Stopped);
    let fetched = desk.store.fetched().unwrap();
    assert!(fetched.done_bytes >= half && fetched.done_bytes < fetched.total_bytes);
    let shelf = Shelf::new(&made);
    assert!(desk.download(&shelf, &made.release).unwrap() >= half);
    assert!(shelf.asked().iter().all(|(_, offset)| *offset > 0));
    assert_eq!(
        desk.store.download(&shelf, &made.release, &repo, &mut |_, _| {}, &cancel),
        Err(UpdateError::Stopped)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However often it breaks off, what is there at the end is whole, and nothing came twice.
    #[test]
    fn breaks_cost_nothing(cuts in prop::collection::vec(0..4000_usize, 0..30), tear in any::<bool>()) {
        let made = Made::new("a", &[&[&noise(1, 20_000)], &[&noise(2, 3)], &[&noise(3, 40_000)]]);
        let desk = Desk::new(&[]);
        let shelf = Shelf::new(&made);
        *shelf.cuts.lock().unwrap() = cuts.clone();
        let mut attempts = 0;
        loop {
            let before = desk.store.fetched().map_or(0, |it| it.done_bytes);
            match desk.download(&shelf, &made.release) {
                Ok(_) => break,
                Err(UpdateError::Unreachable { .. }) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
            let after = desk.store.fetched();
            prop_assert!(after.is_none_or(|it| it.done_bytes >= before && it.done_bytes < it.total_bytes));
            attempts += 1;
            if tear && attempts == 3 {
                // The last bytes of what was begun never reached the disk.
                for name in desk.names().iter().filter(|name| name.ends_with(".part")) {
                    let file = fs::OpenOptions::new().write(true).open(desk.blobs().join(name)).unwrap();
                    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
                }
            }
        }
        prop_assert_eq!(attempts, cuts.len());
        for (digest, bytes) in &made.blobs {
            prop_assert!(&fs::read(desk.blobs().join(digest.digits())).unwrap() == bytes);
        }
    }
}
