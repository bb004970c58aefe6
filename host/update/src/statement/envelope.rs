//! A statement with the signatures under it, as it travels and is kept.
//!
//! The statement is carried as text and signed as text, so no two programs can differ about which bytes were signed.
//! Nothing of the text is looked into before a signature under it holds.
//!
//! Deliberately absent: whether the statement holds now. That is [`judge`](super::judge).

use serde::{Deserialize, Serialize};

use super::hex::unhex;
use super::keys::{KeyId, KeyRing};
use super::{MAX_ENVELOPE_BYTES, content};
use crate::error::UpdateError;

/// What stands before the statement's bytes in what is signed, so that a signature of this kind is never one of another.
pub const DOMAIN: &[u8] = b"punktfunk release statement v1\0";
/// As many signatures an envelope has.
pub const MAX_SIGNATURES: usize = 8;

/// A statement and who signed it. What it says is believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The statement's JSON.
    pub statement: String,
    /// Under it, at most [`MAX_SIGNATURES`].
    pub signatures: Vec<Signature>,
}

/// One signature. Both are kept as they came: of a key or a kind that this program does not know, it is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The id of the key.
    pub key: String,
    /// Ed25519 over [`signed_text`], 128 hexadecimal digits.
    pub signature: String,
}

/// What is signed for a statement.
pub fn signed_text(statement: &str) -> Vec<u8> {
    [DOMAIN, statement.as_bytes()].concat()
}

impl Envelope {
    /// Reads one. Fields that are not known are passed over.
    ///
    /// # Errors
    /// [`UpdateError::Content`] when it is longer than [`MAX_ENVELOPE_BYTES`], is no envelope, or has more signatures than
    /// [`MAX_SIGNATURES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, UpdateError> {
        let got = bytes.len() as u64;
        if got > MAX_ENVELOPE_BYTES {
            return Err(content(format!(
                "the envelope has {got} bytes, and {MAX_ENVELOPE_BYTES} are the most"
            )));
        }
        let envelope: Self = serde_json::from_slice(bytes)
            .map_err(|error| content(format!("the envelope cannot be read: {error}")))?;
        let count = envelope.signatures.len();
        if count > MAX_SIGNATURES {
            return Err(content(format!(
                "the envelope has {count} signatures, and {MAX_SIGNATURES} are the most"
            )));
        }
        Ok(envelope)
    }

    /// The keys of the ring that signed it, without those that are `revoked`. There is one at least.
    ///
    /// # Errors
    /// [`UpdateError::Signature`] with what is wrong with the signatures, when none of them holds.
    pub fn verify(
        &self,
        ring: &KeyRing,
        revoked: impl Fn(KeyId) -> bool,
    ) -> Result<Vec<KeyId>, UpdateError> {
        let text = signed_text(&self.statement);
        let mut holding: Vec<KeyId> = Vec::new();
        let mut faults: Vec<String> = Vec::new();
        for Signature { key, signature } in &self.signatures {
            let known = KeyId::parse(key).and_then(|id| Some((id, ring.key(id)?)));
            let Some((id, key)) = known else {
                faults.push("one is by a key that is not known here".to_owned());
                continue;
            };
            let holds = unhex(signature).is_some_and(|signature| key.signed(&text, &signature));
            if !holds {
                faults.push(format!("the one by key {id} is not of this statement"));
            } else if revoked(id) {
                faults.push(format!("key {id} was revoked"));
            } else if !holding.contains(&id) {
                holding.push(id);
            }
        }
        if !holding.is_empty() {
            return Ok(holding);
        }
        let detail =
            if faults.is_empty() { "it has no signature".to_owned() } else { faults.join("; ") };
        Err(UpdateError::Signature { detail: super::plain(&detail) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found with an envelope's JSON.
    fn fault(json: &str) -> String {
        match Envelope::parse(json.as_bytes()) {
            Err(UpdateError::Content { detail }) => detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_envelope_is_read_within_its_limits() {
        let one = r#"{"key":"00","signature":"00","kind":"later"}"#;
        let read = Envelope::parse(
            format!(r#"{{"later":[1],"statement":"{{}}","signatures":[{one}]}}"#).as_bytes(),
        )
        .unwrap();
        assert_eq!((read.statement.as_str(), read.signatures.len()), ("{}", 1));

        let many = |count: usize| {
            format!(r#"{{"statement":"","signatures":[{}]}}"#, vec![one; count].join(","))
        };
        assert!(Envelope::parse(many(8).as_bytes()).is_ok());
        assert!(fault(&many(9)).contains("9 signatures"));
        let long = format!(r#"{{"statement":"{}","signatures":[]}}"#, "a".repeat(64 << 10));
        assert!(fault(&long).contains("65536 are the most"));
        let exact = MAX_ENVELOPE_BYTES as usize - r#"{"statement":"","signatures":[]}"#.len();
        let fits = format!(r#"{{"statement":"{}","signatures":[]}}"#, "a".repeat(exact));
        assert!(Envelope::parse(fits.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for wrong in [
            "",
            "{",
            "null",
            "<html>log in to this network</html>",
            r#"{"statement":"a"}"#,
            r#"{"signatures":[]}"#,
            r#"{"statement":{},"signatures":[]}"#,
            r#"{"statement":"a","signatures":[{"key":"a"}]}"#,
            r#"{"statement":"a","statement":"b","signatures":[]}"#,
            r#"{"statement":"a","signatures":[],"signatures":[]}"#,
            r#"{"statement":"a","signatures":[]} {}"#,
            &format!(r#"{{"later":{}"#, "[".repeat(10_000)),
        ] {
            assert!(fault(wrong).contains("cannot be read"), "{wrong}");
        }
        assert!(Envelope::parse(b"{\"statement\":\"\xff\",\"signatures\":[]}").is_err());
    }
}
