//! The self-test against a host whose doors are broken one at a time, each on purpose.
//!
//! The host is the daemon's own rooms in this process, or the daemon itself; what breaks a door stands between the two,
//! or is a part of the host that the test put in its place. Green must be green, and each red must name its door.
#![expect(clippy::unwrap_used, reason = "a test may end where it stands")]

mod between;
mod daemon;
mod doors;
#[path = "../ports/mod.rs"]
mod ports;
mod rig;
