//! A disk that fails: nobody is kept out, and nothing is half done.

use super::*;
use crate::store::Struck;

#[test]
fn a_login_needs_no_disk_and_says_that_it_ends_with_the_host() {
    let (house, access, first) = claimed();
    access.inner.store.refuse_writes_for_test(true);
    let second = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    assert!(first.lasts && !second.lasts);
    assert!(access.session(second.secret.reveal()).is_some());
    let problems = access.problems();
    assert!(problems.len() == 1 && problems[0].starts_with("1 login(s)"), "{problems:?}");
    // A login more than there may be, and a logout, need no disk either.
    for _ in 0..MAX_SESSIONS {
        house.pass(Duration::from_secs(1));
        log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    }
    let third = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    access.log_out(third.session.id).unwrap();
    assert!(access.session(third.secret.reveal()).is_none());

    // Once there is room, a login that is used is written after all.
    let fourth = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    access.log_out_others(Some(fourth.session.id)).unwrap_err();
    access.inner.store.refuse_writes_for_test(false);
    house.pass(Duration::from_secs(300));
    assert!(access.session(fourth.secret.reveal()).is_some());
    assert!(access.problems().is_empty(), "{:?}", access.problems());
    drop(access);
    let access = house.open();
    assert!(access.session(fourth.secret.reveal()).is_some());
    assert!(access.session(second.secret.reveal()).is_none());
    // It made room while the disk was full.
    assert!(access.session(first.secret.reveal()).is_none());
}

/// Whether it was made, or failed for certain, or nobody can tell.
fn told<T>(done: Result<T, AccessError>) -> &'static str {
    match done {
        Ok(_) => "made",
        Err(AccessError::Uncertain { .. }) => "uncertain",
        Err(_) => "failed",
    }
}

/// Does a change on a disk that fails in each way, and on one that is full, and compares what is told with what is there:
/// at once, and after a restart. `undone` is how it is where the change was not made.
fn check(
    begin: impl Fn() -> (House, Access),
    change: impl Fn(&House, &Access) -> Result<(), AccessError>,
    is_made: impl Fn(&House, &Access) -> bool,
) {
    for (struck, want) in
        [(Some(Struck::Change), "failed"), (Some(Struck::Answer), "made"), (None, "uncertain")]
    {
        let (house, access) = begin();
        match struck {
            Some(struck) => access.inner.store.strike_for_test(struck),
            None => access.inner.store.refuse_writes_for_test(true),
        }
        assert_eq!(told(change(&house, &access)), want);
        access.inner.store.refuse_writes_for_test(false);
        assert_eq!(is_made(&house, &access), want == "made", "{struck:?}");
        drop(access);
        let access = house.open();
        assert_eq!(is_made(&house, &access), want == "made", "{struck:?}, after a restart");
        if want != "made" {
            change(&house, &access).unwrap();
            assert!(is_made(&house, &access), "{struck:?}: another try");
        }
    }
}

#[test]
fn a_claim_is_made_or_not_whatever_the_disk_says() {
    check(
        || {
            let house = House::new();
            let access = house.open();
            (house, access)
        },
        |house, access| {
            let token = house.shown().unwrap().0;
            match access.claim(&attempt(&token, Some(HERE))) {
                Ok(owner) => {
                    assert!(access.session(owner.secret.reveal()).is_some());
                    Ok(())
                }
                Err(ClaimError::Failed(error)) => Err(error),
                Err(other) => panic!("{other:?}"),
            }
        },
        |house, access| {
            assert_eq!(access.is_claimed(), house.shown().is_none());
            assert_eq!(access.sessions().len(), usize::from(access.is_claimed()));
            access.is_claimed()
        },
    );
}

#[test]
fn a_claim_is_armed_again_or_not_whatever_the_disk_says() {
    check(
        || {
            let (house, access, _) = claimed();
            access.make_token("backup", Scopes::from_iter(Scope::ALL), None, None).unwrap();
            (house, access)
        },
        |_, access| {
            let counted = access.rearm(&Presence::ResetFile { digest: [5; 32] })?;
            assert!(counted, "it was not used up by what failed");
            Ok(())
        },
        |house, access| {
            let is_claimed = access.is_claimed();
            assert_eq!(house.shown().is_none(), is_claimed);
            let left = (access.sessions().len(), access.tokens().len());
            assert_eq!(left, if is_claimed { (1, 1) } else { (0, 0) });
            if !is_claimed {
                let used = Presence::ResetFile { digest: [5; 32] };
                assert!(!access.rearm(&used).unwrap(), "it is used up");
            }
            !is_claimed
        },
    );
}

#[test]
fn a_prepared_file_is_taken_or_not_whatever_the_disk_says() {
    let secret = "0123456789abcdef0123456789abcdef";
    let text = format!(
        r#"{{"name":"Cellar","claim_secret":"{secret}","network":{{"ssid":"home","passphrase":"12345678"}}}}"#
    );
    let preseed = Preseed::parse(text.as_bytes()).unwrap();
    check(
        || {
            let house = House::new();
            let access = house.open();
            (house, access)
        },
        |_, access| {
            let taken = access.take_preseed(&preseed)?;
            assert_eq!(taken, PreseedOutcome::Taken { has_network: true });
            Ok(())
        },
        |house, access| {
            let is_taken = house.shown().unwrap().0 == secret;
            let network = access.prepared_network().unwrap();
            assert_eq!(network.is_some(), is_taken, "the network comes with the claim");
            if is_taken {
                assert_eq!(access.take_preseed(&preseed).unwrap(), PreseedOutcome::Used);
            }
            is_taken
        },
    );
}

#[test]
fn a_password_is_changed_or_not_whatever_the_disk_says() {
    let failed = |error| match error {
        LoginError::Failed(error) => error,
        other => panic!("{other:?}"),
    };
    let local = |old, new| ChangePassword { old, new, own: None, remote: None, keep_tokens: false };
    let opens = |access: &Access, password| {
        let login = LogIn { role: Role::Owner, password, remote: None, agent: None, known: None };
        access.log_in(&login).is_ok()
    };
    check(
        || {
            let (house, access, _) = claimed();
            (house, access)
        },
        |_, access| {
            access.change_password(&local(PASSWORD, "another password")).map(drop).map_err(failed)
        },
        |_, access| {
            assert_ne!(opens(access, PASSWORD), opens(access, "another password"));
            opens(access, "another password")
        },
    );
    check(
        || {
            let (house, access, _) = claimed();
            (house, access)
        },
        |_, access| access.set_viewer_password(Some("viewer password"), None).map_err(failed),
        |_, access| access.has_viewer(),
    );
}

#[test]
fn a_token_is_made_or_removed_or_not_whatever_the_disk_says() {
    let failed = |error| match error {
        TokenError::Failed(error) => error,
        other => panic!("{other:?}"),
    };
    let make = |access: &Access| {
        let scopes = Scopes::from_iter([Scope::View]);
        access.make_token("shelf", scopes, None, None)
    };
    let count = |access: &Access| {
        let listed = access.tokens().len();
        assert_eq!(access.inner.store.tokens().unwrap().len(), listed, "one can be ended again");
        listed
    };
    check(
        || {
            let (house, access, _) = claimed();
            (house, access)
        },
        |_, access| {
            let made = make(access).map_err(failed)?;
            assert!(access.token(made.secret.reveal()).is_some());
            Ok(())
        },
        |_, access| count(access) == 1,
    );
    check(
        || {
            let (house, access, _) = claimed();
            make(&access).unwrap();
            (house, access)
        },
        |_, access| access.remove_token(&access.tokens()[0].id, None).map_err(failed),
        |_, access| count(access) == 0,
    );
}

#[test]
fn others_are_logged_out_or_not_whatever_the_disk_says() {
    check(
        || {
            let (house, access, _) = claimed();
            log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
            (house, access)
        },
        |_, access| {
            let all = access.sessions();
            let own = all.iter().find(|session| session.remote == Some(HERE)).unwrap().id;
            access.log_out_others(Some(own)).map(|ended| assert_eq!(ended, 1))
        },
        |_, access| access.inner.store.console_sessions().unwrap().len() == 1,
    );
}

#[test]
fn what_is_ended_on_a_full_disk_is_over_at_once_and_removed_once_there_is_room() {
    let (house, access, owner) = claimed();
    let thief = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    let stolen = access.make_token("shelf", Scopes::from_iter([Scope::View]), None, None).unwrap();
    let opens = |access: &Access| {
        let token = access.token(stolen.secret.reveal()).is_some();
        (access.session(thief.secret.reveal()).is_some(), token)
    };
    let own = Some(owner.session.id);
    for again in [false, true] {
        access.inner.store.refuse_writes_for_test(true);
        access.remove_token(&stolen.info.id, None).unwrap_err();
        access.log_out_others(own).unwrap_err();
        assert_eq!(opens(&access), (false, false));
        assert_eq!(access.sessions().len(), 1);
        let problems = access.problems();
        assert!(problems.len() == 1 && problems[0].starts_with("2 login(s) or"), "{problems:?}");
        access.inner.store.refuse_writes_for_test(false);
        if again {
            // Whoever asks again is not told that there is nothing to end.
            access.remove_token(&stolen.info.id, None).unwrap();
            assert_eq!(access.log_out_others(own).unwrap(), 1);
        }
    }
    let left = |access: &Access| {
        let store = &access.inner.store;
        (store.console_sessions().unwrap().len(), store.tokens().unwrap().len())
    };
    assert_eq!((left(&access), access.problems().len()), ((1, 0), 0));
    let log = access.audit_page(None, 200).unwrap();
    assert_eq!(log.iter().filter(|row| row.action == "token-removed").count(), 1);

    // And nobody need ask again: the host does while it is used.
    let thief = log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    let stolen = access.make_token("shelf", Scopes::from_iter([Scope::View]), None, None).unwrap();
    access.inner.store.refuse_writes_for_test(true);
    access.remove_token(&stolen.info.id, None).unwrap_err();
    access.log_out(thief.session.id).unwrap_err();
    access.inner.store.refuse_writes_for_test(false);
    assert_eq!(left(&access), (2, 1));
    house.pass(Duration::from_secs(300));
    assert!(access.session(owner.secret.reveal()).is_some());
    assert_eq!((left(&access), access.problems().len()), ((1, 0), 0));
    drop(access);
    let access = house.open();
    assert!(access.session(thief.secret.reveal()).is_none());
    assert!(access.token(stolen.secret.reveal()).is_none());
}

#[test]
fn a_claim_that_cannot_be_shown_is_in_force_and_told() {
    let (house, access, _) = claimed();
    // A folder is where the file is to be.
    let path = house.folder.path().join("claim.json");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("x"), "").unwrap();
    assert!(access.rearm(&Presence::PowerButton).unwrap());
    assert!(!access.is_claimed());
    let problems = access.problems();
    assert!(problems.len() == 1 && problems[0].contains("claim.json"), "{problems:?}");
    fs::remove_dir_all(&path).unwrap();
    drop(access);
    let access = house.open();
    assert!(access.problems().is_empty());
    let (token, _) = house.shown().unwrap();

    // The same for what an owner has prepared, and for a code that is worn; the claim itself mends it.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for _ in 0..20 {
        let wrong = access.claim(&attempt("22222222", None)).unwrap_err();
        assert!(matches!(wrong, ClaimError::Wrong { .. }), "{wrong:?}");
    }
    assert_eq!(access.problems().len(), 1);
    let secret = "0123456789abcdef0123456789abcdef";
    let text = format!(r#"{{"name":"Cellar","claim_secret":"{secret}"}}"#);
    let preseed = Preseed::parse(text.as_bytes()).unwrap();
    let taken = access.take_preseed(&preseed).unwrap();
    assert_eq!(taken, PreseedOutcome::Taken { has_network: false });
    assert_eq!(access.problems().len(), 1);
    assert!(access.claim(&attempt(&token, Some(HERE))).is_err());
    access.claim(&attempt(secret, Some(HERE))).unwrap();
    assert!(access.problems().is_empty());
}

#[test]
fn a_wrong_code_is_wrong_on_a_full_disk_too() {
    let house = House::new();
    let access = house.open();
    let shown = house.shown();
    access.inner.store.refuse_writes_for_test(true);
    for _ in 0..25 {
        let wrong = access.claim(&attempt("22222222", None)).unwrap_err();
        assert!(matches!(wrong, ClaimError::Wrong { .. }), "{wrong:?}");
    }
    assert_eq!(house.shown(), shown);
    access.inner.store.refuse_writes_for_test(false);
    access.claim(&attempt("22222222", None)).unwrap_err();
    assert_ne!(house.shown(), shown, "it is replaced once there is room");
}
