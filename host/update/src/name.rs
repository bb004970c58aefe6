//! What things are called: versions, commits, digests of blobs, channels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{got}\" is no {what}")]
pub struct NameError {
    /// What it should be.
    what: &'static str,
    /// Its first characters.
    got: String,
}

impl NameError {
    fn new(what: &'static str, text: &str) -> Self {
        let got = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect();
        Self { what, got }
    }
}

/// What a system is called: three numbers, compared from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version([u32; 3]);

impl Version {
    /// The version of these numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self([major, minor, patch])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NameError::new("version; one looks like 1.4.2", text);
        // Digits alone: a sign or a space is no number here.
        let number = |part: &str| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten().ok_or_else(wrong)
        };
        let parts = text.split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        Ok(Self(parts.try_into().map_err(|_| wrong())?))
    }
}

/// 32 bytes in 64 hexadecimal digits, lower case.
fn hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .bytes()
        .map(|byte| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        })
        .collect();
    let bytes: Vec<u8> =
        digits?.chunks(2).map(|two| two[0] << 4 | two.get(1).unwrap_or(&0)).collect();
    if text.len() == 64 { bytes.try_into().ok() } else { None }
}

/// Which system it is: OSTree's checksum of its commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(pub [u8; 32]);

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl FromStr for Commit {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text)
            .map(Self)
            .ok_or_else(|| NameError::new("commit; one has 64 hexadecimal digits", text))
    }
}

/// Which blob it is: the SHA-256 of its bytes, written as registries do, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobDigest(pub [u8; 32]);

impl BlobDigest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digits alone, as files of it are called.
    pub fn digits(&self) -> String {
        Commit(self.0).to_string()
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        hex(&self.0, f)
    }
}

impl FromStr for BlobDigest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:").and_then(unhex);
        digits.map(Self).ok_or_else(|| NameError::new("digest; one looks like sha256:9f86..", text))
    }
}

/// Where releases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// For everybody.
    #[default]
    Stable,
    /// For those who want it early.
    Next,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stable => "stable",
            Self::Next => "next",
        })
    }
}

impl FromStr for Channel {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stable" => Ok(Self::Stable),
            "next" => Ok(Self::Next),
            _ => Err(NameError::new("channel; there are stable and next", text)),
        }
    }
}

macro_rules! as_text {
    ($($name:ident),+) => {
        $(impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        })+
    };
}

as_text!(Version, Commit, BlobDigest);

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip_and_nothing_else_is_one() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(digits.parse::<Commit>().unwrap().to_string(), digits);
        let digest: BlobDigest = format!("sha256:{digits}").parse().unwrap();
        assert_eq!(
            (digest.to_string(), digest.digits()),
            (format!("sha256:{digits}"), digits.clone())
        );
        let shout = digits.to_uppercase();
        for wrong in ["", "sha256:", &digits[1..], &format!("{digits}00"), &shout, &"é".repeat(32)]
        {
            assert!(wrong.parse::<Commit>().is_err(), "{wrong}");
            assert!(format!("sha256:{wrong}").parse::<BlobDigest>().is_err(), "{wrong}");
        }
        assert!(digits.parse::<BlobDigest>().is_err());
        assert!("1.10.0".parse::<Version>().unwrap() > "1.9.9".parse().unwrap());
        for wrong in
            ["", "1", "1.2", "1.2.3.4", "1..2", "+1.2.3", "1.2.x", "1.2.99999999999", " 1.2.3"]
        {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
        assert_eq!("next".parse::<Channel>().unwrap().to_string(), "next");
        assert!("nightly".parse::<Channel>().is_err());
    }
}
