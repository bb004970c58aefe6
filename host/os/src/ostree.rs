//! OSTree, through its program. What a deployment is called and where it stands is asked of it; what it wrote to the
//! disk is read by [`crate::mirror`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::calendar;
use crate::model::DeploymentId;
use crate::model::name::is_checksum;
use crate::programs::{ProgramError, run_well};

/// The name under which all of ours are deployed; they share one `/var`.
pub const STATEROOT: &str = "punktfunk";

/// Whatever only changes links and small files.
const QUICK: Duration = Duration::from_secs(120);

/// Bringing a whole system in.
const SLOW: Duration = Duration::from_secs(3600);

/// No version is longer, in characters.
const MAX_VERSION_CHARS: usize = 32;

/// What is called nothing else.
pub const NO_VERSION: &str = "0.0.0";

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What it is called; [`NO_VERSION`] when it does not say.
    pub version: String,
    /// When it was made, in seconds since 1970; 0 when that cannot be read.
    pub made_at: u64,
}

/// What is asked of OSTree. Deployments are numbered by their place in its own list, the first being the next to start.
pub trait Ostree {
    /// All deployments in its order.
    fn list(&self) -> Result<Vec<DeploymentId>, ProgramError>;
    /// Removes one.
    fn undeploy(&self, index: usize) -> Result<(), ProgramError>;
    /// Makes one the first.
    fn set_default(&self, index: usize) -> Result<(), ProgramError>;
    /// Keeps one, or lets it go.
    fn pin(&self, index: usize, pinned: bool) -> Result<(), ProgramError>;
    /// The commit that a reference names in a repository.
    fn resolve(&self, repository: &Path, reference: &str) -> Result<String, ProgramError>;
    /// Copies a commit from a repository on this machine.
    fn pull_local(&self, repository: &Path, reference: &str) -> Result<(), ProgramError>;
    /// Keeps a commit that is here, without deploying it, under a reference of ours; one that it named before goes.
    fn hold(&self, reference: &str, commit: &str) -> Result<(), ProgramError>;
    /// What a reference of ours keeps, if it does.
    fn held(&self, reference: &str) -> Result<Option<String>, ProgramError>;
    /// Lets go of what a reference keeps. It goes from the disk with [`Ostree::tidy`], unless it is deployed.
    fn let_go(&self, reference: &str) -> Result<(), ProgramError>;
    /// Removes what neither a deployment nor a reference keeps.
    fn tidy(&self) -> Result<(), ProgramError>;
    /// Deploys what was pulled, as the first, with the arguments of the one that runs; all others stay.
    fn deploy(&self, reference: &str) -> Result<(), ProgramError>;
    /// What a commit says of itself.
    fn about(&self, commit: &str) -> About;
}

/// The program, and where the system root is that it works on.
#[derive(Debug, Clone)]
pub struct Program {
    /// Another system root than the one that runs.
    sysroot: Option<PathBuf>,
    repository: PathBuf,
    /// What commits said of themselves: they never say anything else.
    known: RefCell<BTreeMap<String, About>>,
}

impl Program {
    /// Works on the system that runs, or on one that is mounted somewhere.
    pub fn new(sysroot: Option<&Path>) -> Self {
        let root = sysroot.unwrap_or(Path::new("/sysroot"));
        Self {
            sysroot: sysroot.map(Path::to_path_buf),
            repository: root.join("ostree/repo"),
            known: RefCell::default(),
        }
    }

    fn admin(&self, words: &[&str], limit: Duration) -> Result<String, ProgramError> {
        let sysroot = self.sysroot.as_ref().map(|root| format!("--sysroot={}", root.display()));
        let mut all = vec!["ostree", "admin"];
        all.extend(words.first());
        all.extend(sysroot.as_deref());
        all.extend(words.iter().skip(1));
        run_well(&all, limit)
    }

    fn repository(&self) -> String {
        format!("--repo={}", self.repository.display())
    }
}

impl Ostree for Program {
    fn list(&self) -> Result<Vec<DeploymentId>, ProgramError> {
        Ok(parse_list(&self.admin(&["status"], QUICK)?))
    }

    fn undeploy(&self, index: usize) -> Result<(), ProgramError> {
        self.admin(&["undeploy", &index.to_string()], QUICK).map(drop)
    }

    fn set_default(&self, index: usize) -> Result<(), ProgramError> {
        self.admin(&["set-default", &index.to_string()], QUICK).map(drop)
    }

    fn pin(&self, index: usize, pinned: bool) -> Result<(), ProgramError> {
        let index = index.to_string();
        let words: &[&str] = if pinned { &["pin", &index] } else { &["pin", "--unpin", &index] };
        self.admin(words, QUICK).map(drop)
    }

    fn resolve(&self, repository: &Path, reference: &str) -> Result<String, ProgramError> {
        let repository = format!("--repo={}", repository.display());
        let said = run_well(&["ostree", &repository, "rev-parse", "--", reference], QUICK)?;
        let commit = said.trim();
        if is_checksum(commit) {
            return Ok(commit.to_owned());
        }
        let said = "it named no commit".to_owned();
        Err(ProgramError::Failed { program: "ostree rev-parse".to_owned(), said })
    }

    fn pull_local(&self, repository: &Path, reference: &str) -> Result<(), ProgramError> {
        let from = repository.display().to_string();
        run_well(&["ostree", &self.repository(), "pull-local", &from, reference], SLOW).map(drop)
    }

    fn hold(&self, reference: &str, commit: &str) -> Result<(), ProgramError> {
        let create = format!("--create={reference}");
        let words = ["ostree", &self.repository(), "refs", "--force", &create, commit];
        run_well(&words, QUICK).map(drop)
    }

    fn held(&self, reference: &str) -> Result<Option<String>, ProgramError> {
        let listed = run_well(&["ostree", &self.repository(), "refs", "--list", reference], QUICK)?;
        // A reference may be a folder of others; what is asked for is that one.
        if !listed.lines().any(|line| line.trim() == reference) {
            return Ok(None);
        }
        self.resolve(&self.repository, reference).map(Some)
    }

    fn let_go(&self, reference: &str) -> Result<(), ProgramError> {
        run_well(&["ostree", &self.repository(), "refs", "--delete", reference], QUICK).map(drop)
    }

    fn tidy(&self) -> Result<(), ProgramError> {
        self.admin(&["cleanup"], SLOW).map(drop)
    }

    fn deploy(&self, reference: &str) -> Result<(), ProgramError> {
        let os = format!("--os={STATEROOT}");
        self.admin(&["deploy", &os, "--retain", reference], SLOW).map(drop)
    }

    fn about(&self, commit: &str) -> About {
        if let Some(known) = self.known.borrow().get(commit) {
            return known.clone();
        }
        let said = run_well(&["ostree", &self.repository(), "show", commit], QUICK);
        let about = parse_about(&said.unwrap_or_default());
        self.known.borrow_mut().insert(commit.to_owned(), about.clone());
        about
    }
}

/// The deployments in what `ostree admin status` says: the words that are a commit and a serial number, in their order.
fn parse_list(said: &str) -> Vec<DeploymentId> {
    let named = said.lines().filter_map(|line| {
        let mut words = line.split_whitespace().take(3);
        words.find_map(|word| word.parse().ok())
    });
    named.collect()
}

/// What a commit says of itself, as `ostree show` prints it; what follows the empty line is its own text.
fn parse_about(said: &str) -> About {
    let head = said.lines().take_while(|line| !line.trim().is_empty());
    let fields: Vec<(&str, &str)> = head.filter_map(|line| line.split_once(':')).collect();
    let field = |key| fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value.trim());
    let version = field("Version").filter(|version| !version.is_empty()).unwrap_or(NO_VERSION);
    About {
        version: crate::status::bounded(version).chars().take(MAX_VERSION_CHARS).collect(),
        made_at: field("Date").and_then(calendar::parse).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let (a, b) = ("ab".repeat(32), "cd".repeat(32));
        let said = format!(
            "  punktfunk {a}.1 (staged)\n    Version: 0.2.0\n    origin refspec: {b}\n\
             * punktfunk {b}.0\n    Version: 0.1.0\n"
        );
        let list: Vec<String> = parse_list(&said).iter().map(ToString::to_string).collect();
        assert_eq!(list, [format!("{a}.1"), format!("{b}.0")]);
    }

    #[test]
    fn what_a_commit_says_is_read() {
        let said = "commit abc\nContentChecksum:  def\nDate:  2026-11-23 05:28:40 +0000\n\
                    Version: 0.2.0\n\n    Version: 9.9.9\n";
        let about = About { version: "0.2.0".to_owned(), made_at: 1_795_411_720 };
        assert_eq!(parse_about(said), about);
        let nothing = About { version: NO_VERSION.to_owned(), made_at: 0 };
        assert_eq!(parse_about(""), nothing);
        assert_eq!(parse_about("\nVersion: 9.9.9\n"), nothing);
    }
}
