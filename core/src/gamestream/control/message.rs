//! The messages inside: what a client says and what the host says.

use super::Opened;
use crate::media::FrameIndex;

/// The type of a client's ping.
pub(super) const PING: u16 = 0x0200;
/// The type of a client's report of losses.
pub(super) const LOSS_STATS: u16 = 0x0201;

/// Codes of the termination message.
// spec: gamestream 5.8
pub mod termination {
    /// The session ended as it should; the client leaves without a word.
    pub const GRACEFUL: u32 = 0x8003_0023;
    /// The host failed; the client shows the number.
    pub const HOST_FAILED: u32 = 0x8003_0025;
}

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// The next frame must be an IDR frame. Also the first message of every session.
    RequestIdr,
    /// The second message of every session.
    Start,
    /// These frames were lost, both ends included.
    InvalidateFrames {
        /// The first one.
        first: FrameIndex,
        /// The last one.
        last: FrameIndex,
    },
    /// It is alive.
    Ping,
    /// Loss figures of clients that do not ping.
    LossStats,
    /// An input packet, for [`crate::gamestream::input`].
    Input(&'a [u8]),
    /// What became of a frame's FEC block.
    FecStatus(FecStatus),
    /// A frame marked as long-term reference has arrived and may be referred to.
    ReferenceReceived(FrameIndex),
    /// A type that is not known or too short to be read; to be ignored.
    Unknown {
        /// The type.
        kind: u16,
    },
}

/// What became of one FEC block at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FecStatus {
    /// The frame.
    pub frame: FrameIndex,
    /// The highest RTP sequence number received.
    pub highest_sequence: u16,
    /// The first RTP sequence number that is missing.
    pub next_contiguous_sequence: u16,
    /// Packets missing before the highest received one.
    pub missing: u16,
    /// Data packets of the block.
    pub data: u16,
    /// Parity packets of the block.
    pub parity: u16,
    /// Data packets received.
    pub received_data: u16,
    /// Parity packets received.
    pub received_parity: u16,
    /// Parity in percent of data.
    pub fec_percentage: u8,
    /// Which block of the frame, from 0.
    pub block: u8,
    /// Blocks in the frame.
    pub blocks: u8,
}

impl<'a> ClientMessage<'a> {
    /// Reads an opened message.
    // spec: gamestream 5.7
    pub fn parse(message: Opened<'a>) -> Self {
        let unknown = Self::Unknown { kind: message.kind };
        let payload = message.payload;
        match message.kind {
            0x0302 => Self::RequestIdr,
            0x0307 => Self::Start,
            0x0301 => match (u32_le(payload, 0), u32_le(payload, 8)) {
                (Some(first), Some(last)) => Self::InvalidateFrames {
                    first: FrameIndex(first.min(last)),
                    last: FrameIndex(first.max(last)),
                },
                _ => unknown,
            },
            PING => Self::Ping,
            LOSS_STATS => Self::LossStats,
            0x0206 => Self::Input(payload),
            0x5502 => FecStatus::parse(payload).map_or(unknown, Self::FecStatus),
            0x0350 => u32_le(payload, 0)
                .map_or(unknown, |frame| Self::ReferenceReceived(FrameIndex(frame))),
            _ => unknown,
        }
    }
}

impl FecStatus {
    fn parse(payload: &[u8]) -> Option<Self> {
        let word =
            |at: usize| payload.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word));
        Some(Self {
            frame: FrameIndex(payload.first_chunk().map(|index| u32::from_be_bytes(*index))?),
            highest_sequence: word(4)?,
            next_contiguous_sequence: word(6)?,
            missing: word(8)?,
            data: word(10)?,
            parity: word(12)?,
            received_data: word(14)?,
            received_parity: word(16)?,
            fec_percentage: *payload.get(18)?,
            block: *payload.get(19)?,
            blocks: *payload.get(20)?,
        })
    }
}

fn u32_le(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// What the host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMessage {
    /// The session ends; see [`termination`].
    Terminate {
        /// Why.
        code: u32,
    },
    /// The stream's dynamic range from now on.
    Hdr {
        /// The metadata if it is high.
        enabled: Option<HdrMetadata>,
    },
    /// The motors of a gamepad, until the next such message.
    Rumble {
        /// Which gamepad.
        controller: u16,
        /// The low-frequency motor, 0..=65535.
        low: u16,
        /// The high-frequency motor, 0..=65535.
        high: u16,
    },
}

/// Mastering display and content light levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HdrMetadata {
    /// Red, green and blue as (x, y), in units of 1/50000.
    pub primaries: [(u16, u16); 3],
    /// White as (x, y), in units of 1/50000.
    pub white: (u16, u16),
    /// Brightest luminance of the display in nits.
    pub max_luminance: u16,
    /// Darkest luminance of the display in 1/10000 nit.
    pub min_luminance: u16,
    /// Brightest pixel of the content in nits.
    pub max_content: u16,
    /// Brightest frame average of the content in nits.
    pub max_frame_average: u16,
    /// Brightest full-frame luminance of the display in nits.
    pub max_full_frame: u16,
}

impl HostMessage {
    /// The type on the wire.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Terminate { .. } => 0x0109,
            Self::Hdr { .. } => 0x010e,
            Self::Rumble { .. } => 0x010b,
        }
    }

    /// The payload on the wire.
    // spec: gamestream 5.8
    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::Terminate { code } => code.to_be_bytes().to_vec(),
            Self::Hdr { enabled } => {
                let data = enabled.unwrap_or_default();
                let [red, green, blue] = data.primaries;
                let words = [
                    red.0,
                    red.1,
                    green.0,
                    green.1,
                    blue.0,
                    blue.1,
                    data.white.0,
                    data.white.1,
                    data.max_luminance,
                    data.min_luminance,
                    data.max_content,
                    data.max_frame_average,
                    data.max_full_frame,
                ];
                let mut payload = vec![u8::from(enabled.is_some())];
                payload.extend(words.into_iter().flat_map(u16::to_le_bytes));
                payload
            }
            Self::Rumble { controller, low, high } => {
                [0, 0, *controller, *low, *high].into_iter().flat_map(u16::to_le_bytes).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(kind: u16, payload: &[u8]) -> ClientMessage<'_> {
        ClientMessage::parse(Opened { kind, payload })
    }

    #[test]
    fn client_messages_are_read_as_tabulated() {
        assert_eq!(parse(0x0302, &[0, 0]), ClientMessage::RequestIdr);
        assert_eq!(parse(0x0307, &[0]), ClientMessage::Start);
        let mut lost = [0; 24];
        lost[0] = 10;
        lost[8] = 12;
        let both = ClientMessage::InvalidateFrames { first: FrameIndex(10), last: FrameIndex(12) };
        assert_eq!(parse(0x0301, &lost), both);
        lost.swap(0, 8);
        assert_eq!(parse(0x0301, &lost), both, "a reversed range");
        assert_eq!(parse(0x0200, &[4, 0, 0, 0, 0, 0, 9, 9]), ClientMessage::Ping);
        assert_eq!(parse(0x0206, &[1, 2]), ClientMessage::Input(&[1, 2]));
        assert_eq!(
            parse(0x0350, &[7, 0, 0, 0, 0, 0, 0, 0]),
            ClientMessage::ReferenceReceived(FrameIndex(7))
        );
        let status: [u8; 21] = [0, 0, 1, 0, 0, 9, 0, 8, 0, 1, 0, 20, 0, 4, 0, 19, 0, 4, 20, 1, 2];
        let ClientMessage::FecStatus(status) = parse(0x5502, &status) else { panic!() };
        assert_eq!((status.frame, status.highest_sequence, status.data), (FrameIndex(256), 9, 20));
        assert_eq!((status.received_parity, status.block, status.blocks), (4, 1, 2));
    }

    // spec: gamestream 13 item 76
    #[test]
    fn unknown_and_short_messages_are_typed_as_such() {
        for (kind, payload) in
            [(0x9999, &[][..]), (0x0301, &[0; 11]), (0x5502, &[0; 20]), (0x0350, &[0; 3])]
        {
            assert_eq!(parse(kind, payload), ClientMessage::Unknown { kind });
        }
    }

    #[test]
    fn host_messages_are_written_as_tabulated() {
        let end = HostMessage::Terminate { code: termination::GRACEFUL };
        assert_eq!((end.kind(), end.payload()), (0x0109, vec![0x80, 0x03, 0x00, 0x23]));
        let rumble = HostMessage::Rumble { controller: 1, low: 0x0203, high: 0x0405 };
        assert_eq!(rumble.payload(), [0, 0, 0, 0, 1, 0, 3, 2, 5, 4]);
    }

    // spec: gamestream 13 item 83
    #[test]
    fn the_dynamic_range_message_has_27_bytes() {
        let off = HostMessage::Hdr { enabled: None };
        assert_eq!((off.kind(), off.payload()), (0x010e, vec![0; 27]));
        let data = HdrMetadata { max_luminance: 1000, ..HdrMetadata::default() };
        let on = HostMessage::Hdr { enabled: Some(data) }.payload();
        assert_eq!((on.len(), on[0]), (27, 1));
        assert_eq!(on[17..19], 1000u16.to_le_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: u16, payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(kind, &payload);
            for kind in [0x0301, 0x5502, 0x0350, 0x0206] {
                let _ = parse(kind, &payload);
            }
        }
    }
}
