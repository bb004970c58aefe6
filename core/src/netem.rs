//! A seeded network: loses, doubles, delays and reorders datagrams, the same way in every run.
//!
//! The fate of a datagram follows from the seed and its number on the link, not from what was asked before, so two
//! senders that are compared meet the same losses. Time is the caller's. Bursts of loss follow Gilbert and Elliott: a
//! good and a bad state with a loss rate each.
//!
//! Deliberately absent: a bandwidth. What a sender's pace does to a queue is measured on a real link.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// How a link treats datagrams. Probabilities are in `0.0..=1.0`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOptions {
    /// How datagrams are lost.
    pub loss: Loss,
    /// How many are delivered twice.
    pub duplication: f64,
    /// How many are held back by [`reorder_by`](Self::reorder_by), so that later ones overtake them.
    pub reordering: f64,
    /// How long a reordered datagram is held back.
    pub reorder_by: Duration,
    /// What every datagram takes at least.
    pub delay: Duration,
    /// What is added at most, evenly spread; beyond the gap between datagrams it reorders them too.
    pub jitter: Duration,
}

/// How datagrams are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each on its own, with this probability.
    Independent(f64),
    /// In bursts.
    GilbertElliott {
        /// The probability that a good link turns bad, per datagram.
        turn_bad: f64,
        /// The probability that a bad link turns good, per datagram.
        turn_good: f64,
        /// Loss on a good link.
        good_loss: f64,
        /// Loss on a bad link.
        bad_loss: f64,
    },
}

impl LinkOptions {
    /// A link that does nothing to anybody.
    pub const PERFECT: Self = Self {
        loss: Loss::Independent(0.0),
        duplication: 0.0,
        reordering: 0.0,
        reorder_by: Duration::ZERO,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };
}

/// One direction of a network.
#[derive(Debug)]
pub struct Link {
    options: LinkOptions,
    seed: u64,
    /// Datagrams pushed so far.
    number: u64,
    bad: bool,
    lost: u64,
    /// What is under way, by arrival and then by order of departure.
    under_way: BTreeMap<(Timestamp, u64, bool), Vec<u8>>,
}

/// What a number is drawn for: each purpose has its own sequence.
#[derive(Clone, Copy)]
enum Draw {
    State = 1,
    Loss,
    Duplicate,
    Reorder,
    Jitter,
    DuplicateJitter,
}

impl Link {
    /// A link whose behaviour follows from `seed`.
    pub fn new(options: LinkOptions, seed: u64) -> Self {
        Self { options, seed, number: 0, bad: false, lost: 0, under_way: BTreeMap::new() }
    }

    /// Sends one datagram at `now`.
    pub fn push(&mut self, now: Timestamp, datagram: &[u8]) {
        let number = self.number;
        self.number += 1;
        if self.loses(number) {
            self.lost += 1;
            return;
        }
        let held = if self.draw(number, Draw::Reorder) < self.options.reordering {
            self.options.reorder_by
        } else {
            Duration::ZERO
        };
        let leaves = now + self.options.delay + held;
        let jitter = |draw| self.options.jitter.mul_f64(self.draw(number, draw));
        let copies = [
            (false, leaves + jitter(Draw::Jitter)),
            (true, leaves + jitter(Draw::DuplicateJitter)),
        ];
        let twice = self.draw(number, Draw::Duplicate) < self.options.duplication;
        for (second, at) in copies.into_iter().take(1 + usize::from(twice)) {
            self.under_way.insert((at, number, second), datagram.to_vec());
        }
    }

    /// The next datagram that has arrived by `now`.
    pub fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Vec<u8>)> {
        let entry = self.under_way.first_entry()?;
        let at = entry.key().0;
        (at <= now).then(|| (at, entry.remove()))
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Timestamp> {
        self.under_way.first_key_value().map(|(key, _)| key.0)
    }

    /// How many datagrams were lost so far.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn loses(&mut self, number: u64) -> bool {
        let probability = match self.options.loss {
            Loss::Independent(probability) => probability,
            Loss::GilbertElliott { turn_bad, turn_good, good_loss, bad_loss } => {
                let turn = if self.bad { turn_good } else { turn_bad };
                if self.draw(number, Draw::State) < turn {
                    self.bad = !self.bad;
                }
                if self.bad { bad_loss } else { good_loss }
            }
        };
        self.draw(number, Draw::Loss) < probability
    }

    /// A number in `0.0..1.0` for one purpose of one datagram.
    fn draw(&self, number: u64, draw: Draw) -> f64 {
        let mixed = mix(mix(self.seed ^ mix(draw as u64)) ^ mix(number.wrapping_add(1)));
        // 53 bits are what a double holds exactly.
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the datagrams that arrive out of `count`, one per millisecond.
    fn arrivals(options: LinkOptions, seed: u64, count: u32) -> Vec<u32> {
        let mut link = Link::new(options, seed);
        for n in 0..count {
            link.push(Timestamp::from_micros(u64::from(n) * 1000), &n.to_le_bytes());
        }
        let end = Timestamp::from_micros(u64::MAX);
        let popped = std::iter::from_fn(|| link.pop(end)).map(|(_, datagram)| datagram);
        popped.map(|d| u32::from_le_bytes(d.try_into().unwrap())).collect()
    }

    #[test]
    fn a_perfect_link_is_a_wire() {
        assert_eq!(arrivals(LinkOptions::PERFECT, 7, 50), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_seed_decides() {
        let rough = LinkOptions {
            loss: Loss::Independent(0.1),
            duplication: 0.1,
            reordering: 0.2,
            reorder_by: Duration::from_millis(3),
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(300),
        };
        let one = arrivals(rough.clone(), 1, 500);
        assert_eq!(one, arrivals(rough.clone(), 1, 500));
        assert_ne!(one, arrivals(rough, 2, 500));
        assert!(one.windows(2).any(|pair| pair[0] > pair[1]), "nothing was reordered");
        assert!(one.windows(2).any(|pair| pair[0] == pair[1]), "nothing was doubled");
    }

    #[test]
    fn loss_rates_are_what_they_say() {
        let lost =
            |loss| 20_000 - arrivals(LinkOptions { loss, ..LinkOptions::PERFECT }, 3, 20_000).len();
        let independent = lost(Loss::Independent(0.05));
        assert!((900..1100).contains(&independent), "{independent}");
        // A tenth of the time in the bad state, which loses half: five percent again, but in bursts.
        let bursts =
            Loss::GilbertElliott { turn_bad: 0.01, turn_good: 0.09, good_loss: 0.0, bad_loss: 0.5 };
        let bursty = lost(bursts);
        assert!((800..1200).contains(&bursty), "{bursty}");
    }

    #[test]
    fn nothing_arrives_before_its_time() {
        let delay = Duration::from_millis(5);
        let mut link = Link::new(LinkOptions { delay, ..LinkOptions::PERFECT }, 0);
        link.push(Timestamp::from_micros(100), b"x");
        assert_eq!(link.next_arrival(), Some(Timestamp::from_micros(5_100)));
        assert_eq!(link.pop(Timestamp::from_micros(5_099)), None);
        assert!(link.pop(Timestamp::from_micros(5_100)).is_some());
    }
}
