//! The two descriptions in RTSP: what the host offers (DESCRIBE) and what the client chose (ANNOUNCE).
//!
//! Clients search the offer for substrings, so it is a handful of lines in any order, except that the first line of a
//! channel count is its normal quality and the second its high quality. The client's choice is parsed once into
//! [`Announced`], whose values are inside their limits and agree with the offer; nothing behind it checks again.
//!
//! Deliberately absent: attributes that only hosts of other generations read. They are ignored like unknown ones.

mod announce;

pub use announce::{AnnounceError, Announced, AnnouncedAudio, AnnouncedEncryption};

use crate::media::Codec;

/// Which parts of a session are or must be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encryption {
    /// The control stream, with twelve-byte nonces.
    pub control: bool,
    /// Video.
    pub video: bool,
    /// Audio.
    pub audio: bool,
}

impl Encryption {
    /// Everything.
    pub const ALL: Self = Self { control: true, video: true, audio: true };
    /// The control stream only.
    pub const CONTROL: Self = Self { control: true, video: false, audio: false };

    /// The bits on the wire.
    // spec: gamestream 4.5
    pub const fn bits(self) -> u32 {
        (self.control as u32) | (self.video as u32) << 1 | (self.audio as u32) << 2
    }

    /// From the bits on the wire; unknown bits are ignored.
    pub const fn from_bits(bits: u32) -> Self {
        Self { control: bits & 1 != 0, video: bits & 2 != 0, audio: bits & 4 != 0 }
    }
}

/// What the host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The codecs this machine encodes in real time.
    pub codecs: Vec<Codec>,
    /// What can be encrypted.
    pub encryption: Encryption,
    /// What must be encrypted. Control alone is met by every client that encrypts its control stream, also in the older
    /// way; with video or audio the newer way is wanted too.
    pub required: Encryption,
    /// The encoders can avoid lost reference pictures.
    pub reference_invalidation: bool,
    /// 0x1: touch and pen events are accepted; 0x2: controller touch and motion.
    pub feature_flags: u32,
    /// FEC parity in percent of the data packets, which is taken off the client's bitrate.
    pub fec_percentage: u8,
}

impl Default for Offer {
    /// H.264 only, everything may be encrypted, control must be.
    fn default() -> Self {
        Self {
            codecs: vec![Codec::H264],
            encryption: Encryption::ALL,
            required: Encryption::CONTROL,
            reference_invalidation: false,
            feature_flags: 0,
            fec_percentage: 20,
        }
    }
}

/// The multistream layout of one channel count in one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurroundLayout {
    /// Channels, at most 8.
    pub channels: u8,
    /// Opus streams.
    pub streams: u8,
    /// How many of them are stereo.
    pub coupled: u8,
    /// For each output channel (FL FR FC LFE RL RR SL SR) the decoded channel it plays.
    pub mapping: &'static [u8],
    /// The client takes the line as it is; else it rotates the mapping, which the line undoes beforehand.
    pub high_quality: bool,
}

/// The layouts in the order in which DESCRIBE lists them: per channel count normal, then high quality. In normal quality
/// left and right are coupled, which codes better.
// spec: gamestream 4.6, 8.4
pub const SURROUND_LAYOUTS: [SurroundLayout; 6] = [
    layout(2, 1, 1, &[0, 1], false),
    layout(2, 1, 1, &[0, 1], true),
    layout(6, 4, 2, &[0, 1, 4, 5, 2, 3], false),
    layout(6, 6, 0, &[0, 1, 2, 3, 4, 5], true),
    layout(8, 5, 3, &[0, 1, 6, 7, 2, 3, 4, 5], false),
    layout(8, 8, 0, &[0, 1, 2, 3, 4, 5, 6, 7], true),
];

const fn layout(
    channels: u8,
    streams: u8,
    coupled: u8,
    mapping: &'static [u8],
    high_quality: bool,
) -> SurroundLayout {
    SurroundLayout { channels, streams, coupled, mapping, high_quality }
}

impl SurroundLayout {
    /// The digits of its `surround-params` line.
    // spec: gamestream 4.6
    pub fn params(&self) -> String {
        let mut mapping = self.mapping.to_vec();
        if !self.high_quality
            && let Some(tail) = mapping.get_mut(3..)
            && !tail.is_empty()
        {
            // Clients move the last digit to the fourth place to work around a host of old.
            tail.rotate_left(1);
        }
        [self.channels, self.streams, self.coupled]
            .into_iter()
            .chain(mapping)
            .filter_map(|digit| char::from_digit(u32::from(digit), 10))
            .collect()
    }
}

/// The payload of the answer to DESCRIBE.
// spec: gamestream 4.5
pub fn describe(offer: &Offer) -> String {
    let mut lines = vec![
        format!("a=x-ss-general.featureFlags:{}", offer.feature_flags),
        format!("a=x-ss-general.encryptionSupported:{}", offer.encryption.bits()),
        format!("a=x-ss-general.encryptionRequested:{}", offer.required.bits()),
    ];
    if offer.reference_invalidation {
        lines.push("a=x-nv-video[0].refPicInvalidation:1".to_owned());
    }
    if offer.codecs.contains(&Codec::Hevc) {
        lines.push("sprop-parameter-sets=AAAAAU".to_owned());
    }
    if offer.codecs.contains(&Codec::Av1) {
        lines.push("a=rtpmap:98 AV1/90000".to_owned());
    }
    for layout in &SURROUND_LAYOUTS {
        lines.push(format!("a=fmtp:97 surround-params={}", layout.params()));
    }
    let mut text = lines.join("\r\n");
    text.push_str("\r\n");
    text
}

#[cfg(test)]
pub(super) mod tests_support {
    /// The attributes without which an ANNOUNCE is refused, after `first` (the first of two equal ones counts).
    pub(crate) fn minimal_announce(first: &str) -> String {
        format!(
            "v=0\r\no=android 0 14 IN IPv4 10.0.0.2\r\ns=NVIDIA Streaming Client\r\n{first}\
             a=x-nv-video[0].clientViewportWd:1280 \r\na=x-nv-video[0].clientViewportHt:720 \r\n\
             a=x-nv-video[0].maxFPS:60 \r\na=x-nv-video[0].packetSize:1392 \r\n\
             a=x-nv-vqos[0].bw.maximumBitrateKbps:8000 \r\na=x-nv-general.useReliableUdp:13 \r\n\
             a=x-nv-audio.surround.numChannels:2 \r\na=x-nv-audio.surround.channelMask:3 \r\n\
             t=0 0\r\nm=video 47998  \r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client makes of a line (spec: gamestream 4.6).
    fn as_the_client_reads(params: &str, high_quality: bool) -> Vec<u8> {
        let digits: Vec<u8> = params.bytes().map(|digit| digit - b'0').collect();
        let mut mapping = digits[3..].to_vec();
        if !high_quality && mapping.len() > 2 {
            let last = mapping.pop().unwrap();
            mapping.insert(3, last);
        }
        mapping
    }

    // spec: gamestream 13 item 59
    #[test]
    fn the_client_ends_up_with_the_encoders_mapping() {
        for layout in &SURROUND_LAYOUTS {
            let params = layout.params();
            assert_eq!(params.len(), 3 + usize::from(layout.channels));
            assert_eq!(
                as_the_client_reads(&params, layout.high_quality),
                layout.mapping,
                "{params}"
            );
        }
        assert_eq!(SURROUND_LAYOUTS[2].params(), "642014235");
        assert_eq!(SURROUND_LAYOUTS[4].params(), "85301623457");
        assert_eq!(SURROUND_LAYOUTS[5].params(), "88001234567");
    }

    // spec: gamestream 13 item 58
    #[test]
    fn the_offer_names_what_there_is_and_nothing_else() {
        let text = describe(&Offer::default());
        for line in [
            "a=x-ss-general.featureFlags:0\r\n",
            "a=x-ss-general.encryptionSupported:7\r\n",
            "a=x-ss-general.encryptionRequested:1\r\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(text.matches("surround-params=21101\r\n").count(), 2);
        assert_eq!(text.matches("surround-params=6").count(), 2);
        assert_eq!(text.matches("surround-params=8").count(), 2);
        for marker in ["sprop-parameter-sets", "AV1/90000", "refPicInvalidation"] {
            assert!(!text.contains(marker), "{text}");
        }
        let text = describe(&Offer {
            codecs: vec![Codec::H264, Codec::Hevc, Codec::Av1],
            reference_invalidation: true,
            required: Encryption::ALL,
            ..Offer::default()
        });
        for marker in
            ["sprop-parameter-sets=AAAAAU", "AV1/90000", "refPicInvalidation:1", "Requested:7"]
        {
            assert!(text.contains(marker), "{text}");
        }
        assert!(text.len() < 3800, "older clients have 4 kB for a response");
    }
}
