//! Where one thread waits for others: a small state of fixed capacity and a bell.
//!
//! This is the channel of the stream threads. Ready-made channels keep every message until it is read; a mailbox keeps
//! what still matters - the newest picture, the newest address, "an IDR is wanted" - so nothing a client sends can fill
//! it and no wish is ever lost for want of room. The lock inside is the hand-over itself: it is held while something is
//! moved in or out, never while a thread works or waits for a device.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use punktfunk_core::time::Timestamp;

use crate::clock;

/// A mailbox with state `S`; one thread waits on it, any may post.
#[derive(Debug)]
pub(super) struct Mailbox<S> {
    state: Mutex<S>,
    bell: Condvar,
}

/// What a look into the mailbox found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look<R> {
    /// Something to do.
    Ready(R),
    /// Nothing before this moment, unless something is posted.
    At(Timestamp),
    /// Nothing until something is posted.
    Whenever,
}

impl<S> Mailbox<S> {
    pub(super) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), bell: Condvar::new() }
    }

    /// Changes the state and rings. `change` only moves things.
    pub(super) fn post<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.lock());
        self.bell.notify_one();
        result
    }

    /// Looks without waiting and without ringing.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut S) -> R) -> R {
        look(&mut self.lock())
    }

    /// Looks at the state, now and whenever it may have changed, until there is something to do.
    pub(super) fn wait<R>(&self, mut look: impl FnMut(&mut S, Timestamp) -> Look<R>) -> R {
        let mut state = self.lock();
        loop {
            state = match look(&mut state, clock::now()) {
                Look::Ready(result) => return result,
                Look::At(then) => {
                    let waited = self.bell.wait_timeout(state, clock::until(then));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Look::Whenever => self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A poisoned lock is no reason to stop: nothing that can panic runs under it half-way through a change.
    fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_waiter_wakes_for_a_post_and_for_its_time() {
        let mailbox = Mailbox::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                mailbox
                    .wait(|state, _| if *state > 0 { Look::Ready(*state) } else { Look::Whenever })
            });
            mailbox.post(|state| *state = 7);
            assert_eq!(waiter.join().unwrap(), 7);
        });
        let then = clock::now() + Duration::from_millis(2);
        let woke =
            mailbox.wait(|_, now| if now < then { Look::At(then) } else { Look::Ready(now) });
        assert!(woke >= then);
    }
}
