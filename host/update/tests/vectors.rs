//! One envelope that was signed once and must hold for ever: what is signed and how it is written may not change without
//! a number that says so.

use std::path::Path;

use punktfunk_update::name::{Channel, Version};
use punktfunk_update::statement::{Envelope, KeyRing, Memory, hex, judge, keys, signed_text};
use sha2::{Digest as _, Sha256};

const ENVELOPE: &[u8] = include_bytes!("vectors/envelope.json");

/// In the life of the envelope's statement, in seconds since 1970.
const NOW: u64 = 1_800_003_600;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn the_kept_envelope_is_believed() {
    let ring = KeyRing::read(&folder()).unwrap();
    let judged = judge(ENVELOPE, &ring, &Memory::default(), Channel::Stable, "slim", NOW).unwrap();
    let statement = judged.statement;
    assert_eq!((statement.made_at, statement.expires_at), (1_800_000_000, 1_802_592_000));
    assert_eq!(statement.floor, Some(Version::new(0, 1, 0)));
    assert_eq!(statement.revoked, ["00112233445566aa"]);
    assert_eq!(statement.withdrawn, [Version::new(0, 2, 0)]);
    let versions: Vec<_> = statement.releases.iter().map(|one| one.version.to_string()).collect();
    assert_eq!(versions, ["0.3.0", "0.1.9"]);
    let newest = &statement.releases[0];
    assert_eq!(newest.commit.to_string(), "c1".repeat(32));
    assert_eq!(newest.image.to_string(), format!("sha256:{}", "d1".repeat(32)));
    assert_eq!((newest.size_bytes, newest.unpacked_bytes), (734_003_200, 2_147_483_648));
    assert_eq!(newest.minimum, Version::new(0, 1, 0));
    assert_eq!(newest.changes, ["Streams start faster", "A broken update says why"]);
    let signed_by: Vec<_> = judged.signed_by.iter().map(ToString::to_string).collect();
    assert_eq!(signed_by, ["946f0ce22693aaf3"]);
}

#[test]
fn what_is_signed_is_the_domain_and_the_text() {
    let envelope = Envelope::parse(ENVELOPE).unwrap();
    let text = signed_text(&envelope.statement);
    assert!(text.starts_with(b"punktfunk release statement v1\0{\"schema\":1,"));
    let digest = hex(&Sha256::digest(&text));
    assert_eq!(digest, "e2e43a3636f2a4304021fb1b6f3934da8b774ba8c8a57d2a9cfd610284e93278");
}

#[test]
fn its_key_is_marked_as_one_for_tests() {
    for name in [keys::CURRENT, "current.key"] {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        assert!(text.starts_with(keys::TEST_MARK), "{text}");
    }
}
