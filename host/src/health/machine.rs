//! What the machine itself has: a disk that keeps what is written, users that keep sessions apart, and a GPU that this
//! version does not use yet.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DOCTOR, Door, Finding, Surroundings};
use crate::agent::{Agent, AgentError, ProcessSpec};
use crate::identity::{Identity, IdentityError};
use crate::store::{Store, StoreError};

/// Makes a store beside the real one, writes an identity, and reads it back from the disk.
pub(super) fn store(state_dir: &Path) -> Finding {
    sweep(state_dir);
    let folder = Beside(state_dir.join(format!("doctor-{}", std::process::id())));
    match write_and_read(&folder.0) {
        Ok(true) => {
            Finding::works_with(format!("wrote and read an identity in {}", state_dir.display()))
        }
        Ok(false) => Finding::Broken {
            reason: format!("what was written in {} is not what is read", state_dir.display()),
        },
        Err(error) => Finding::broken(&error),
    }
}

/// Removes the folders of checks that were killed: there are keys in them.
fn sweep(state_dir: &Path) {
    let left_over = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("doctor-")?.parse().ok());
        // The folder of another doctor, which still runs, is left alone.
        process.is_some_and(|process: u32| {
            process == std::process::id() || !Path::new("/proc").join(process.to_string()).exists()
        })
    };
    for folder in fs::read_dir(state_dir).into_iter().flatten().flatten().filter(left_over) {
        // If it stays, the check itself says what is wrong with the folder.
        let _ = fs::remove_dir_all(folder.path());
    }
}

fn write_and_read(folder: &Path) -> Result<bool, StoreTrouble> {
    // Made here and nowhere else: what somebody has laid there is not followed.
    let make = || DirBuilder::new().mode(0o700).create(folder);
    make().map_err(|source| StoreTrouble::Folder { path: folder.to_owned(), source })?;
    let written = Identity::load_or_create(&Store::open(folder)?)?;
    let read = Identity::load_or_create(&Store::open(folder)?)?;
    Ok(written.certificate_der() == read.certificate_der())
}

/// Removed when dropped.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // A disk that cannot even do this is told about by the check itself.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, thiserror::Error)]
enum StoreTrouble {
    #[error("a folder {} could not be made", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Whether the programs of a session are kept from the host: they run as somebody else, and the host's own doors are
/// closed to them.
pub(super) fn isolation(around: &Surroundings) -> Finding {
    let words = around.agents.describe();
    if !around.agents.isolates() {
        return Finding::missing(
            words,
            "install the host as a service, or start it as root with ci/start: both run sessions as users of their own",
        );
    }
    let tried = around.agents.start(DOCTOR).and_then(|agent| {
        let reached = reached_doors(agent.as_ref(), around)?;
        agent.end(GRACE);
        Ok(reached)
    });
    match tried {
        Ok(reached) if reached.is_empty() && around.running => {
            Finding::works_with(format!("{words}; a program there found the host's doors closed"))
        }
        Ok(reached) if reached.is_empty() => Finding::works_with(words),
        Ok(reached) => Finding::Broken {
            reason: format!(
                "a program in a session reaches the host's own port {}; nftables must reject it",
                reached.join(", ")
            ),
        },
        Err(error) => Finding::without_agent(&error),
    }
}

/// The doors of a running host that a program in a session can open.
fn reached_doors(agent: &dyn Agent, around: &Surroundings) -> Result<Vec<String>, AgentError> {
    let mut reached = Vec::new();
    let tcp = around.doors.iter().filter_map(|door| match door {
        Door::Http(port) | Door::Tcp(port) => Some(*port),
        Door::Udp(_) => None,
    });
    for port in tcp.chain([around.console]).filter(|_| around.running) {
        let address = super::network::near(around.listen);
        let script = format!(
            "if (exec 3<>/dev/tcp/{address}/{port}); then echo {REACHED}; else echo {CLOSED}; fi >&2"
        );
        let program = agent.spawn(&ProcessSpec {
            program: "bash".to_owned(),
            arguments: vec!["-c".to_owned(), script],
            keeps_last_words: true,
            ..ProcessSpec::default()
        })?;
        let over = program.wait(PATIENCE);
        let said = program.obituary().unwrap_or_default();
        if said.contains(REACHED) {
            reached.push(port.to_string());
        } else if !over || !said.contains(CLOSED) {
            // Silence is no proof: the program may not have come to try.
            return Err(AgentError::Refused {
                doing: format!("trying the host's port {port} from a session"),
                reason: format!("a program there did not say what it found ({said})"),
            });
        }
    }
    Ok(reached)
}

/// What a program in a session says when a door opened, and when it did not.
const REACHED: &str = "the door is open";
const CLOSED: &str = "the door is closed";

/// How long a program in a session may try a door.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a session may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Which GPUs there are. This version encodes in software and renders without them.
pub(super) fn gpu(devices: &Path) -> Finding {
    let mut nodes: Vec<String> = fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("renderD"))
        .collect();
    nodes.sort();
    if nodes.is_empty() {
        return Finding::missing(
            format!("there is no GPU to render with (none in {})", devices.display()),
            "nothing needs to be done: this version encodes and renders in software",
        );
    }
    Finding::Unproven {
        reason: format!(
            "{} in {}; this version has neither NVENC nor VAAPI and encodes in software",
            nodes.join(", "),
            devices.display()
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::agent::{AgentStarter, Place, Places, Process, ProfileNumber, Stream};

    /// Sessions in which every program says the same; without words there are none.
    #[derive(Default)]
    pub(in crate::health) struct Agents {
        pub(in crate::health) isolates: bool,
        pub(in crate::health) programs_say: Option<&'static str>,
    }

    struct Session(&'static str);
    struct Program(&'static str);

    impl AgentStarter for Agents {
        fn describe(&self) -> String {
            "sessions run as other users".to_owned()
        }
        fn isolates(&self) -> bool {
            self.isolates
        }
        fn take(&self, profile: ProfileNumber, why: &'static str) -> Result<Place, AgentError> {
            Places::default().take(profile, why)
        }
        fn start_in(&self, _: &Place) -> Result<Arc<dyn Agent>, AgentError> {
            match self.programs_say {
                Some(words) => Ok(Arc::new(Session(words))),
                None => Err(AgentError::Start { reason: "nobody starts agents".to_owned() }),
            }
        }
    }

    impl Agent for Session {
        fn runtime_dir(&self) -> &Path {
            Path::new("/")
        }
        fn home_dir(&self) -> &Path {
            Path::new("/")
        }
        fn half_restored(&self) -> Option<&str> {
            None
        }
        fn put_in_place(&self, _: &str) -> Result<(), AgentError> {
            Ok(())
        }
        fn write_file(&self, _: &str, _: &[u8]) -> Result<(), AgentError> {
            Ok(())
        }
        fn spawn(&self, _: &ProcessSpec) -> Result<Box<dyn Process>, AgentError> {
            Ok(Box::new(Program(self.0)))
        }
        fn spawn_piped(
            &self,
            _: &ProcessSpec,
            _: Stream,
        ) -> Result<(Box<dyn Process>, OwnedFd), AgentError> {
            Err(AgentError::Gone { reason: "a test".to_owned() })
        }
        fn sockets(&self) -> Result<Vec<String>, AgentError> {
            Ok(Vec::new())
        }
        fn connect(&self, _: &str) -> Result<OwnedFd, AgentError> {
            Err(AgentError::Gone { reason: "a test".to_owned() })
        }
        fn check(&self) -> Result<(), AgentError> {
            Ok(())
        }
        fn end(&self, _: Duration) {}
    }

    impl Process for Program {
        fn wait(&self, _: Duration) -> bool {
            true
        }
        fn obituary(&self) -> Option<String> {
            Some(self.0.to_owned())
        }
        fn ask_to_end(&self) {}
        fn terminate(&mut self, _: Duration) {}
    }

    #[test]
    fn sessions_are_apart_if_they_run_as_others_and_reach_no_door() {
        let told = |isolates, programs_say| {
            let agents = Agents { isolates, programs_say };
            let mut around = crate::health::network::tests::around(vec![Door::Http(47989)], true);
            around.agents = Arc::new(agents);
            isolation(&around)
        };
        assert!(told(true, Some("exit status 0: the door is closed")).works());
        let Finding::Broken { reason } = told(true, Some("killed by signal 9")) else { panic!() };
        assert!(reason.contains("47989") && reason.contains("did not say"), "{reason}");
        let Finding::Broken { reason } = told(true, Some(REACHED)) else { panic!() };
        assert!(reason.contains("47989, 1;"), "{reason}");
        assert!(matches!(told(true, None), Finding::Broken { .. }));
        assert!(matches!(told(false, Some("")), Finding::Missing { .. }));
    }

    #[test]
    fn a_store_works_where_it_can_be_written_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // Of a check that was killed, in this process's name, and in that of one that is gone.
        for process in [std::process::id(), u32::MAX] {
            fs::create_dir(folder.path().join(format!("doctor-{process}"))).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let finding = store(folder.path());
        assert!(finding.works(), "{finding}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_is_broken_where_there_can_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        let Finding::Broken { reason } = store(&file) else { panic!() };
        assert!(reason.contains("a file"), "{reason}");
    }

    #[test]
    fn a_gpu_is_named_and_not_said_to_work() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(gpu(folder.path()), Finding::Missing { .. }));
        assert!(matches!(gpu(Path::new("/no/such/folder")), Finding::Missing { .. }));
        fs::write(folder.path().join("card0"), "").unwrap();
        fs::write(folder.path().join("renderD128"), "").unwrap();
        let Finding::Unproven { reason } = gpu(folder.path()) else { panic!() };
        assert!(reason.starts_with("renderD128 in "), "{reason}");
    }
}
