use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::store::{NewClient, Policy};

const PASSPHRASE: &str = "correct horse battery";
/// The tests try many passphrases.
const WEAK: Strength = Strength { memory_kib: 8, passes: 1 };

struct Host {
    _folder: tempfile::TempDir,
    store: Store,
    backups: Backups,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        Identity::load_or_create(&store).unwrap();
        store.put_settings(&[("name".to_owned(), "\"sofa\"".to_owned())]).unwrap();
        store.put_app("Mine", "{}").unwrap();
        store.put_app_art("Mine", PICTURE).unwrap();
        let backups = Backups::new(store.clone(), WEAK);
        Self { _folder: folder, store, backups }
    }

    fn make(&self) -> Vec<u8> {
        self.backups.make(&Passphrase::new(PASSPHRASE)).unwrap()
    }

    fn restore(&self, backup: &[u8]) -> Result<Restored, BackupError> {
        self.backups.restore(&Passphrase::new(PASSPHRASE), backup)
    }

    /// A backup of what is here, changed by somebody who has the passphrase.
    fn forged(&self, change: impl FnOnce(&mut StoreCopy)) -> Vec<u8> {
        let mut copy = self.store.copy().unwrap();
        change(&mut copy);
        sealed::seal(PASSPHRASE.as_bytes(), WEAK, |room| contents::write(&copy, "1", room)).unwrap()
    }

    /// Such a backup is refused with these words, and nothing has changed.
    fn refuses(&self, change: &dyn Fn(&mut StoreCopy), says: &str) {
        let before = self.store.copy().unwrap();
        let error = self.restore(&self.forged(change)).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
        assert_eq!(self.store.copy().unwrap(), before, "{says}");
    }
}

const PICTURE: &[u8] = include_bytes!("../../assets/art/desktop.png");

/// A backup, and a host with another identity, for tests that change neither.
static BACKUP_AND_HOST: LazyLock<(Vec<u8>, Host)> =
    LazyLock::new(|| (Host::new().make(), Host::new()));

fn table<'a>(copy: &'a mut StoreCopy, name: &str) -> &'a mut TableCopy {
    copy.tables.iter_mut().find(|table| table.name == name).unwrap()
}

#[test]
fn what_is_under_way_is_said_for_as_long_as_it_is() {
    let host = Host::new();
    for (deed, name) in [
        (Deed::Make, "a backup"),
        (Deed::Restore, "a restore"),
        (Deed::MakeOfHomes, "a backup of homes"),
        (Deed::RestoreOfHomes, "a restore of homes"),
    ] {
        let turn = host.backups.turns.take(deed).unwrap();
        assert_eq!(host.backups.clone().under_way(), Some(name));
        let other = host.backups.make(&Passphrase::new(PASSPHRASE));
        assert!(matches!(other, Err(BackupError::Busy)));
        drop(turn);
        assert_eq!(host.backups.under_way(), None);
    }
}

#[test]
fn what_comes_out_is_what_went_in() {
    let (old, new) = (Host::new(), Host::new());
    assert_ne!(old.store.copy().unwrap(), new.store.copy().unwrap());
    let restored = new.restore(&old.make()).unwrap();
    assert_eq!(old.store.copy().unwrap(), new.store.copy().unwrap());
    assert_eq!(restored.made_by, env!("CARGO_PKG_VERSION"));
    assert!(restored.rows.contains(&("identity".to_owned(), 1)));
}

#[test]
fn what_devices_may_do_holds_at_once_and_no_change_after_it_is_lost() {
    let host = Host::new();
    let pair = |name: &str| {
        let new = NewClient {
            certificate_der: name.as_bytes().to_vec(),
            name: name.to_owned(),
            remote: [10, 0, 0, 5].into(),
        };
        host.store.add_client(new).unwrap().id
    };
    let (tv, phone) = (pair("TV"), pair("Phone"));
    let watches = Policy { input: false, expires_at: Some(4_000_000_000), ..Policy::default() };
    host.store.set_policy(tv, watches).unwrap();
    let backup = host.make();
    host.store.set_policy(tv, Policy::default()).unwrap();
    host.store.rename(phone, "Tablet").unwrap();
    let deck = pair("Deck");
    let restored = host.restore(&backup).unwrap();
    assert_eq!((restored.gone, restored.curbed), (vec![deck], vec![tv]));
    assert_eq!(host.store.policy(tv), Some(watches));
    assert_eq!(host.store.client(phone).unwrap().name, "Phone");
    // The owner changes one thing of it before the host starts again; the rest of it stays.
    let before = host.store.policy(tv).unwrap();
    host.store.set_policy(tv, before.with(&[])).unwrap();
    let copy = host.store.copy().unwrap();
    let Host { _folder: folder, store, backups } = host;
    drop((store, backups));
    let store = Store::open(&folder.path().join("state")).unwrap();
    assert_eq!(store.copy().unwrap(), copy);
    assert_eq!(store.policy(tv), Some(Policy { launch: false, ..watches }));
}

#[test]
fn a_backup_gives_nobody_a_way_in() {
    let names: Vec<_> =
        Host::new().store.copy().unwrap().tables.into_iter().map(|t| t.name).collect();
    for secret in ["owner", "claim", "console_session", "token", "consumed", "profile"] {
        assert!(!names.iter().any(|name| name == secret), "{secret} is in a backup");
    }
}

#[test]
fn two_backups_of_the_same_have_nothing_in_common_but_their_head() {
    let host = Host::new();
    let (one, other) = (host.make(), host.make());
    assert_eq!((&one[..28], one.len()), (&other[..28], other.len()));
    let same = one[28..].iter().zip(&other[28..]).filter(|(a, b)| a == b).count();
    assert!(same < one.len() / 50, "{same} of {} bytes are the same", one.len());
}

#[test]
fn a_passphrase_is_long_and_is_the_right_one() {
    let host = Host::new();
    for unfit in ["", "elevenchars", &"x".repeat(MAX_PASSPHRASE_BYTES + 1)] {
        let made = host.backups.make(&Passphrase::new(unfit));
        assert!(matches!(made, Err(BackupError::Passphrase)), "{unfit}");
    }
    let backup = host.make();
    for wrong in ["", "correct horse batterz", "correct horse battery "] {
        let restored = host.backups.restore(&Passphrase::new(wrong), &backup);
        assert!(matches!(restored, Err(BackupError::WrongPassphrase)), "{wrong}");
    }
    assert_eq!(format!("{:?}", Passphrase::new(PASSPHRASE)), "Passphrase(redacted)");
}

#[test]
fn what_a_host_could_not_start_with_is_refused_and_nothing_changes() {
    let (host, other) = (Host::new(), Host::new());
    let own_key = other.store.identity().unwrap().unwrap().private_key_der;
    let refused = |change: &dyn Fn(&mut StoreCopy), says: &str| host.refuses(change, says);
    refused(&|copy| copy.tables.retain(|table| table.name != "identity"), "no host key");
    refused(&|copy| table(copy, "identity").rows.clear(), "no host key");
    let key_at = |table: &TableCopy| {
        table.columns.iter().position(|column| column == "private_key_der").unwrap()
    };
    refused(
        &|copy| {
            let identity = table(copy, "identity");
            let at = key_at(identity);
            identity.rows[0][at] = Cell::Blob(own_key.clone());
        },
        "belongs to another key",
    );
    refused(&|copy| copy.min_reader = 1000, "needs a newer host");
    refused(&|copy| table(copy, "setting").rows[0].truncate(1), "not well formed");
    refused(
        &|copy| {
            let twice = table(copy, "setting").clone();
            copy.tables.push(twice);
        },
        "not well formed",
    );
    refused(
        &|copy| {
            let console = table(copy, "console_identity");
            let cell = |name: &String| match name.as_str() {
                "id" => Cell::Integer(1),
                _ => Cell::Blob(Zeroizing::new(vec![1, 2, 3])),
            };
            console.rows = vec![console.columns.iter().map(cell).collect()];
        },
        "console's key is damaged",
    );
    refused(
        &|copy| {
            let clients = table(copy, "client");
            let cell = |name: &String| match name.as_str() {
                "id" => Cell::Blob(Zeroizing::new(vec![7; 32])),
                "certificate_der" => Cell::Blob(Zeroizing::new(vec![1, 2, 3])),
                "name" => Cell::Text("TV".to_owned()),
                "remote" => Cell::Null,
                _ => Cell::Integer(0),
            };
            clients.rows = vec![clients.columns.iter().map(cell).collect()];
        },
        "another certificate",
    );
    // A row that the database does not take, after others that it took.
    refused(&|copy| table(copy, "app").rows[0][0] = Cell::Null, "restore a backup");
}

#[test]
fn no_picture_and_no_text_comes_by_a_backup_that_would_not_come_otherwise() {
    let host = Host::new();
    let refused = |change: &dyn Fn(&mut StoreCopy), says: &str| host.refuses(change, says);
    refused(
        &|copy| table(copy, "setting").rows[0][1] = Cell::Text("x".repeat(64 * 1024 + 1)),
        "longer than any",
    );
    let art = |copy: &mut StoreCopy, picture: Vec<u8>| {
        let apps = table(copy, "app");
        let at = apps.columns.iter().position(|column| column == "art").unwrap();
        apps.rows[0][at] = Cell::Blob(Zeroizing::new(picture));
    };
    refused(&|copy| art(copy, b"<svg/>".to_vec()), "no PNG");
    let mut vast = PICTURE.to_vec();
    vast[16] = 1;
    refused(&|copy| art(copy, vast.clone()), "each side may have");
    let mut large = PICTURE.to_vec();
    large.resize(1_048_577, 0);
    refused(&|copy| art(copy, large.clone()), "1048577 bytes");
}

#[test]
fn a_backup_of_a_newer_host_is_taken_as_far_as_it_is_known() {
    let host = Host::new();
    let before = host.store.copy().unwrap();
    let newer = host.forged(|copy| {
        let settings = table(copy, "setting");
        settings.columns.insert(0, "value; DROP TABLE setting".to_owned());
        settings.rows.iter_mut().for_each(|row| row.insert(0, Cell::Text("x".to_owned())));
        let mut future = table(copy, "setting").clone();
        future.name = "future".to_owned();
        copy.tables.push(future);
    });
    host.restore(&newer).unwrap();
    assert_eq!(host.store.copy().unwrap(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_damaged_backup_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (backup, host) = &*BACKUP_AND_HOST;
        let mut damaged = backup.clone();
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        prop_assert!(host.restore(&damaged).is_err(), "a flip at {at} went unnoticed");
    }

    #[test]
    fn a_backup_that_was_cut_off_is_refused(at in any::<prop::sample::Index>()) {
        let (backup, host) = &*BACKUP_AND_HOST;
        prop_assert!(host.restore(&backup[..at.index(backup.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0..60_usize) {
        let (backup, host) = &*BACKUP_AND_HOST;
        prop_assert!(host.restore(&bytes).is_err());
        prop_assert!(host.restore(&[&backup[..head], bytes.as_slice()].concat()).is_err());
    }

    #[test]
    fn whatever_the_tables_hold_comes_back(
        texts in prop::collection::vec(any::<String>(), 0..4),
        blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        number in any::<i64>(),
    ) {
        let mut row = vec![Cell::Integer(number), Cell::Null];
        row.extend(texts.into_iter().map(Cell::Text));
        row.extend(blobs.into_iter().map(|blob| Cell::Blob(Zeroizing::new(blob))));
        let columns = (0..row.len()).map(|index| format!("c{index}")).collect();
        let tables = vec![TableCopy { name: "app".to_owned(), columns, rows: vec![row] }];
        let copy = StoreCopy { min_reader: 1, tables };
        let written = contents::write(&copy, "1", Zeroizing::new(vec![]));
        prop_assert!(written.len() <= contents::most_bytes(&copy), "it had to grow");
        let (read, made_by) = contents::read(&written).unwrap();
        prop_assert_eq!((read, made_by.as_str()), (copy, "1"));
    }
}
