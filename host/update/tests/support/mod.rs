//! What the tests of the transport share: a registry that does as it is told, and releases made of nothing.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

pub(crate) mod made;
pub(crate) mod server;
