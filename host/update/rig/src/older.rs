//! OSTree's program as it is where tests run. An older one cannot change the order of deployments; then it is done by hand,
//! as the newer one does: in the numbers of its boot entries.

use std::fs;
use std::path::{Path, PathBuf};

use punktfunk_os::model::DeploymentId;
use punktfunk_os::ostree::{About, Ostree, Program};
use punktfunk_os::programs::ProgramError;

pub(crate) struct Older {
    program: Program,
    entries: PathBuf,
}

impl Older {
    pub(crate) fn new(sysroot: &Path) -> Self {
        let entries = sysroot.join("boot/loader/entries");
        Self { program: Program::new(Some(sysroot)), entries }
    }

    /// Puts a deployment first; the others keep their order.
    fn put_first(&self, index: usize) {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&self.entries).unwrap().map(|one| one.unwrap().path()).collect();
        // The highest number comes first.
        paths.sort_by_key(|path| std::cmp::Reverse(number(&fs::read_to_string(path).unwrap())));
        let texts: Vec<String> =
            paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let mut order: Vec<usize> = (0..texts.len()).filter(|at| *at != index).collect();
        order.insert(0, index);
        for (path, from) in paths.iter().zip(order) {
            let at = paths.iter().position(|one| one == path).unwrap();
            let (old, new) = (number(&texts[from]), number(&texts[at]));
            let text =
                texts[from].replace(&format!("version {old}\n"), &format!("version {new}\n"));
            fs::write(path, text).unwrap();
        }
    }
}

fn number(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("version ")).unwrap().trim().parse().unwrap()
}

impl Ostree for Older {
    fn set_default(&self, index: usize) -> Result<(), ProgramError> {
        match self.program.set_default(index) {
            Err(ProgramError::Failed { said, .. }) if said.contains("Unknown") => {
                self.put_first(index);
                Ok(())
            }
            done => done,
        }
    }

    fn list(&self) -> Result<Vec<DeploymentId>, ProgramError> {
        self.program.list()
    }

    fn undeploy(&self, index: usize) -> Result<(), ProgramError> {
        self.program.undeploy(index)
    }

    fn pin(&self, index: usize, pinned: bool) -> Result<(), ProgramError> {
        self.program.pin(index, pinned)
    }

    fn resolve(&self, repository: &Path, reference: &str) -> Result<String, ProgramError> {
        self.program.resolve(repository, reference)
    }

    fn pull_local(&self, repository: &Path, reference: &str) -> Result<(), ProgramError> {
        self.program.pull_local(repository, reference)
    }

    fn hold(&self, reference: &str, commit: &str) -> Result<(), ProgramError> {
        self.program.hold(reference, commit)
    }

    fn held(&self, reference: &str) -> Result<Option<String>, ProgramError> {
        self.program.held(reference)
    }

    fn let_go(&self, reference: &str) -> Result<(), ProgramError> {
        self.program.let_go(reference)
    }

    fn tidy(&self) -> Result<(), ProgramError> {
        self.program.tidy()
    }

    fn deploy(&self, reference: &str) -> Result<(), ProgramError> {
        self.program.deploy(reference)
    }

    fn about(&self, commit: &str) -> About {
        self.program.about(commit)
    }
}
