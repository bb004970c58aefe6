//! Keeps the loader's entries on the ESP in step with OSTree's deployments.
//!
//! The principle: after every single step, also one that was cut in the middle, each entry on the ESP that could be
//! started before still can be or has been replaced by one that can. So kernels are copied before the entries that name
//! them are written, and removed after the last such entry is gone; each file is written beside its place, brought to
//! the disk and renamed.
//!
//! What an entry carries in its name, the count of tries or the blessing, belongs to the loader and stays. The order
//! among entries is their version: it is only ever raised, from the top down, so at every moment the loader's choice is
//! the one from before or the one that is meant.
//!
//! [`plan`] is pure; [`apply`] carries a plan out.
//!
//! Deliberately absent: deciding what is deployed, and which deployment is bad.

mod apply;
#[cfg(test)]
pub(crate) mod memory;
mod plan;
mod read;
#[cfg(test)]
mod tests;

pub use apply::{apply, link};
pub use plan::{Request, Step, Tries, plan};
pub use read::{PRISTINE, read_deployments, read_esp, read_pristine};

use crate::files::FileError;
use crate::model::ModelError;

/// Why the ESP is not brought in step. Nothing was written, unless it is a file that could not be.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A text on the disk is not what it ought to be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing to start.
    #[error("OSTree has no deployment, so the boot entries are left as they are")]
    NothingDeployed,
    /// The kernels do not fit.
    #[error(
        "the boot partition lacks {missing_bytes} bytes: the new kernels need {needed_bytes}, and {free_bytes} are free"
    )]
    NoRoom {
        /// So much more is needed.
        missing_bytes: u64,
        /// What the new kernel sets take.
        needed_bytes: u64,
        /// What is free, or would be without what is not needed any more.
        free_bytes: u64,
    },
    /// A number in the settings is none or out of bounds.
    #[error("the number of tries is {got}; it can be {min} to {max}")]
    Tries {
        /// What was given.
        got: u32,
        /// At least.
        min: u32,
        /// At most.
        max: u32,
    },
}
