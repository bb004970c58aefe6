//! What those who make the box do with a commit: layers and a manifest of it, a signed statement, an archive.

pub mod keys;
pub mod sign;
