//! The name under which this host is found without a name server, as the network has it now.
//!
//! Whoever announces the host says so when it is announced, and again when another machine has that name and this one
//! took the next. That happens link by link: where nobody else has the first name it stays, so the console answers to all
//! of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As many names are known at once; a network that takes them away one after the other takes the oldest from us.
const MAX_NAMES: usize = 8;

/// The names, the newest last; clones share them.
#[derive(Debug, Clone, Default)]
pub struct LocalName {
    names: Arc<Mutex<Vec<String>>>,
}

impl LocalName {
    /// The host is found under this name from now on, with `.local`.
    pub fn add(&self, name: String) {
        let mut names = self.lock();
        names.retain(|known| *known != name);
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push(name);
    }

    /// The newest name, if the host is announced.
    pub fn newest(&self) -> Option<String> {
        self.lock().last().cloned()
    }

    /// Whether this holds of one of them.
    pub(super) fn any(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.lock().iter().any(|name| holds(name))
    }

    // Names are whole texts: a panic elsewhere leaves a list that is one.
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_is_told_and_the_oldest_is_left_in_the_end() {
        let names = LocalName::default();
        assert_eq!(names.newest(), None);
        let has = |name: String| names.any(|known| known == name);
        for number in 0..=MAX_NAMES {
            names.clone().add(format!("a-{number}.local"));
        }
        names.add("a-3.local".to_owned());
        assert_eq!(names.newest().as_deref(), Some("a-3.local"));
        assert!(!has("a-0.local".to_owned()));
        assert!((1..=MAX_NAMES).all(|number| has(format!("a-{number}.local"))));
    }
}
