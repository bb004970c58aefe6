//! GameStream: the formats and state machines that every stock Moonlight client speaks.
//!
//! Pure parsers, writers and machines; sockets and TLS live in the host's room of the same name. The protocol is written
//! down in docs/protocol/gamestream.md, whose section numbers the `spec:` comments name.

pub mod audio;
pub mod certificate;
pub mod control;
pub mod enet;
pub mod input;
pub mod pairing;
pub mod query;
pub mod replies;
pub mod rtsp;
pub mod sdp;
pub mod video;
