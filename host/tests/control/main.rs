//! RTSP, control, input and pings of real sockets on loopback, against a session desk that writes down what is asked.
//!
//! The client is ENet's own Rust port and a few lines of RTSP; what is proven is the door, not any stock client.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;
mod followers;
mod player;
mod rig;
mod rtsp;
mod streaming;
mod whole;
