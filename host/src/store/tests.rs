use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::schema::{Schema, V1, V2, V3, V4, V5};
use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn new_client(certificate: &[u8], name: &str) -> NewClient {
    NewClient { certificate_der: certificate.to_vec(), name: name.to_owned(), remote: HERE }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("deep/state");
    (parent, folder)
}

#[test]
fn a_pairing_is_known_at_once_and_after_a_restart() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let added = store.add_client(new_client(b"certificate", "TV")).unwrap();
    assert_eq!(store.paired_client_by_certificate(b"certificate"), Some(added.clone()));
    drop(store);
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.paired_client_by_certificate(b"certificate"), Some(added.clone()));
    assert_eq!(store.clients(), [added]);
    assert_eq!(store.paired_client_by_certificate(b"certificatf"), None);
    assert_eq!(store.paired_client_by_certificate(b""), None);
}

#[test]
fn the_connection_flushes_each_commit() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let connection = store.connection();
    let text = |pragma| -> String {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    };
    let number =
        |pragma| -> i64 { connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap() };
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!(number("synchronous"), 2, "2 is FULL");
}

#[test]
fn a_removed_client_stays_removed_and_can_pair_again() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let client = store.add_client(new_client(b"one", "One")).unwrap();
    store.add_client(new_client(b"two", "Two")).unwrap();
    assert_eq!(store.remove_client(client.id).unwrap(), Some(client.clone()));
    assert_eq!(store.remove_client(client.id).unwrap(), None);
    assert_eq!(store.paired_client_by_certificate(b"one"), None);
    drop(store);
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.clients().len(), 1);
    store.add_client(new_client(b"one", "One again")).unwrap();
    let again = store.add_client(new_client(b"one", "One once more")).unwrap();
    assert_eq!(again.name, "One once more");
    assert_eq!(store.clients().len(), 2);
}

#[test]
fn names_and_visits_are_kept() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let client = store.add_client(new_client(b"one", "\u{1b}[31mred\u{7}")).unwrap();
    assert_eq!(client.name, "[31mred");
    assert_eq!(store.rename(client.id, " Sofa\n").unwrap().unwrap().name, "Sofa");
    assert_eq!(store.rename(ClientId([0; 32]), "nobody").unwrap(), None);
    let there: IpAddr = "::ffff:192.0.2.9".parse().unwrap();
    let later = client.last_seen_at + 10;
    store.touch_at(client.id, there, later).unwrap();
    drop(store);
    let client = Store::open(&folder).unwrap().client(client.id).unwrap();
    assert_eq!(client.name, "Sofa");
    assert_eq!((client.last_seen_at, client.remote), (later, "192.0.2.9".parse().ok()));
}

#[test]
fn two_devices_do_not_have_one_name() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let long = "x".repeat(MAX_NAME_CHARS);
    let names = [
        ("one", "192.0.2.9"),
        ("two", "192.0.2.9"),
        ("three", "192.0.2.9"),
        ("1", &long),
        ("2", &long),
    ]
    .map(|(certificate, name)| {
        store.add_client(new_client(certificate.as_bytes(), name)).unwrap().name
    });
    assert_eq!(names[..3], ["192.0.2.9", "192.0.2.9 2", "192.0.2.9 3"]);
    assert_eq!(names[4], format!("{} 2", "x".repeat(MAX_NAME_CHARS - 2)));
    // Who pairs again keeps its own.
    assert_eq!(store.add_client(new_client(b"two", "192.0.2.9 2")).unwrap().name, "192.0.2.9 2");
}

#[test]
fn visits_are_written_seldom() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let client = store.add_client(new_client(b"one", "One")).unwrap();
    let changes = || store.connection().total_changes();
    let before = changes();
    store.touch_at(client.id, HERE, client.paired_at + 299).unwrap();
    assert_eq!(changes(), before);
    store.touch_at(client.id, HERE, client.paired_at + 300).unwrap();
    assert_eq!(changes(), before + 1);
}

#[test]
fn each_client_has_a_profile_of_its_own_and_keeps_it() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let id = |number: u8| ClientId([number; 32]);
    let profile = |store: &Store, number| store.profile_of(id(number)).map(|profile| profile.0);
    assert_eq!(profile(&store, 7).unwrap(), 0);
    assert_eq!(profile(&store, 3).unwrap(), 1);
    assert_eq!(profile(&store, 7).unwrap(), 0);
    // It is paired, removed and paired again: its home is still there.
    let client = store.add_client(new_client(b"certificate", "TV")).unwrap();
    assert_eq!(store.profile_of(client.id).unwrap().0, 2);
    store.remove_client(client.id).unwrap();
    drop(store);
    let store = Store::open(&folder).unwrap();
    store.add_client(new_client(b"certificate", "TV")).unwrap();
    assert_eq!(store.profile_of(client.id).unwrap().0, 2);

    store.connection().execute("DELETE FROM profile WHERE number = 1", []).unwrap();
    assert_eq!(profile(&store, 100).unwrap(), 1, "the smallest free number");
    for number in 101..101 + MAX_PROFILES as u8 - 3 {
        profile(&store, number).unwrap();
    }
    let full = profile(&store, 99).unwrap_err();
    assert!(matches!(full, StoreError::TooManyProfiles { max: MAX_PROFILES }), "{full:?}");
    assert_eq!(profile(&store, 7).unwrap(), 0, "those who have one keep it");
}

#[test]
fn limits_hold() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let big = vec![0; MAX_CERTIFICATE_BYTES + 1];
    assert!(matches!(
        store.add_client(new_client(&big, "big")),
        Err(StoreError::CertificateLength { got }) if got == big.len()
    ));
    assert!(matches!(
        store.add_client(new_client(b"", "none")),
        Err(StoreError::CertificateLength { got: 0 })
    ));
    for index in 0..MAX_CLIENTS {
        let client = PairedClient::from_new(new_client(&index.to_le_bytes(), "x"), 1);
        store.inner.trusted.write().unwrap().insert(client.id, client);
    }
    assert!(matches!(
        store.add_client(new_client(b"one more", "x")),
        Err(StoreError::TooManyClients { .. })
    ));
    assert!(store.add_client(new_client(&7usize.to_le_bytes(), "known")).is_ok());
}

#[test]
fn the_folder_is_made_private_and_an_open_one_is_refused() {
    let (_parent, folder) = folder();
    drop(Store::open(&folder).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join(DATABASE_NAME)), 0o600);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
    let error = Store::open(&folder).unwrap_err();
    assert!(matches!(error, StoreError::FolderMode { got: 0o750, .. }), "{error}");
    assert!(error.to_string().contains("chmod 700"));
}

#[test]
fn one_daemon_at_a_time() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let clone = store.clone();
    drop(store);
    assert!(matches!(Store::open(&folder), Err(StoreError::InUse { .. })));
    drop(clone);
    Store::open(&folder).unwrap();
}

/// What a later daemon might add: a column with a default, and a table.
const LATER: &str = "
ALTER TABLE client ADD COLUMN later INTEGER NOT NULL DEFAULT 7;
CREATE TABLE later (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";
/// A change that an older daemon must not meet.
const FORBIDS: &str = "UPDATE compatibility SET min_reader = 7 WHERE id = 1;";

#[test]
fn an_older_daemon_opens_and_writes_a_newer_database() {
    let (_parent, folder) = folder();
    drop(Store::open(&folder).unwrap());
    let newer = Store::open_with(&folder, Schema(&[V1, V2, V3, V4, V5, LATER])).unwrap();
    newer.add_client(new_client(b"by the newer", "New")).unwrap();
    drop(newer);
    let older = Store::open(&folder).unwrap();
    assert!(older.paired_client_by_certificate(b"by the newer").is_some());
    older.add_client(new_client(b"by the older", "Old")).unwrap();
    drop(older);
    let newer = Store::open_with(&folder, Schema(&[V1, V2, V3, V4, V5, LATER])).unwrap();
    assert!(newer.paired_client_by_certificate(b"by the older").is_some());
    let sum: i64 = newer
        .connection()
        .query_row("SELECT sum(later) FROM client", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 14, "the older daemon's row has the newer column's default");
}

#[test]
fn a_daemon_that_knows_no_profiles_opens_a_database_with_some() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let client = store.add_client(new_client(b"certificate", "TV")).unwrap();
    store.profile_of(client.id).unwrap();
    drop(store);
    let older = Store::open_with(&folder, Schema(&[V1])).unwrap();
    assert!(older.paired_client_by_certificate(b"certificate").is_some());
    older.remove_client(client.id).unwrap();
    drop(older);
    assert_eq!(Store::open(&folder).unwrap().profile_of(client.id).unwrap().0, 0);
}

#[test]
fn a_daemon_that_knows_no_prepared_network_opens_a_database_with_one() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    let passphrase = Some(zeroize::Zeroizing::new("12345678".to_owned()));
    let network = PreparedNetwork { ssid: "home".to_owned(), passphrase };
    assert_eq!(format!("{network:?}"), "PreparedNetwork { .. }");
    network::replace_prepared_network(&store.connection(), Some(&network), 7).unwrap();
    assert!(!format!("{:?}", store.copy().unwrap()).contains("home"), "it is in no backup");
    drop(store);
    let older = Store::open_with(&folder, Schema(&[V1, V2, V3])).unwrap();
    older.put_settings(&[("name".to_owned(), "\"Den\"".to_owned())]).unwrap();
    drop(older);
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.prepared_network().unwrap(), Some(network));
    for _ in 0..2 {
        store.forget_prepared_network().unwrap();
        assert_eq!(store.prepared_network().unwrap(), None);
    }
}

#[test]
fn a_database_that_forbids_older_readers_is_left_alone() {
    let (_parent, folder) = folder();
    drop(Store::open_with(&folder, Schema(&[V1, V2, V3, V4, V5, LATER, FORBIDS])).unwrap());
    let before = fs::read(folder.join(DATABASE_NAME)).unwrap();
    let error = Store::open(&folder).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { min_reader: 7, known: 5, .. }), "{error}");
    assert_eq!(fs::read(folder.join(DATABASE_NAME)).unwrap(), before);
}

#[test]
fn a_damaged_database_is_named_and_kept() {
    for damage in [b"this is not a database, it is far too short a story".as_slice(), &[0xFF; 8192]]
    {
        let (_parent, folder) = folder();
        drop(Store::open(&folder).unwrap());
        let database = folder.join(DATABASE_NAME);
        fs::write(&database, damage).unwrap();
        let error = Store::open(&folder).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("state.db"));
        assert_eq!(fs::read(&database).unwrap(), damage);
    }
}

#[test]
fn a_page_in_the_middle_that_is_damaged_is_found() {
    let (_parent, folder) = folder();
    let store = Store::open(&folder).unwrap();
    for index in 0..40u32 {
        store.add_client(new_client(&[index as u8; 1024], "device")).unwrap();
    }
    drop(store);
    let database = folder.join(DATABASE_NAME);
    let mut bytes = fs::read(&database).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 4096].fill(0xA5);
    fs::write(&database, &bytes).unwrap();
    assert!(matches!(Store::open(&folder), Err(StoreError::Damaged { .. })));
}

proptest! {
    #[test]
    fn clean_names_are_short_and_printable(name in any::<String>()) {
        if let Some(clean) = clean_name(&name) {
            prop_assert!(!clean.is_empty() && clean.chars().count() <= MAX_NAME_CHARS);
            prop_assert!(!clean.chars().any(char::is_control));
            prop_assert_eq!(clean_name(&clean), Some(clean.clone()));
        }
    }

    #[test]
    fn ids_survive_their_text(id in any::<[u8; 32]>(), junk in ".{0,80}") {
        let id = ClientId(id);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        if let Ok(id) = junk.parse::<ClientId>() {
            prop_assert_eq!(id.to_string(), junk.to_lowercase());
        }
    }
}
