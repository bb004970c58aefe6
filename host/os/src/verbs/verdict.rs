//! `verdict`: looks whether what was started is good, and says so to the loader and to everybody.
//!
//! The checks are programs of their own, started as the daemon's unprivileged user, each with a limit. The time for all
//! of it is kept here and not by systemd: a limit of a unit would restart a machine that nobody counts.
//!
//! Nothing that goes wrong here leaves a counted start unjudged: what cannot be found out makes it red, and a restart
//! that is refused is asked for more and more firmly.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::reboot::RebootMode;
use serde_json::Value;

use super::Site;
use crate::files;
use crate::ledger::Ledger;
use crate::mirror::read_esp;
use crate::model::Esp;
use crate::policy::{self, Act, Start, unit_counts};
use crate::programs::{ProgramError, Ran, run, run_well};
use crate::status::{Check, Outcome, bounded, bounded_log};

/// The daemon's unit, which must run before anything else is worth asking.
const DAEMON: &str = "punktfunk-host.service";

/// What answers for a console that does not.
const RESCUE: &str = "punktfunk-rescue.service";

/// Names of checks.
const DAEMON_CHECK: &str = "daemon";
const CONSOLE_CHECK: &str = "console";

/// User and group of the daemon.
const DAEMON_ID: &str = "960";

/// How long all of it may take, unless the owner says otherwise.
const LIMIT: Duration = Duration::from_secs(240);

/// What the owner can say at most, in seconds: with all that comes before, less than the 20 minutes after which
/// `punktfunk-deadline.timer` takes a start on trial for one that hangs.
const MAX_LIMIT_S: u64 = 600;

/// Where the owner says it.
const LIMIT_FILE: &str = "/etc/punktfunk/verdict-limit";

/// How long a question to systemd or the journal may take.
const QUICK: Duration = Duration::from_secs(30);

/// How long it is waited before a thing is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A unit that systemd had to start again so often does not run, whatever it is in this moment.
const MAX_RESTARTS: u32 = 3;

/// Says that a start was judged and stays up; `punktfunk-deadline.service` leaves it alone then.
const STAYS: &str = "/run/punktfunk-os/stays";

/// A daemon whose console is open already may still be starting. It is waited for with all the time that there is but for
/// this: what it says then is to be heard, and the self-test told that it had no time.
const CONSOLE_SPARE: Duration = Duration::from_secs(20);

/// A check that fails is made so often: a single lost packet is no bad deployment. The self-test looks twice itself.
const CONSOLE_ROUNDS: u32 = 3;
const SELF_TEST_ROUNDS: u32 = 2;

/// What a check is, and what it runs.
const CONSOLE: &[&str] = &["punktfunk-host", "check-console", "--patience"];
const SELF_TEST: &[&str] = &[
    "punktfunk-host",
    "selftest",
    "--json",
    "--width",
    "640",
    "--height",
    "360",
    "--frames",
    "30",
    "--fps",
    "10",
    "--patience",
    "60",
];

/// How systemd is asked for a restart: in good order, and then without stopping what runs.
const REBOOTS: &[&[&str]] =
    &[&["systemctl", "--no-block", "reboot"], &["systemctl", "--force", "reboot"]];

/// The exit status of a self-test that could not be run.
const COULD_NOT_BE_RUN: i32 = 2;

/// Until when.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Judges this start. Says whether it is good.
pub fn verdict(site: &Site) -> anyhow::Result<bool> {
    let Some(start) = site.start() else { anyhow::bail!("what runs is no deployment of ours") };
    let deadline = Deadline(Instant::now() + limit());
    let evidence = Evidence {
        checks: checks(deadline),
        ledger: site.known(),
        esp: read_esp(&site.place.esp).map_err(Into::into),
        failed: units_that_do_not_run().map_err(Into::into),
    };
    let (mut outcome, act, worst) = decide(&start, evidence);
    if let Outcome::Failed { log, .. } = &mut outcome {
        *log = last_words(worst.as_deref().unwrap_or(DAEMON));
    }
    say(&outcome);
    // A full disk decides nothing about a deployment.
    if let Err(error) = remember(site, &start, &outcome) {
        complain!("what was found could not be noted: {error:#}");
    }
    match act {
        Act::Bless => Ok(true),
        Act::Stay => {
            tell!("it stays up: nobody counts it, or nothing else is left to start");
            if let Err(error) = std::fs::write(STAYS, "") {
                complain!("{STAYS} could not be written, so this start may be ended: {error}");
            }
            if is_silent(&outcome) {
                let started = run_well(&["systemctl", "--no-block", "start", RESCUE], QUICK);
                let _ = started.inspect_err(|error| complain!("{error}"));
            }
            Ok(false)
        }
        Act::Reboot => {
            tell!("the loader decides anew");
            rustix::fs::sync();
            reboot(REBOOTS, || Ok(nix::sys::reboot::reboot(RebootMode::RB_AUTOBOOT).map(drop)?))?;
            Ok(false)
        }
    }
}

/// What there is to judge by; not to know a part of it is no good sign.
struct Evidence {
    checks: Vec<Check>,
    ledger: anyhow::Result<Ledger>,
    esp: anyhow::Result<Esp>,
    /// The units that failed, and those that fail again and again.
    failed: anyhow::Result<Vec<String>>,
}

/// What the evidence comes to, what is done about it, and the failed unit that speaks most against the deployment.
fn decide(start: &Start, evidence: Evidence) -> (Outcome, Act, Option<String>) {
    let Evidence { mut checks, ledger, esp, failed } = evidence;
    let blessed = known(&mut checks, "ledger", ledger).and_then(|ledger| ledger.blessed);
    let esp = known(&mut checks, "loader", esp);
    let failed = known(&mut checks, "systemd", failed).unwrap_or_default();
    let outcome = policy::judge(checks, &failed, blessed.as_ref());
    let act = match esp {
        Some(esp) => policy::act(&outcome, start, &esp),
        // It is red. What the machine was set up with is still there to be started when the tries are spent.
        None if start.counter.is_some() => Act::Reboot,
        None => Act::Stay,
    };
    let worst = failed.into_iter().find(|unit| unit_counts(unit, blessed.as_ref()));
    (outcome, act, worst)
}

/// A part of the evidence; what kept it from being known is a check that failed.
fn known<T>(checks: &mut Vec<Check>, name: &str, part: anyhow::Result<T>) -> Option<T> {
    let failed = |error| {
        let detail = bounded(&format!("{error:#}"));
        checks.push(Check { name: name.to_owned(), passed: false, detail });
    };
    part.map_err(failed).ok()
}

/// Restarts the machine in the first of these ways that is not refused, and in the last one without systemd.
fn reboot(ways: &[&[&str]], last: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for words in ways {
        match run_well(words, QUICK) {
            Ok(_) => return Ok(()),
            Err(error) => complain!("{error}"),
        }
    }
    last()
}

/// Nobody would see from afar that something is wrong.
fn is_silent(outcome: &Outcome) -> bool {
    let Outcome::Failed { checks, .. } = outcome else { return false };
    let door = |check: &Check| matches!(check.name.as_str(), DAEMON_CHECK | CONSOLE_CHECK);
    checks.iter().any(|check| door(check) && !check.passed)
}

fn remember(site: &Site, start: &Start, outcome: &Outcome) -> anyhow::Result<()> {
    let mut held = site.ledger()?;
    let up = units("--state=active").unwrap_or_default();
    policy::conclude(&mut held.ledger, start, outcome, up);
    held.save()?;
    site.publish(&held.ledger)
}

fn say(outcome: &Outcome) {
    match outcome {
        Outcome::Passed { .. } => tell!("green"),
        Outcome::Failed { reason, .. } => tell!("red: {reason}"),
        Outcome::Pending | Outcome::Unknown => {}
    }
}

/// How long all of it may take: the owner's word, or the environment's for trying things out.
fn limit() -> Duration {
    let said = std::env::var("PF_VERDICT_LIMIT").ok();
    let said = said.or_else(|| files::read_word(Path::new(LIMIT_FILE)));
    parse_limit(said.as_deref())
}

fn parse_limit(said: Option<&str>) -> Duration {
    let seconds = said.and_then(|text| text.trim().parse().ok());
    seconds.map_or(LIMIT, |seconds: u64| Duration::from_secs(seconds.clamp(1, MAX_LIMIT_S)))
}

/// Makes the checks, each of which says what it found as soon as it has.
fn checks(deadline: Deadline) -> Vec<Check> {
    let daemon = wait_for_daemon(deadline);
    tell!("{}: {}", daemon.name, daemon.detail);
    let mut checks = vec![daemon];
    if checks[0].passed {
        checks.push(repeat(CONSOLE_CHECK, console, CONSOLE_ROUNDS, deadline, read_console));
        checks.push(repeat("self-test", self_test, SELF_TEST_ROUNDS, deadline, read_self_test));
    }
    checks
}

/// The words of a check for which there is so much time left.
type Words = fn(Duration) -> Vec<String>;

fn console(left: Duration) -> Vec<String> {
    let patience = left.saturating_sub(CONSOLE_SPARE).as_secs().clamp(1, MAX_LIMIT_S);
    CONSOLE.iter().map(ToString::to_string).chain([patience.to_string()]).collect()
}

fn self_test(_: Duration) -> Vec<String> {
    SELF_TEST.iter().map(ToString::to_string).collect()
}

/// Waits until systemd calls the daemon active, or gives it up.
fn wait_for_daemon(deadline: Deadline) -> Check {
    let check = |passed, detail: String| Check { name: DAEMON_CHECK.to_owned(), passed, detail };
    loop {
        let state = match run(&["systemctl", "is-active", DAEMON], QUICK) {
            Ok(ran) => bounded(&ran.stdout),
            Err(error) => bounded(&error.to_string()),
        };
        match state.as_str() {
            "active" => return check(true, "it runs".to_owned()),
            "failed" => return check(false, format!("{DAEMON} failed")),
            _ if deadline.left().is_zero() => {
                return check(false, format!("{DAEMON} did not start in time: it is {state}"));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

/// What a check found, or that it is to be made again.
enum Found {
    Good(String),
    Bad(String),
    /// It learnt nothing; that is no fault of the deployment as long as there is time.
    Nothing(String),
}

/// Makes a check until it passes, has failed often enough, or the time is over.
fn repeat(
    name: &str,
    words: Words,
    most: u32,
    deadline: Deadline,
    read: fn(&Ran) -> Found,
) -> Check {
    let check = |passed, detail: &str| {
        let detail = bounded(detail);
        tell!("{name}: {detail}");
        Check { name: name.to_owned(), passed, detail }
    };
    let mut rounds = 0;
    loop {
        let left = deadline.left();
        if left < PAUSE {
            return check(false, "not made: what came before took all the time");
        }
        let words = words(left);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = match run(&unprivileged(&words), left) {
            Ok(ran) => read(&ran),
            Err(ProgramError::TooSlow { .. }) => {
                return check(false, &format!("it had not ended after {} s", left.as_secs()));
            }
            Err(error) => Found::Bad(error.to_string()),
        };
        let (said, counts) = match found {
            Found::Good(said) => return check(true, &said),
            Found::Bad(said) => (said, 1),
            Found::Nothing(said) => (said, 0),
        };
        rounds += counts;
        if rounds >= most || deadline.left() <= PAUSE * 2 {
            return check(false, &said);
        }
        thread::sleep(PAUSE);
    }
}

/// The words that start a program as the daemon's user. Without new privileges what may be had does not matter, and to
/// narrow it would take a right that this program need not have.
fn unprivileged<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "setpriv",
        "--reuid",
        DAEMON_ID,
        "--regid",
        DAEMON_ID,
        "--clear-groups",
        "--inh-caps=-all",
        "--no-new-privs",
        "--",
    ];
    all.extend(words);
    all
}

fn read_console(ran: &Ran) -> Found {
    let said = ran.last_line().to_owned();
    if ran.is_good() { Found::Good(said) } else { Found::Bad(said) }
}

fn read_self_test(ran: &Ran) -> Found {
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let reason = report["reason"].as_str().unwrap_or_else(|| ran.last_line()).to_owned();
    match ran.code {
        Some(0) => {
            let frames = report["counts"]["frames_decoded"].as_u64().unwrap_or(0);
            Found::Good(format!("{frames} frames came through every door"))
        }
        Some(COULD_NOT_BE_RUN) => Found::Nothing(format!("it could not be run: {reason}")),
        _ => Found::Bad(reason),
    }
}

/// The names of the services in a state.
fn units(which: &str) -> Result<Vec<String>, ProgramError> {
    let words = ["systemctl", "list-units", "--type=service", which, "--plain", "--no-legend"];
    let said = run_well(&words, QUICK)?;
    Ok(said.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Those that failed, and those that systemd starts again and again, which it calls failed for a moment at most.
fn units_that_do_not_run() -> Result<Vec<String>, ProgramError> {
    let mut names = units("--failed")?;
    let words = ["systemctl", "show", "--property=Id,NRestarts", "*.service"];
    for name in restless(&run_well(&words, QUICK)?) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Which units were started again too often. Of each there are two lines, in any order, and an empty one after them.
fn restless(said: &str) -> Vec<String> {
    let restless = |unit: &&str| {
        let count = unit.lines().find_map(|line| line.strip_prefix("NRestarts="));
        count.and_then(|count| count.parse().ok()).is_some_and(|count: u32| count >= MAX_RESTARTS)
    };
    let name =
        |unit: &str| unit.lines().find_map(|line| line.strip_prefix("Id=")).map(str::to_owned);
    said.split("\n\n").filter(restless).filter_map(name).collect()
}

/// What a unit said last.
fn last_words(unit: &str) -> Vec<String> {
    let said = run_well(&["journalctl", "-b", "-u", unit, "-n", "20", "-o", "cat"], QUICK);
    said.map(|said| bounded_log(&said)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::memory::id;
    use crate::model::Counter;

    #[test]
    fn the_owners_limit_is_kept_within_bounds() {
        assert_eq!(parse_limit(None), LIMIT);
        assert_eq!(parse_limit(Some("soon")), LIMIT);
        assert_eq!(parse_limit(Some("500")), Duration::from_secs(500));
        assert_eq!(parse_limit(Some("999999")), Duration::from_secs(600));
    }

    #[test]
    fn a_console_has_the_time_that_is_left_but_for_its_last_words() {
        let patience = |left| console(Duration::from_secs(left)).pop().unwrap();
        assert_eq!([240, 21, 20, 2].map(patience), ["220", "1", "1", "1"]);
        assert_eq!(patience(MAX_LIMIT_S * 2), MAX_LIMIT_S.to_string());
    }

    #[test]
    fn what_is_started_again_and_again_does_not_run() {
        let said = "Id=a.service\nNRestarts=0\n\nNRestarts=3\nId=b.service\n\nId=c.service\nNRestarts=2\n\n\
                    Id=d.service\nNRestarts=[not set]\n\nId=e.service\n\nNRestarts=4294967295\nId=f.service\n";
        assert_eq!(restless(said), ["b.service", "f.service"]);
    }

    #[test]
    fn what_stays_up_is_left_alone_by_the_deadline() {
        let deadline = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../overlays/base/usr/lib/systemd/system/punktfunk-deadline.service"
        ));
        let condition = format!("ConditionPathExists=!{STAYS}");
        assert!(deadline.lines().any(|line| line == condition), "{condition}");
    }

    /// A start of system 2 and all that is good about it. On the ESP it is the only one.
    fn good(counter: Option<(u32, u32)>) -> (Start, Evidence) {
        let counter = counter.map(|(left, done)| Counter { left, done });
        let version = "0.2.0".to_owned();
        let start = Start { boot_id: "b".to_owned(), id: id(2), version, counter };
        let (ledger, esp, failed) = (Ok(Ledger::default()), Ok(Esp::default()), Ok(Vec::new()));
        (start, Evidence { checks: Vec::new(), ledger, esp, failed })
    }

    #[test]
    fn what_cannot_be_known_makes_a_counted_start_red() {
        type Break = fn(&mut Evidence);
        let breaks: [(&str, Break); 3] = [
            ("ledger: broken", |evidence| evidence.ledger = Err(anyhow::anyhow!("broken"))),
            ("loader: broken", |evidence| evidence.esp = Err(anyhow::anyhow!("broken"))),
            ("systemd: broken", |evidence| evidence.failed = Err(anyhow::anyhow!("broken"))),
        ];
        for (expected, break_it) in breaks {
            for (counter, act) in [(Some((2, 1)), Act::Reboot), (None, Act::Stay)] {
                let (start, mut evidence) = good(counter);
                break_it(&mut evidence);
                let (outcome, found, _) = decide(&start, evidence);
                let Outcome::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
                assert_eq!((reason.as_str(), found), (expected, act));
            }
        }
        let (start, evidence) = good(Some((2, 1)));
        assert_eq!(decide(&start, evidence).1, Act::Bless);
    }

    #[test]
    fn the_last_try_ends_though_the_loader_cannot_be_read() {
        let (start, mut evidence) = good(Some((0, 3)));
        evidence.esp = Err(anyhow::anyhow!("broken"));
        assert_eq!(decide(&start, evidence).1, Act::Reboot);
    }

    #[test]
    fn a_restart_that_is_refused_is_asked_for_again() {
        let asked = std::cell::Cell::new(0);
        let last = || {
            asked.set(asked.get() + 1);
            Ok(())
        };
        reboot(&[&["false"], &["true"]], last).unwrap();
        assert_eq!(asked.get(), 0);
        reboot(&[&["false"], &["/nowhere/systemctl"]], last).unwrap();
        assert_eq!(asked.get(), 1);
        assert!(reboot(&[&["false"]], || anyhow::bail!("refused")).is_err());
        assert_eq!(REBOOTS[1], ["systemctl", "--force", "reboot"]);
    }

    #[test]
    fn a_console_that_answers_needs_no_rescue() {
        let red = |name: &str, passed| {
            let check = Check { name: name.to_owned(), passed, detail: String::new() };
            is_silent(&policy::judge(vec![check], &["punktfunk-x.service".to_owned()], None))
        };
        assert!(red("console", false) && red("daemon", false));
        assert!(!red("console", true) && !red("self-test", false));
    }

    #[test]
    fn a_self_test_that_learnt_nothing_is_asked_again() {
        let ran = |code, stdout: &str| Ran {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        assert!(matches!(read_self_test(&ran(2, "")), Found::Nothing(_)));
        let green = r#"{"counts": {"frames_decoded": 30}}"#;
        let Found::Good(said) = read_self_test(&ran(0, green)) else { panic!() };
        assert_eq!(said, "30 frames came through every door");
        let Found::Bad(said) = read_self_test(&ran(1, r#"{"reason": "no tone"}"#)) else {
            panic!()
        };
        assert_eq!(said, "no tone");
    }
}
