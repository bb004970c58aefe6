//! The programs of an app: started on the session's output, ended with it.
//!
//! Each program gets a process group of its own and a mark in its environment. A program may leave its group (terminals
//! give their shells a session of their own), so the end of an app is: ask the groups to end, wait, kill the groups, then
//! kill whatever of this user still carries the mark. Output goes nowhere; an app's own log is its own business.
//!
//! A program dies with the thread that started it, so also with a daemon that is killed (`PR_SET_PDEATHSIG`, set by
//! util-linux's `setpriv`, so no `unsafe` here). What loses its parent becomes a child of the daemon, which is the reaper
//! of its descendants; such orphans are collected when they end, or they would stay as zombies as long as it runs.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, waitpid,
};

use super::App;
use super::apps::find_program;

/// The running programs of one app.
#[derive(Debug)]
pub(super) struct Programs {
    children: Vec<Child>,
    mark: String,
}

/// How long what was killed may take to end. Only an uninterruptible sleep in the kernel takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// The environment variable that marks a session's processes.
const MARK: &str = "PUNKTFUNK_SESSION";

/// What a program inherits from the daemon's environment.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL"];

impl Programs {
    /// Starts the app's programs with the output's environment; `mark` is unique to the session.
    ///
    /// # Errors
    /// The program that could not be started, and why; those already started are ended.
    pub(super) fn start(
        app: &App,
        output_env: &BTreeMap<String, String>,
        mark: &str,
    ) -> Result<Self, String> {
        let mut programs = Self { children: vec![], mark: format!("{MARK}={mark}") };
        for words in &app.commands {
            let Some((program, arguments)) = words.split_first() else { continue };
            let refused = |error: std::io::Error| format!("\"{program}\" did not start: {error}");
            // `setpriv` would start, and only then find nothing to become.
            if find_program(program).is_none() {
                return Err(refused(std::io::ErrorKind::NotFound.into()));
            }
            let child = bound_to_this_thread(program)
                .args(arguments)
                .env_clear()
                .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
                .env("LC_ALL", "C.UTF-8")
                .envs(output_env)
                .env(MARK, mark)
                .current_dir(std::env::var_os("HOME").unwrap_or_else(|| "/".into()))
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(refused)?;
            programs.children.push(child);
        }
        Ok(programs)
    }

    /// Whether the app is over: its first program has ended. An app without programs never is.
    pub(super) fn over(&mut self) -> bool {
        reap_orphans();
        // A child that cannot be waited for is not ours any more, which is over as well.
        self.children.first_mut().is_some_and(|first| !matches!(first.try_wait(), Ok(None)))
    }

    /// Ends all programs within `grace`, by force after it.
    pub(super) fn end(&mut self, grace: Duration) {
        self.signal_groups(Signal::TERM);
        let deadline = Instant::now() + grace;
        while !self.all_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal_groups(Signal::KILL);
        self.kill_marked();
        for child in &mut self.children {
            // Killed above; waiting only collects it.
            let _ = child.wait();
        }
        self.children.clear();
    }

    fn all_ended(&mut self) -> bool {
        self.children.iter_mut().all(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn signal_groups(&self, signal: Signal) {
        for child in &self.children {
            // A group that has ended already needs no signal.
            let _ = kill_process_group(Pid::from_child(child), signal);
        }
    }

    /// Kills every process of this user that carries the mark. One may have forked while it was looked for, so this is
    /// done until a round finds none: what is killed has no environment left to be found by.
    fn kill_marked(&self) {
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            let marked = marked_processes(self.mark.as_bytes());
            for pid in &marked {
                let _ = kill_process(*pid, Signal::KILL);
            }
            reap_orphans();
            if marked.is_empty() || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if !self.children.is_empty() {
            self.end(Duration::ZERO);
        }
    }
}

/// A command for `program` that the kernel kills when the calling thread ends.
fn bound_to_this_thread(program: &str) -> Command {
    let Some(setpriv) = find_program("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Ends what is left of apps that are over: programs that lost their parent, and the mark with it.
pub(super) fn end_orphans() {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let orphans = orphans();
        for pid in &orphans {
            // It is our child and not collected yet, so the number is still its own.
            let _ = kill_process(*pid, Signal::KILL);
        }
        reap_orphans();
        if orphans.is_empty() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Collects the orphans that have ended.
fn reap_orphans() {
    for pid in orphans() {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// The orphans that the daemon has adopted. The kernel gives them to the first thread of their reaper, and that thread
/// starts no program itself: what other threads have started is theirs to wait for, and is not among these.
fn orphans() -> Vec<Pid> {
    let first_thread = getpid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/self/task/{first_thread}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// The living processes whose environment has the entry `mark`, as far as this user may look.
fn marked_processes(mark: &[u8]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::apps::app_id;

    fn app(commands: &[&[&str]]) -> App {
        App {
            id: app_id("x"),
            title: "x".to_owned(),
            display: "pattern".to_owned(),
            commands: commands
                .iter()
                .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
                .collect(),
            art: None,
        }
    }

    fn mark(name: &str) -> String {
        format!("test-{}-{name}", std::process::id())
    }

    #[test]
    fn an_app_ends_with_its_first_program_and_one_without_programs_never() {
        let mark = mark("first");
        let mut programs =
            Programs::start(&app(&[&["true"], &["sleep", "600"]]), &BTreeMap::new(), &mark)
                .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !programs.over() {
            assert!(Instant::now() < deadline, "the first program never ended");
            std::thread::yield_now();
        }
        programs.end(Duration::ZERO);
        assert!(!Programs::start(&app(&[]), &BTreeMap::new(), &mark).unwrap().over());
    }

    #[test]
    fn nothing_outlives_its_app_not_even_what_left_its_process_group() {
        let mark = mark("escape");
        let entry = format!("{MARK}={mark}").into_bytes();
        let commands: &[&[&str]] = &[
            &["sh", "-c", "setsid sh -c 'trap \"\" TERM HUP; sleep 600 & wait' & sleep 600"],
            &["sleep", "600"],
        ];
        let mut programs = Programs::start(&app(commands), &BTreeMap::new(), &mark).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while marked_processes(&entry).len() < 5 {
            assert!(Instant::now() < deadline, "the programs did not come up");
            std::thread::yield_now();
        }
        programs.end(Duration::from_millis(50));
        let living = |pid: &Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        assert_eq!(marked_processes(&entry).iter().filter(|pid| living(pid)).count(), 0);
    }

    #[test]
    fn a_program_dies_with_its_thread_and_so_with_a_daemon_that_is_killed() {
        let mark = mark("thread");
        let entry = format!("{MARK}={mark}").into_bytes();
        let children = std::thread::scope(|scope| {
            let starter = scope.spawn(|| {
                let app = app(&[&["sleep", "600"]]);
                let mut programs = Programs::start(&app, &BTreeMap::new(), &mark).unwrap();
                // Until then `setpriv` may not have said that it wants to die with its parent.
                let name = format!("/proc/{}/comm", programs.children[0].id());
                while !std::fs::read_to_string(&name).unwrap().starts_with("sleep") {
                    std::thread::yield_now();
                }
                std::mem::take(&mut programs.children)
            });
            starter.join().unwrap()
        });
        for mut child in children {
            assert!(!child.wait().unwrap().success());
        }
        assert_eq!(marked_processes(&entry), []);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error =
            Programs::start(&app(&[&["no-such-program"]]), &BTreeMap::new(), "m").unwrap_err();
        assert!(error.contains("\"no-such-program\" did not start"), "{error}");
    }
}
