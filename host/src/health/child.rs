//! A check in a process of its own: whatever it does to itself, its finding is bounded in time and size.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::Timespec;

use super::{Check, Examined, Finding};

/// More than any finding has, in bytes.
const MAX_SAID_BYTES: u64 = 64 * 1024;

/// Runs checks, one at a time, each as `PROGRAM ARGUMENTS.. NAME`. The program prints its finding as JSON.
#[derive(Debug, Clone)]
pub struct Examiner {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Two checks at once would take each other's processor time, and a stream's.
    one_at_a_time: Arc<Mutex<()>>,
    last: Arc<Mutex<BTreeMap<String, Finding>>>,
}

/// Why there is no finding.
#[derive(Debug, thiserror::Error)]
pub enum ExaminerError {
    /// The process could not be started.
    #[error("the check could not be started")]
    Start(#[source] io::Error),
    /// It ended in good order and said nothing that is a finding: it is another program than this one.
    #[error("the check said nothing that can be understood")]
    NotAFinding,
}

impl Examiner {
    /// Checks are run by `program` with `arguments` and their name.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, one_at_a_time: Arc::default(), last: Arc::default() }
    }

    /// The same with one more argument; their checks wait for each other, and what was found is found by both.
    #[must_use]
    pub fn with(&self, argument: &str) -> Self {
        let mut examiner = self.clone();
        examiner.arguments.push(argument.into());
        examiner
    }

    /// Runs a check; blocks for at most its limit and waits for others before it.
    ///
    /// # Errors
    /// [`ExaminerError`]; a check that crashes or hangs is no error but [`Finding::Broken`].
    pub fn examine(&self, check: &Check) -> Result<Finding, ExaminerError> {
        let finding = self.find_out(check)?;
        self.last().insert(check.name.clone(), finding.clone());
        Ok(finding)
    }

    /// What each check found when it was made last, in the order of the names.
    pub fn findings(&self) -> Vec<Examined> {
        let last = self.last();
        let examined = |(check, finding): (&String, &Finding)| Examined {
            check: check.clone(),
            finding: finding.clone(),
        };
        last.iter().map(examined).collect()
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<String, Finding>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find_out(&self, check: &Check) -> Result<Finding, ExaminerError> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(&check.name)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(ExaminerError::Start)?;
        let said = listen(&mut child, check.limit).ok().filter(|_| ends(&child, check.limit));
        let status = end(&mut child, said.is_some()).map_err(ExaminerError::Start)?;
        judge(said.as_deref(), status, check.limit)
    }
}

/// What it says until it closes its output. An error means that it did not do so in time.
fn listen(child: &mut Child, limit: Duration) -> Result<Vec<u8>, RecvTimeoutError> {
    let (sender, receiver) = mpsc::channel();
    let Some(output) = child.stdout.take() else { return Ok(Vec::new()) };
    // The thread ends with the pipe: when the process does, or is killed with all that it started.
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = output.take(MAX_SAID_BYTES).read_to_end(&mut said);
        let _ = sender.send(said);
    });
    receiver.recv_timeout(limit)
}

/// Whether it ends within `limit`. One that only closed its output would keep all other checks waiting.
fn ends(child: &Child, limit: Duration) -> bool {
    let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        // A system without this: it is waited for, as for any child.
        return true;
    };
    let limit = Timespec::try_from(limit).ok();
    !matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref()), Ok(0))
}

fn end(child: &mut Child, in_time: bool) -> io::Result<ExitStatus> {
    if !in_time {
        // Not reaped yet, so the group is still its own.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    child.wait()
}

fn judge(
    said: Option<&[u8]>,
    status: ExitStatus,
    limit: Duration,
) -> Result<Finding, ExaminerError> {
    let Some(said) = said else {
        let reason = format!("it hung and was ended after {} seconds", limit.as_secs());
        return Ok(Finding::Broken { reason });
    };
    if let Some(signal) = status.signal() {
        let reason = format!("it crashed while it was tried (signal {signal})");
        return Ok(Finding::Broken { reason });
    }
    serde_json::from_slice(said).map_err(|_| ExaminerError::NotAFinding)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check whose program is this script.
    fn examine(script: &str, limit: Duration) -> Result<Finding, ExaminerError> {
        let examiner = Examiner::new("/bin/sh".into(), vec!["-c".into(), script.into()]);
        let mut check = Check::new("anything", 0, |_| Finding::works_with("not run"));
        check.limit = limit;
        examiner.examine(&check)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_the_process_says_is_the_finding() {
        let said = examine(r#"echo '{"outcome":"works","evidence":"a picture"}'"#, LONG);
        assert_eq!(said.unwrap(), Finding::works_with("a picture"));
    }

    #[test]
    fn a_crash_is_a_finding() {
        let Finding::Broken { reason } = examine("kill -SEGV $$", LONG).unwrap() else { panic!() };
        assert!(reason.contains("signal 11"), "{reason}");
    }

    #[test]
    fn a_check_that_hangs_is_ended_with_all_it_started() {
        let short = Duration::from_millis(200);
        for script in ["sleep 600 & sleep 600", "exec >&-; sleep 600"] {
            let Finding::Broken { reason } = examine(script, short).unwrap() else { panic!() };
            assert!(reason.contains("hung"), "{script}: {reason}");
        }
    }

    #[test]
    fn another_program_is_not_believed() {
        assert!(matches!(examine("echo fine", LONG), Err(ExaminerError::NotAFinding)));
        let endless = examine("yes", LONG);
        assert!(!matches!(endless, Ok(Finding::Works { .. })));
        let gone = Examiner::new("/no/such/program".into(), vec![]);
        let check = Check::new("anything", 1, |_| Finding::works_with("not run"));
        assert!(matches!(gone.examine(&check), Err(ExaminerError::Start(_))));
    }
}
