//! Signing a statement, and showing one.
//!
//! What is signed went through the rules that a box judges it by: nobody is to learn from the boxes that a statement made
//! no sense. Whether every box believes it is not only the statement's affair: a box that believed the one before must
//! find the highest version again. So that one can be shown, and is compared.
//!
//! Deliberately absent: where releases are put. A signature is made where the keys are, which need not be there.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use punktfunk_update::name::BlobDigest;
use punktfunk_update::statement::keys::{KeyRing, PublicKey};
use punktfunk_update::statement::{Envelope, Memory, Statement, judge};
use serde_json::Value;

use crate::keys::SecretKey;

/// What to sign a statement with.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// One key, or the one in use and the one that follows.
    pub keys: &'a [SecretKey],
    /// The envelope that the boxes believed before, if there is one.
    pub previous: Option<&'a [u8]>,
    /// The time at which a box judges it, in seconds since 1970.
    pub unix: u64,
}

/// Signs the text of a statement, in the form in which it is written here: without spaces, fields in their order. The
/// answer is the envelope's bytes.
///
/// # Errors
/// It says something that no box understands, makes no sense, does not hold at that time, or is not believed by a box
/// that believed the previous one.
pub fn sign(text: &str, signing: Signing<'_>) -> anyhow::Result<Vec<u8>> {
    let Signing { keys, previous, unix } = signing;
    let [first, more @ ..] = keys else { bail!("there is no key to sign with") };
    if more.len() > 1 {
        bail!("{} keys are given; boxes know two", keys.len());
    }
    let statement: Statement = serde_json::from_str(text).context("that is no statement")?;
    let plain = Statement::parse(text)?;
    if plain != statement {
        bail!("a line of what is new is too long, or has control characters or spaces around it");
    }
    understood(text, &statement)?;
    let text = serde_json::to_string(&statement).context("it cannot be put into words")?;
    let envelope = envelope(&text, keys)?;

    let ring = KeyRing::new(first.public(), more.first().map(SecretKey::public))?;
    let memory = match previous {
        Some(previous) => remembered(previous, &statement)?,
        None => Memory::default(),
    };
    let Statement { channel, flavour, .. } = &statement;
    let judged = judge(&envelope, &ring, &memory, *channel, flavour, unix);
    judged.context("no box would believe it")?;
    Ok(envelope)
}

/// The envelope of a text with signatures by these keys, whatever the text says. For tests of those who must refuse it;
/// [`sign`] is for releases.
///
/// # Errors
/// It cannot be put into words.
pub fn envelope(text: &str, keys: &[SecretKey]) -> anyhow::Result<Vec<u8>> {
    let signatures = keys.iter().map(|key| key.sign(text)).collect();
    let envelope = Envelope { statement: text.to_owned(), signatures };
    let mut bytes = serde_json::to_vec_pretty(&envelope).context("it cannot be put into words")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What a box remembers that believed this envelope. Who signed it is not asked: it may have been a key that is gone.
fn remembered(envelope: &[u8], next: &Statement) -> anyhow::Result<Memory> {
    let envelope = Envelope::parse(envelope).context("the previous envelope")?;
    let statement = Statement::parse(&envelope.statement).context("the previous statement")?;
    if (statement.channel, &statement.flavour) != (next.channel, &next.flavour) {
        bail!(
            "the previous statement is of {} and {}, this one of {} and {}",
            statement.channel,
            statement.flavour,
            next.channel,
            next.flavour
        );
    }
    let digest = BlobDigest::of(envelope.statement.as_bytes());
    Ok(Memory::default().after(&statement, digest))
}

/// Refuses fields that no box knows: a `revokd` that is passed over revokes nothing.
fn understood(text: &str, statement: &Statement) -> anyhow::Result<()> {
    let given: Value = serde_json::from_str(text).context("that is no statement")?;
    let known = serde_json::to_value(statement).context("it cannot be put into words")?;
    let Some(field) = unknown(&given, &known) else { return Ok(()) };
    bail!("no box knows the field \"{}\"", field.escape_debug());
}

fn unknown<'a>(given: &'a Value, known: &Value) -> Option<&'a str> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            given.iter().find_map(|(name, value)| match known.get(name) {
                Some(known) => unknown(value, known),
                None => Some(name.as_str()),
            })
        }
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown(given, known))
        }
        _ => None,
    }
}

/// What an envelope says, for people, whether anybody believes it or not. With keys it says which of them signed it.
///
/// # Errors
/// It is no envelope.
pub fn show(bytes: &[u8], trusted: &[PublicKey]) -> anyhow::Result<String> {
    let envelope = Envelope::parse(bytes)?;
    let mut said = String::new();
    for signature in &envelope.signatures {
        let key = trusted.iter().find(|key| key.id().to_string() == signature.key);
        let alone =
            Envelope { statement: envelope.statement.clone(), signatures: vec![signature.clone()] };
        let found = match key {
            None => "not checked",
            Some(key) if alone.verify(&KeyRing::new(*key, None)?, |_| false).is_ok() => "good",
            Some(_) => "NOT GOOD",
        };
        let id: String = signature.key.chars().take(16).collect();
        writeln!(said, "signature by {}: {found}", id.escape_debug())?;
    }
    if envelope.signatures.is_empty() {
        writeln!(said, "signature: none")?;
    }
    match Statement::parse(&envelope.statement) {
        Ok(statement) => writeln!(said, "{}", serde_json::to_string_pretty(&statement)?)?,
        Err(error) => {
            writeln!(said, "{error}\n{}", envelope.statement.escape_debug())?;
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: u64 = 1_800_003_600;

    fn keys(seeds: &[u8]) -> Vec<SecretKey> {
        seeds.iter().map(|seed| SecretKey::from_seed(&[*seed; 32]).unwrap()).collect()
    }

    fn text() -> String {
        let (commit, image) = ("c1".repeat(32), "d1".repeat(32));
        format!(
            r#"{{
              "schema": 1, "channel": "stable", "flavour": "slim",
              "made_at": 1800000000, "expires_at": 1802592000,
              "revoked": [], "releases": [{{
                "version": "0.3.0", "commit": "{commit}", "image": "sha256:{image}",
                "size_bytes": 7, "unpacked_bytes": 9, "minimum": "0.1.0",
                "changes": ["Streams start faster"]
              }}]
            }}"#
        )
    }

    fn signed(text: &str, seeds: &[u8], previous: Option<&[u8]>) -> anyhow::Result<Vec<u8>> {
        sign(text, Signing { keys: &keys(seeds), previous, unix: UNIX })
    }

    fn refused(text: &str, previous: Option<&[u8]>) -> String {
        format!("{:#}", signed(text, &[1], previous).unwrap_err())
    }

    #[test]
    fn what_is_signed_is_believed() {
        for seeds in [&[1][..], &[1, 2]] {
            let envelope = signed(&text(), seeds, None).unwrap();
            assert_eq!(envelope, signed(&text(), seeds, None).unwrap());
            let parsed = Envelope::parse(&envelope).unwrap();
            assert_eq!(parsed.signatures.len(), seeds.len());
            assert!(parsed.statement.starts_with(r#"{"schema":1,"channel":"stable","#));
            let said = show(&envelope, &[keys(seeds)[0].public()]).unwrap();
            assert!(said.contains(": good\n") && said.contains("\"0.3.0\""), "{said}");
        }
        assert!(signed(&text(), &[], None).is_err());
        assert!(signed(&text(), &[1, 1], None).is_err());
        assert!(signed(&text(), &[1, 2, 3], None).is_err());
    }

    #[test]
    fn nonsense_is_not_signed() {
        let text = text();
        for (from, to, reason) in [
            ("\"revoked\"", "\"revokd\"", "no box knows the field \"revokd\""),
            ("\"changes\"", "\"change\"", "no box knows the field \"change\""),
            ("faster", "faster ", "spaces around"),
            ("faster", "faster\\n", "control characters"),
            ("\"schema\": 1", "\"schema\": 2", "schema 2"),
            ("\"size_bytes\": 7", "\"size_bytes\": 0", "0 bytes transferred"),
            ("1802592000", "1800003600", "has expired"),
            ("1800000000", "1800003601", "the clock stands before"),
            ("\"revoked\": []", "\"revoked\": [\"KEY\"]", "no id of a key"),
            ("\"revoked\": []", "\"revoked\": 1, \"revoked\": []", "no statement"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            let said = refused(&changed, None);
            assert!(said.contains(reason), "{reason}: {said}");
        }
        let own =
            text.replace("\"revoked\": []", &format!("\"revoked\": [\"{}\"]", keys(&[1])[0].id()));
        assert!(refused(&own, None).contains("revokes every key"));
        // With another key that remains it is a rotation.
        signed(&own, &[2], None).unwrap();
        signed(&own, &[1, 2], None).unwrap();
    }

    #[test]
    fn what_boxes_believed_before_is_gone_on_from() {
        let before = signed(&text(), &[1], None).unwrap();
        let later = text().replace("1800000000", "1800000060");
        signed(&later, &[2], Some(&before)).unwrap();
        signed(&later.replace("0.3.0", "0.3.1"), &[1], Some(&before)).unwrap();
        let lower = later.replace("0.3.0", "0.2.9");
        assert!(refused(&lower, Some(&before)).contains("0.2.9 is older than 0.3.0"));
        let withdrawn = lower.replace("\"revoked\": []", "\"withdrawn\": [\"0.3.0\"]");
        signed(&withdrawn, &[1], Some(&before)).unwrap();
        let same_time = text().replace("faster", "sooner");
        assert!(refused(&same_time, Some(&before)).contains("is older than"));
        let next = later.replace("stable", "next");
        assert!(refused(&next, Some(&before)).contains("of stable and slim, this one of next"));
        assert!(refused(&later, Some(b"{}")).contains("the previous envelope"));
    }

    #[test]
    fn what_is_shown_can_be_anything() {
        let forged = String::from_utf8(envelope("\u{1b}[31m{", &keys(&[1])).unwrap()).unwrap();
        let said = show(forged.as_bytes(), &[]).unwrap();
        assert!(said.contains("not checked") && !said.contains('\u{1b}'), "{said}");
        let changed = forged.replace("[31m", "[32m");
        let said = show(changed.as_bytes(), &[keys(&[1])[0].public()]).unwrap();
        assert!(said.contains("NOT GOOD"), "{said}");
        let none = show(&envelope("{}", &[]).unwrap(), &[]).unwrap();
        assert!(none.contains("signature: none"), "{none}");
        assert!(show(b"{", &[]).is_err());
    }
}
