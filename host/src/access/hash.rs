//! Passwords: what one must be, and how it is kept.
//!
//! Argon2id with [`HashCost::PRODUCT`]. A hash takes memory and a core for a while, which is its point and a danger: a
//! stream wants that core. So two are made at a time at most, one of them for strangers; a stranger waits for a moment
//! if few wait, and is turned away otherwise. Whoever the host knows - whoever uses the local socket, an address where
//! somebody is logged in - finds the other place, however many strangers try.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::{AccessError, Random};

/// The shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 10;
/// The longest password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 128;

/// What is kept of a password may cost so much at most: the memory, that memory times the passes, and the lanes.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_WORK_KIB: u64 = 512 * 1024;
const MAX_LANES: u32 = 4;

/// As many hashes are made at once.
const SEATS: usize = 2;
/// As many of them for strangers.
const STRANGER_SEATS: usize = 1;
/// As many strangers, and as many of the known, wait for a seat.
const MAX_WAITING: usize = 4;
/// Nobody waits longer.
const SEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// A password that somebody typed. Wiped when dropped, never printed.
pub struct Password(Zeroizing<String>);

/// The text cannot be a password. It is not repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters, this one has {got}; \
     choose another"
)]
pub struct PasswordError {
    /// Its length in characters.
    pub got: usize,
}

impl Password {
    /// A password that may be set.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Result<Self, PasswordError> {
        let text = text.into();
        let got = text.chars().count();
        if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&got) {
            return Err(PasswordError { got });
        }
        Ok(Self(text))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    memory_kib: u32,
    passes: u32,
}

impl HashCost {
    /// 19 MiB and three passes on one lane: what OWASP recommends (two passes) and one pass more. A login's hash says what
    /// it cost; a proof key does not, so whoever changes this keeps the old cost for the keys that are there.
    pub const PRODUCT: Self = Self { memory_kib: 19 * 1024, passes: 3 };
    /// The least that there is: for tests, which make thousands.
    pub const DANGEROUS_CHEAP: Self = Self { memory_kib: 8, passes: 1 };

    pub(super) fn argon2(self) -> Result<Argon2<'static>, AccessError> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).map_err(failed)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Where passwords are hashed.
pub(super) struct HashDesk {
    cost: HashCost,
    /// The hash of a password that nobody has: who asks for an account that is not there waits as long as for one that
    /// is.
    nobody: String,
    seats: Mutex<Seats>,
    freed: Condvar,
}

#[derive(Default)]
struct Seats {
    /// Those taken, by strangers and by the known.
    taken: [usize; 2],
    waiting: [usize; 2],
}

/// No seat was free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// A seat at the desk; free again when dropped.
pub(super) struct Seat<'a> {
    desk: &'a HashDesk,
    known: bool,
}

impl HashDesk {
    pub(super) fn new(cost: HashCost, random: &Random) -> Result<Self, AccessError> {
        let mut password = Zeroizing::new([0; 32]);
        random(&mut *password)?;
        let nobody = hash(cost, &*password, random)?;
        Ok(Self { cost, nobody, seats: Mutex::default(), freed: Condvar::new() })
    }

    /// A seat, for somebody the host knows or for a stranger.
    pub(super) fn sit(&self, known: bool) -> Result<Seat<'_>, Busy> {
        let kind = usize::from(known);
        let is_full = |seats: &Seats| {
            seats.taken.iter().sum::<usize>() >= SEATS
                || (!known && seats.taken[kind] >= STRANGER_SEATS)
        };
        let mut seats = self.lock();
        if is_full(&seats) {
            if seats.waiting[kind] >= MAX_WAITING {
                return Err(Busy);
            }
            seats.waiting[kind] += 1;
            let waited = self.freed.wait_timeout_while(seats, SEAT_TIMEOUT, |s| is_full(s));
            seats = waited.unwrap_or_else(PoisonError::into_inner).0;
            seats.waiting[kind] -= 1;
            if is_full(&seats) {
                return Err(Busy);
            }
        }
        seats.taken[kind] += 1;
        Ok(Seat { desk: self, known })
    }

    // The counts are changed one at a time: a panic elsewhere leaves them right.
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat<'_> {
    /// What is kept of the password.
    pub(super) fn hash(&self, password: &Password, random: &Random) -> Result<String, AccessError> {
        hash(self.desk.cost, password.as_bytes(), random)
    }

    /// Whether this is the password of which `kept` was kept. Takes as long if nothing was.
    pub(super) fn verify(&self, password: &[u8], kept: Option<&str>) -> Result<bool, AccessError> {
        let argon2 = self.desk.cost.argon2()?;
        let kept_or_nobodys =
            PasswordHash::new(kept.unwrap_or(&self.desk.nobody)).map_err(failed)?;
        // The cost stands in what was kept: whoever changed it there must not get all of the memory.
        let params = Params::try_from(&kept_or_nobodys).map_err(failed)?;
        let (memory_kib, work) =
            (params.m_cost(), u64::from(params.m_cost()) * u64::from(params.t_cost()));
        if memory_kib > MAX_MEMORY_KIB || work > MAX_WORK_KIB || params.p_cost() > MAX_LANES {
            return Err(failed("what is kept of it asks for more work than any password needs"));
        }
        let right = argon2.verify_password(password, &kept_or_nobodys).is_ok();
        Ok(right && kept.is_some())
    }

    /// The cost of everything that is made here.
    pub(super) fn cost(&self) -> HashCost {
        self.desk.cost
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.desk.lock().taken[usize::from(self.known)] -= 1;
        self.desk.freed.notify_all();
    }
}

fn hash(cost: HashCost, password: &[u8], random: &Random) -> Result<String, AccessError> {
    let mut salt = [0; 16];
    random(&mut salt)?;
    let kept = cost.argon2()?.hash_password_with_salt(password, &salt).map_err(failed)?;
    Ok(kept.to_string())
}

fn failed(error: impl fmt::Display) -> AccessError {
    AccessError::Hash(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn desk() -> HashDesk {
        let random: Random = Arc::new(super::super::secret::system_random);
        HashDesk::new(HashCost::DANGEROUS_CHEAP, &random).unwrap()
    }

    #[test]
    fn strangers_leave_a_seat_for_the_known() {
        let desk = desk();
        let stranger = desk.sit(false).unwrap();
        assert!(desk.sit(true).is_ok(), "a known one finds the second seat");
        desk.lock().waiting[0] = MAX_WAITING;
        assert!(matches!(desk.sit(false), Err(Busy)), "the queue of strangers is bounded");
        drop(stranger);
        assert!(desk.sit(false).is_ok());
    }

    #[test]
    fn no_more_than_two_sit() {
        let desk = desk();
        let _seats = (desk.sit(true).unwrap(), desk.sit(true).unwrap());
        desk.lock().waiting = [MAX_WAITING; 2];
        assert!(matches!(desk.sit(true), Err(Busy)));
        assert!(matches!(desk.sit(false), Err(Busy)));
    }

    #[test]
    fn what_is_kept_tells_right_from_wrong() {
        let desk = desk();
        let random: Random = Arc::new(super::super::secret::system_random);
        let seat = desk.sit(false).unwrap();
        let password = Password::new("a long password".to_owned()).unwrap();
        let kept = seat.hash(&password, &random).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{kept}");
        assert!(seat.verify(b"a long password", Some(&kept)).unwrap());
        assert!(!seat.verify(b"a long passworD", Some(&kept)).unwrap());
        assert!(!seat.verify(b"a long password", None).unwrap());
        assert_ne!(kept, seat.hash(&password, &random).unwrap(), "each has a salt of its own");
    }

    #[test]
    fn what_is_kept_cannot_ask_for_all_of_the_memory() {
        let desk = desk();
        let check = |cost: &str, ok: bool| {
            let kept =
                format!("$argon2id$v=19${cost}$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA");
            let verified = desk.sit(false).unwrap().verify(b"a long password", Some(&kept));
            assert_eq!(verified.as_ref().ok(), ok.then_some(&false), "{cost}: {verified:?}");
        };
        check("m=8,t=1,p=1", true);
        check("m=4194304,t=1,p=1", false);
        check("m=8,t=4000000,p=1", false);
        check("m=64,t=1,p=5", false);
        check("m=8", true);
        check("nonsense", false);
    }

    #[test]
    fn a_password_is_neither_short_nor_endless() {
        let got = |text: &str| Password::new(text.to_owned()).err().map(|error| error.got);
        assert_eq!(got(&"x".repeat(9)), Some(9));
        assert_eq!(got(&"ü".repeat(10)), None);
        assert_eq!(got(&"ü".repeat(128)), None);
        assert_eq!(got(&"x".repeat(129)), Some(129));
        assert_eq!(format!("{:?}", Password::new("x".repeat(10)).unwrap()), "Password(redacted)");
    }

    /// What a hash costs here, as it stands in the decision record: `cargo test -- --ignored --nocapture`.
    #[test]
    #[ignore = "needs somebody who reads the number"]
    fn measure_the_product() {
        let random: Random = Arc::new(super::super::secret::system_random);
        let cpu = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            time.tv_sec * 1_000_000 + time.tv_nsec / 1000
        };
        let before = cpu();
        for _ in 0..10 {
            hash(HashCost::PRODUCT, b"a long password", &random).unwrap();
        }
        println!("one hash: {} us of one core", (cpu() - before) / 10);
    }
}
