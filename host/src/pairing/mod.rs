//! The desk where a PIN and the request it belongs to meet.
//!
//! A client that wants to pair shows a PIN and waits; the owner types it at the host. Whoever holds the PIN of a
//! request may try once to become trusted, so a PIN goes to exactly one request that the owner chose, once. It is
//! never offered to a second request, never broadcast, never kept. Requests are capped in all and per address, and a
//! full desk turns the newcomer away: nobody can push out another's request.
//!
//! The rules are a machine without a clock ([`desk`](self)); this file adds the lock, the waiting and the news. The
//! protocol of pairing is not here: a door asks with [`PairingDesk::ask`], awaits [`PinWait::pin`], and says with
//! [`PairingDesk::report`] how it went.

mod desk;
mod permit;
mod pin;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use tokio::sync::{broadcast, oneshot, watch};

use self::desk::{Desk, Standing};
use self::permit::{Claim, Permits};
use crate::store::ClientId;

pub use permit::{EndingPermit, Permit, PermitError};
pub use pin::{Pin, PinError};

/// How long pairing stays armed unless the owner says otherwise.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
/// The longest window that can be armed.
pub const MAX_WINDOW: Duration = Duration::from_secs(3600);

/// How many events may lie unread before a slow listener loses the oldest.
const EVENTS_KEPT: usize = 64;

/// When the desk takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeskMode {
    /// Always: the host runs in a terminal where each request is shown, which counts as an open prompt.
    Prompt,
    /// Only for a while after [`PairingDesk::arm`]: the host runs unattended.
    Armed,
}

/// The limits of a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeskLimits {
    /// Requests at the desk, in all.
    pub max_pending: usize,
    /// Requests at the desk from one address (IPv6: from one /64).
    pub max_per_address: usize,
    /// How long a request waits for its PIN.
    pub ttl: Duration,
    /// How long a request that got its PIN may take to end.
    pub answered_ttl: Duration,
    /// After this many failures an address is blocked.
    pub max_failures: u32,
    /// After this many requests that were given up before they got a PIN an address is blocked, too: each of them is
    /// shown to the owner.
    pub max_given_up: u32,
    /// For how long it is blocked.
    pub block: Duration,
    /// How long an address, and a certificate, that the owner declined may not ask again.
    pub denial: Duration,
    /// How long the self-test's permit lives after it was issued or renewed: one that was killed leaves no more.
    pub permit_lease: Duration,
    /// How long that permit lives at most, renewed or not.
    pub permit_lifetime: Duration,
}

impl Default for DeskLimits {
    // spec: gamestream 3.4 rules 1 and 4
    fn default() -> Self {
        Self {
            max_pending: 8,
            max_per_address: 2,
            ttl: Duration::from_secs(300),
            answered_ttl: Duration::from_secs(60),
            max_failures: 5,
            max_given_up: 10,
            block: Duration::from_secs(60),
            denial: Duration::from_secs(600),
            permit_lease: Duration::from_secs(30),
            permit_lifetime: Duration::from_secs(300),
        }
    }
}

/// How a desk is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeskOptions {
    /// When it takes requests.
    pub mode: DeskMode,
    /// Its limits.
    pub limits: DeskLimits,
}

impl DeskOptions {
    /// A desk with the usual limits.
    pub fn new(mode: DeskMode) -> Self {
        Self { mode, limits: DeskLimits::default() }
    }
}

/// The number of a request; never used twice while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client asks to be paired.
#[derive(Debug, Clone)]
pub struct Asking {
    /// What it calls itself in the protocol; most clients use one and the same.
    pub unique_id: String,
    /// Where it asks from.
    pub remote: IpAddr,
    /// Its name as it gave it, or nothing.
    pub device_name: String,
    /// The client that its certificate would make.
    pub client: ClientId,
}

/// A request at the desk, as it is shown to the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// Its number.
    pub id: RequestId,
    /// Where it came from; an IPv4 address is never in its IPv6 form.
    pub remote: IpAddr,
    /// The device's name: the owner's, or its own, or its address. Safe to print.
    pub device_name: String,
    /// It has a name of its own, or the owner's; stock clients all send the same one, which is none.
    pub is_named: bool,
    /// The client that its certificate would make.
    pub client: ClientId,
    /// When it was made.
    pub asked_at: Timestamp,
    /// When it will be let go.
    pub expires_at: Timestamp,
    /// It is the self-test's: the owner does not see it.
    pub self_test: bool,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskRefusal {
    /// Nobody armed pairing.
    #[error("pairing is not armed; run: punktfunk-host pairing arm")]
    NotArmed,
    /// As many requests wait as the desk takes.
    #[error("{max} devices already wait to be paired, which is the limit")]
    TooManyPending {
        /// The limit.
        max: usize,
    },
    /// As many requests from this address wait as the desk takes from one.
    #[error("{max} devices at this address already wait to be paired, which is the limit")]
    TooManyFromAddress {
        /// The limit.
        max: usize,
    },
    /// Too many pairings from this address failed or were given up.
    #[error("too many failed attempts; try again in {} s", retry_after.as_secs().max(1))]
    RateLimited {
        /// How long it is blocked from now.
        retry_after: Duration,
    },
    /// The owner declined this device, or another at its address, a while ago.
    #[error("the owner of this host declined this device; try again in {} s", retry_after.as_secs().max(1))]
    Declined {
        /// How long this still holds.
        retry_after: Duration,
    },
    /// The certificate is the self-test's, which pairs once and from this machine.
    #[error("this certificate is not for pairing")]
    NotForPairing,
}

/// The owner's answer.
#[derive(Debug, Clone)]
pub struct AnswerPin {
    /// Which request it is for; may be left out while only one waits.
    pub request: Option<RequestId>,
    /// The PIN that the device shows.
    pub pin: Pin,
    /// What the owner calls the device.
    pub name: Option<String>,
}

/// Why an answer reached nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No request waits.
    #[error("no device is waiting to be paired; choose \"pair\" on the device first")]
    NothingPending,
    /// The chosen request does not wait (any more).
    #[error("request {request} is not waiting for a PIN (any more)")]
    UnknownRequest {
        /// The request.
        request: RequestId,
    },
    /// Several requests wait and none was chosen.
    #[error("{} devices are waiting; say which one the PIN is for", pending.len())]
    SeveralPending {
        /// All that wait.
        pending: Vec<PendingRequest>,
    },
}

/// Why a request left the desk without a word from the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Withdrawn {
    /// The same device asked anew.
    #[error("the device asked again")]
    Replaced,
    /// Nobody typed the PIN in time.
    #[error("nobody entered the PIN in time")]
    Expired,
    /// The owner turned it away.
    #[error("the owner declined")]
    Declined,
    /// The owner closed pairing.
    #[error("pairing was disarmed")]
    Disarmed,
}

/// How a pairing ended, as the door saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PairingOutcome {
    /// The client is trusted.
    Paired {
        /// Who it is.
        client: ClientId,
    },
    /// The PIN was (probably) wrong: the last step failed or never came.
    WrongPin,
    /// The client went away.
    Abandoned,
    /// The client broke the protocol.
    ProtocolError,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestEnd {
    /// The door said so.
    Outcome(PairingOutcome),
    /// It left the desk before.
    Withdrawn(Withdrawn),
}

impl fmt::Display for RequestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Outcome(PairingOutcome::Paired { .. }) => "it is paired",
            Self::Outcome(PairingOutcome::WrongPin) => "the PIN was wrong",
            Self::Outcome(PairingOutcome::Abandoned) => "the device went away",
            Self::Outcome(PairingOutcome::ProtocolError) => "the device broke the protocol",
            Self::Withdrawn(why) => return why.fmt(f),
        };
        f.write_str(text)
    }
}

impl RequestEnd {
    fn is_success(self) -> bool {
        matches!(self, Self::Outcome(PairingOutcome::Paired { .. }))
    }
}

/// A request that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRequest {
    /// The request.
    pub request: PendingRequest,
    /// How it ended.
    pub end: RequestEnd,
}

/// A device that the owner declined, and that may not ask again for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Where it asked from; nobody else may ask from there either.
    pub remote: IpAddr,
    /// The client that its certificate would have made; it may not ask from elsewhere either.
    pub client: ClientId,
    /// How long this still holds.
    pub remaining: Duration,
}

/// Whether the desk takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeskState {
    /// Always.
    Open,
    /// For a while.
    Armed {
        /// How long still.
        remaining: Duration,
    },
    /// No.
    Unarmed,
}

/// Something happened at the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairingEvent {
    /// A request waits for its PIN.
    Asked(PendingRequest),
    /// A request got a PIN; the pairing goes on.
    Answered {
        /// The request.
        request: PendingRequest,
    },
    /// A request ended.
    Ended(FinishedRequest),
    /// A request was not taken; told at most every ten seconds.
    Refused {
        /// Where it came from.
        remote: IpAddr,
        /// Why.
        refusal: AskRefusal,
    },
    /// The desk was armed or disarmed.
    Desk(DeskState),
}

impl PairingEvent {
    /// It is about the self-test's request, which the owner does not see.
    fn is_self_test(&self) -> bool {
        match self {
            Self::Asked(request) | Self::Answered { request } => request.self_test,
            Self::Ended(finished) => finished.request.self_test,
            Self::Refused { .. } | Self::Desk(_) => false,
        }
    }
}

/// The whole desk at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeskSnapshot {
    /// Counts the changes of the desk.
    pub revision: u64,
    /// Whether it takes requests.
    pub state: DeskState,
    /// Requests that wait for a PIN, oldest first.
    pub pending: Vec<PendingRequest>,
    /// The requests that ended last, oldest first.
    pub recent: Vec<FinishedRequest>,
    /// Devices that may not ask for a while, oldest first.
    pub denied: Vec<Denied>,
    /// When this was.
    pub at: Timestamp,
}

/// A handle on the desk; clones share it.
#[derive(Clone)]
pub struct PairingDesk {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    inner: Mutex<Inner>,
    events: broadcast::Sender<PairingEvent>,
    revision: watch::Sender<u64>,
}

struct Inner {
    desk: Desk,
    permits: Permits,
    waiting: HashMap<RequestId, oneshot::Sender<Result<Pin, Withdrawn>>>,
}

impl PairingDesk {
    /// An empty desk.
    pub fn new(options: DeskOptions) -> Self {
        Self::with_clock(options, crate::clock::now)
    }

    /// An empty desk with a clock of the caller's.
    pub fn with_clock(
        options: DeskOptions,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let desk = Desk::new(options.mode, options.limits);
        Self {
            shared: Arc::new(Shared {
                clock: Box::new(clock),
                inner: Mutex::new(Inner {
                    desk,
                    permits: Permits::new(options.limits),
                    waiting: HashMap::new(),
                }),
                events: broadcast::Sender::new(EVENTS_KEPT),
                revision: watch::Sender::new(0),
            }),
        }
    }

    /// A client asks to be paired. If the same device (same unique id and address) has a request here, the new one
    /// takes its place.
    ///
    /// # Errors
    /// See [`AskRefusal`]; nobody else's request is touched.
    // spec: gamestream 3.4 rules 1, 4 and 5
    pub fn ask(&self, asking: Asking) -> Result<PinWait, AskRefusal> {
        let (sender, receiver) = oneshot::channel();
        self.change(|inner, now, events| {
            let standing = match inner.permits.claim(now, asking.client, asking.remote) {
                Claim::Stranger => Standing::Device,
                Claim::Admit => Standing::SelfTest,
                Claim::Refuse => return Err(AskRefusal::NotForPairing),
            };
            let request = inner.desk.ask(now, asking, standing, events)?;
            if standing == Standing::SelfTest {
                inner.permits.use_up(request.id);
            }
            inner.waiting.insert(request.id, sender);
            Ok(PinWait {
                desk: self.clone(),
                id: request.id,
                stage: WaitStage::Waiting { receiver, ttl: request.expires_at.since(now) },
            })
        })
    }

    /// The owner's PIN goes to the one request chosen, or, if none was, to the only one that waits.
    ///
    /// # Errors
    /// See [`AnswerError`]; the PIN then reached nobody.
    pub fn answer(&self, answer: AnswerPin) -> Result<PendingRequest, AnswerError> {
        self.change(|inner, now, events| {
            let request = inner.desk.answer(now, answer.request, answer.name.as_deref(), events)?;
            let delivered = inner
                .waiting
                .remove(&request.id)
                .is_some_and(|sender| sender.send(Ok(answer.pin)).is_ok());
            if !delivered {
                inner.desk.report(now, request.id, PairingOutcome::Abandoned, events);
                return Err(AnswerError::UnknownRequest { request: request.id });
            }
            Ok(request)
        })
    }

    /// The owner turns a waiting request away; its address and its certificate may not ask again for ten minutes, or until
    /// the owner arms the desk.
    ///
    /// # Errors
    /// [`AnswerError::UnknownRequest`].
    pub fn decline(&self, request: RequestId) -> Result<(), AnswerError> {
        self.change(|inner, now, events| inner.desk.decline(now, request, events))
    }

    /// The door says how a pairing ended. To be called once for each request that got its PIN; later calls, and calls
    /// for requests that left the desk, change nothing.
    pub fn report(&self, request: RequestId, outcome: PairingOutcome) {
        self.change(|inner, now, events| inner.desk.report(now, request, outcome, events));
    }

    /// The name under which the device of this request is to be remembered: what the owner typed with the PIN, else
    /// its own, else its address. `None` once the request has ended.
    pub fn name_of(&self, request: RequestId) -> Option<String> {
        self.lock().desk.request(request).map(|request| request.device_name)
    }

    /// The name under which the device was remembered, if that is another one.
    pub fn note_name(&self, request: RequestId, name: &str) {
        self.lock().desk.note_name(request, name);
    }

    /// Takes requests for this long (at most an hour), which it does anyway in [`DeskMode::Prompt`], and forgets whom the
    /// owner declined.
    pub fn arm(&self, window: Duration) -> DeskState {
        self.change(|inner, now, events| {
            inner.desk.arm(now, window.min(MAX_WINDOW), events);
            inner.desk.state(now)
        })
    }

    /// Turns all waiting requests away and, in [`DeskMode::Armed`], takes no more.
    pub fn disarm(&self) -> DeskState {
        self.change(|inner, now, events| {
            inner.desk.disarm(now, events);
            inner.desk.state(now)
        })
    }

    /// The owner who armed the desk and typed PINs is gone: nothing of his goes on. As [`PairingDesk::disarm`], and whoever
    /// got a PIN and is not paired yet is turned away, too. The self-test's request stays: it is nobody's.
    pub fn forget_owner(&self) {
        self.change(|inner, now, events| inner.desk.forget_owner(now, events));
    }

    /// Whether requests are taken now.
    pub fn state(&self) -> DeskState {
        self.snapshot().state
    }

    /// Requests that wait for a PIN, oldest first.
    pub fn pending(&self) -> Vec<PendingRequest> {
        self.snapshot().pending
    }

    /// The whole desk, as it is now.
    pub fn snapshot(&self) -> DeskSnapshot {
        self.change(|inner, now, events| inner.desk.expire(now, events));
        let inner = self.lock();
        let at = (self.shared.clock)();
        DeskSnapshot {
            revision: *self.shared.revision.borrow(),
            state: inner.desk.state(at),
            pending: inner.desk.pending(),
            recent: inner.desk.recent(),
            denied: inner.desk.denied(at),
            at,
        }
    }

    /// The desk as soon as its revision is another than `seen`; returns at once if it is already.
    pub async fn changed_since(&self, seen: u64) -> DeskSnapshot {
        let mut revisions = self.shared.revision.subscribe();
        // An error would mean that the desk is gone, and `self` holds it.
        let _ = revisions.wait_for(|revision| *revision != seen).await;
        self.snapshot()
    }

    /// What happens at the desk from now on. A listener that falls behind loses the oldest events and is told so;
    /// [`Self::snapshot`] then says how things stand.
    pub fn events(&self) -> broadcast::Receiver<PairingEvent> {
        self.shared.events.subscribe()
    }

    /// Runs one step of the machine and acts on what it says, all under the lock, so that events keep their order.
    fn change<T>(
        &self,
        step: impl FnOnce(&mut Inner, Timestamp, &mut Vec<PairingEvent>) -> T,
    ) -> T {
        let mut inner = self.lock();
        let now = (self.shared.clock)();
        let mut events = Vec::new();
        let result = step(&mut inner, now, &mut events);
        if events.is_empty() {
            return result;
        }
        for event in events {
            if let PairingEvent::Ended(finished) = &event
                && let Some(sender) = inner.waiting.remove(&finished.request.id)
                && let RequestEnd::Withdrawn(why) = finished.end
            {
                // Nobody waits any more if the door let go at the same moment.
                let _ = sender.send(Err(why));
            }
            if !event.is_self_test() {
                // Having no listener is fine.
                let _ = self.shared.events.send(event);
            }
        }
        self.shared.revision.send_modify(|revision| *revision += 1);
        result
    }

    // The machine is whole after a panic of another thread: it has no step that can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PairingDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingDesk").finish_non_exhaustive()
    }
}

/// A request's place at the desk. Dropping it before it gave out a PIN withdraws the request; after that the request
/// lives until [`PairingDesk::report`].
#[derive(Debug)]
pub struct PinWait {
    desk: PairingDesk,
    id: RequestId,
    stage: WaitStage,
}

#[derive(Debug)]
enum WaitStage {
    Waiting { receiver: oneshot::Receiver<Result<Pin, Withdrawn>>, ttl: Duration },
    Given,
    Withdrawn(Withdrawn),
}

impl PinWait {
    /// The request's number.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Waits until the owner answers. Gives a PIN once; may be cancelled and called again.
    ///
    /// # Errors
    /// The request left the desk, or gave its PIN before.
    pub async fn pin(&mut self) -> Result<Pin, Withdrawn> {
        let (receiver, ttl) = match &mut self.stage {
            WaitStage::Waiting { receiver, ttl } => (receiver, *ttl),
            WaitStage::Given => return Err(Withdrawn::Replaced),
            WaitStage::Withdrawn(why) => return Err(*why),
        };
        let answer = match tokio::time::timeout(ttl, &mut *receiver).await {
            Ok(answer) => answer.unwrap_or(Err(Withdrawn::Expired)),
            Err(_) => {
                self.desk.snapshot();
                // The answer may have come at the very last moment.
                receiver.try_recv().unwrap_or(Err(Withdrawn::Expired))
            }
        };
        self.stage = match &answer {
            Ok(_) => WaitStage::Given,
            Err(why) => WaitStage::Withdrawn(*why),
        };
        answer
    }
}

impl Drop for PinWait {
    fn drop(&mut self) {
        if !matches!(self.stage, WaitStage::Given) {
            self.desk.report(self.id, PairingOutcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests;
