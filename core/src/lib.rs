//! What the bytes of a game stream mean.
//!
//! `core` knows every protocol the product speaks and touches nothing: no socket, no clock, no randomness of its own,
//! no `unsafe`. Time, random bytes and datagrams come in as arguments, so that every behaviour can be replayed from a
//! seed. The daemon (`punktfunk-host`) owns the sockets, devices and threads and decides nothing about bytes.
//!
//! Deliberately absent: async, logging, configuration files, anything that can block.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod block;
pub mod fec;
pub mod gamestream;
pub mod input;
pub mod line;
pub mod media;
#[cfg(feature = "sim")]
pub mod netem;
pub mod pace;
pub mod seal;
pub mod time;
