//! Which profiles are in use, and for what. A profile has one user and one home, so that one thing is done in it at a
//! time: a session, or what is done with its home.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AgentError, ProfileNumber};

/// The profiles that are taken; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<BTreeMap<u16, &'static str>>>);

impl Places {
    /// Takes a profile for what `purpose` says, in words that fit behind "it is in use: ".
    ///
    /// # Errors
    /// [`AgentError::Taken`].
    pub fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError> {
        let mut taken = self.lock();
        if let Some(purpose) = taken.get(&profile.0).copied() {
            return Err(AgentError::Taken { number: profile.0, purpose });
        }
        taken.insert(profile.0, purpose);
        Ok(Place(Arc::new(Taken { places: self.clone(), profile })))
    }

    // Entries come and go one by one: a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, &'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A profile that is nobody else's until the last clone of this is dropped.
#[derive(Clone)]
pub struct Place(Arc<Taken>);

impl Place {
    /// Which.
    pub fn profile(&self) -> ProfileNumber {
        self.0.profile
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.profile().0)
    }
}

struct Taken {
    places: Places,
    profile: ProfileNumber,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.lock().remove(&self.profile.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_taken_once_until_nobody_holds_it() {
        let places = Places::default();
        let place = places.take(ProfileNumber(3), "somebody plays").unwrap();
        let again = places.take(ProfileNumber(3), "another reason").unwrap_err();
        assert_eq!(again, AgentError::Taken { number: 3, purpose: "somebody plays" });
        assert!(places.take(ProfileNumber(4), "another reason").is_ok());
        let clone = place.clone();
        drop(place);
        assert!(places.take(clone.profile(), "").is_err());
        drop(clone);
        assert!(places.take(ProfileNumber(3), "").is_ok());
    }
}
