//! Names: of deployments, and of the loader's entries, which carry the count of tries.

use std::fmt;
use std::str::FromStr;

/// No text in a name is longer when an error repeats it, in characters.
const MAX_REPEATED: usize = 120;

/// What a text is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Not a commit and a serial number.
    #[error("`{0}` is no deployment's name")]
    Deployment(String),
    /// Not one of our entries.
    #[error("`{0}` is no name of an entry of ours")]
    EntryName(String),
    /// OSTree's entry lacks something or has it twice over.
    #[error("OSTree's entry {file} has no usable `{key}`")]
    Entry {
        /// Which.
        file: String,
        /// What it lacks.
        key: &'static str,
    },
}

fn repeated(text: &str) -> String {
    text.chars().take(MAX_REPEATED).collect()
}

/// Whether a text is a SHA-256 in lower hexadecimal digits, which is how OSTree names commits and kernels.
pub fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A number in plain digits; a sign or a space is none.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A deployment: the commit, and which of several deployments of that commit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId {
    commit: String,
    serial: u32,
}

impl DeploymentId {
    /// OSTree's checksum, 64 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}

impl FromStr for DeploymentId {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('.').filter(|(commit, _)| is_checksum(commit));
        let parts = parts.and_then(|(commit, serial)| Some((commit.to_owned(), number(serial)?)));
        let (commit, serial) = parts.ok_or_else(|| ModelError::Deployment(repeated(text)))?;
        Ok(Self { commit, serial })
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.commit, self.serial)
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.8}.{}", self.commit, self.serial)
    }
}

/// The loader's count of one entry. An entry without one is blessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// So many more starts; at 0 the loader takes any other entry first.
    pub left: u32,
    /// So many starts there were.
    pub done: u32,
}

impl Counter {
    /// What the loader makes of it when it starts the entry.
    pub const fn tried(self) -> Self {
        Self { left: self.left.saturating_sub(1), done: self.done.saturating_add(1) }
    }
}

/// The name of an entry's file: `pf-<commit>.<serial>[+LEFT[-DONE]].conf`.
///
/// spec: UAPI boot loader specification, "Boot counting".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName {
    /// What it starts.
    pub id: DeploymentId,
    /// The loader's count.
    pub counter: Option<Counter>,
}

impl FromStr for EntryName {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ModelError::EntryName(repeated(text));
        let inner = text.strip_prefix("pf-").and_then(|rest| rest.strip_suffix(".conf"));
        let inner = inner.ok_or_else(wrong)?;
        let (id, counter) = match inner.split_once('+') {
            None => (inner, None),
            Some((id, count)) => {
                let (left, done) = count.split_once('-').unwrap_or((count, "0"));
                let counter = number(left).zip(number(done)).ok_or_else(wrong)?;
                (id, Some(Counter { left: counter.0, done: counter.1 }))
            }
        };
        Ok(Self { id: id.parse().map_err(|_| wrong())?, counter })
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.counter {
            None => write!(f, "pf-{}.conf", self.id),
            Some(Counter { left, done: 0 }) => write!(f, "pf-{}+{left}.conf", self.id),
            Some(Counter { left, done }) => write!(f, "pf-{}+{left}-{done}.conf", self.id),
        }
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.id)?;
        self.counter.map_or(Ok(()), |Counter { left, done }| write!(f, "+{left}-{done}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> String {
        format!("{}.0", "ab".repeat(32))
    }

    #[test]
    fn names_of_entries_are_read() {
        let read = |rest: &str| format!("pf-{}{rest}.conf", id()).parse::<EntryName>();
        let count = |rest: &str| read(rest).unwrap().counter.map(|c| (c.left, c.done));
        assert_eq!(count(""), None);
        assert_eq!(count("+3"), Some((3, 0)));
        assert_eq!(count("+2-1"), Some((2, 1)));
        assert_eq!(count("+0-3"), Some((0, 3)));
        for wrong in ["+", "+-1", "+3-", "+ 3", "+3-1-1", "++3", "+99999999999", "x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!("pf-00.0.conf".parse::<EntryName>().is_err());
        assert!(id().to_uppercase().parse::<DeploymentId>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = text.parse::<EntryName>();
        }

        #[test]
        fn what_is_written_is_read(left in 0..12u32, done in 0..12u32, counted: bool) {
            let counter = counted.then_some(Counter { left, done });
            let name = EntryName { id: id().parse().unwrap(), counter };
            prop_assert_eq!(name.to_string().parse::<EntryName>().unwrap(), name);
        }
    }
}
