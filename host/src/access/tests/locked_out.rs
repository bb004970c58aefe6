//! Nobody can lock out the owner, and nobody can guess at will either.

use super::*;
use crate::access::limits::Trier;

const NEIGHBOUR: u128 = 0x2001_0db8_0000_0001_0000_0000_0000_0000;

/// An address in the network that everybody at home is in.
fn at_home(host: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(NEIGHBOUR | u128::from(host)))
}

fn from_browser(
    access: &Access,
    password: &str,
    remote: IpAddr,
    known: &LoggedIn,
) -> Result<LoggedIn, LoginError> {
    let known = Some(known.known.reveal());
    access.log_in(&LogIn { role: Role::Owner, password, remote: Some(remote), agent: None, known })
}

/// Guesses 10,000 times, 10 ms apart, each time from the next of so many addresses at home; gives how many were looked at.
fn guess(house: &House, access: &Access, addresses: u64) -> u32 {
    let mut looked_at = 0;
    for number in 0..10_000 {
        match log_in(access, Role::Owner, "wrong password", at_home(0x1_0000 + number % addresses))
        {
            Err(LoginError::Wrong { .. }) => looked_at += 1,
            Err(LoginError::Wait { .. }) => {}
            other => panic!("{other:?}"),
        }
        house.pass(Duration::from_millis(10));
    }
    looked_at
}

#[test]
fn a_neighbour_in_the_same_network_locks_himself_only() {
    let (house, access, _) = claimed();
    assert_eq!(guess(&house, &access, 1), 6);
    let locked = log_in(&access, Role::Owner, PASSWORD, at_home(0x1_0000)).unwrap_err();
    assert!(matches!(locked, LoginError::Wait { wait } if wait.wait.as_secs() > 1), "{locked:?}");
    log_in(&access, Role::Owner, PASSWORD, at_home(1)).unwrap();
}

#[test]
fn a_network_of_addresses_gets_no_more_than_its_share_and_the_owner_gets_in() {
    let (house, access, owner) = claimed();
    let there = log_in(&access, Role::Owner, PASSWORD, at_home(2)).unwrap();
    // 30 at once and one each second of 100; of one address alone it were six.
    assert_eq!(guess(&house, &access, 10_000), 129);
    let while_guessed_at = || {
        while log_in(&access, Role::Owner, "wrong password", at_home(0x5_0000)).is_ok() {}
        log_in(&access, Role::Owner, PASSWORD, at_home(3)).unwrap_err()
    };
    let stranger = while_guessed_at();
    let short = Duration::from_secs(1);
    assert!(
        matches!(stranger, LoginError::Wait { wait } if wait.wait <= short && wait.tries_left == 5),
        "a new browser waits for a second at most: {stranger:?}"
    );
    // A browser that has logged in before does not, wherever it is now, nor an address where the owner is logged in; nor
    // anybody by IPv4 or in another network.
    from_browser(&access, PASSWORD, at_home(3), &owner).unwrap();
    from_browser(&access, PASSWORD, at_home(4), &there).unwrap();
    log_in(&access, Role::Owner, PASSWORD, at_home(2)).unwrap();
    log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    log_in(&access, Role::Owner, PASSWORD, "2001:db8:0:2::1".parse().unwrap()).unwrap();
    house.pass(short);
    log_in(&access, Role::Owner, PASSWORD, at_home(3)).unwrap();
    let log = access.audit_page(None, 200).unwrap();
    let told = log.iter().filter(|row| row.action == "login-locked").count();
    assert!((1..=2).contains(&told), "{told} lines of 100 seconds");
}

#[test]
fn ten_thousand_addresses_or_networks_lock_nobody_out_and_fill_no_memory() {
    let ipv4 = |number: u32| IpAddr::from((0x0A00_0000 + number).to_be_bytes());
    let networks =
        |number: u32| IpAddr::V6(Ipv6Addr::from(NEIGHBOUR + (u128::from(number + 9) << 64)));
    for from in [&ipv4 as &dyn Fn(u32) -> IpAddr, &networks] {
        let (house, access, owner) = claimed();
        let everybody_gets_in = || {
            from_browser(&access, PASSWORD, at_home(3), &owner).unwrap();
            log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
            let socket = LogIn {
                role: Role::Owner,
                password: PASSWORD,
                remote: None,
                agent: None,
                known: None,
            };
            access.log_in(&socket).unwrap();
            // Nobody has seen this one before; it has a try of its own.
            log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
        };
        for number in 0..10_000 {
            let wrong = log_in(&access, Role::Owner, "wrong password", from(number)).unwrap_err();
            assert!(matches!(wrong, LoginError::Wrong { .. }), "{wrong:?}");
            if number % 4_000 == 3_999 {
                everybody_gets_in();
            }
            house.pass(Duration::from_millis(10));
        }
        everybody_gets_in();
        let sizes = access.state().passwords[Role::Owner as usize].sizes();
        // A success takes its row away again.
        assert!(sizes.0 <= 4096 && sizes.0 > 4092 && sizes.1 <= 4096, "{sizes:?}");
        // Whoever tried last is remembered, although so many came.
        let last = log_in(&access, Role::Owner, PASSWORD, from(9_999)).unwrap_err();
        assert!(matches!(last, LoginError::Wait { .. }), "{last:?}");
    }
}

#[test]
fn a_known_browser_is_counted_by_itself_and_not_for_ever_known() {
    let (house, access, owner) = claimed();
    for _ in 0..5 {
        let wrong = from_browser(&access, "wrong password", THERE, &owner).unwrap_err();
        let LoginError::Wrong { wait } = wrong else { panic!("{wrong:?}") };
        house.pass(wait.wait.min(Duration::from_secs(8)));
    }
    let early = from_browser(&access, PASSWORD, at_home(1), &owner).unwrap_err();
    assert!(matches!(early, LoginError::Wait { .. }), "wherever it tries from: {early:?}");
    log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    // What a viewer's browser has, and what was given out under another password, is a stranger's.
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    let viewer = log_in(&access, Role::Viewer, "viewer password", at_home(9)).unwrap();
    let other = log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    access.change_password(&change(PASSWORD, "another password", &other)).unwrap();
    for known in [&viewer, &owner] {
        let wrong = from_browser(&access, "wrong password", at_home(7), known).unwrap_err();
        assert!(matches!(wrong, LoginError::Wrong { .. }), "{wrong:?}");
        let wait = log_in(&access, Role::Owner, "another password", at_home(7)).unwrap_err();
        assert!(matches!(wait, LoginError::Wait { .. }), "it was counted by its address: {wait:?}");
        house.pass(Duration::from_secs(16));
    }
}

#[test]
fn a_login_spends_tries_at_the_old_password_by_itself() {
    let (house, access, owner) = claimed();
    let wrong = |remote| {
        let asked = ChangePassword {
            remote: Some(remote),
            ..change("wrong password", "another password", &owner)
        };
        access.change_password(&asked).unwrap_err()
    };
    assert!(matches!(wrong(HERE), LoginError::Wrong { .. }));
    assert!(matches!(wrong(THERE), LoginError::Wait { .. }), "from another address, too");
    log_in(&access, Role::Owner, PASSWORD, HERE).unwrap();
    house.pass(Duration::from_secs(1));
    access.log_out(owner.session.id).unwrap();
    let gone = access.change_password(&change(PASSWORD, "another password", &owner)).unwrap_err();
    assert!(matches!(gone, LoginError::LoggedOut), "{gone:?}");
    assert!(log_in(&access, Role::Owner, PASSWORD, THERE).is_ok(), "nothing has changed");
}

#[test]
fn addresses_are_counted_one_by_one() {
    let now = Timestamp::from_micros(1);
    let check = |one: &str, other: &str, same: bool| {
        let mut limits = Limits::new(LOGIN_LIMITS);
        limits.begin(Trier::stranger(one.parse().unwrap()), now).unwrap();
        let second = limits.begin(Trier::stranger(other.parse().unwrap()), now);
        assert_eq!(second.is_err(), same, "{one} {other}");
    };
    check("2001:db8::1", "2001:db8::1", true);
    check("2001:db8::1", "2001:db8::2", false);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
    check("127.0.0.1", "::1", true);
}

#[test]
fn the_tables_are_bounded_and_what_was_not_tried_is_not_counted() {
    let at = |micros| Timestamp::from_micros(micros);
    let network =
        |n: u64| Trier::stranger(IpAddr::V6(Ipv6Addr::from(NEIGHBOUR | u128::from(n) << 80 | 1)));
    let mut limits = Limits::new(LimitRules { rows: 8, ..LOGIN_LIMITS });
    for n in 0..100 {
        limits.begin(network(n), at(n)).unwrap();
    }
    assert_eq!((limits.begin(network(99), at(100)).is_err(), limits.sizes()), (true, (8, 8)));
    let mut limits = Limits::new(LOGIN_LIMITS);
    for n in 0..200 {
        let who = Trier::stranger(at_home(n));
        limits.begin(who, at(1)).unwrap();
        if n % 2 == 0 { limits.take_back(who, at(1)) } else { limits.succeed(who, at(1)) }
    }
    assert!(limits.look(Trier::stranger(at_home(0)), at(1)).wait.is_zero());
}

#[test]
fn the_machines_own_address_is_nobodys() {
    let (_house, access, _) = claimed();
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    log_in(&access, Role::Owner, PASSWORD, here).unwrap();
    assert!(Trier::at_known_address(here).is_stranger(), "a session's program is there, too");
    // Nor does the viewer's login make an address the owner's.
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    log_in(&access, Role::Viewer, "viewer password", THERE).unwrap();
    let (state, now) = (access.state(), access.now());
    assert!(state.sessions.knows(Role::Viewer, THERE, now));
    assert!(!state.sessions.knows(Role::Owner, THERE, now));
}
