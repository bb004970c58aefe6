//! What the launcher would do, read off its command lines and rules; and what it refuses. That it does it is shown by
//! the stock client's tests, which run it as root.
#![expect(clippy::unwrap_used, reason = "a test may end where it stands")]

use std::process::{Command, Output};

use punktfunk_launcher::{Error, Options, Profile, rules};

fn words(daemon_uid: u32, first_uid: u32, profiles: &str) -> Vec<String> {
    let options = [
        ("--daemon-uid", daemon_uid.to_string()),
        ("--first-uid", first_uid.to_string()),
        ("--profiles", profiles.to_owned()),
        ("--folder", "/nonexistent/run".to_owned()),
        ("--homes", "/nonexistent/homes".to_owned()),
        ("--agent", "/usr/bin/agent".to_owned()),
        ("--ports", "47984,47998".to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn options(first_uid: u32) -> Options {
    Options::parse(&words(999, first_uid, "64")).unwrap()
}

/// A command as somebody would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_agent_is_started_without_roots_rights_and_without_a_way_to_gain_them() {
    let options = options(161_000);
    let command = Profile::new(&options, 5).unwrap().agent(&options);
    let text = line(&command);
    let (limits, agent) = text.split_once(" /usr/bin/setpriv ").unwrap();
    assert!(
        limits.starts_with(
            "/usr/bin/env --default-signal /usr/bin/setsid /usr/bin/prlimit --core=0 --nproc="
        ),
        "{limits}"
    );
    assert!(limits.ends_with(" /usr/bin/choom --adjust=500 --"), "{limits}");
    assert_eq!(
        agent,
        "--no-new-privs --bounding-set=-all --inh-caps=-all --clear-groups --reuid=161005 \
         --regid=161005 /usr/bin/agent --connect /nonexistent/run/5.sock --runtime-dir \
         /nonexistent/run/5 --home /nonexistent/homes/5 --owns-user"
    );
    let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "SHELL", "USER"]);
}

#[test]
fn systemd_is_asked_for_one_unit_by_its_number() {
    let mut words = words(999, 161_000, "64");
    words.push("--systemd".to_owned());
    let options = Options::parse(&words).unwrap();
    let profile = Profile::new(&options, 63).unwrap();
    assert_eq!(
        line(&profile.agent(&options)),
        "/usr/bin/systemctl --quiet start punktfunk-session@63.service"
    );
}

#[test]
fn a_profile_is_one_of_those_there_are_and_its_user_nobody_elses() {
    let refused = |options: &Options, number: u16| {
        matches!(Profile::new(options, number), Err(Error::Refused(_)))
    };
    assert!(!refused(&options(161_000), 63));
    assert!(refused(&options(161_000), 64));
    // 65534 is `nobody`, everywhere; the second time as the one who would sweep up.
    assert!(refused(&options(65_534), 0) && !refused(&options(65_535), 0));
    assert!(refused(&options(65_534 - 64), 0));
    assert!(refused(&Options::parse(&words(161_000, 161_000, "64")).unwrap(), 0), "the daemon's");
}

#[test]
fn a_command_line_that_is_not_whole_is_refused() {
    assert!(Options::parse(&[]).is_err());
    assert!(Options::parse(&words(999, 161_000, "64")[2..]).is_err());
    for (at, bad) in [
        (1, "0"),
        (1, "-1"),
        (1, "4294967295"),
        (3, "0"),
        (3, "999"),
        (5, "0"),
        (5, "65"),
        (7, "relative"),
        (9, ""),
        (11, "agent"),
        (13, ""),
        (13, "1;flush"),
        (13, "65536"),
        (12, "--port"),
    ] {
        let mut words = words(999, 161_000, "64");
        words[at] = bad.to_owned();
        assert!(Options::parse(&words).is_err(), "{bad} as {}", words[at - 1]);
    }
}

#[test]
fn the_fence_is_one_transaction_and_names_users_and_ports() {
    assert_eq!(
        rules(&options(161_000)),
        "\
table inet punktfunk_sessions {}
delete table inet punktfunk_sessions
table inet punktfunk_sessions {
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid 161000-161063 fib daddr type { local, broadcast, multicast, anycast } tcp dport { 47984,47998 } reject with tcp reset
    meta skuid 161000-161063 fib daddr type { local, broadcast, multicast, anycast } udp dport { 47984,47998 } reject
  }
}
"
    );
}

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_punktfunk-launcher")).args(words).output().unwrap()
}

#[test]
fn the_program_says_what_is_wrong_with_its_words() {
    for words in [&[] as &[&str], &["dance"], &["serve"], &["clear", "--systemd"], &["sweep"]] {
        let done = run(words);
        assert!(!done.status.success() && !done.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn a_sweep_is_for_users_of_sessions_only() {
    for words in
        [["0", "161000", "/"], ["161000", "0", "/"], ["x", "161000", "/"], ["999", "161000", "/"]]
    {
        let done = run(&[&["sweep"], &words as &[&str]].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("no such users"), "{words:?}: {said}");
    }
}
