//! What the disk holds, as values: deployments as OSTree names them, entries and kernels as the boot loader finds them.
//!
//! Everything here is made from text by functions that cannot fail in any other way than to say no, and nothing here
//! touches a file. The rooms beside it read the texts and act.

pub mod deployment;
pub mod entry;
pub mod esp;
pub mod loader;
pub mod name;

pub use deployment::Deployment;
pub use entry::Entry;
pub use esp::{Esp, KernelSet};
pub use name::{Counter, DeploymentId, EntryName, ModelError};
