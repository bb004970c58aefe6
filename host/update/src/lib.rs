//! Updates of the box: what may be installed, how it comes here, and root's service that does it.
//!
//! A release is a commit of OSTree, whose checksum covers every file with its owner and mode. Which releases there are is
//! told by a statement that is signed; nothing else that comes over a network, from a stick or from a browser is believed.
//!
//! - [`name`]: versions, commits, digests, channels.
//! - [`statement`]: what is signed, by whom, and whether it is believed now.
//! - [`transport`]: how it comes: from a registry or an archive, in layers of which only those are fetched that are new.
//! - [`engine`]: check, download, stage, apply; what is remembered, and what is said to everybody.
//! - [`service`]: the engine on the system bus, for those who may ask it.
//!
//! Deliberately absent: when something is done. The daemon decides that, because it knows who plays; and whether a system
//! that was started is good, which is `punktfunk-os`'s verdict.

pub mod engine;
pub mod error;
pub mod name;
pub mod outlook;
pub mod service;
pub mod statement;
pub mod transport;
