//! Those who make the box, for tests: keys that are made of a number, statements that are changed, envelopes.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use punktfunk_update::name::{BlobDigest, Channel, Commit, Version};
use punktfunk_update::statement::{
    Envelope, KeyId, KeyRing, PublicKey, Release, SCHEMA, Signature, Statement, hex, signed_text,
};

/// When the statements of tests are made, unless they say otherwise, in seconds since 1970.
pub(crate) const MADE_AT: u64 = 1_800_000_000;
/// As long they hold, in seconds.
pub(crate) const HOLDS_S: u64 = 30 * 86_400;

/// A key whose secret is a number.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new(number: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::new(self.0.public_key().as_ref().try_into().unwrap())
    }

    pub(crate) fn id(&self) -> KeyId {
        self.public().id()
    }

    pub(crate) fn sign(&self, statement: &str) -> Signature {
        let signature = hex(self.0.sign(&signed_text(statement)).as_ref());
        Signature { key: self.id().to_string(), signature }
    }
}

/// The key in use, and the one that is to follow.
pub(crate) fn current() -> Key {
    Key::new(1)
}

pub(crate) fn next() -> Key {
    Key::new(2)
}

/// The ring of both.
pub(crate) fn ring() -> KeyRing {
    KeyRing::new(current().public(), Some(next().public())).unwrap()
}

/// `1.MINOR.0`.
pub(crate) fn version(minor: u32) -> Version {
    Version::new(1, minor, 0)
}

/// The release `1.MINOR.0`.
pub(crate) fn release(minor: u32) -> Release {
    let name = minor.to_be_bytes();
    Release {
        version: version(minor),
        commit: Commit(BlobDigest::of(&name).0),
        image: BlobDigest::of(&[&b"image"[..], &name].concat()),
        size_bytes: 700 << 20,
        unpacked_bytes: 2 << 30,
        minimum: version(0),
        changes: vec!["Streams start faster".to_owned()],
    }
}

/// A good statement that offers `1.MINOR.0`.
pub(crate) fn statement(minor: u32) -> Statement {
    Statement {
        schema: SCHEMA,
        channel: Channel::Stable,
        flavour: "slim".to_owned(),
        made_at: MADE_AT,
        expires_at: MADE_AT + HOLDS_S,
        floor: None,
        revoked: Vec::new(),
        withdrawn: Vec::new(),
        releases: vec![release(minor)],
    }
}

/// A good statement, changed.
pub(crate) fn changed(minor: u32, change: impl FnOnce(&mut Statement)) -> Statement {
    let mut statement = statement(minor);
    change(&mut statement);
    statement
}

/// The text of a statement.
pub(crate) fn text(statement: &Statement) -> String {
    serde_json::to_string(statement).unwrap()
}

/// The envelope of a text with these signatures.
pub(crate) fn envelope(text: &str, signatures: Vec<Signature>) -> Vec<u8> {
    serde_json::to_vec(&Envelope { statement: text.to_owned(), signatures }).unwrap()
}

/// The envelope of a text that these keys signed.
pub(crate) fn seal(text: &str, keys: &[&Key]) -> Vec<u8> {
    envelope(text, keys.iter().map(|key| key.sign(text)).collect())
}
