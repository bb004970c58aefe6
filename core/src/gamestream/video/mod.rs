//! The GameStream video stream: access units in, sealed and paced datagrams out, and the way back for tests.
//!
//! [`VideoSender`] cuts an access unit into FEC blocks ([`plan`] decides how), writes the headers a stock client reads,
//! computes parity, seals each datagram if the client asked for it and hands bursts out at the pacer's speed.
//! [`VideoReceiver`] is a stock client's half as far as bytes go: it opens, collects, repairs and yields access units,
//! and it is as unforgiving as the real ones, so that a simulation or the self-test fails where a client would freeze.
//!
//! Deliberately absent: sockets, pings and the control stream; lost frames are reported to the caller, who asks the
//! host for an IDR picture or an invalidation through the control stream.

mod header;
pub mod plan;
mod receive;
mod seal;
mod send;

pub use header::FrameType;
pub use receive::{
    LossPolicy, ReceivedFrame, ReceiverEvent, ReceiverStats, VideoReceiver, VideoReceiverOptions,
};
pub use seal::{VideoOpener, VideoSealer};
pub use send::{VideoCounters, VideoOptionsError, VideoSender, VideoSenderOptions};

#[cfg(test)]
mod tests;
