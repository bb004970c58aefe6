//! What is wrong, kept up to date: each part of the host says what is wrong with it, and says so again when that changes.
//!
//! Whoever asks reads the whole list; those who follow events are told when it is another one.

use std::sync::{Arc, Mutex, PoisonError};

/// As many sentences one part may say; a list without an end helps nobody.
const MAX_SENTENCES: usize = 128;

/// What is wrong now; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    parts: Arc<Mutex<Vec<Part>>>,
}

/// A part's name, and what is wrong with it.
type Part = (&'static str, Vec<String>);

impl Problems {
    /// This is all that is wrong with this part now, in sentences for the owner. Parts are told in the order in which they
    /// first spoke.
    pub fn set(&self, part: &'static str, mut sentences: Vec<String>) {
        if sentences.len() > MAX_SENTENCES {
            let more = sentences.len() - MAX_SENTENCES;
            sentences.truncate(MAX_SENTENCES);
            sentences.push(format!("{more} more of this kind are not told"));
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match parts.iter_mut().find(|(name, _)| *name == part) {
            Some((_, said)) => *said = sentences,
            None => parts.push((part, sentences)),
        }
    }

    /// All that is wrong.
    pub fn all(&self) -> Vec<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().flat_map(|(_, said)| said.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_anew_what_is_wrong_with_it_and_nothing_of_others() {
        let problems = Problems::default();
        let say = |part, text: &[&str]| {
            problems.set(part, text.iter().map(|text| (*text).to_owned()).collect());
        };
        say("start", &["no encoder"]);
        say("apps", &["one", "two"]);
        assert_eq!(problems.all(), ["no encoder", "one", "two"]);
        say("start", &["no sound"]);
        say("apps", &[]);
        assert_eq!(problems.clone().all(), ["no sound"]);
        problems.set("apps", vec!["x".to_owned(); 500]);
        assert_eq!(problems.all().len(), 1 + MAX_SENTENCES + 1);
        assert_eq!(problems.all().last().unwrap(), "372 more of this kind are not told");
    }
}
