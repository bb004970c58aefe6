//! The console's door as browsers, programs and attackers meet it: real TLS on loopback, with a client that knows the
//! certificate.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod activation;
mod attacks;
mod boxed;
mod browser;
mod check;
mod daemon;
mod demo;
mod follow;
mod guide;
mod kill;
mod owner;
#[path = "../ports/mod.rs"]
mod ports;
mod prepared;
mod process;
mod rig;
mod table;
mod upload;
