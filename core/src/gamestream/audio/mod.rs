//! The GameStream audio stream: Opus packets in, RTP datagrams with a fixed 4+2 code out, and back.
//!
//! Parity covers what is on the wire, ciphertext included, and comes as two more datagrams after every fourth packet
//! that take no sequence numbers. spec: gamestream 8
//!
//! Deliberately absent: Opus itself, and pacing - a packet every five milliseconds paces itself.

mod crypt;
mod receive;
mod send;

pub use receive::{AudioEvent, AudioReceiver};
pub use send::{AudioOptions, AudioPacketizer, MAX_OPUS_BYTES};

/// Data packets of a block.
const DATA: usize = 4;
/// Parity packets of a block.
const PARITY: usize = 2;
/// The most bytes of a datagram. spec: gamestream 8.1
const MAX_DATAGRAM_BYTES: usize = 1400;
const RTP_BYTES: usize = 12;
/// The RTP header and the FEC header. spec: gamestream 8.2
const PARITY_HEADER_BYTES: usize = 24;
/// The most bytes of one payload: a parity datagram has the longer header.
const MAX_PAYLOAD_BYTES: usize = MAX_DATAGRAM_BYTES - PARITY_HEADER_BYTES;
const RTP_FIRST_BYTE: u8 = 0x80;
const DATA_TYPE: u8 = 97;
const PARITY_TYPE: u8 = 127;

#[cfg(test)]
mod tests;
