//! The attendant over a real socket, with a daemon that is played by hand.

use std::io::{BufRead, BufReader};

use rustix::fs::{CWD, FileType, Mode};

use super::super::tests::CLAIM;
use super::super::vouch::tests::{Owner, chain};
use super::super::vouch::{Link, MAX_LINKS};
use super::*;
use crate::files;

const BOOT: &str = "this";

/// The daemon's end, and all that the attendant does meanwhile.
fn with_daemon(
    uid: u32,
    act: impl FnOnce(&mut dyn FnMut(&str), &mut dyn FnMut() -> String, &Path),
) {
    let folder = tempfile::tempdir().unwrap();
    let (state, esp) = (folder.path().join("os"), folder.path().join("esp"));
    fs::create_dir_all(&state).unwrap();
    fs::create_dir_all(&esp).unwrap();
    fs::write(esp.join(note::NAME), "an old claim").unwrap();
    let path = folder.path().join("attend.sock");
    let listener = bind(&path, None).unwrap();
    let daemon = UnixStream::connect(&path).unwrap();
    let mut present = || {};
    let site = Site {
        state,
        esp,
        screens: vec![],
        daemon_uid: uid,
        bring: vec![],
        boot_id: BOOT.to_owned(),
        present: &mut present,
    };
    let mut attending = Attending::new(site).unwrap();
    attending.wait(&listener, None).unwrap();
    let mut reader = BufReader::new(daemon.try_clone().unwrap());
    let attending = std::cell::RefCell::new(attending);
    let mut say = |line: &str| {
        let line = line.replace('\n', " ") + "\n";
        (&daemon).write_all(line.as_bytes()).unwrap();
        attending.borrow_mut().wait(&listener, None).unwrap();
    };
    let mut hear = || {
        let mut line = String::new();
        // A connection that was cut ends in an error or without one.
        let _ = reader.read_line(&mut line);
        line
    };
    act(&mut say, &mut hear, folder.path());
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

#[test]
fn the_daemon_claims_and_brings_its_key() {
    with_daemon(me(), |say, hear, folder| {
        let note = folder.join("esp/CLAIM.txt");
        assert_eq!(hear(), "{\"say\":\"hello\",\"schema\":4}\n");
        assert!(!note.exists(), "an old claim is erased");
        say(CLAIM);
        assert!(fs::read_to_string(&note).unwrap().contains("ABCD2345"));
        // Neither the same nor another is written at once.
        fs::write(&note, "as it was").unwrap();
        say(CLAIM);
        say(&CLAIM.replace("ABCD2345", "ABCD2346"));
        assert_eq!(fs::read_to_string(&note).unwrap(), "as it was");
        say(r#"{"say":"claimed"}"#);
        assert!(!note.exists());
        let (salt, ours, other) = ("0".repeat(32), "a".repeat(64), "b".repeat(64));
        let owner = |key| format!(r#"{{"say":"owner","salt":"{salt}","key":"{key}"}}"#);
        say(&owner(ours));
        assert!(hear().contains("owner-kept"));
        assert!(folder.join("os/owner.json").exists());
        say(&owner(other));
        assert!(hear().contains("owner-refused"));
    });
}

#[test]
fn what_cannot_be_read_ends_the_talk() {
    with_daemon(me(), |say, hear, _| {
        hear();
        say(r#"{"say":"sudo"}"#);
        assert_eq!(hear(), "");
    });
    with_daemon(me(), |say, hear, _| {
        hear();
        say(&"x".repeat(MAX_LINE_BYTES + 1));
        assert_eq!(hear(), "");
    });
}

fn line(said: &FromDaemon) -> String {
    serde_json::to_string(said).unwrap()
}

fn replace(links: Vec<Link>) -> String {
    line(&FromDaemon::ReplaceOwner { links })
}

#[test]
fn the_key_on_the_disk_is_replaced_by_what_it_vouches_for() {
    with_daemon(me(), |say, hear, folder| {
        hear();
        let state = folder.join("os");
        say(CLAIM);
        say(&line(&FromDaemon::Owner(Owner::new(1).key())));
        let FromRoot::OwnerKept { key, nonce } = serde_json::from_str(&hear()).unwrap() else {
            panic!()
        };
        assert_eq!(key, Owner::new(1).key().key);
        // What the disk does not take is not believed either, and can be said again.
        let to_second = || replace(vec![Owner::new(1).vouch(&Owner::new(2), nonce)]);
        let in_the_way = state.join("owner.json.part");
        fs::create_dir(&in_the_way).unwrap();
        say(&to_second());
        assert!(hear().contains("the disk did not take it"));
        fs::remove_dir(in_the_way).unwrap();
        say(&to_second());
        assert!(
            hear().contains(&format!("\"owner-kept\",\"key\":\"{}\"", Owner::new(2).key().key))
        );
        let lies = owner::read(&state).unwrap().unwrap();
        assert_eq!(lies.owner, Owner::new(2).key());
        // The nonce is used up, and so is the old key.
        say(&replace(vec![Owner::new(1).vouch(&Owner::new(3), nonce)]));
        assert!(hear().contains("does not vouch"));
        assert_eq!(owner::read(&state).unwrap(), Some(lies));
    });
}

#[test]
fn what_the_owner_has_proved_is_noted_on_the_disk_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let (state, socket) = (folder.path().join("os"), folder.path().join("attend.sock"));
    fs::create_dir(&state).unwrap();
    let (us, thief) = (Owner::new(1), Owner::new(7));
    owner::write(&state, &us.kept(Nonce::new([9; 32]))).unwrap();
    let screen = folder.path().join("screen");
    fs::write(&screen, "").unwrap();
    let mut present = || {};
    let site = Site {
        state: state.clone(),
        esp: folder.path().to_path_buf(),
        screens: vec![screen.clone()],
        daemon_uid: me(),
        bring: vec![],
        boot_id: BOOT.to_owned(),
        present: &mut present,
    };
    let mut attending = Attending::new(site).unwrap();
    let listener = bind(&socket, None).unwrap();
    let daemon = UnixStream::connect(&socket).unwrap();
    attending.wait(&listener, None).unwrap();
    let mut reader = BufReader::new(daemon.try_clone().unwrap());
    let mut hear = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str::<FromRoot>(&line).unwrap()
    };
    assert_eq!(hear(), FromRoot::Hello { schema: 4 });
    let mut tell = |attending: &mut Attending<'_>, said: &FromDaemon| {
        (&daemon).write_all((line(said) + "\n").as_bytes()).unwrap();
        attending.wait(&listener, None).unwrap();
        hear()
    };
    let mut prove = |attending: &mut Attending<'_>, by: &Owner, deed: &Deed| {
        let asked = tell(attending, &FromDaemon::AskProof(deed.clone()));
        let FromRoot::ProofAsked { nonce, owner } = asked else { panic!("{asked:?}") };
        assert_eq!(owner, us.key());
        let proof = FromDaemon::BringProof(by.prove(deed, nonce));
        let said = tell(attending, &proof);
        let again = tell(attending, &proof);
        assert_eq!(again, FromRoot::ProofRefused { why: Refusal::NotAsked }, "{said:?}");
        said
    };
    let refused = |why| FromRoot::ProofRefused { why };

    let (reset, marker) = (Deed::FactoryReset, state.join(reset::MARKER));
    let said = prove(&mut attending, &thief, &reset);
    assert_eq!(said, refused(Refusal::Signature));
    assert_eq!(fs::read_to_string(&screen).unwrap(), "", "nobody is told of what is no wish");
    let said = prove(&mut attending, &us, &reset);
    assert_eq!(said, refused(Refusal::NeedsPresence));
    assert!(fs::read_to_string(&screen).unwrap().contains("Three short presses"));
    attending.attendant.present(since_start(), Presence::PowerButton);
    fs::create_dir(files::part(&marker)).unwrap();
    assert_eq!(prove(&mut attending, &us, &reset), refused(Refusal::NotKept));
    fs::remove_dir(files::part(&marker)).unwrap();
    assert!(!marker.exists());
    assert_eq!(prove(&mut attending, &us, &reset), FromRoot::ProofTaken);
    assert!(!reset::is_due(&state, BOOT).unwrap() && reset::is_due(&state, "next").unwrap());

    let commit = "0a".repeat(32);
    let back = Deed::RollbackBelowFloor { commit: commit.clone() };
    assert_eq!(prove(&mut attending, &thief, &back), refused(Refusal::Signature));
    assert!(!permit::take(&state, &commit, BOOT, since_start()).unwrap());
    assert_eq!(prove(&mut attending, &us, &back), FromRoot::ProofTaken);
    assert!(permit::take(&state, &commit, BOOT, since_start()).unwrap());
}

#[test]
fn a_chain_that_is_too_long_ends_the_talk() {
    with_daemon(me(), |say, hear, folder| {
        hear();
        say(CLAIM);
        say(&line(&FromDaemon::Owner(Owner::new(1).key())));
        hear();
        let seeds: Vec<u8> = (1..=u8::try_from(MAX_LINKS).unwrap() + 2).collect();
        let before = fs::read(folder.join("os/owner.json")).unwrap();
        say(&replace(chain(&seeds)));
        assert_eq!(hear(), "");
        assert_eq!(fs::read(folder.join("os/owner.json")).unwrap(), before);
    });
}

#[test]
fn devices_without_end_are_read_in_turns() {
    let mut read = 0;
    let (names, buttons) = gather(|| {
        read += 1;
        Some(if read == 1 { Arrival::Block("sdb1".to_owned()) } else { Arrival::Other })
    });
    assert_eq!((read, names, buttons), (MAX_MESSAGES, vec!["sdb1".to_owned()], false));
    let mut left = vec![Arrival::Other, Arrival::Input];
    assert_eq!(gather(|| left.pop()), (vec![], true));
}

/// Waits until the attendant has heard what a daemon says, which connects, and is gone again then.
fn visit(attending: &mut Attending<'_>, path: &Path, says: &[&str]) -> Vec<String> {
    let listener = bind(path, None).unwrap();
    let daemon = UnixStream::connect(path).unwrap();
    attending.wait(&listener, None).unwrap();
    for line in says {
        (&daemon).write_all(format!("{line}\n").as_bytes()).unwrap();
        attending.wait(&listener, None).unwrap();
    }
    daemon.shutdown(std::net::Shutdown::Write).unwrap();
    attending.wait(&listener, None).unwrap();
    BufReader::new(daemon).lines().map(Result::unwrap).collect()
}

#[test]
fn a_reset_file_is_not_used_up_before_the_daemon_has_taken_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("attend.sock");
    let mut present = || {};
    let mut begin = |act: &mut dyn FnMut(&mut Attending<'_>)| {
        let (state, esp) = (folder.path().to_path_buf(), folder.path().to_path_buf());
        let site = Site {
            state,
            esp,
            screens: vec![],
            daemon_uid: me(),
            bring: vec![],
            boot_id: BOOT.to_owned(),
            present: &mut present,
        };
        act(&mut Attending::new(site).unwrap());
    };
    let digest = "a".repeat(64);
    let says = format!(r#"{{"say":"presence","by":"reset-file","digest":"{digest}"}}"#);
    // Nobody is connected when it comes, and the first who is does not live to act on it.
    begin(&mut |attending| {
        attending.reset_file(digest.clone());
        assert_eq!(visit(attending, &socket, &[])[1..], [&*says]);
    });
    // After a loss of power too, until it is taken.
    begin(&mut |attending| {
        let taken = r#"{"say":"presence-taken"}"#;
        assert_eq!(visit(attending, &socket, &[taken])[1..], [&*says]);
        assert_eq!(visit(attending, &socket, &[])[1..], [""; 0]);
    });
    begin(&mut |attending| assert_eq!(visit(attending, &socket, &[])[1..], [""; 0]));
}

#[test]
fn a_reset_file_shows_somebody_once() {
    let folder = tempfile::tempdir().unwrap();
    let seen = std::cell::Cell::new(0);
    for _ in 0..2 {
        let mut present = || seen.set(seen.get() + 1);
        let site = Site {
            state: folder.path().to_path_buf(),
            esp: folder.path().to_path_buf(),
            screens: vec![],
            daemon_uid: me(),
            bring: vec![],
            boot_id: BOOT.to_owned(),
            present: &mut present,
        };
        let mut attending = Attending::new(site).unwrap();
        attending.reset_file("a".repeat(64));
        attending.reset_file("a".repeat(64));
    }
    assert_eq!(seen.get(), 1);
}

#[test]
fn an_update_is_handed_over_while_the_attendant_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let hold = path("hold");
    rustix::fs::mknodat(CWD, &hold, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let script = r#"cat > "$0/taken"; read word < "$0/hold""#;
    let words = ["sh", "-c", script, folder.path().to_str().unwrap()];
    let mut present = || {};
    let site = Site {
        state: folder.path().to_path_buf(),
        esp: folder.path().to_path_buf(),
        screens: vec![],
        daemon_uid: me(),
        bring: words.map(str::to_owned).to_vec(),
        boot_id: BOOT.to_owned(),
        present: &mut present,
    };
    let mut attending = Attending::new(site).unwrap();
    let update = |text: &str| {
        fs::write(path(text), text).unwrap();
        File::open(path(text)).unwrap()
    };
    attending.bring(update("the first"));
    assert!(attending.bringing.is_some());
    // Meanwhile the daemon is answered, and another stick is left.
    let said = visit(&mut attending, &path("attend.sock"), &[]);
    assert!(said[0].contains("hello"), "{said:?}");
    attending.bring(update("the second"));
    // It goes on when somebody opens the other end.
    fs::write(&hold, "go\n").unwrap();
    let listener = bind(&path("again.sock"), None).unwrap();
    while attending.bringing.is_some() {
        attending.wait(&listener, None).unwrap();
    }
    assert_eq!(fs::read_to_string(path("taken")).unwrap(), "the first");
    attending.site.bring = vec![path("gone").to_str().unwrap().to_owned()];
    attending.bring(update("the fourth"));
    assert!(attending.bringing.is_none());
}

#[test]
fn one_that_never_ends_is_ended_and_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut present = || {};
    let site = Site {
        state: folder.path().to_path_buf(),
        esp: folder.path().to_path_buf(),
        screens: vec![],
        daemon_uid: me(),
        bring: ["sleep", "infinity"].map(str::to_owned).to_vec(),
        boot_id: BOOT.to_owned(),
        present: &mut present,
    };
    let mut attending = Attending::new(site).unwrap();
    fs::write(path("update"), "an update").unwrap();
    let update = || File::open(path("update")).unwrap();
    attending.bring(update());
    let deadline = attending.bringing.as_ref().unwrap().deadline();
    attending.go_on_without(deadline - Duration::from_secs(1));
    assert!(attending.bringing.is_some());
    attending.go_on_without(deadline);
    assert_eq!((attending.bringing.is_none(), attending.late.len()), (true, 1));
    // Another stick has its turn at once, before the system has taken the first away.
    attending.bring(update());
    assert!(attending.bringing.is_some());
    let listener = bind(&path("attend.sock"), None).unwrap();
    while !attending.late.is_empty() {
        attending.wait(&listener, None).unwrap();
    }
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    let own = attending.bringing.as_ref().unwrap().id().to_string();
    assert_eq!(children.split_whitespace().collect::<Vec<_>>(), [own], "the first is gone");
}

#[test]
fn an_unreadable_key_lets_nobody_bring_the_first() {
    with_daemon(me(), |say, hear, folder| {
        hear();
        let file = folder.join("os/owner.json");
        fs::create_dir(&file).unwrap();
        let (salt, key) = ("0".repeat(32), "a".repeat(64));
        let owner = format!(r#"{{"say":"owner","salt":"{salt}","key":"{key}"}}"#);
        say(CLAIM);
        say(&owner);
        assert!(hear().contains("the disk did not take it"));
        fs::remove_dir(&file).unwrap();
        say(CLAIM);
        say(&owner);
        assert!(hear().contains("cannot be read"));
        assert!(!file.exists());
    });
}

#[test]
fn nobody_else_is_heard() {
    with_daemon(me() + 1, |_, hear, folder| {
        assert_eq!(hear(), "");
        assert!(!folder.join("esp/CLAIM.txt").exists());
    });
}
