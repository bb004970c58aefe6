//! What those who make the box do with a commit: layers and a manifest of it, a signed statement, an archive.

pub mod keys;
pub mod sign;
pub mod archive;
pub mod encapsulate;
mod group;
pub mod layout;
mod object;
pub mod push;
pub mod verbs;
