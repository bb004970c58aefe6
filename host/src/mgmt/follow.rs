//! Who may follow what changes: a place for each follower, so many for each kind of caller.
//!
//! Each kind has places of its own. A page that somebody looks at, or a program with a token, can take all of its kind and
//! none of the owner's. A place lasts as long as the answer it was taken for, and so does the connection; both end when
//! the caller is no longer who it was.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::stream::{Stream, StreamExt as _, unfold};

use super::guard::{Caller, Standing, Who};
use super::patience::Stay;
use super::problem::Problem;
use super::startup::Startup;

/// As long may somebody follow who may not any more, while nothing happens.
const LOOK_AFTER: Duration = Duration::from_secs(15);

/// The places of all who follow; clones share them.
#[derive(Clone, Default)]
pub(super) struct Followers {
    taken: Arc<Mutex<Vec<Follower>>>,
}

/// Who follows, as far as places go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Follower {
    Local,
    Owner,
    /// All viewers have one password: they are told apart by where they are.
    Viewer(Option<IpAddr>),
    Token(String),
}

impl Follower {
    fn of(caller: &Caller) -> Option<Self> {
        Some(match &caller.who {
            Who::Local { .. } => Self::Local,
            Who::Owner => Self::Owner,
            Who::Viewer => Self::Viewer(caller.remote),
            Who::Token { id, .. } => Self::Token(id.clone()),
            Who::SelfTest | Who::Anonymous => return None,
        })
    }

    /// The places of this kind in all, and for one of them.
    fn places(&self) -> (usize, usize) {
        match self {
            Self::Local => (16, 16),
            Self::Owner => (24, 24),
            Self::Viewer(_) => (16, 8),
            Self::Token(_) => (24, 8),
        }
    }

    fn is_of_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Followers {
    /// Takes a place; whether there was one.
    fn take(&self, follower: &Follower) -> bool {
        let mut taken = self.lock();
        let (of_kind, of_one) = follower.places();
        let kind = taken.iter().filter(|other| follower.is_of_kind(other)).count();
        let own = taken.iter().filter(|other| *other == follower).count();
        let is_free = kind < of_kind && own < of_one;
        if is_free {
            taken.push(follower.clone());
        }
        is_free
    }

    // What is kept is a list whose entries come and go one by one: a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Follower>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A follower's place, free again when this is dropped. A route that takes it is answered 429 when there is none.
pub(super) struct Place {
    followers: Followers,
    follower: Follower,
    standing: Standing,
    /// Its connection lives as long.
    _stay: Stay,
}

impl Place {
    /// These events, for as long as their caller is who it was: that is asked with each event, and now and then without
    /// one.
    pub(super) fn follow<S>(self, events: S) -> impl Stream<Item = S::Item>
    where
        S: Stream + Send + 'static,
    {
        unfold((Box::pin(events), self), |(mut events, place)| async move {
            loop {
                let next = tokio::time::timeout(LOOK_AFTER, events.next()).await;
                if !place.standing.holds() {
                    return None;
                }
                if let Ok(next) = next {
                    return Some((next?, (events, place)));
                }
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.followers.lock();
        if let Some(at) = taken.iter().position(|follower| *follower == self.follower) {
            taken.swap_remove(at);
        }
    }
}

impl FromRequestParts<Startup> for Place {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        startup: &Startup,
    ) -> Result<Self, Self::Rejection> {
        let known = (parts.extensions.get::<Caller>(), parts.extensions.get::<Standing>());
        let (Some(caller), Some(standing)) = known else {
            return Err(Problem::bug("the door did not say who calls"));
        };
        let follower = Follower::of(caller).ok_or_else(Problem::login_needed)?;
        let followers = startup.feed().followers();
        if !followers.take(&follower) {
            let detail =
                "as many follow already as this host tells; close a page or a program that does";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-followers", detail));
        }
        let (standing, _stay) = (standing.clone(), standing.stay());
        Ok(Self { followers: followers.clone(), follower, standing, _stay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_another_kind() {
        let followers = Followers::default();
        let takes = |follower: &Follower| {
            let mut count = 0;
            while followers.take(follower) {
                count += 1;
            }
            count
        };
        let viewer = |last| Follower::Viewer(Some([10, 0, 0, last].into()));
        let token = |id: &str| Follower::Token(id.to_owned());
        assert_eq!([takes(&viewer(1)), takes(&viewer(2)), takes(&viewer(3))], [8, 8, 0]);
        assert_eq!(["a", "b", "c", "d"].map(|id| takes(&token(id))), [8, 8, 8, 0]);
        assert_eq!([takes(&Follower::Owner), takes(&Follower::Local)], [24, 16]);
    }
}
