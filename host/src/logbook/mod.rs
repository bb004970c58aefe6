//! The newest log records, kept in memory: what the owner of a box without a shell reads, follows and sends along.
//!
//! A [`Layer`](tracing_subscriber::Layer) beside the one that writes to the journal takes each record down, shortened
//! and with known shapes of secrets struck out ([`redact`]), and puts it into a ring that is bounded in number and in
//! bytes. Warnings and errors stay in a second, smaller ring for as long as there are no newer ones, so that an hour of
//! chatter does not wash away why something broke. Whoever follows gets a bounded queue and is told how many records it
//! was too slow for.
//!
//! The lock around the rings is held for as long as a pointer is moved in, or pointers are copied out; records are
//! looked through after that. So a thread of a stream that logs waits for nobody who reads.
//!
//! Deliberately absent: a file. What must outlive the host is in the journal.

mod follow;
mod layer;
mod record;
mod redact;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

pub use follow::{Followed, Follower};
pub use layer::BookLayer;
pub use record::{Filter, Level, Record};
pub use redact::{REDACTED, redact};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// As many records, at least 1.
    pub records: usize,
    /// As many bytes of records.
    pub bytes: usize,
    /// As many warnings and errors, beside the others.
    pub troubles: usize,
    /// As many records may wait for a follower; a slower one misses some.
    pub lag: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 4000, bytes: 1024 * 1024, troubles: 256, lag: 256 }
    }
}

/// The book; clones share it.
#[derive(Clone)]
pub struct Logbook {
    shared: Arc<Shared>,
}

struct Shared {
    rings: Mutex<Rings>,
    followers: broadcast::Sender<Arc<Record>>,
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

#[derive(Default)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
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
    pub records: Vec<Arc<Record>>,
    /// The oldest record that is still kept; 0 if none is.
    pub oldest: u64,
    /// The newest record there is; 0 if there never was one.
    pub newest: u64,
}

impl Logbook {
    /// An empty book. `clock` is the wall clock, in milliseconds since 1970.
    pub fn new(limits: Limits, clock: fn() -> u64) -> Self {
        let (followers, _) = broadcast::channel(limits.lag.max(1));
        let rings = Rings { newest: 0, all: Ring::default(), troubles: Ring::default() };
        Self { shared: Arc::new(Shared { rings: Mutex::new(rings), followers, limits, clock }) }
    }

    /// What takes records down here.
    pub fn layer(&self) -> BookLayer {
        BookLayer::new(self.clone())
    }

    /// The records that are asked for, of those that are kept.
    pub fn read(&self, query: &Query) -> Page {
        let (records, newest) = {
            let rings = self.lock();
            (rings.all.records.clone(), rings.newest)
        };
        let oldest = records.front().map_or(0, |record| record.sequence);
        let (after, before) = (query.after.unwrap_or(0), query.before.unwrap_or(u64::MAX));
        let wanted = records.into_iter().filter(|record| {
            record.sequence > after && record.sequence < before && query.filter.takes(record)
        });
        let records = if query.after.is_some() && query.before.is_none() {
            wanted.take(query.limit).collect()
        } else {
            let mut newest_first: Vec<_> = wanted.rev().take(query.limit).collect();
            newest_first.reverse();
            newest_first
        };
        Page { records, oldest, newest }
    }

    /// The newest warnings and errors, oldest first; some may be older than everything that [`Self::read`] knows.
    pub fn troubles(&self) -> Vec<Arc<Record>> {
        let records = self.lock().troubles.records.clone();
        records.into()
    }

    /// Every record from now on that passes the filter; with `after`, first those that are newer than that and still
    /// kept. A number that this book never gave is of a host before this one: then everything kept comes first.
    pub fn follow(&self, filter: Filter, after: Option<u64>) -> Follower {
        // Under the lock nothing is written, so that nothing is lost or told twice between the two.
        let rings = self.lock();
        let live = self.shared.followers.subscribe();
        let Some(after) = after else { return Follower::new(filter, VecDeque::new(), 0, live) };
        let after = if after > rings.newest { 0 } else { after };
        let mut backlog = rings.all.records.clone();
        let newest = rings.newest;
        drop(rings);
        backlog.retain(|record| record.sequence > after);
        let oldest = backlog.front().map_or(newest + 1, |record| record.sequence);
        Follower::new(filter, backlog, oldest - after - 1, live)
    }

    fn now(&self) -> u64 {
        (self.shared.clock)()
    }

    /// Puts a record in and gives it its number.
    fn put(&self, mut record: Record) {
        let limits = self.shared.limits;
        let is_trouble = record.level <= Level::Warn;
        let mut rings = self.lock();
        rings.newest += 1;
        record.sequence = rings.newest;
        let record = Arc::new(record);
        let mut gone = Vec::new();
        if is_trouble {
            // These are not many and are not long: a quarter of the bytes is theirs.
            rings.troubles.put(Arc::clone(&record), limits.troubles, limits.bytes / 4, &mut gone);
        }
        rings.all.put(Arc::clone(&record), limits.records, limits.bytes, &mut gone);
        // It fails if nobody follows.
        let _ = self.shared.followers.send(record);
        drop(rings);
        // What went is freed after the lock.
        drop(gone);
    }

    // A panic elsewhere leaves the rings whole: what could panic, the formatting, is over before the lock is taken.
    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.shared.rings.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Ring {
    fn put(&mut self, record: Arc<Record>, most: usize, bytes: usize, gone: &mut Vec<Arc<Record>>) {
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > most.max(1) || (self.bytes > bytes && self.records.len() > 1) {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.bytes();
            gone.push(oldest);
        }
    }
}

/// The time that is shown beside a record, in milliseconds since 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
