//! The memory against replays.

use crate::seal::TAG_BYTES;

/// How many numbers below the newest one are remembered. Messages on different channels overtake each other by a few.
const WINDOW: u32 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// Which of the last 1024 numbers were seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ReplayWindow {
    /// The newest number seen; nothing was seen if there is none.
    newest: Option<u32>,
    /// Bit `n % 1024` belongs to number `n`.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Whether a number is new and not older than the window.
    pub(super) fn is_fresh(&self, number: u32) -> bool {
        match self.newest {
            None => true,
            Some(newest) if number > newest => true,
            Some(newest) if newest - number >= WINDOW => false,
            Some(_) => !self.bit(number),
        }
    }

    /// How far a number is ahead of the newest one.
    pub(super) fn leap(&self, number: u32) -> u32 {
        number.saturating_sub(self.newest.unwrap_or(0))
    }

    /// Remembers a number that is fresh.
    pub(super) fn accept(&mut self, number: u32) {
        match self.newest {
            Some(newest) if number <= newest => {}
            Some(newest) if number - newest < WINDOW => {
                for skipped in newest + 1..number {
                    self.set(skipped, false);
                }
                self.newest = Some(number);
            }
            _ => {
                self.seen = [0; WORDS];
                self.newest = Some(number);
            }
        }
        self.set(number, true);
    }

    fn bit(&self, number: u32) -> bool {
        self.seen[place(number).0] & place(number).1 != 0
    }

    fn set(&mut self, number: u32, seen: bool) {
        let (word, bit) = place(number);
        if seen {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }
}

fn place(number: u32) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

/// The tags of the last 1024 messages: a repeated message has the tag of the first, whatever its number says.
pub(super) struct TagMemory {
    tags: Vec<[u8; TAG_BYTES]>,
    oldest: usize,
}

impl Default for TagMemory {
    fn default() -> Self {
        Self { tags: Vec::with_capacity(WINDOW as usize), oldest: 0 }
    }
}

impl TagMemory {
    pub(super) fn knows(&self, tag: &[u8; TAG_BYTES]) -> bool {
        self.tags.contains(tag)
    }

    pub(super) fn remember(&mut self, tag: [u8; TAG_BYTES]) {
        if self.tags.len() < WINDOW as usize {
            self.tags.push(tag);
        } else if let Some(slot) = self.tags.get_mut(self.oldest) {
            *slot = tag;
            self.oldest = (self.oldest + 1) % WINDOW as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(
            steps in prop::collection::vec((0u32..1500, any::<bool>()), 1..200), start: u32,
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut at = start;
            for (step, forward) in steps {
                at = if forward { at.saturating_add(step) } else { at.saturating_sub(step) };
                let newest = seen.last().copied();
                let old = newest.is_some_and(|newest: u32| newest.saturating_sub(at) >= WINDOW);
                let fresh = !old && !seen.contains(&at);
                prop_assert_eq!(window.is_fresh(at), fresh, "number {}", at);
                if fresh {
                    window.accept(at);
                    seen.insert(at);
                }
            }
        }
    }

    #[test]
    fn tags_are_forgotten_after_1024_others() {
        let mut memory = TagMemory::default();
        let tag = |number: u32| {
            let mut tag = [0; TAG_BYTES];
            tag[..4].copy_from_slice(&number.to_le_bytes());
            tag
        };
        (0..1024).for_each(|number| memory.remember(tag(number)));
        assert!(memory.knows(&tag(0)) && memory.knows(&tag(1023)));
        memory.remember(tag(1024));
        assert!(!memory.knows(&tag(0)) && memory.knows(&tag(1)) && memory.knows(&tag(1024)));
    }
}
