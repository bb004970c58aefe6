//! The newest log records, kept in memory: what the owner of a box without a shell reads, follows and sends along.
//!
//! A [`Layer`](tracing_subscriber::Layer) beside the one that writes to the journal takes each record down, shortened
//! and with known shapes of secrets struck out ([`redact`]), and packs it into a ring that is bounded in number and in
//! bytes ([`ring`]); no record is an allocation of its own. Warnings and errors stay in a second, smaller ring for as
//! long as there are no newer ones, so that an hour of chatter does not wash away why something broke. Whoever follows
//! has a place in the ring, and is told how many records it was too slow for.
//!
//! The lock around the rings is held for as long as bytes are copied in or out; records are unpacked and looked through
//! after that. So a thread of a stream that logs waits for nobody who reads.
//!
//! Deliberately absent: a file. What must outlive the host is in the journal.

mod follow;
mod layer;
mod record;
mod redact;
mod ring;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use follow::{Followed, Follower};
pub use layer::BookLayer;
pub use record::{Filter, Level, Record};
pub use redact::{REDACTED, redact};

use follow::Place;
use record::{Packed, sequence_of, split};
use ring::Ring;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// As many records, at least 1.
    pub records: usize,
    /// As many bytes of records; there is always room for the longest one.
    pub bytes: usize,
    /// As many warnings and errors, beside the others.
    pub troubles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 2000, bytes: 256 * 1024, troubles: 256 }
    }
}

/// The book; clones share it.
#[derive(Clone)]
pub struct Logbook {
    shared: Arc<Shared>,
}

struct Shared {
    rings: Mutex<Rings>,
    /// Says that there is a new record.
    news: watch::Sender<()>,
    limits: Limits,
    /// The wall clock, in milliseconds since 1970.
    clock: fn() -> u64,
}

struct Rings {
    /// The number of the newest record; the first is 1.
    newest: u64,
    all: Ring,
    troubles: Ring,
}

/// Which records are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// What they must be like.
    pub filter: Filter,
    /// Only older ones than this.
    pub before: Option<u64>,
    /// Only newer ones than this; without `before`, the oldest of these come first.
    pub after: Option<u64>,
    /// As many at most.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// The oldest record that is still kept; 0 if none is.
    pub oldest: u64,
    /// The newest record there is; 0 if there never was one.
    pub newest: u64,
}

impl Logbook {
    /// An empty book. `clock` is the wall clock, in milliseconds since 1970.
    pub fn new(limits: Limits, clock: fn() -> u64) -> Self {
        let rings = Rings {
            newest: 0,
            all: Ring::new(limits.bytes, limits.records),
            // These are not many and are not long: a quarter of the bytes is theirs, beside the others.
            troubles: Ring::new(limits.bytes / 4, limits.troubles),
        };
        let (news, _) = watch::channel(());
        Self { shared: Arc::new(Shared { rings: Mutex::new(rings), news, limits, clock }) }
    }

    /// What takes records down here.
    pub fn layer(&self) -> BookLayer {
        BookLayer::new(self.clone())
    }

    /// The records that are asked for, of those that are kept.
    pub fn read(&self, query: &Query) -> Page {
        let mut kept = Vec::with_capacity(self.shared.limits.bytes);
        let rings = self.shared.lock();
        let (oldest, newest) = (rings.oldest(), rings.newest);
        rings.all.copy(0, usize::MAX, &mut kept);
        drop(rings);
        let (after, before) = (query.after.unwrap_or(0), query.before.unwrap_or(u64::MAX));
        let asked = |packed: &&[u8]| {
            let sequence = sequence_of(packed);
            sequence > after && sequence < before
        };
        let asked: Vec<_> = split(&kept).filter(asked).collect();
        let wanted = |packed: &[u8]| Record::unpack(packed).filter(|one| query.filter.takes(one));
        let records = if query.after.is_some() && query.before.is_none() {
            asked.into_iter().filter_map(wanted).take(query.limit).collect()
        } else {
            let newest_first = asked.into_iter().rev().filter_map(wanted);
            let mut records: Vec<_> = newest_first.take(query.limit).collect();
            records.reverse();
            records
        };
        Page { records, oldest: if kept.is_empty() { 0 } else { oldest }, newest }
    }

    /// The newest warnings and errors, oldest first; some may be older than everything that [`Self::read`] knows.
    pub fn troubles(&self) -> Vec<Record> {
        let mut kept = Vec::with_capacity(self.shared.limits.bytes / 4);
        self.shared.lock().troubles.copy(0, usize::MAX, &mut kept);
        split(&kept).filter_map(Record::unpack).collect()
    }

    /// Every record from now on that passes the filter; with `after`, first those that are newer than that and still
    /// kept. A number that this book never gave is of a host before this one: then everything kept comes first.
    pub fn follow(&self, filter: Filter, after: Option<u64>) -> Follower {
        let news = self.shared.news.subscribe();
        let rings = self.shared.lock();
        let place = match after {
            None => Place { seen: rings.newest, at: rings.all.end() },
            Some(after) => {
                let seen = if after > rings.newest { 0 } else { after };
                Place { seen, at: rings.all.begin() }
            }
        };
        drop(rings);
        Follower::new(Arc::downgrade(&self.shared), filter, place, news)
    }

    fn now(&self) -> u64 {
        (self.shared.clock)()
    }

    /// Puts a record in and gives it its number.
    fn put(&self, record: &Record) {
        let mut packed = Packed::new(record);
        let mut rings = self.shared.lock();
        rings.newest += 1;
        packed.number(rings.newest);
        if record.level <= Level::Warn {
            rings.troubles.put(&packed);
        }
        rings.all.put(&packed);
        drop(rings);
        self.shared.news.send_replace(());
    }
}

impl Shared {
    // A panic elsewhere leaves the rings whole: what could panic, the formatting, is over before the lock is taken.
    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rings {
    /// The number of the oldest record that is kept; of the next one, if none is.
    fn oldest(&self) -> u64 {
        self.newest + 1 - self.all.count() as u64
    }
}

impl Default for Logbook {
    fn default() -> Self {
        Self::new(Limits::default(), wall_clock)
    }
}

impl std::fmt::Debug for Logbook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logbook").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

/// The time that is shown beside a record, in milliseconds since 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
