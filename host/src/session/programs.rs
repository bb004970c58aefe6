//! The programs of an app: started on the session's output, ended with it.
//!
//! Each program gets a process group of its own and a mark in its environment. A program may leave its group (terminals
//! give their shells a session of their own), so the end of an app is: ask the groups to end, wait, kill the groups, then
//! kill whatever of this user still carries the mark. Output goes nowhere; an app's own log is its own business.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};

use super::App;

/// The running programs of one app.
#[derive(Debug)]
pub(super) struct Programs {
    children: Vec<Child>,
    mark: String,
}

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
            let child = Command::new(program)
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
                .map_err(|error| format!("\"{program}\" did not start: {error}"))?;
            programs.children.push(child);
        }
        Ok(programs)
    }

    /// Whether the app is over: its first program has ended. An app without programs never is.
    pub(super) fn over(&mut self) -> bool {
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
    /// done until a round finds none, at most a few times.
    fn kill_marked(&self) {
        for _round in 0..8 {
            let marked = marked_processes(self.mark.as_bytes());
            if marked.is_empty() {
                return;
            }
            for pid in marked {
                let _ = kill_process(pid, Signal::KILL);
                // Orphans are ours if the daemon is their reaper, and init's otherwise.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
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
    fn a_program_that_is_not_there_is_named() {
        let error =
            Programs::start(&app(&[&["no-such-program"]]), &BTreeMap::new(), "m").unwrap_err();
        assert!(error.contains("\"no-such-program\" did not start"), "{error}");
    }
}
