//! What is told to those who follow events: one task looks at the host and tells all followers, so that ten of them cost
//! hardly more than one, and none of them is waited for.
//!
//! The task exists while somebody follows. It hears the pairing desk and the start, and looks once a second at what has
//! no voice of its own: sessions, problems, and what is kept in the store. Events go into a queue of fixed length; a follower that falls behind
//! loses the oldest and is told how many.
//!
//! Deliberately absent: a memory. Who begins to follow reads the state first-hand; an event only says what to read again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::MgmtHandles;
use super::follow::Followers;
use super::startup::Startup;
use super::wire::{Event, Finished, Request, SessionNews};
use crate::pairing::{PairingDesk, PairingEvent};
use crate::session::SessionInfo;
use crate::store::{Revisions, Store};

/// A follower that is further behind loses events.
const MAX_LAG: usize = 256;
/// Sessions, problems and the store are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An event with its number, which only grows.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) id: u64,
    pub(super) event: Arc<Event>,
}

/// Where events come from.
pub(super) struct Feed {
    sender: broadcast::Sender<Numbered>,
    state: Mutex<FeedState>,
    followers: Followers,
}

#[derive(Default)]
struct FeedState {
    last_id: u64,
    is_watching: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(MAX_LAG).0,
            state: Mutex::default(),
            followers: Followers::default(),
        }
    }
}

impl Feed {
    /// Begins to follow. To be called on a tokio runtime.
    pub(super) fn follow(startup: &Startup) -> broadcast::Receiver<Numbered> {
        let feed = startup.feed();
        let mut state = feed.lock();
        let events = feed.sender.subscribe();
        if !std::mem::replace(&mut state.is_watching, true) {
            tokio::spawn(Watch::new(startup.clone()).run());
        }
        events
    }

    /// The places of those who follow this, or anything else.
    pub(super) fn followers(&self) -> &Followers {
        &self.followers
    }

    fn tell(&self, event: Event) {
        let mut state = self.lock();
        state.last_id += 1;
        // Having no listener is fine.
        let _ = self.sender.send(Numbered { id: state.last_id, event: Arc::new(event) });
    }

    /// Whether nobody follows any more; whoever comes next is watched for anew.
    fn is_left(&self) -> bool {
        let mut state = self.lock();
        if self.sender.receiver_count() > 0 {
            return false;
        }
        state.is_watching = false;
        true
    }

    // Numbers and a flag: a panic elsewhere leaves them as they were.
    fn lock(&self) -> std::sync::MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been told.
struct Watch {
    stage: watch::Receiver<()>,
    startup: Startup,
    host: Option<Seen>,
    kept: Option<Kept>,
}

/// What is kept, as it was last seen; also while there is no host to see.
struct Kept {
    store: Store,
    revisions: Revisions,
}

/// The host as it was last seen.
struct Seen {
    handles: MgmtHandles,
    desk: broadcast::Receiver<PairingEvent>,
    sessions: BTreeMap<u64, SessionNews>,
    problems: Vec<String>,
}

impl Watch {
    fn new(startup: Startup) -> Self {
        let (stage, host) = (startup.changes(), Seen::of(&startup));
        let kept = startup.store().map(Kept::new);
        Self { stage, startup, host, kept }
    }

    async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let told = tokio::select! {
                changed = self.stage.changed() => {
                    // The sender lives in what this task holds too.
                    if changed.is_err() {
                        return;
                    }
                    self.host = Seen::of(&self.startup);
                    self.kept = self.kept.or_else(|| self.startup.store().map(Kept::new));
                    vec![Event::Stage { stage: self.startup.stage().into() }]
                }
                event = desk_event(&mut self.host) => event,
                _ = look.tick() => {
                    if self.startup.feed().is_left() {
                        return;
                    }
                    let mut told = self.host.as_mut().map(|host| host.look(&self.startup)).unwrap_or_default();
                    told.extend(self.kept.as_mut().map(Kept::look).unwrap_or_default());
                    told
                }
            };
            told.into_iter().for_each(|event| self.startup.feed().tell(event));
        }
    }
}

/// What the desk says next; waits for ever where there is no host.
async fn desk_event(host: &mut Option<Seen>) -> Vec<Event> {
    let Some(seen) = host else { return std::future::pending().await };
    match seen.desk.recv().await {
        Ok(event) => vec![told(event, &seen.handles.desk)],
        // Something did happen there.
        Err(RecvError::Lagged(_)) => vec![Event::PairingDesk],
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

fn told(event: PairingEvent, desk: &PairingDesk) -> Event {
    match event {
        PairingEvent::Asked(request) => {
            Event::PairingAsked { request: Request::at(&request, desk.snapshot().at) }
        }
        PairingEvent::Answered { request } => {
            Event::PairingAnswered { request: Request::at(&request, desk.snapshot().at) }
        }
        PairingEvent::Ended(finished) => Event::PairingEnded { finished: Finished::from(finished) },
        PairingEvent::Refused { .. } | PairingEvent::Desk(_) => Event::PairingDesk,
    }
}

impl Kept {
    fn new(store: Store) -> Self {
        Self { revisions: store.revisions(), store }
    }

    /// Which parts are other than at the last look.
    fn look(&mut self) -> Vec<Event> {
        let now = self.store.revisions();
        let before = std::mem::replace(&mut self.revisions, now);
        let parts = [
            (now.settings != before.settings, Event::Settings),
            (now.clients != before.clients, Event::Clients),
            (now.owner != before.owner, Event::Owner),
        ];
        parts.into_iter().filter(|(is_other, _)| *is_other).map(|(_, event)| event).collect()
    }
}

impl Seen {
    /// The host as it is, if it is put together.
    fn of(startup: &Startup) -> Option<Self> {
        let handles = startup.handles().ok()?;
        let sessions = sessions(&handles);
        let problems = startup.report(&handles).problems;
        Some(Self { desk: handles.desk.events(), handles, sessions, problems })
    }

    /// What is other than at the last look.
    fn look(&mut self, startup: &Startup) -> Vec<Event> {
        let now = sessions(&self.handles);
        let mut told = changes(&self.sessions, &now);
        self.sessions = now;
        let problems = startup.report(&self.handles).problems;
        if problems != self.problems {
            self.problems.clone_from(&problems);
            told.push(Event::Problems { problems });
        }
        told
    }
}

fn sessions(handles: &MgmtHandles) -> BTreeMap<u64, SessionNews> {
    let news = |session: SessionInfo| SessionNews {
        id: session.id.0,
        client: session.client.to_string(),
        app: session.app,
        mode: session.mode.to_string(),
        streaming: session.streaming,
        ended: session.ended.map(|reason| reason.to_string()),
    };
    let sessions = handles.sessions.sessions().into_iter().map(news);
    sessions.map(|session| (session.id, session)).collect()
}

/// What happened between two looks. A session that ended may still be listed with its end, or be gone.
fn changes(before: &BTreeMap<u64, SessionNews>, now: &BTreeMap<u64, SessionNews>) -> Vec<Event> {
    let mut told = Vec::new();
    let is_live = |session: &&SessionNews| session.ended.is_none();
    for (id, session) in before {
        if is_live(&session) && now.get(id).filter(is_live).is_none() {
            let session = now.get(id).unwrap_or(session).clone();
            told.push(Event::SessionEnded { session });
        }
    }
    for (id, session) in now.iter().filter(|(_, session)| is_live(session)) {
        match before.get(id) {
            None => told.push(Event::SessionBegan { session: session.clone() }),
            Some(known) if known != session => {
                told.push(Event::SessionChanged { session: session.clone() });
            }
            Some(_) => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u64, streaming: bool, ended: Option<&str>) -> (u64, SessionNews) {
        let text = String::new;
        let ended = ended.map(str::to_owned);
        let session =
            SessionNews { id, client: text(), app: text(), mode: text(), streaming, ended };
        (id, session)
    }

    #[test]
    fn two_looks_say_what_happened_between_them() {
        let check = |before: &[(u64, SessionNews)],
                     now: &[(u64, SessionNews)],
                     expected: &[&str]| {
            let told = changes(&before.iter().cloned().collect(), &now.iter().cloned().collect());
            assert_eq!(told.iter().map(Event::name).collect::<Vec<_>>(), expected);
        };
        let (idle, streams, over) =
            (session(1, false, None), session(1, true, None), session(1, false, Some("app ended")));
        check(&[], &[], &[]);
        check(&[], std::slice::from_ref(&idle), &["session-began"]);
        check(std::slice::from_ref(&idle), std::slice::from_ref(&streams), &["session-changed"]);
        check(std::slice::from_ref(&streams), std::slice::from_ref(&streams), &[]);
        check(std::slice::from_ref(&streams), std::slice::from_ref(&over), &["session-ended"]);
        check(std::slice::from_ref(&over), std::slice::from_ref(&over), &[]);
        check(std::slice::from_ref(&streams), &[], &["session-ended"]);
        check(std::slice::from_ref(&over), &[], &[]);
        check(
            std::slice::from_ref(&streams),
            &[session(2, true, None)],
            &["session-ended", "session-began"],
        );
    }
}
