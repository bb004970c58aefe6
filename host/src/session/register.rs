//! What the sessions ask of the store and leave in it: what a client may do, and what its sessions were.
//!
//! Asking does not touch the disk. What is left is written by a thread of its own, `pf-register`: a session that ends
//! hands over a note and goes, and a disk that is full or slow costs the note and disturbs nobody.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::figures::{Spread, Tally};
use super::live::View;
use super::{ClientId, SessionError};
use crate::clock;
use crate::store::{EndedSession, Permission, Policy, Store};
use crate::stream::EndReason;

/// Notes that may wait for the disk.
const NOTES_WAITING: usize = 64;

/// The store, as the sessions see it. Dropping it waits until every note is written.
pub struct Register {
    store: Store,
    notes: Mutex<Option<SyncSender<EndedSession>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Register {
    /// A register that keeps its notes in this store.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn open(store: Store) -> std::io::Result<Self> {
        let (notes, waiting) = sync_channel(NOTES_WAITING);
        let thread = std::thread::Builder::new().name("pf-register".to_owned()).spawn({
            let store = store.clone();
            move || write(&store, &waiting)
        })?;
        Ok(Self { store, notes: Mutex::new(Some(notes)), thread: Mutex::new(Some(thread)) })
    }

    /// Whether the client may come in and, if it wants to, start something; the reason if not.
    pub(super) fn admit(&self, client: ClientId, starts: bool) -> Result<(), SessionError> {
        let policy = self.store.policy(client).ok_or(SessionError::NotPaired)?;
        if policy.has_expired() {
            return Err(SessionError::GuestTimeOver);
        }
        if starts && !policy.allows(Permission::Launch) {
            return Err(SessionError::MayNotLaunch);
        }
        Ok(())
    }

    /// Writes what waits and takes no more notes.
    pub(super) fn close(&self) {
        drop(lock(&self.notes).take());
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that notes past sessions panicked");
        }
    }

    fn note(&self, ended: EndedSession) {
        let notes = lock(&self.notes);
        let Some(notes) = &*notes else { return };
        if let Err(TrySendError::Full(ended)) = notes.try_send(ended) {
            tracing::warn!(app = ended.app, "a past session is not noted: the disk takes too long");
        }
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        self.close();
    }
}

fn write(store: &Store, notes: &Receiver<EndedSession>) {
    for ended in notes {
        if let Err(error) = store.remember_session(&ended) {
            tracing::warn!(%error, app = ended.app, "a past session is not noted");
        }
    }
}

// What lies behind these locks is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One session's page in the register.
#[derive(Clone)]
pub(super) struct Page {
    register: Arc<Register>,
    client: ClientId,
    /// As it was when the session began: who is removed meanwhile has none any more.
    client_name: String,
    app: String,
}

impl Page {
    pub(super) fn new(register: &Arc<Register>, client: ClientId, app: &str) -> Self {
        let known = register.store.client(client);
        Self {
            register: Arc::clone(register),
            client,
            client_name: known.map_or_else(|| client.to_string(), |client| client.name),
            app: app.to_owned(),
        }
    }

    /// What the client may do now; nothing if it is paired no more.
    fn policy(&self) -> Policy {
        let nothing = Policy { launch: false, input: false, expires_at: None };
        self.register.store.policy(self.client).unwrap_or(nothing)
    }

    pub(super) fn may_use_input(&self) -> bool {
        self.policy().allows(Permission::Input)
    }

    pub(super) fn time_is_over(&self) -> bool {
        self.policy().has_expired()
    }

    /// Notes that the session has ended.
    pub(super) fn note(&self, view: &View, reason: &EndReason) {
        let now = clock::now();
        let summary = Summary::of(view);
        self.register.note(EndedSession {
            client: self.client,
            client_name: self.client_name.clone(),
            app: self.app.clone(),
            mode: view.mode.to_string(),
            lasted: view.ended_at.unwrap_or(now).since(view.began_at),
            reason: reason.to_string(),
            figures: serde_json::to_string(&summary).unwrap_or_default(),
        });
    }
}

/// What is kept of the figures of a session: counts of all its streams, and how long their pictures took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Pictures of the source.
    pub captured: u64,
    /// Pictures that went out, repetitions included.
    pub sent: u64,
    /// Of these, repetitions.
    pub repeated: u64,
    /// Of these, those that restart the picture.
    pub idr: u64,
    /// Pictures that were dropped before the encoder.
    pub dropped: u64,
    /// Pictures that were coded and not sent, but for those at the end of a stream.
    pub unsendable: u64,
    /// Coded bytes that went out.
    pub bytes: u64,
    /// Datagrams that went out, parity included.
    pub datagrams: u64,
    /// From capture to the last datagram in microseconds, to within 1/32: half took no longer.
    pub latency_p50_us: u32,
    /// 95 of 100 took no longer.
    pub latency_p95_us: u32,
    /// 99 of 100 took no longer.
    pub latency_p99_us: u32,
}

impl Summary {
    fn of(view: &View) -> Self {
        Self::new(&view.tally, view.times.spread())
    }

    fn new(tally: &Tally, whole: Spread) -> Self {
        Self {
            captured: tally.captured,
            sent: tally.sent,
            repeated: tally.repeated,
            idr: tally.idr,
            dropped: tally.superseded + tally.over_rate,
            unsendable: tally.unsendable,
            bytes: tally.bytes,
            datagrams: tally.datagrams,
            latency_p50_us: whole.p50,
            latency_p95_us: whole.p95,
            latency_p99_us: whole.p99,
        }
    }
}

#[cfg(test)]
mod tests {
    use punktfunk_core::media::{
        FrameFate, FrameIndex, FrameKind, FrameShape, FrameTrace, Mode, SourceIndex,
    };
    use punktfunk_core::time::Timestamp;

    use super::*;
    use crate::store::NewClient;

    fn register() -> (tempfile::TempDir, Store, ClientId, Register) {
        let parent = tempfile::tempdir().unwrap();
        let store = Store::open(&parent.path().join("state")).unwrap();
        let client = store
            .add_client(NewClient {
                certificate_der: b"one".to_vec(),
                name: "TV".to_owned(),
                remote: [10, 0, 0, 5].into(),
            })
            .unwrap();
        let register = Register::open(store.clone()).unwrap();
        (parent, store, client.id, register)
    }

    #[test]
    fn who_may_not_is_told_why() {
        let (_parent, store, client, register) = register();
        assert_eq!(register.admit(client, true), Ok(()));
        assert_eq!(register.admit(ClientId([1; 32]), false), Err(SessionError::NotPaired));
        store.set_policy(client, Policy { launch: false, ..Policy::default() }).unwrap();
        assert_eq!(register.admit(client, true), Err(SessionError::MayNotLaunch));
        assert_eq!(register.admit(client, false), Ok(()));
        store.set_policy(client, Policy { expires_at: Some(1), ..Policy::default() }).unwrap();
        assert_eq!(register.admit(client, false), Err(SessionError::GuestTimeOver));
    }

    #[test]
    fn a_session_is_noted_under_the_name_it_had_also_if_its_client_is_gone() {
        let (_parent, store, client, register) = register();
        let register = Arc::new(register);
        let page = Page::new(&register, client, "Card");
        assert!(page.may_use_input() && !page.time_is_over());
        store.remove_client(client).unwrap();
        assert!(!page.may_use_input());
        let mode = Mode::new(1280, 720, 60_000).unwrap();
        let mut view = View::new(mode, Timestamp::ZERO);
        view.ended_at = Some(Timestamp::from_micros(90_000_000));
        let sent = |micros| FrameTrace {
            source: SourceIndex(1),
            captured_at: Timestamp::ZERO,
            repeated: false,
            fate: FrameFate::Sent {
                index: FrameIndex(1),
                kind: FrameKind::Idr,
                encode_began_at: Timestamp::ZERO,
                encoded_at: Timestamp::ZERO,
                first_sent_at: Timestamp::ZERO,
                last_sent_at: Timestamp::from_micros(micros),
                bytes: 1,
                datagrams: 1,
                shape: FrameShape::default(),
            },
        };
        // The slow ones are long gone from the traces when the session ends.
        view.count(vec![sent(60); 11_000]);
        view.count(vec![sent(20); 9_000]);
        assert_eq!(view.traces.len(), 8_192);
        page.note(&view, &EndReason::AppExited);
        register.close();
        page.note(&view, &EndReason::Quit);
        let past = store.past_sessions(None, 9).unwrap();
        assert_eq!(past.len(), 1, "nothing is taken after the end");
        assert_eq!(
            (past[0].client_name.as_str(), past[0].reason.as_str()),
            ("TV", "the app ended")
        );
        assert_eq!(past[0].ended_at - past[0].began_at, 90);
        let summary: Summary = serde_json::from_str(&past[0].figures).unwrap();
        let expected = Summary {
            captured: 20_000,
            sent: 20_000,
            idr: 20_000,
            bytes: 20_000,
            datagrams: 20_000,
            latency_p50_us: 60,
            latency_p95_us: 60,
            latency_p99_us: 60,
            ..Summary::default()
        };
        assert_eq!(summary, expected);
    }
}
