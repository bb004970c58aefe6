//! Following: first what was asked for of the past, then everything as it happens.

use std::sync::Weak;

use tokio::sync::watch;

use super::record::{sequence_of, split};
use super::{Filter, Record, Shared};

/// As many bytes of records a follower takes at once; so long it holds the lock that writers need, and so much memory
/// it has until it has told them.
const BATCH_BYTES: usize = 16 * 1024;

/// Somebody who reads along. It holds nothing but its place in the book: what is no longer kept when it comes to it, it
/// has missed.
pub struct Follower {
    book: Weak<Shared>,
    filter: Filter,
    place: Place,
    /// Packed records that were taken out and not looked at yet, from `told` on.
    batch: Vec<u8>,
    told: usize,
    news: watch::Receiver<()>,
}

/// How far a follower has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The number of the last record it knows of.
    pub(super) seen: u64,
    /// Where in the ring the next one begins, or an older one.
    pub(super) at: usize,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A record.
    Record(Record),
    /// So many records were gone before the follower came to them; whether they would have passed the filter, nobody
    /// knows.
    Missed(u64),
}

impl Follower {
    pub(super) fn new(
        book: Weak<Shared>,
        filter: Filter,
        place: Place,
        news: watch::Receiver<()>,
    ) -> Self {
        Self { book, filter, place, batch: Vec::new(), told: 0, news }
    }

    /// What comes next; `None` once the book is closed. May be given up at any time without losing anything.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            if let Some(record) = self.next_of_batch() {
                return Some(Followed::Record(record));
            }
            let missed = self.take_batch()?;
            if missed > 0 {
                return Some(Followed::Missed(missed));
            }
            if self.batch.is_empty() {
                self.news.changed().await.ok()?;
            }
        }
    }

    /// The next record of those that were taken out that passes the filter.
    fn next_of_batch(&mut self) -> Option<Record> {
        while let Some(packed) = split(&self.batch[self.told..]).next() {
            self.told += packed.len();
            let sequence = sequence_of(packed);
            if sequence <= self.place.seen {
                continue;
            }
            self.place.seen = sequence;
            let record = Record::unpack(packed).filter(|record| self.filter.takes(record));
            if record.is_some() {
                return record;
            }
        }
        None
    }

    /// Takes the next records out of the book; how many were gone before them. `None` once the book is closed.
    fn take_batch(&mut self) -> Option<u64> {
        // Who waits holds no memory.
        (self.batch, self.told) = (Vec::new(), 0);
        let book = self.book.upgrade()?;
        let mut batch = Vec::new();
        let rings = book.lock();
        if self.place.seen < rings.newest {
            let oldest = rings.oldest();
            let missed = oldest.saturating_sub(self.place.seen + 1);
            self.place.seen += missed;
            self.place.at = rings.all.copy(self.place.at, BATCH_BYTES, &mut batch);
            drop(rings);
            self.batch = batch;
            return Some(missed);
        }
        Some(0)
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("filter", &self.filter)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
