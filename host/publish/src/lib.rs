//! What those who make the box do with a commit: layers and a manifest of it, a signed statement, an archive.

pub mod archive;
pub mod encapsulate;
mod group;
pub mod keys;
pub mod layout;
mod object;
pub mod push;
pub mod sign;
pub mod verbs;
