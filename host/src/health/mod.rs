//! Whether this machine can do what the host needs of it: every hardware room is opened and has to deliver.
//!
//! A check opens a room as a stream would, takes what comes out - a picture, an access unit, a packet - and closes it.
//! Four outcomes are possible ([`Finding`]), and only delivery counts as working. Each check runs in a process of its
//! own ([`child`]), so that an encoder that crashes or a compositor that hangs is a finding and not the end of the
//! host, and so that nothing of it stays in memory. Checks run one after the other at a low priority and touch nothing
//! that a stream uses: outputs, devices and stores of their own.
//!
//! Deliberately absent: mending. A finding says what to do, and its owner does it.

pub mod child;
mod displays;
mod encoders;
mod machine;
mod network;
mod sound;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::{AgentError, AgentStarter, ProfileNumber};
use crate::display::DisplayBackend;
use crate::display::pattern::PatternBackend;
use crate::display::sway::SwayBackend;
use crate::encode::{self, EncoderBackend};
use crate::store::DOCTORS_PROFILE;

pub use network::Door;

/// The profile that checks start sessions in.
const DOCTOR: ProfileNumber = ProfileNumber(DOCTORS_PROFILE);

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Finding {
    /// It was opened and delivered.
    Works {
        /// What was delivered.
        evidence: String,
    },
    /// Something it needs is not there.
    Missing {
        /// What is not there.
        reason: String,
        /// What to do about it: a command where there is one.
        remedy: String,
    },
    /// Everything is there, and it does not deliver.
    Broken {
        /// What was seen.
        reason: String,
    },
    /// It never delivered here, so nothing chooses it by itself.
    Unproven {
        /// What is known of it.
        reason: String,
    },
}

impl Finding {
    /// Whether it delivered.
    pub const fn works(&self) -> bool {
        matches!(self, Self::Works { .. })
    }

    fn works_with(evidence: impl Into<String>) -> Self {
        Self::Works { evidence: evidence.into() }
    }

    fn missing(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing { reason: reason.into(), remedy: remedy.into() }
    }

    fn broken(reason: &(impl std::error::Error + ?Sized)) -> Self {
        Self::Broken { reason: in_a_line(reason) }
    }

    /// What to say of a check that got no agent, or lost it: a launcher of fewer profiles than there are is no fault of
    /// what was to be tried.
    fn without_agent(error: &AgentError) -> Self {
        match error {
            AgentError::NoProfile { number } => Self::missing(
                format!(
                    "the launcher keeps no profile {number}, which is the one that the host tries \
                     things in"
                ),
                format!("start the launcher with --profiles {}", number + 1),
            ),
            error => Self::broken(error),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works { evidence } => write!(f, "works: {evidence}"),
            Self::Missing { reason, remedy } => write!(f, "missing: {reason}; {remedy}"),
            Self::Broken { reason } => write!(f, "broken: {reason}"),
            Self::Unproven { reason } => write!(f, "unproven: {reason}"),
        }
    }
}

/// A check and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// The check's name: the room, and after a colon the backend where there may be several.
    pub check: String,
    /// What became of it.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What all checks together say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// A client could play something.
    pub stream_possible: bool,
    /// The checks ran under a host that is running, as its user; else in the process that was asked.
    pub by_the_host: bool,
    /// The checks in the order they ran in.
    pub checks: Vec<Examined>,
}

impl Diagnosis {
    /// What follows from these checks.
    pub fn of(checks: Vec<Examined>, by_the_host: bool) -> Self {
        // Sound, input, isolation and a GPU make a stream better; without one of these there is none.
        let stream_possible = ["display", "encoder", "store", "network"].iter().all(|room| {
            let of_room = |examined: &&Examined| examined.check.split(':').next() == Some(*room);
            checks.iter().filter(of_room).any(|examined| examined.finding.works())
        });
        Self { stream_possible, by_the_host, checks }
    }
}

/// What the checks have to know of the host.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the host keeps its state; its file system is what the store is tried on.
    pub state_dir: PathBuf,
    /// Who starts sessions.
    pub agents: Arc<dyn AgentStarter>,
    /// The doors that a host opens or has opened.
    pub doors: Vec<Door>,
    /// The console's port, which no program in a session may reach either.
    pub console: u16,
    /// The address they are on.
    pub listen: std::net::IpAddr,
    /// The name it is announced by, if it is.
    pub announced: Option<String>,
    /// A host runs, and the doors are its.
    pub running: bool,
}

/// One thing that can be tried.
pub struct Check {
    /// Its name.
    pub name: String,
    /// After this time it counts as hanging.
    pub limit: Duration,
    run: Box<dyn Fn(&Surroundings) -> Finding + Send + Sync>,
}

impl Check {
    fn new(
        name: impl Into<String>,
        seconds: u64,
        run: impl Fn(&Surroundings) -> Finding + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), limit: Duration::from_secs(seconds), run: Box::new(run) }
    }

    /// Does it, in this process.
    pub fn run(&self, surroundings: &Surroundings) -> Finding {
        (self.run)(surroundings)
    }
}

/// Every check there is, in the order in which they are of use to a reader.
pub fn checks() -> Vec<Check> {
    let displays: [Arc<dyn DisplayBackend>; 2] =
        [Arc::new(SwayBackend::default()), Arc::new(PatternBackend::default())];
    let mut checks = Vec::new();
    checks.extend(displays.iter().cloned().map(display_check));
    for backend in encode::backends() {
        checks.push(encoder_check(Arc::from(backend)));
    }
    for backend in displays {
        checks.push(Check::new(format!("input:{}", backend.name()), 20, move |around| {
            displays::input(backend.as_ref(), around.agents.as_ref())
        }));
    }
    checks.push(Check::new("sound:opus", 5, |_| sound::opus()));
    checks.push(sound_check());
    checks.push(Check::new("store", 10, |around| machine::store(&around.state_dir)));
    checks.push(Check::new("network", 10, network::ports));
    checks.push(Check::new("discovery", 10, network::discovery));
    checks.push(Check::new("isolation", 25, machine::isolation));
    checks.push(Check::new("gpu", 5, |_| machine::gpu(Path::new("/dev/dri"))));
    checks
}

/// The check of a display: that it shows a picture.
pub fn display_check(backend: Arc<dyn DisplayBackend>) -> Check {
    Check::new(format!("display:{}", backend.name()), 20, move |around| {
        displays::picture(backend.as_ref(), around.agents.as_ref())
    })
}

/// The check of what makes the sound of programs.
pub fn sound_check() -> Check {
    Check::new("sound:pipewire", 25, |around| sound::pipewire(around.agents.as_ref()))
}

/// The check of an encoder.
pub fn encoder_check(backend: Arc<dyn EncoderBackend>) -> Check {
    Check::new(format!("encoder:{}", backend.name()), 20, move |_| encoders::idr(backend.as_ref()))
}

/// An error with its causes, as one sentence.
fn in_a_line(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_without_the_doctors_profile_is_missing_something_and_not_broken() {
        let error = AgentError::NoProfile { number: DOCTORS_PROFILE };
        let Finding::Missing { reason, remedy } = Finding::without_agent(&error) else { panic!() };
        assert!(reason.contains("no profile 63"), "{reason}");
        assert_eq!(remedy, "start the launcher with --profiles 64");
        let other = AgentError::Start { reason: "no user".to_owned() };
        assert!(matches!(Finding::without_agent(&other), Finding::Broken { .. }));
    }

    fn examined(check: &str, finding: Finding) -> Examined {
        Examined { check: check.to_owned(), finding }
    }

    fn all_well() -> Vec<Examined> {
        ["display:sway", "display:pattern", "encoder:x264", "store", "network", "gpu"]
            .map(|check| examined(check, Finding::works_with("it did")))
            .to_vec()
    }

    #[test]
    fn a_stream_needs_one_display_one_encoder_the_store_and_the_network() {
        let broken = Finding::Broken { reason: "no".to_owned() };
        assert!(Diagnosis::of(all_well(), true).stream_possible);
        for (room, possible) in [
            ("display:sway", true),
            ("gpu", true),
            ("encoder:x264", false),
            ("store", false),
            ("network", false),
        ] {
            let mut checks = all_well();
            let found = checks.iter_mut().find(|examined| examined.check == room).unwrap();
            found.finding = broken.clone();
            assert_eq!(Diagnosis::of(checks, true).stream_possible, possible, "{room}");
        }
        assert!(!Diagnosis::of(Vec::new(), true).stream_possible);
        // A backend that never delivered is not one that works.
        let unproven = Finding::Unproven { reason: "never seen".to_owned() };
        let mut checks = all_well();
        checks[2].finding = unproven;
        assert!(!Diagnosis::of(checks, true).stream_possible);
    }

    #[test]
    fn the_json_has_one_shape_for_all_outcomes() {
        let checks = vec![
            examined("a", Finding::works_with("a picture")),
            examined("b", Finding::missing("no sway", "apt install sway")),
            examined("c", Finding::Broken { reason: "it hangs".to_owned() }),
            examined("d", Finding::Unproven { reason: "no GPU".to_owned() }),
        ];
        let diagnosis = Diagnosis::of(checks, false);
        let text = serde_json::to_string(&diagnosis).unwrap();
        assert_eq!(
            text,
            "{\"stream_possible\":false,\"by_the_host\":false,\"checks\":[\
             {\"check\":\"a\",\"outcome\":\"works\",\"evidence\":\"a picture\"},\
             {\"check\":\"b\",\"outcome\":\"missing\",\"reason\":\"no sway\",\
             \"remedy\":\"apt install sway\"},\
             {\"check\":\"c\",\"outcome\":\"broken\",\"reason\":\"it hangs\"},\
             {\"check\":\"d\",\"outcome\":\"unproven\",\"reason\":\"no GPU\"}]}"
        );
        assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), diagnosis);
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> =
            checks().into_iter().map(|check| check.name).collect();
        assert_eq!(names.len(), checks().len());
    }
}
