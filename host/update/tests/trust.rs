//! What root believes of what makers state: each kind of bad statement is refused with its reason, and what is believed
//! leads nowhere back.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod maker;

use maker::*;
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel, Version};
use punktfunk_update::statement::{
    Believed, KeyRing, MAX_HOLDS_S, MAX_RELEASE_BYTES, Memory, Signature, Statement, judge,
};

/// An hour after the statements of tests are made.
const NOW: u64 = MADE_AT + 3600;

/// The envelope of a statement that the key in use signed.
fn sealed(statement: &Statement) -> Vec<u8> {
    seal(&text(statement), &[&current()])
}

fn stable(bytes: &[u8], memory: &Memory, unix: u64) -> Result<Believed, UpdateError> {
    judge(bytes, &ring(), memory, Channel::Stable, "slim", unix)
}

/// The memory after these statements, each of which is believed an hour after it is made.
fn after(statements: &[Statement]) -> Memory {
    statements.iter().fold(Memory::default(), |memory, statement| {
        let unix = statement.made_at + 3600;
        let judged =
            judge(&sealed(statement), &ring(), &memory, statement.channel, "slim", unix).unwrap();
        judged.memory_after
    })
}

/// The error's code and text.
fn said<T: std::fmt::Debug>(result: Result<T, UpdateError>) -> String {
    let error = result.unwrap_err();
    let code = serde_json::to_value(&error).unwrap()["code"].as_str().unwrap().to_owned();
    format!("{code}: {error}")
}

/// A statement at a later time than the usual ones.
fn later(minor: u32, seconds: u64, change: impl FnOnce(&mut Statement)) -> Statement {
    changed(minor, |statement| {
        statement.made_at += seconds;
        statement.expires_at += seconds;
        change(statement);
    })
}

#[test]
fn a_good_statement_is_believed_and_remembered() {
    let good = changed(3, |statement| {
        statement.floor = Some(version(1));
        statement.releases.push(release(2));
    });
    for keys in [vec![current()], vec![next()], vec![Key::new(9), next(), current()]] {
        let keys: Vec<&Key> = keys.iter().collect();
        let judged = stable(&seal(&text(&good), &keys), &Memory::default(), NOW).unwrap();
        assert_eq!(judged.statement, good);
        assert_eq!(judged.digest, BlobDigest::of(text(&good).as_bytes()));
        let seen = judged.memory_after.seen(Channel::Stable);
        assert_eq!((seen.newest_made_at, seen.highest), (MADE_AT, Some(version(3))));
        assert_eq!(seen.statement, Some(judged.digest));
        assert_eq!(judged.memory_after.floor, Some(version(1)));
        assert_eq!(judged.memory_after.seen(Channel::Next), Memory::default().seen(Channel::Next));
        // Once more, and to the last second.
        stable(&sealed(&good), &judged.memory_after, good.expires_at - 1).unwrap();
        stable(&sealed(&good), &judged.memory_after, good.made_at).unwrap();
    }
}

#[test]
fn who_did_not_sign_is_not_believed() {
    let (good, other) = (text(&statement(1)), text(&statement(2)));
    let ring_of_one = KeyRing::new(current().public(), None).unwrap();
    let forged = Signature { key: current().id().to_string(), ..Key::new(9).sign(&good) };
    let cut = |digits: usize| {
        let mut signature = current().sign(&good);
        signature.signature.truncate(digits);
        envelope(&good, vec![signature])
    };
    for (bytes, reason) in [
        (envelope(&good, vec![]), "it has no signature"),
        (seal(&good, &[&Key::new(9)]), "by a key that is not known here"),
        (envelope(&good, vec![forged]), "is not of this statement"),
        (envelope(&good, vec![current().sign(&other)]), "is not of this statement"),
        (envelope(&format!("{good} "), vec![current().sign(&good)]), "is not of this statement"),
        (cut(126), "is not of this statement"),
        (cut(0), "is not of this statement"),
    ] {
        let said = said(stable(&bytes, &Memory::default(), NOW));
        assert!(said.starts_with("signature: ") && said.contains(reason), "{said}");
    }
    let by_next = seal(&good, &[&next()]);
    let judged = judge(&by_next, &ring_of_one, &Memory::default(), Channel::Stable, "slim", NOW);
    assert!(said(judged).contains("not known here"));
    // Whoever signs the bare text, for something else, has not signed a statement.
    let bare = {
        use aws_lc_rs::signature::Ed25519KeyPair;
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        punktfunk_update::statement::hex(pair.sign(good.as_bytes()).as_ref())
    };
    let bytes =
        envelope(&good, vec![Signature { key: current().id().to_string(), signature: bare }]);
    assert!(said(stable(&bytes, &Memory::default(), NOW)).contains("is not of this statement"));
}

#[test]
fn time_decides_whether_it_holds() {
    let one = statement(1);
    let bytes = sealed(&one);
    let fresh = Memory::default();
    assert!(said(stable(&bytes, &fresh, MADE_AT - 1)).starts_with("clock-behind: "));
    assert!(said(stable(&bytes, &fresh, 0)).starts_with("clock-behind: "));
    let expired = said(stable(&bytes, &fresh, one.expires_at));
    assert_eq!(expired, "expired: what is stated of version 1.1.0 has expired");
    assert!(said(stable(&bytes, &fresh, u64::MAX)).starts_with("expired: "));

    // A clock that stands before anything that was believed is wrong, of whichever channel that was.
    let seen = after(&[later(1, 7200, |statement| statement.channel = Channel::Next)]);
    assert!(said(stable(&bytes, &seen, MADE_AT + 7199)).starts_with("clock-behind: "));
    stable(&bytes, &seen, MADE_AT + 7200).unwrap();
}

#[test]
fn nothing_leads_back() {
    let seen = after(&[statement(5)]);
    let refused = |statement: &Statement| said(stable(&sealed(statement), &seen, NOW + 7200));
    let older = changed(6, |statement| statement.made_at -= 1);
    assert_eq!(refused(&older), "downgrade: version 1.6.0 is older than 1.5.0");
    // Of the same time, but another one.
    assert!(refused(&statement(6)).starts_with("downgrade: "));
    // Newer, but silent about the highest version.
    let silent = later(4, 60, |_| {});
    assert_eq!(refused(&silent), "downgrade: version 1.4.0 is older than 1.5.0");
    let withdraws_another = later(4, 60, |statement| statement.withdrawn = vec![version(3)]);
    assert!(refused(&withdraws_another).starts_with("downgrade: "));
    let withdraws_a_higher = later(4, 60, |statement| statement.withdrawn = vec![version(6)]);
    assert!(refused(&withdraws_a_higher).starts_with("downgrade: "));
}

#[test]
fn the_highest_version_may_be_withdrawn_and_stays_remembered() {
    let seen = after(&[statement(5)]);
    let withdrawn = later(4, 60, |statement| statement.withdrawn = vec![version(5)]);
    let judged = stable(&sealed(&withdrawn), &seen, NOW).unwrap();
    assert_eq!(judged.memory_after.seen(Channel::Stable).highest, Some(version(5)));
    // It is to be said until something higher comes.
    let silent = later(4, 120, |_| {});
    assert!(said(stable(&sealed(&silent), &judged.memory_after, NOW)).starts_with("downgrade: "));
    let higher = later(6, 120, |_| {});
    let judged = stable(&sealed(&higher), &judged.memory_after, NOW).unwrap();
    assert_eq!(judged.memory_after.seen(Channel::Stable).highest, Some(version(6)));
    // All that there was may be withdrawn.
    let nothing = later(0, 60, |statement| {
        statement.releases.clear();
        statement.withdrawn = vec![version(5)];
    });
    stable(&sealed(&nothing), &seen, NOW).unwrap();
}

#[test]
fn channels_have_a_memory_each_and_one_floor() {
    let on_next = |statement: &mut Statement| {
        statement.channel = Channel::Next;
        statement.floor = Some(version(2));
    };
    let seen = after(&[later(9, 600, on_next)]);
    assert_eq!(seen.floor, Some(version(2)));
    // Older in time and in version, and no downgrade on its own channel.
    let judged = stable(&sealed(&statement(3)), &seen, NOW).unwrap();
    assert_eq!(judged.memory_after.seen(Channel::Next).highest, Some(version(9)));
    assert_eq!(judged.memory_after.seen(Channel::Stable).highest, Some(version(3)));
    assert_eq!(judged.memory_after.floor, Some(version(2)));
    assert_eq!(judged.memory_after.newest_made_at(), MADE_AT + 600);
}

#[test]
fn what_is_of_another_box_is_refused() {
    let bytes = sealed(&statement(1));
    for (channel, flavour) in
        [(Channel::Next, "slim"), (Channel::Stable, "full"), (Channel::Stable, "")]
    {
        let judged = judge(&bytes, &ring(), &Memory::default(), channel, flavour, NOW);
        let said = said(judged);
        assert!(said.starts_with("content: ") && said.contains("is of stable and slim"), "{said}");
    }
}

#[test]
fn a_revoked_key_is_believed_no_more() {
    let (old, new) = (current(), next());
    let revokes = later(2, 60, |statement| statement.revoked = vec![old.id().to_string()]);
    let before = after(&[statement(1)]);
    // Nobody but the other key revokes a key: whoever has one could revoke it and the other one, too.
    let alone = said(stable(&sealed(&revokes), &before, NOW));
    assert!(alone.starts_with("signature: ") && alone.contains("revokes every key"), "{alone}");

    for keys in [vec![&new], vec![&old, &new]] {
        let judged = stable(&seal(&text(&revokes), &keys), &before, NOW).unwrap();
        assert_eq!(judged.signed_by, [new.id()]);
        let memory = judged.memory_after;
        let more = text(&later(3, 120, |_| {}));
        let said = said(stable(&seal(&more, &[&old]), &memory, NOW));
        assert!(said.starts_with("signature: ") && said.contains("was revoked"), "{said}");
        // A later statement that does not say so again does not take it back.
        let judged = stable(&seal(&more, &[&new]), &memory, NOW).unwrap();
        assert!(judged.memory_after.has_revoked(old.id()));
        // Nor does the statement under which the old key's signature was still good hold by that key.
        let again = text(&later(4, 180, |_| {}));
        let judged = stable(&seal(&again, &[&old, &new]), &judged.memory_after, NOW).unwrap();
        assert_eq!(judged.signed_by, [new.id()]);
    }

    let all = later(2, 60, |statement| {
        statement.revoked = vec![old.id().to_string(), new.id().to_string()];
    });
    let said = said(stable(&seal(&text(&all), &[&old, &new]), &before, NOW));
    assert!(said.starts_with("signature: ") && said.contains("revokes every key"), "{said}");
}

// The rotation of docs/reference/releases.md: images with the keys A and B, then with B and C, then with C and D.
#[test]
fn keys_rotate_and_nobody_is_left_behind_by_one_rotation() {
    let [a, b, c, d] = [1, 2, 3, 4].map(Key::new);
    let images = [(&a, &b), (&b, &c), (&c, &d)]
        .map(|(current, next)| KeyRing::new(current.public(), Some(next.public())).unwrap());
    let believed = |keys: &[&Key], memory: &Memory| {
        let bytes = seal(&text(&later(2, 60, |_| {})), keys);
        let judged = |ring| judge(&bytes, ring, memory, Channel::Stable, "slim", NOW);
        images.each_ref().map(|ring| judged(ring).is_ok())
    };
    let fresh = Memory::default();
    assert_eq!(believed(&[&a], &fresh), [true, false, false]);
    assert_eq!(believed(&[&b], &fresh), [true, true, false]);
    assert_eq!(believed(&[&c], &fresh), [false, true, true]);
    assert_eq!(believed(&[&c, &b], &fresh), [true, true, true]);

    // A was stolen and revoked: no image believes it again, not even the oldest.
    let revokes = changed(1, |statement| statement.revoked = vec![a.id().to_string()]);
    let judged = stable(&seal(&text(&revokes), &[&b]), &fresh, NOW).unwrap();
    assert_eq!(believed(&[&a], &judged.memory_after), [false, false, false]);
    assert_eq!(believed(&[&a, &b], &judged.memory_after), [true, true, false]);
}

#[test]
fn a_statement_that_makes_no_sense_is_refused_whoever_signed_it() {
    let many = |count: u32| (1..=count).map(release).collect::<Vec<_>>();
    let cases: Vec<(Statement, &str)> = vec![
        (changed(1, |s| s.schema = 2), "for newer systems"),
        (changed(1, |s| s.schema = 0), "schema 0"),
        (changed(1, |s| s.releases = many(17)), "17 releases"),
        (changed(1, |s| s.releases = vec![release(1), release(1)]), "1.1.0 is there twice"),
        (
            changed(1, |s| {
                s.releases.push(release(2));
                s.releases[1].commit = s.releases[0].commit;
            }),
            "the system of another version",
        ),
        (changed(1, |s| s.releases.clear()), "neither offers a version nor withdraws one"),
        (changed(1, |s| s.releases[0].changes = vec![String::new(); 6]), "6 lines"),
        (changed(1, |s| s.releases[0].size_bytes = MAX_RELEASE_BYTES + 1), "transferred"),
        (changed(1, |s| s.releases[0].size_bytes = 0), "0 bytes transferred"),
        (changed(1, |s| s.releases[0].unpacked_bytes = u64::MAX), "unpacked"),
        (changed(1, |s| s.releases[0].minimum = version(2)), "for those who have 1.2.0"),
        (changed(1, |s| s.floor = Some(version(2))), "no version may be below 1.2.0"),
        (
            changed(1, |s| {
                s.releases.push(release(3));
                s.floor = Some(version(2));
            }),
            "1.1.0 is offered, and 1.2.0 is the oldest",
        ),
        (changed(1, |s| s.withdrawn = vec![version(1)]), "offered and withdrawn"),
        (changed(1, |s| s.withdrawn = vec![version(0); 65]), "65 versions"),
        (changed(1, |s| s.revoked = vec!["00".repeat(8); 17]), "17 keys"),
        (changed(1, |s| s.revoked = vec!["the old one".to_owned()]), "no id of a key"),
        (changed(1, |s| s.expires_at = s.made_at), "expires at"),
        (changed(1, |s| s.made_at = 0), "made at 0"),
        (changed(1, |s| s.expires_at = u64::MAX), "expires at"),
        (changed(1, |s| s.expires_at = s.made_at + MAX_HOLDS_S + 1), "are the most"),
        (changed(1, |s| s.flavour = "slim\nx".to_owned()), "flavour"),
        (changed(1, |s| s.flavour = "a".repeat(33)), "flavour"),
    ];
    for (statement, reason) in &cases {
        let said = said(stable(&sealed(statement), &Memory::default(), NOW));
        assert!(said.starts_with("content: ") && said.contains(reason), "{reason}: {said}");
    }
    for fine in [
        changed(16, |s| s.releases = many(16)),
        changed(1, |s| s.releases[0].size_bytes = MAX_RELEASE_BYTES),
        changed(1, |s| s.expires_at = s.made_at + MAX_HOLDS_S),
        changed(1, |s| s.withdrawn = vec![version(0); 64]),
        changed(1, |s| s.revoked = vec!["00".repeat(8); 16]),
        changed(1, |s| s.floor = Some(version(1))),
    ] {
        stable(&sealed(&fine), &Memory::default(), NOW).unwrap();
    }
}

#[test]
fn a_text_that_is_no_statement_is_refused_whoever_signed_it() {
    let good = text(&statement(1));
    for (wrong, reason) in [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        (r#"{"schema":1}"#, "missing field"),
        (r#"{"schema":7,"all":"else is new"}"#, "schema 7"),
        (&good.replace("\"schema\":1", "\"schema\":1,\"schema\":1"), "duplicate field"),
        (
            &good.replace("\"flavour\":", "\"expires_at\":4000000000,\"flavour\":"),
            "duplicate field",
        ),
        (&good.replace("\"stable\"", "\"nightly\""), "nightly"),
        (&good.replace("1.1.0", "1.1"), "is no version"),
        (&good.replace("sha256:", "sha512:"), "is no digest"),
        (&good.replace("\"made_at\":", "\"made_at\":-"), "cannot be read"),
        (&good.replace("\"made_at\":1", "\"made_at\":1.5e30,\"x\":1"), "cannot be read"),
        (&format!("{good}{good}"), "trailing"),
    ] {
        let said = said(stable(&seal(wrong, &[&current()]), &Memory::default(), NOW));
        assert!(said.starts_with("content: ") && said.contains(reason), "{wrong}: {said}");
    }
    // What a later maker adds without changing the schema is passed over.
    let more = good.replace("\"schema\":1", "\"mood\":{\"a\":[1]},\"schema\":1");
    let judged = stable(&seal(&more, &[&current()]), &Memory::default(), NOW).unwrap();
    assert_eq!(judged.statement, statement(1));
}

#[test]
fn lines_of_what_is_new_are_made_plain() {
    let line = format!("\u{1b}[31mred\n{}", "é".repeat(400));
    let odd = changed(1, |statement| statement.releases[0].changes = vec![line]);
    let judged = stable(&sealed(&odd), &Memory::default(), NOW).unwrap();
    let got = &judged.statement.releases[0].changes[0];
    assert!(got.starts_with("[31mred é") && !got.contains('\n'), "{got}");
    assert!(got.chars().count() <= 300 && got.chars().count() > 290);
}

#[test]
fn keys_that_were_revoked_are_not_remembered_without_end() {
    let mut memory = Memory::default();
    for round in 0..5_u8 {
        let revokes = later(1, u64::from(round), |statement| {
            let id = |at: u8| format!("{:016x}", u64::from(round) * 16 + u64::from(at));
            statement.revoked = (0..16).map(id).collect();
        });
        match stable(&sealed(&revokes), &memory, NOW) {
            Ok(judged) => memory = judged.memory_after,
            Err(error) => {
                assert!(round == 4 && error.to_string().contains("80 keys"), "{round}: {error}");
            }
        }
    }
    assert_eq!(memory.revoked.len(), 64);
    // All the same, what holds no news of that kind is believed.
    stable(&sealed(&later(1, 60, |_| {})), &memory, NOW).unwrap();
    assert_eq!(Version::new(1, 1, 0), memory.seen(Channel::Stable).highest.unwrap());
}
