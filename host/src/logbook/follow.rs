//! Following: first what was asked for of the past, then everything as it happens.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Filter, Record};

/// Somebody who reads along.
#[derive(Debug)]
pub struct Follower {
    filter: Filter,
    backlog: VecDeque<Arc<Record>>,
    missed: u64,
    live: broadcast::Receiver<Arc<Record>>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A record.
    Record(Arc<Record>),
    /// So many records were gone before the follower came to them; whether they would have passed the filter, nobody
    /// knows.
    Missed(u64),
}

impl Follower {
    pub(super) fn new(
        filter: Filter,
        backlog: VecDeque<Arc<Record>>,
        missed: u64,
        live: broadcast::Receiver<Arc<Record>>,
    ) -> Self {
        Self { filter, backlog, missed, live }
    }

    /// What comes next; `None` once the book is closed. May be given up at any time without losing anything.
    pub async fn next(&mut self) -> Option<Followed> {
        if self.missed > 0 {
            return Some(Followed::Missed(std::mem::take(&mut self.missed)));
        }
        while let Some(record) = self.backlog.pop_front() {
            if self.filter.takes(&record) {
                return Some(Followed::Record(record));
            }
        }
        loop {
            match self.live.recv().await {
                Ok(record) if self.filter.takes(&record) => return Some(Followed::Record(record)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(Followed::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
