//! Secrets that the host makes: how they are drawn, written, read and compared.
//!
//! Long ones are 128 or 256 bits in hex; whoever shows one is looked up by its SHA-256, so that what lies in the store
//! opens nothing. The short code is for people who read it from a screen: eight characters of 32 that nobody confuses,
//! 40 bits. It is safe only because tries at it are counted; the long ones need no count.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Moment, Random};
use crate::store::StoredClaim;

/// The length of a claim's code.
pub const CLAIM_CODE_CHARS: usize = 8;
/// Its characters: no 0, O, 1 or I. As many as five bits count, so that each is as likely as the next.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// The longest text that is looked at as a claim's secret, in bytes: a token, or a code with some space around it.
const MAX_CLAIM_TEXT_BYTES: usize = 64;

/// The system has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes, so that no secret can be made")]
pub struct RandomError;

/// A secret as text, to be handed out once. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself, for the one who is to have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(super) fn into_inner(self) -> Zeroizing<String> {
        self.0
    }

    /// 32 random bytes in hex, after a prefix.
    pub(super) fn draw(random: &Random, prefix: &str) -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new([0; 32]);
        random(&mut *bytes)?;
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 64));
        text.push_str(prefix);
        push_hex(&mut text, &*bytes);
        Ok(Self(text))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

/// What somebody shows to claim the host. Wiped when dropped, never printed.
pub enum ClaimSecret {
    /// The long one.
    Token(Zeroizing<[u8; 16]>),
    /// The short one, in upper case.
    Code(Zeroizing<[u8; CLAIM_CODE_CHARS]>),
}

impl ClaimSecret {
    /// Reads what was typed or came with a link: 32 hex digits, or a code in either case with spaces and hyphens
    /// anywhere. `None` if it can be neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_CLAIM_TEXT_BYTES {
            return None;
        }
        let mut kept = Zeroizing::new(Vec::with_capacity(MAX_CLAIM_TEXT_BYTES));
        kept.extend(text.bytes().filter(|byte| !matches!(byte, b' ' | b'-')));
        if let Some(token) = from_hex::<16>(&kept) {
            return Some(Self::Token(token));
        }
        kept.make_ascii_uppercase();
        let code: [u8; CLAIM_CODE_CHARS] = kept.as_slice().try_into().ok()?;
        let code = Zeroizing::new(code);
        code.iter().all(|byte| ALPHABET.contains(byte)).then_some(Self::Code(code))
    }

    /// Whether it is the one of this claim.
    pub(super) fn opens(&self, claim: &StoredClaim) -> bool {
        match self {
            Self::Token(token) => token.ct_eq(&claim.token).into(),
            Self::Code(code) => code.ct_eq(claim.code.as_bytes()).into(),
        }
    }
}

impl fmt::Debug for ClaimSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(redacted)",
            Self::Code(_) => "Code(redacted)",
        })
    }
}

/// The machine's randomness.
pub(super) fn system_random(bytes: &mut [u8]) -> Result<(), RandomError> {
    SystemRandom::new().fill(bytes).map_err(|_| RandomError)
}

/// A claim with a token and a code of its own.
pub(super) fn new_claim(
    random: &Random,
    now: Moment,
    reason: &str,
) -> Result<StoredClaim, RandomError> {
    let mut token = [0; 16];
    random(&mut token)?;
    let code = new_code(random)?;
    let claim = StoredClaim { token, code, made_at: now.unix, reason: reason.to_owned() };
    token.zeroize();
    Ok(claim)
}

/// A code: each character is five random bits.
pub(super) fn new_code(random: &Random) -> Result<String, RandomError> {
    let mut bytes = Zeroizing::new([0; CLAIM_CODE_CHARS]);
    random(&mut *bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect())
}

/// What a secret is known by.
pub(super) fn fingerprint(secret: &str) -> [u8; 32] {
    sha256(secret.as_bytes())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
}

/// Bytes of hex digits in either case, exactly as many.
pub(super) fn from_hex<const N: usize>(digits: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| value.try_into().ok());
    let mut bytes = Zeroizing::new([0; N]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low): (Option<u8>, Option<u8>) = (nibble(pair[0]), nibble(pair[1]));
        *byte = high? << 4 | low?;
    }
    Some(bytes)
}
