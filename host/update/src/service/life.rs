//! How long nobody has asked for anything.

use std::time::Duration;

use tokio::sync::watch;

/// Clones share it.
#[derive(Clone)]
pub(super) struct Life(watch::Sender<Calls>);

#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    /// So many are being answered.
    open: usize,
    /// So many there ever were.
    count: u64,
}

/// A call that is being answered, until it is dropped.
pub(super) struct Call(Life);

impl Default for Life {
    fn default() -> Self {
        Self(watch::Sender::new(Calls::default()))
    }
}

impl Life {
    /// Somebody asks.
    pub(super) fn call(&self) -> Call {
        self.0.send_modify(|calls| {
            calls.open += 1;
            calls.count += 1;
        });
        Call(self.clone())
    }

    /// So many calls there ever were.
    pub(super) fn count(&self) -> u64 {
        self.0.borrow().count
    }

    /// Waits until no call has been there for so long.
    pub(super) async fn idle(&self, long: Duration) {
        let mut calls = self.0.subscribe();
        // It cannot fail: the sender is here.
        while calls.wait_for(|calls| calls.open == 0).await.is_ok() {
            tokio::select! {
                biased;
                _ = calls.changed() => {}
                () = tokio::time::sleep(long) => return,
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.send_modify(|calls| calls.open = calls.open.saturating_sub(1));
    }
}
