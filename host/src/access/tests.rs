//! The room as a whole: a real store, a clock by hand, and tries by the thousand.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod deed;
mod disk;
mod locked_out;
mod log;
mod presence;
mod vouch;

const PASSWORD: &str = "correct horse";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8));
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A state folder and a clock that outlive the daemons that use them.
struct House {
    folder: TempDir,
    micros: Arc<AtomicU64>,
    /// When the machine was switched on: its own clock begins then.
    booted: Arc<AtomicU64>,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder, micros: Arc::new(AtomicU64::new(3_600_000_000)), booted: Arc::default() }
    }

    /// A daemon that starts. All handles of the one before must be gone.
    fn open(&self) -> Access {
        let (micros, booted) = (Arc::clone(&self.micros), Arc::clone(&self.booted));
        let clock = move || {
            let now = micros.load(Ordering::Relaxed);
            let at = Timestamp::from_micros(now - booted.load(Ordering::Relaxed));
            Moment { at, unix: 1_800_000_000 + now / 1_000_000 }
        };
        let folder = self.folder.path().to_owned();
        let mut options = AccessOptions::of_machine(folder).dangerous_with_cheap_hashes();
        options.clock = Arc::new(clock);
        Access::open(Store::open(self.folder.path()).unwrap(), options).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.micros.fetch_add(time.as_micros().try_into().unwrap(), Ordering::Relaxed);
    }

    /// The machine was off and on; its own clock begins anew.
    fn boot(&self) {
        self.booted.store(self.micros.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Token and code as the file shows them.
    fn shown(&self) -> Option<(String, String)> {
        let path = self.folder.path().join("claim.json");
        let text = fs::read_to_string(&path).ok()?;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let field = |name: &str| value[name].as_str().unwrap().to_owned();
        Some((field("token"), field("code")))
    }
}

fn attempt(secret: &str, remote: Option<IpAddr>) -> ClaimAttempt<'_> {
    ClaimAttempt { secret, name: "Attic", password: PASSWORD, remote, agent: Some("test") }
}

fn log_in(
    access: &Access,
    role: Role,
    password: &str,
    remote: IpAddr,
) -> Result<LoggedIn, LoginError> {
    access.log_in(&LogIn { role, password, remote: Some(remote), agent: None, known: None })
}

/// A house that is claimed from afar with the code.
fn claimed() -> (House, Access, LoggedIn) {
    let house = House::new();
    let access = house.open();
    let (_, code) = house.shown().unwrap();
    let owner = access.claim(&attempt(&code, Some(HERE))).unwrap();
    (house, access, owner)
}

#[test]
fn a_claim_makes_an_owner_and_dies() {
    let house = House::new();
    let access = house.open();
    assert!(!access.is_claimed());
    let (token, code) = house.shown().unwrap();
    assert_eq!((token.len(), code.len()), (32, 8));
    let owner = access.claim(&attempt(&code.to_lowercase(), Some(HERE))).unwrap();
    assert!(access.is_claimed());
    assert_eq!(owner.session.role, Role::Owner);
    assert_eq!(access.session(owner.secret.reveal()).unwrap().id, owner.session.id);
    assert_eq!(house.shown(), None);
    let name: String = access
        .inner
        .store
        .connection_for_test(|c| {
            c.query_row("SELECT value FROM setting WHERE key = 'name'", [], |r| r.get(0))
        })
        .unwrap();
    assert_eq!(name, "\"Attic\"", "a setting is JSON");
    for _ in 0..2 {
        for secret in [&token, &code] {
            let access = access.clone();
            let again = access.claim(&attempt(secret, Some(THERE)));
            assert!(matches!(again, Err(ClaimError::Claimed)), "{again:?}");
        }
    }
    drop(access);
    // A loss of power came before the file was removed.
    fs::write(house.folder.path().join("claim.json"), "{}").unwrap();
    let access = house.open();
    assert!(access.is_claimed());
    assert_eq!(house.shown(), None);
    for secret in [&token, &code] {
        assert!(matches!(access.claim(&attempt(secret, None)), Err(ClaimError::Claimed)));
    }
}

#[test]
fn the_secrets_stay_until_the_claim() {
    let house = House::new();
    drop(house.open());
    let first = house.shown().unwrap();
    fs::remove_file(house.folder.path().join("claim.json")).unwrap();
    drop(house.open());
    assert_eq!(house.shown().unwrap(), first);
}

#[test]
fn exactly_one_of_many_claimants_wins() {
    for _ in 0..10 {
        let house = House::new();
        let access = house.open();
        let (token, code) = house.shown().unwrap();
        let won: Vec<_> = std::thread::scope(|scope| {
            let claimants: Vec<_> = (0..2u8)
                .map(|number| {
                    let (access, secret) = (&access, if number == 0 { &token } else { &code });
                    let remote = IpAddr::from([192, 0, 2, number]);
                    scope.spawn(move || {
                        let attempt = attempt(secret, Some(remote));
                        // Which of them waits for a seat at the hash desk is the scheduler's choice.
                        access.claim(&attempt).map_err(|error| error.to_string())
                    })
                })
                .collect();
            claimants.into_iter().map(|claimant| claimant.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| won.is_ok()).count(), 1, "{won:?}");
        assert_eq!(access.sessions().len(), 1);
        drop(access);
        assert_eq!(house.open().sessions().len(), 1);
    }
}

#[test]
fn what_is_wrong_with_name_or_password_costs_no_try() {
    let house = House::new();
    let access = house.open();
    for _ in 0..20 {
        let short = ClaimAttempt { password: "short", ..attempt("AAAAAAAA", Some(HERE)) };
        assert!(matches!(access.claim(&short), Err(ClaimError::Password(_))));
        let nameless = ClaimAttempt { name: " ", ..attempt("AAAAAAAA", Some(HERE)) };
        assert!(matches!(access.claim(&nameless), Err(ClaimError::Name)));
    }
    let wrong = access.claim(&attempt("AAAAAAAA", Some(HERE))).unwrap_err();
    assert!(matches!(wrong, ClaimError::Wrong { wait } if wait.tries_left == 4), "{wrong:?}");
}

#[test]
fn an_address_waits_longer_each_time_and_a_minute_after_the_fifth() {
    let house = House::new();
    let access = house.open();
    let mut waits = vec![];
    for _ in 0..7 {
        let wrong = access.claim(&attempt("AAAAAAAA", Some(HERE))).unwrap_err();
        let ClaimError::Wrong { wait } = wrong else { panic!("{wrong:?}") };
        waits.push((wait.wait.as_secs(), wait.tries_left));
        assert_eq!(access.claim_state(Some(HERE)).wait, wait);
        let (_, code) = house.shown().unwrap();
        let early = access.claim(&attempt(&code, Some(HERE))).unwrap_err();
        assert!(matches!(early, ClaimError::Wait { .. }), "also the right code waits: {early:?}");
        house.pass(wait.wait);
    }
    assert_eq!(waits, [(1, 4), (2, 3), (4, 2), (8, 1), (60, 1), (60, 1), (60, 1)]);
    house.pass(Duration::from_secs(15 * 60));
    assert_eq!(access.claim_state(Some(HERE)).wait.tries_left, 5, "it is forgotten");
}

/// Tries the code 10,000 times, each time from the next of so many addresses, `gap` apart.
fn guess(house: &House, access: &Access, addresses: u32, gap: Duration) -> (u32, u32) {
    let (mut checked, mut replaced) = (0, 0);
    let mut code = house.shown().unwrap().1;
    for number in 0..10_000u32 {
        let remote = IpAddr::from((0x0A00_0000 + number % addresses).to_be_bytes());
        match access.claim(&attempt("22222222", Some(remote))) {
            Err(ClaimError::Wrong { .. }) => checked += 1,
            Err(ClaimError::Wait { .. }) => {}
            other => panic!("{other:?}"),
        }
        let shown = house.shown().unwrap().1;
        replaced += u32::from(shown != code);
        code = shown;
        house.pass(gap);
    }
    (checked, replaced)
}

#[test]
fn ten_thousand_guesses_from_one_address() {
    let house = House::new();
    let access = house.open();
    let token = house.shown().unwrap().0;
    // One each 10 ms, 100 seconds: five until the lock (at 15 s), and one after it.
    let (checked, replaced) = guess(&house, &access, 1, Duration::from_millis(10));
    assert_eq!((checked, replaced), (6, 0));
    access.claim(&attempt(&token, Some(HERE))).unwrap();
}

#[test]
fn ten_thousand_guesses_from_ten_thousand_addresses() {
    let house = House::new();
    let access = house.open();
    let token = house.shown().unwrap().0;
    // 20 at once and one each three seconds of 100: a chance of 53 in 2^40.
    let (checked, replaced) = guess(&house, &access, 10_000, Duration::from_millis(10));
    assert_eq!((checked, replaced), (53, 2));
    // Now the budget is spent: a stranger waits, the token and the local socket do not.
    let (shown, code) = house.shown().unwrap();
    assert_eq!(shown, token, "the token never changes");
    let early = access.claim(&attempt(&code, Some(HERE))).unwrap_err();
    assert!(matches!(early, ClaimError::Wait { wait } if wait.wait <= Duration::from_secs(3)));
    assert_eq!(access.claim_state(None).wait.wait, Duration::ZERO);
    assert_eq!(access.claim_state(Some(IpAddr::V6(Ipv6Addr::LOCALHOST))).wait.wait, Duration::ZERO);
    access.claim(&attempt(&token, Some(HERE))).unwrap();
}

#[test]
fn the_local_socket_is_not_kept_out() {
    let house = House::new();
    let access = house.open();
    for _ in 0..30 {
        let wrong = access.claim(&attempt("AAAAAAAA", None)).unwrap_err();
        assert!(matches!(wrong, ClaimError::Wrong { wait } if wait.wait.is_zero()));
    }
    access.claim(&attempt(&house.shown().unwrap().1, None)).unwrap();
}

#[test]
fn wrong_tokens_are_not_counted_and_stop_nobody() {
    let house = House::new();
    let access = house.open();
    let (token, code) = house.shown().unwrap();
    for _ in 0..100 {
        let wrong = access.claim(&attempt(&"0".repeat(32), Some(HERE))).unwrap_err();
        assert!(matches!(wrong, ClaimError::Wrong { wait } if wait.wait.is_zero()));
    }
    assert_eq!(house.shown().unwrap(), (token, code.clone()));
    access.claim(&attempt(&code, Some(HERE))).unwrap();
}

#[test]
fn each_login_makes_a_session_and_none_is_taken_from_outside() {
    let (_house, access, first) = claimed();
    let second = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    assert_ne!(first.secret.reveal(), second.secret.reveal());
    assert_ne!(first.session.csrf, second.session.csrf);
    assert!(second.session.csrf_matches(&second.session.csrf));
    assert!(!second.session.csrf_matches(&first.session.csrf));
    // What somebody thought of is no session, before and after a login.
    let chosen = "ab".repeat(32);
    assert!(access.session(&chosen).is_none());
    log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    for cookie in [chosen.as_str(), "", "x", &first.session.id.to_string(), &first.session.csrf] {
        assert!(access.session(cookie).is_none(), "{cookie}");
    }
    assert!(!format!("{second:?}").contains(second.secret.reveal()));
}

#[test]
fn sessions_survive_a_restart_and_end_idle_or_old() {
    let (house, access, owner) = claimed();
    let alive = |access: &Access| access.session(owner.secret.reveal()).is_some();
    drop(access);
    let access = house.open();
    assert!(alive(&access));
    house.pass(7 * DAY - Duration::from_secs(1));
    assert!(alive(&access));
    house.pass(7 * DAY);
    assert!(!alive(&access), "idle for a week");
    assert!(access.sessions().is_empty());
    drop(access);
    let access = house.open();
    assert!(access.inner.store.console_sessions().unwrap().is_empty(), "no row is left");

    let owner = log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    let mut access = access;
    for day in 0..30 {
        assert!(access.session(owner.secret.reveal()).is_some(), "day {day}");
        house.pass(DAY);
        if day % 7 == 0 {
            drop(access);
            access = house.open();
        }
    }
    assert!(access.session(owner.secret.reveal()).is_none(), "a month old");
}

#[test]
fn a_machine_that_is_switched_on_makes_no_session_younger() {
    let (house, access, owner) = claimed();
    drop(access);
    house.pass(6 * DAY);
    house.boot();
    let access = house.open();
    assert_eq!(access.sessions().len(), 1);
    house.pass(DAY);
    assert!(access.session(owner.secret.reveal()).is_none(), "idle for a week, over a restart");
}

#[test]
fn logging_out_ends_the_session_for_good() {
    let (house, access, first) = claimed();
    let second = log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    let third = log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    access.log_out(second.session.id).unwrap();
    assert!(access.session(second.secret.reveal()).is_none());
    assert_eq!(access.log_out_others(Some(third.session.id)).unwrap(), 1);
    drop(access);
    let access = house.open();
    assert!(access.session(first.secret.reveal()).is_none());
    assert!(access.session(second.secret.reveal()).is_none());
    assert!(access.session(third.secret.reveal()).is_some());
}

#[test]
fn sessions_of_a_role_are_bounded_and_the_other_role_keeps_its_own() {
    let (_house, access, owner) = claimed();
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    for _ in 0..MAX_SESSIONS + 5 {
        log_in(&access, Role::Viewer, "viewer password", THERE).unwrap();
    }
    assert_eq!(access.sessions().len(), MAX_SESSIONS + 1);
    assert!(access.session(owner.secret.reveal()).is_some());
}

#[test]
fn wrong_passwords_lock_one_address_of_one_role() {
    let (house, access, _owner) = claimed();
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    let mut got_through = 0;
    for _ in 0..10_000 {
        match log_in(&access, Role::Owner, "wrong password", THERE) {
            Err(LoginError::Wrong { .. }) => got_through += 1,
            Err(LoginError::Wait { .. }) => {}
            other => panic!("{other:?}"),
        }
        // Who may look cannot buy tries at the owner's password with it.
        if got_through == 3 {
            log_in(&access, Role::Viewer, "viewer password", THERE).unwrap();
        }
        house.pass(Duration::from_millis(10));
    }
    assert_eq!(got_through, 6);
    assert!(matches!(log_in(&access, Role::Owner, PASSWORD, THERE), Err(LoginError::Wait { .. })));
    log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    access
        .log_in(&LogIn {
            role: Role::Owner,
            password: PASSWORD,
            remote: None,
            agent: None,
            known: None,
        })
        .unwrap();
    let locked = access.audit_page(None, 100).unwrap();
    let locked = locked.iter().filter(|row| row.action == "login-locked").count();
    assert_eq!(locked, 1, "one line for a lock, not one for each try");
}

#[test]
fn wrong_passwords_do_not_push_the_log_out() {
    let (house, access, _owner) = claimed();
    for wait in [0, 1, 2, 4, 8] {
        house.pass(Duration::from_secs(wait));
        for last in 0..20 {
            let remote = IpAddr::from([198, 51, 100, last]);
            let wrong = log_in(&access, Role::Owner, "wrong password", remote).unwrap_err();
            assert!(matches!(wrong, LoginError::Wrong { .. }), "{wrong:?}");
        }
    }
    let rows = access.audit_page(None, 200).unwrap();
    let locked = rows.iter().filter(|row| row.action == "login-locked").count();
    assert_eq!(locked, 1, "of 20 addresses that were locked in one minute");
}

#[test]
fn a_viewer_without_a_password_is_nobody() {
    let (house, access, _) = claimed();
    for password in ["", PASSWORD, "viewer password"] {
        let wrong = log_in(&access, Role::Viewer, password, THERE).unwrap_err();
        assert!(matches!(wrong, LoginError::Wrong { .. }), "{wrong:?}");
        house.pass(Duration::from_secs(60));
    }
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    let viewer = log_in(&access, Role::Viewer, "viewer password", HERE).unwrap();
    assert_eq!(access.session(viewer.secret.reveal()).unwrap().role, Role::Viewer);
    access.set_viewer_password(None, None).unwrap();
    assert!(access.session(viewer.secret.reveal()).is_none());
    assert!(log_in(&access, Role::Viewer, "viewer password", HERE).is_err());
}

fn change<'a>(old: &'a str, new: &'a str, own: &LoggedIn) -> ChangePassword<'a> {
    let own = Some(own.session.id);
    ChangePassword { old, new, own, remote: Some(HERE), keep_tokens: false }
}

#[test]
fn a_password_changes_with_the_old_one_and_ends_what_the_old_one_gave() {
    let (house, access, owner) = claimed();
    let other = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    let token = access.make_token("backup", Scopes::from_iter(Scope::ALL), None, None).unwrap();
    let key = access.proof_verifier().unwrap();
    let wrong = access.change_password(&change("wrong password", "another password", &owner));
    assert!(matches!(wrong, Err(LoginError::Wrong { .. })));
    assert_eq!(access.proof_verifier().unwrap(), key);
    house.pass(Duration::from_secs(60));
    let changed = access.change_password(&change(PASSWORD, "another password", &owner)).unwrap();
    assert_eq!((changed.ended, changed.removed_tokens), (1, 1));
    let again = changed.login.unwrap();
    assert_ne!(again.session.csrf, owner.session.csrf);
    drop(access);
    let access = house.open();
    assert!(access.session(owner.secret.reveal()).is_none(), "the cookie of before is dead");
    assert!(access.session(other.secret.reveal()).is_none());
    let kept = access.session(again.secret.reveal()).unwrap();
    assert_eq!((kept.remote, kept.agent), (owner.session.remote, owner.session.agent));
    assert_eq!(access.token(token.secret.reveal()), None);
    assert!(log_in(&access, Role::Owner, PASSWORD, THERE).is_err());
    log_in(&access, Role::Owner, "another password", HERE).unwrap();
    let new = access.proof_verifier().unwrap();
    let derived = |password: &str, salt| {
        ProofKey::derive(password.as_bytes(), salt, HashCost::DANGEROUS_CHEAP).unwrap().public()
    };
    assert_eq!(derived(PASSWORD, key.salt()), key.key());
    assert_eq!(derived("another password", new.salt()), new.key());
}

#[test]
fn tokens_stay_if_the_owner_says_so() {
    let (house, access, owner) = claimed();
    let token = access.make_token("backup", Scopes::from_iter(Scope::ALL), None, None).unwrap();
    let kept = ChangePassword { keep_tokens: true, ..change(PASSWORD, "another password", &owner) };
    assert_eq!(access.change_password(&kept).unwrap().removed_tokens, 0);
    assert!(access.token(token.secret.reveal()).is_some());
    // From the local socket, without a login: none goes on.
    let local = ChangePassword { own: None, remote: None, keep_tokens: true, ..kept };
    let local = ChangePassword { old: "another password", new: "yet another password", ..local };
    let changed = access.change_password(&local).unwrap();
    assert!(changed.login.is_none() && changed.ended == 1 && access.sessions().is_empty());
    drop(access);
    assert!(house.open().token(token.secret.reveal()).is_some());
}

#[test]
fn tokens_open_what_they_say_until_they_end() {
    let (house, access, _) = claimed();
    let scopes: Scopes = [Scope::View, Scope::Pair].into_iter().collect();
    let end = 1_800_000_000 + 3600 + 10;
    let token = access.make_token("home automation", scopes, Some(end), None).unwrap();
    let forever = access.make_token("backup", scopes, None, None).unwrap();
    assert!(token.secret.reveal().starts_with("pf_"));
    drop(access);
    let access = house.open();
    assert_eq!(access.token(token.secret.reveal()).unwrap().scopes, scopes);
    for wrong in ["", "pf_", &token.secret.reveal()[..66], &token.info.id] {
        assert_eq!(access.token(wrong), None, "{wrong}");
    }
    house.pass(Duration::from_secs(10));
    assert_eq!(access.token(token.secret.reveal()), None, "its end has come");
    access.remove_token(&forever.info.id, None).unwrap();
    assert_eq!(access.token(forever.secret.reveal()), None);
    assert!(matches!(access.remove_token(&forever.info.id, None), Err(TokenError::Unknown)));
    drop(access);
    let access = house.open();
    assert_eq!(access.token(forever.secret.reveal()), None);
    for _ in access.tokens().len()..MAX_TOKENS {
        access.make_token("one more", scopes, None, None).unwrap();
    }
    let full = access.make_token("too many", scopes, None, None);
    assert!(matches!(full, Err(TokenError::TooMany)));
    let rows = access.audit_page(None, 200).unwrap();
    assert!(rows.iter().all(|row| !row.detail.contains(token.secret.reveal())));
}

#[derive(Debug, Clone)]
enum Op {
    Claim { right: bool, token: bool, local: bool },
    LogIn { right: bool },
    LogOut,
    Token,
    Rearm,
    Restart,
    Pass(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(right, token, local)| Op::Claim {
            right,
            token,
            local
        }),
        any::<bool>().prop_map(|right| Op::LogIn { right }),
        Just(Op::LogOut),
        Just(Op::Token),
        Just(Op::Rearm),
        Just(Op::Restart),
        (0..120u32).prop_map(Op::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is done in whatever order, with a restart between any two steps: the host is claimed or shows a claim,
    /// never both; what was given stays good until it was taken back; whoever holds the token gets in.
    #[test]
    fn a_host_is_claimed_or_claimable(ops in prop::collection::vec(op(), 1..24)) {
        let house = House::new();
        let mut access = house.open();
        let mut claimed = false;
        let mut cookies: Vec<LoggedIn> = vec![];
        let mut tokens: Vec<NewToken> = vec![];
        for op in ops {
            match op {
                Op::Claim { right, token, local } => {
                    let shown = house.shown().unwrap_or_default();
                    let secret = match (right, token) {
                        (true, true) => shown.0,
                        (true, false) => shown.1,
                        (false, true) => "0".repeat(32),
                        (false, false) => "22222222".to_owned(),
                    };
                    let done = access.claim(&attempt(&secret, (!local).then_some(HERE)));
                    if claimed || !right {
                        prop_assert!(done.is_err());
                    } else if token || local {
                        prop_assert!(done.is_ok(), "{done:?}");
                    }
                    claimed |= done.is_ok();
                    cookies.extend(done.ok());
                }
                Op::LogIn { right } => {
                    let password = if right { PASSWORD } else { "wrong password" };
                    let done = log_in(&access, Role::Owner, password, HERE);
                    prop_assert!(done.is_err() || (right && claimed));
                    cookies.extend(done.ok());
                }
                Op::LogOut => if let Some(gone) = cookies.pop() {
                    access.log_out(gone.session.id).unwrap();
                    prop_assert!(access.session(gone.secret.reveal()).is_none());
                },
                Op::Token => if claimed {
                    let scopes = Scopes::from_iter([Scope::View]);
                    tokens.push(access.make_token("one", scopes, None, None).unwrap());
                },
                Op::Rearm => {
                    prop_assert!(access.rearm(&Presence::DangerousTest).unwrap());
                    claimed = false;
                    cookies.drain(..).for_each(|gone| assert!(access.session(gone.secret.reveal()).is_none()));
                    tokens.drain(..).for_each(|gone| assert!(access.token(gone.secret.reveal()).is_none()));
                }
                Op::Restart => {
                    drop(access);
                    access = house.open();
                }
                Op::Pass(seconds) => house.pass(Duration::from_secs(seconds.into())),
            }
            prop_assert_eq!(access.is_claimed(), claimed);
            prop_assert_eq!(house.shown().is_none(), claimed);
            prop_assert!(cookies.iter().all(|login| access.session(login.secret.reveal()).is_some()));
            prop_assert!(tokens.iter().all(|token| access.token(token.secret.reveal()).is_some()));
            prop_assert_eq!(access.sessions().len(), cookies.len());
        }
    }

    #[test]
    fn no_text_but_the_right_one_opens(text in ".{0,70}", typed in "[2-9A-HJ-NP-Za-hj-np-z -]{0,12}") {
        let random: Random = Arc::new(secret::system_random);
        let now = Moment { at: Timestamp::from_micros(0), unix: 0 };
        let claim = secret::new_claim(&random, now, "test").unwrap();
        prop_assert!(claim.code.chars().all(|c| c.is_ascii_alphanumeric() && !"01IO".contains(c)));
        for text in [text, typed] {
            prop_assert!(!ClaimSecret::parse(&text).is_some_and(|secret| secret.opens(&claim)));
        }
        let spaced = format!(" {}-{} ", &claim.code[..4], claim.code[4..].to_lowercase());
        prop_assert!(ClaimSecret::parse(&spaced).unwrap().opens(&claim));
        prop_assert!(ClaimSecret::parse(&secret::hex(&claim.token)).unwrap().opens(&claim));
    }
}
