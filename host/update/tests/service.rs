//! The service on a private bus: who may ask, what happens when two do, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use punktfunk_update::engine::Offer;
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{Commit, Version};
use punktfunk_update::outlook::{self, Outlook};
use punktfunk_update::service::End;
use punktfunk_update_rig::{Client, Outcome, Rig};

const OLDEST: Version = Version::new(1, 4, 0);
const NEW: Version = Version::new(1, 5, 0);

/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(60);

fn busy(doing: &str) -> Result<String, UpdateError> {
    Err(UpdateError::Busy { doing: doing.to_owned() })
}

fn seen(rig: &Rig) -> Outlook {
    serde_json::from_slice(&std::fs::read(rig.run_folder().join(outlook::NAME)).unwrap()).unwrap()
}

/// Waits until a download stands still, about where it was told to.
fn until_it_stands(client: &Client, about: u64) {
    while client.told().done < about {}
}

fn checked(rig: &mut Rig, client: &Client) -> Commit {
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    let offers = client.call("Check", ()).unwrap();
    let offers: Vec<Offer> = serde_json::from_str(&offers).unwrap();
    assert_eq!((offers.len(), offers[0].commit), (1, commit));
    commit
}

#[test]
#[ignore = "needs root and ostree"]
fn all_of_it_is_asked_for_over_the_bus() {
    let mut rig = Rig::new();
    let client = rig.client();
    assert_eq!(seen(&rig).newest_made_at, 0);
    let commit = checked(&mut rig, &client);
    assert!(seen(&rig).newest_made_at > 0);
    let name = commit.to_string();
    // Piece by piece, each of which is told before the next may come.
    rig.stall_after(64 << 10);
    let began = Instant::now();
    let pending = client.ask("Download", (name.clone(), false));
    let mut told = vec![client.told()];
    for _ in 0..12 {
        rig.stall_after(64 << 10);
        told.push(client.told());
    }
    rig.go_on();
    assert_eq!(pending.answer(), Ok(String::new()));
    let elapsed = began.elapsed();
    while told[told.len() - 1].done < told[0].total {
        told.push(client.told());
    }
    let last = &told[told.len() - 1];
    assert_eq!((last.commit.as_str(), last.done), (name.as_str(), last.total));
    assert!(told.windows(2).all(|two| two[0].done <= two[1].done));
    let most = elapsed.as_millis() / 100 + 3;
    assert!((told.len() as u128) < most, "{} words in {elapsed:?}", told.len());
    assert_eq!(seen(&rig).fetched.unwrap().done_bytes, last.total);
    client.call("Stage", (name.clone(), false)).unwrap();
    assert_eq!(seen(&rig).staged.unwrap().commit, commit);
    client.call("Apply", (name.clone(), false)).unwrap();
    rig.boot();
    let runs = rig.site().place.booted().unwrap();
    assert_eq!(runs.commit(), name);
    let old = rig.site().deployments().unwrap()[1].id.commit().to_owned();
    client.call("Pin", (old.clone(), true)).unwrap();
    assert!(rig.site().deployments().unwrap()[1].pinned);
    client.call("Follow", ("next",)).unwrap();
    assert_eq!(seen(&rig).channel.to_string(), "next");
    client.call("Follow", ("stable",)).unwrap();
    client.call("Cancel", ()).unwrap();
    let archive = std::fs::File::open(rig.archive("stable".parse().unwrap())).unwrap();
    let given = zbus::OwnedFd::from(std::os::fd::OwnedFd::from(archive));
    let offers = client.call("ImportArchive", (given,)).unwrap();
    assert!(offers.contains(&name), "{offers}");
}

#[test]
#[ignore = "needs root and ostree"]
fn who_may_not_gets_nothing_and_nonsense_is_called_so() {
    let mut rig = Rig::new();
    let client = rig.client();
    let name = checked(&mut rig, &client).to_string();
    for commit in ["", "sha256:00", "../../etc/passwd", &"A".repeat(64)] {
        let said = client.call("Download", (commit.to_owned(), false));
        assert!(matches!(said, Err(UpdateError::Malformed { .. })), "{commit}");
    }
    let said = client.call("Follow", ("nightly",));
    assert!(matches!(said, Err(UpdateError::Malformed { .. })));
    let verbs = ["check", "download", "stage", "apply", "pin", "follow", "cancel", "import"];
    verbs.iter().for_each(|verb| rig.forbid(verb));
    let given = rig.given_bytes();
    assert_eq!(client.call("Check", ()), Err(UpdateError::NotAllowed));
    assert_eq!(client.call("Cancel", ()), Err(UpdateError::NotAllowed));
    assert_eq!(client.call("Follow", ("next",)), Err(UpdateError::NotAllowed));
    for verb in ["Download", "Stage", "Apply", "Pin"] {
        assert_eq!(client.call(verb, (name.clone(), true)), Err(UpdateError::NotAllowed), "{verb}");
    }
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let nothing = zbus::OwnedFd::from(std::os::fd::OwnedFd::from(nothing));
    assert_eq!(client.call("ImportArchive", (nothing,)), Err(UpdateError::NotAllowed));
    let outlook = seen(&rig);
    assert_eq!((outlook.fetched, outlook.channel.to_string().as_str()), (None, "stable"));
    assert_eq!(rig.given_bytes(), given);
}

#[test]
#[ignore = "needs root and ostree"]
fn one_thing_is_done_at_a_time_and_goes_on_without_whoever_asked() {
    let mut rig = Rig::new();
    let (first, second) = (rig.client(), rig.client());
    let name = checked(&mut rig, &first).to_string();
    let about = 1_400_000;
    rig.stall_after(1 << 20);
    let pending = first.ask("Download", (name.clone(), false));
    until_it_stands(&second, about);
    // The bus is answered all the same.
    assert_eq!(second.call("Check", ()), busy("download"));
    assert_eq!(second.call("Download", (name.clone(), false)), busy("download"));
    assert_eq!(second.call("Download", (name.clone(), true)), busy("download"));
    assert_eq!(second.call("Apply", (name.clone(), false)), busy("download"));
    second.call("Cancel", ()).unwrap();
    assert_eq!(pending.answer(), Err(UpdateError::Stopped));
    let half = seen(&rig).fetched.unwrap();
    assert!(half.done_bytes >= about && half.done_bytes < half.total_bytes, "{half:?}");

    // Whoever asked goes away, and comes back as another.
    rig.stall_after(100_000);
    drop(first.ask("Download", (name.clone(), false)));
    until_it_stands(&second, half.done_bytes);
    drop(first);
    let third = rig.client();
    assert_eq!(third.call("Stage", (name.clone(), false)), busy("download"));
    let pending = third.ask("Download", (name.clone(), false));
    rig.go_on();
    assert_eq!(pending.answer(), Ok(String::new()));
    assert_eq!(third.call("Stage", (name, false)), Ok(String::new()));
}

/// One end goes to the service, the other gives it something.
fn pipe() -> (zbus::OwnedFd, PipeReader, PipeWriter) {
    let (read, write) = std::io::pipe().unwrap();
    let same = read.try_clone().unwrap();
    (OwnedFd::from(read).into(), same, write)
}

/// Gives something, and waits until the service has read it.
fn give(bytes: &[u8], same: &PipeReader, mut write: &PipeWriter) {
    write.write_all(bytes).unwrap();
    while rustix::io::ioctl_fionread(same).unwrap() > 0 {
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs root and ostree"]
fn what_a_stick_brings_waits_for_no_archive_of_somebody_elses_that_shows_no_signature() {
    let mut rig = Rig::new();
    let (root, stranger, another) = (rig.client(), rig.stranger(), rig.stranger());
    let name = checked(&mut rig, &root).to_string();
    let archive = rig.archive("stable".parse().unwrap());
    let bytes = std::fs::read(&archive).unwrap();
    let stick = || zbus::OwnedFd::from(OwnedFd::from(File::open(&archive).unwrap()));

    // A header and half of a statement. Nobody but root comes before it.
    let (given, same, write) = pipe();
    let pending = stranger.ask("ImportArchive", (given,));
    give(&bytes[..1000], &same, &write);
    assert_eq!(another.call("ImportArchive", (pipe().0,)), busy("import"));
    assert_eq!(root.call("Check", ()), busy("import"));
    let offers = root.call("ImportArchive", (stick(),)).unwrap();
    assert!(offers.contains(&name), "{offers}");
    assert_eq!(pending.answer(), busy("import"));
    assert!(root.call("Check", ()).is_ok(), "nothing is left of either");

    // What has shown that it is signed goes on.
    let (given, same, mut write) = pipe();
    let pending = stranger.ask("ImportArchive", (given,));
    let stated = bytes.len() / 2;
    give(&bytes[..stated], &same, &write);
    assert_eq!(root.call("ImportArchive", (stick(),)), busy("import"));
    write.write_all(&bytes[stated..]).unwrap();
    drop(write);
    assert!(pending.answer().unwrap().contains(&name));
}

#[test]
#[ignore = "needs root and ostree"]
fn a_service_that_is_started_anew_goes_on_where_it_was() {
    let mut rig = Rig::new();
    let client = rig.client();
    let name = checked(&mut rig, &client).to_string();
    rig.stall_after(1 << 20);
    let pending = client.ask("Download", (name.clone(), false));
    until_it_stands(&client, 1_400_000);
    rig.stop();
    drop(pending);
    rig.go_on();
    rig.serve();
    // What is offered was kept, too.
    let half = seen(&rig).fetched.unwrap();
    assert!(half.done_bytes >= 1_400_000 && half.done_bytes < half.total_bytes, "{half:?}");
    client.call("Download", (name.clone(), false)).unwrap();
    let told = client.all_told();
    assert!(told.iter().all(|word| word.done >= half.done_bytes), "{told:?}");
    client.call("Stage", (name.clone(), false)).unwrap();
    rig.stop();
    rig.serve();
    assert_eq!(seen(&rig).staged.unwrap().commit.to_string(), name);
    client.call("Apply", (name, false)).unwrap();
}

#[test]
#[ignore = "needs root and ostree"]
fn it_ends_when_nobody_asks_and_not_before() {
    let mut rig = Rig::new();
    let client = rig.client();
    let name = checked(&mut rig, &client).to_string();
    rig.stop();
    rig.serve_for(Duration::from_millis(50));
    assert_eq!(rig.ended_within(PATIENCE), Some(End::Idle));
    rig.serve_for(Duration::from_millis(200));
    rig.stall_after(1 << 20);
    let pending = client.ask("Download", (name.clone(), false));
    until_it_stands(&client, 1_400_000);
    // Nobody asks for longer than it waits, and it is being asked all the time.
    assert_eq!(rig.ended_within(Duration::from_millis(600)), None);
    rig.go_on();
    assert_eq!(pending.answer(), Ok(String::new()));
    assert_eq!(rig.ended_within(PATIENCE), Some(End::Idle));
    assert_eq!(seen(&rig).fetched.unwrap().commit.to_string(), name);
}
