//! What the client chose, from the body of ANNOUNCE.

use std::time::Duration;

use super::{Encryption, Offer};
use crate::media::{Codec, ColourMatrix, ColourSpace, Mode, ModeError};

/// The longest attribute line that is looked at, in bytes; longer ones are ignored like unknown ones.
const MAX_LINE_BYTES: usize = 1024;
/// The most attributes kept. A current client sends about 50.
const MAX_ATTRIBUTES: usize = 512;

/// A client's choice. Every value is inside its limits and was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Size and rate of the stream.
    pub mode: Mode,
    /// `packetSize`: payload of a video datagram after its RTP header, in bytes; a multiple of 16 in `256..=65_000`.
    pub packet_size: u16,
    /// The bitrate that is left for coded video, in kbit/s, `500..=1_000_000`.
    pub bitrate_kbps: u32,
    /// The codec.
    pub codec: Codec,
    /// Slices per picture, `1..=8`.
    pub slices: u8,
    /// Reference pictures the client's decoder has room for; 0 = no limit.
    pub max_reference_frames: u8,
    /// How pictures carry colour.
    pub colour: ColourSpace,
    /// Parity packets that every FEC block has at least, `0..=8`.
    pub min_parity: u8,
    /// What the client encrypts.
    pub encryption: AnnouncedEncryption,
    /// The sound.
    pub audio: AnnouncedAudio,
    /// The client reports the FEC status of frames.
    pub fec_status: bool,
    /// The client sends the ping payload and the connect data it was given; older ones are told by their address.
    pub session_id: bool,
    /// The client understands frames of several FEC blocks; some of those from before `x-ml-general.featureFlags`
    /// do not.
    pub multiple_blocks: bool,
    /// Mark datagrams with a type of service: (video, audio).
    pub mark_traffic: (bool, bool),
}

/// What the client encrypts. Control is always encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedEncryption {
    /// Control messages have twelve-byte nonces; else the sixteen-byte nonces of older clients.
    pub control_v2: bool,
    /// Video.
    pub video: bool,
    /// Audio.
    pub audio: bool,
}

/// The sound that the client chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedAudio {
    /// 2, 6 or 8.
    pub channels: u8,
    /// The client asks for the high bitrate (and, for surround, for uncoupled streams).
    pub high_quality: bool,
    /// 5 or 10 ms.
    pub packet_duration_ms: u8,
}

impl AnnouncedAudio {
    /// The constant Opus bitrate in kbit/s.
    // spec: gamestream 8.4
    pub const fn bitrate_kbps(self) -> u32 {
        match (self.channels, self.high_quality) {
            (6, false) => 256,
            (6, true) => 1536,
            (8, false) => 450,
            (8, true) => 2048,
            (_, false) => 96,
            (_, true) => 512,
        }
    }

    /// The time one packet covers.
    pub const fn packet_duration(self) -> Duration {
        Duration::from_millis(self.packet_duration_ms as u64)
    }
}

/// Why a choice was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// It is not text.
    #[error("the description is not text")]
    NotText,
    /// An attribute without which there is no stream is missing.
    #[error("the attribute {name} is missing")]
    Missing {
        /// Which one.
        name: &'static str,
    },
    /// An attribute is not a number or outside its limits.
    #[error("the attribute {name} has the value {got:?}; it must be {want}")]
    OutOfRange {
        /// Which one.
        name: &'static str,
        /// Its value, cut off after 32 characters.
        got: String,
        /// What it may be.
        want: &'static str,
    },
    /// The mode is outside what any output can do.
    #[error("the mode cannot be: {0}")]
    Mode(#[from] ModeError),
    /// The client chose something that was not offered.
    #[error("{what} was not offered")]
    NotOffered {
        /// What it chose.
        what: &'static str,
    },
    /// The host insists on encryption that the client did not enable.
    #[error("this host insists on encrypting {what}, which the client did not enable")]
    Policy {
        /// What has to be encrypted.
        what: &'static str,
    },
}

impl Announced {
    /// Reads the body of ANNOUNCE. `high_quality_stereo`: the request's `Host:` header was not `0.0.0.0`.
    ///
    /// # Errors
    /// [`AnnounceError`]; [`AnnounceError::Policy`] is answered with 403, all others with 400.
    // spec: gamestream 4.7
    pub fn parse(
        body: &[u8],
        offer: &Offer,
        high_quality_stereo: bool,
    ) -> Result<Self, AnnounceError> {
        let body = body.strip_suffix(b"\0").unwrap_or(body);
        let text = std::str::from_utf8(body).map_err(|_| AnnounceError::NotText)?;
        let attributes = Attributes::read(text);
        let codec = codec(&attributes, offer)?;
        let features = attributes.number("x-ml-general.featureFlags")?;
        let encryption = encryption(&attributes, offer)?;
        let audio = audio(&attributes, high_quality_stereo)?;
        let features_or_none = features.unwrap_or(0);
        Ok(Self {
            mode: mode(&attributes)?,
            packet_size: packet_size(&attributes)?,
            bitrate_kbps: bitrate(&attributes, offer.fec_percentage, audio)?,
            codec,
            slices: attributes
                .number("x-nv-video[0].videoEncoderSlicesPerFrame")?
                .map_or(1, |slices| clamp_u8(slices, 1, 8)),
            max_reference_frames: attributes
                .number("x-nv-video[0].maxNumReferenceFrames")?
                .map_or(0, |frames| clamp_u8(frames, 0, 16)),
            colour: colour(&attributes)?,
            min_parity: attributes
                .number("x-nv-vqos[0].fec.minRequiredFecPackets")?
                .map_or(0, |packets| clamp_u8(packets, 0, 8)),
            encryption,
            audio,
            fec_status: features_or_none & 1 != 0,
            session_id: features_or_none & 2 != 0,
            multiple_blocks: features.is_some(),
            mark_traffic: (
                attributes.number("x-nv-vqos[0].qosTrafficType")?.unwrap_or(5) != 0,
                attributes.number("x-nv-aqos.qosTrafficType")?.unwrap_or(4) != 0,
            ),
        })
    }
}

/// The attributes of a description: the first of equal names counts, lines that are none are ignored.
struct Attributes<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Attributes<'a> {
    fn read(text: &'a str) -> Self {
        Self(
            text.lines()
                .filter(|line| line.len() <= MAX_LINE_BYTES)
                .filter_map(|line| line.trim().strip_prefix("a="))
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.trim(), value.trim()))
                .take(MAX_ATTRIBUTES)
                .collect(),
        )
    }

    /// A number. Clients print some of them signed; all that are read here are not negative.
    fn number(&self, name: &'static str) -> Result<Option<u32>, AnnounceError> {
        let Some((_, value)) = self.0.iter().find(|(have, _)| *have == name) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| out_of_range(name, value, "a number"))
    }

    fn required(&self, name: &'static str) -> Result<u32, AnnounceError> {
        self.number(name)?.ok_or(AnnounceError::Missing { name })
    }
}

fn out_of_range(name: &'static str, got: &str, want: &'static str) -> AnnounceError {
    AnnounceError::OutOfRange { name, got: got.chars().take(32).collect(), want }
}

fn clamp_u8(value: u32, low: u8, high: u8) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX).clamp(low, high)
}

fn mode(attributes: &Attributes<'_>) -> Result<Mode, AnnounceError> {
    let width = attributes.required("x-nv-video[0].clientViewportWd")?;
    let height = attributes.required("x-nv-video[0].clientViewportHt")?;
    let fps = attributes.required("x-nv-video[0].maxFPS")?;
    // One client family sends frames per 1000 seconds; no display has 4000 Hz.
    let millihz = if fps > 4_000 { fps } else { fps * 1_000 };
    let exact = attributes.number("x-nv-video[0].clientRefreshRateX100")?.unwrap_or(0);
    let exact_millihz = exact.saturating_mul(10);
    // Some clients send the rate of their panel instead, which has nothing to do with the stream.
    let close = exact_millihz.abs_diff(millihz) <= millihz / 100;
    Ok(Mode::new(width, height, if close { exact_millihz } else { millihz })?)
}

fn packet_size(attributes: &Attributes<'_>) -> Result<u16, AnnounceError> {
    const NAME: &str = "x-nv-video[0].packetSize";
    let got = attributes.required(NAME)?;
    u16::try_from(got)
        .ok()
        .filter(|size| (256..=65_000).contains(size) && size % 16 == 0)
        .ok_or_else(|| out_of_range(NAME, &got.to_string(), "a multiple of 16 in 256..=65000"))
}

fn bitrate(
    attributes: &Attributes<'_>,
    fec_percentage: u8,
    audio: AnnouncedAudio,
) -> Result<u32, AnnounceError> {
    const RANGE: std::ops::RangeInclusive<u32> = 500..=1_000_000;
    const WANT: &str = "500..=1000000 kbit/s";
    const CONFIGURED: &str = "x-ml-video.configuredBitrateKbps";
    const MAXIMUM: &str = "x-nv-vqos[0].bw.maximumBitrateKbps";
    let configured = attributes.number(CONFIGURED)?.unwrap_or(0);
    if configured == 0 {
        let maximum = attributes.required(MAXIMUM)?;
        if !RANGE.contains(&maximum) {
            return Err(out_of_range(MAXIMUM, &maximum.to_string(), WANT));
        }
        return Ok(maximum);
    }
    if !RANGE.contains(&configured) {
        return Err(out_of_range(CONFIGURED, &configured.to_string(), WANT));
    }
    // What the user configured is the whole stream: parity, sound and a reserve come off it.
    let mut left = configured;
    if fec_percentage <= 80 {
        left = left * u32::from(100 - fec_percentage) / 100;
    }
    let per_channel = if audio.high_quality { 256 } else { 96 };
    left -= (u32::from(audio.channels) * per_channel).min(left / 5);
    left -= 500.min(left / 10);
    Ok(left.max(*RANGE.start()))
}

fn codec(attributes: &Attributes<'_>, offer: &Offer) -> Result<Codec, AnnounceError> {
    const FORMAT: &str = "x-nv-vqos[0].bitStreamFormat";
    let (codec, what) = match attributes.number(FORMAT)?.unwrap_or(0) {
        0 => (Codec::H264, "H.264"),
        1 => (Codec::Hevc, "HEVC"),
        2 => (Codec::Av1, "AV1"),
        got => return Err(out_of_range(FORMAT, &got.to_string(), "0, 1 or 2")),
    };
    if !offer.codecs.contains(&codec) {
        return Err(AnnounceError::NotOffered { what });
    }
    if attributes.number("x-nv-video[0].dynamicRangeMode")?.unwrap_or(0) != 0 {
        return Err(AnnounceError::NotOffered { what: "10-bit video" });
    }
    if attributes.number("x-ss-video[0].chromaSamplingType")?.unwrap_or(0) != 0 {
        return Err(AnnounceError::NotOffered { what: "4:4:4 video" });
    }
    Ok(codec)
}

fn colour(attributes: &Attributes<'_>) -> Result<ColourSpace, AnnounceError> {
    const MODE: &str = "x-nv-video[0].encoderCscMode";
    let mode = attributes.number(MODE)?.unwrap_or(0);
    let matrix = match mode >> 1 {
        0 => ColourMatrix::Bt601,
        1 => ColourMatrix::Bt709,
        2 => ColourMatrix::Bt2020,
        _ => return Err(out_of_range(MODE, &mode.to_string(), "0..=5")),
    };
    Ok(ColourSpace { matrix, full_range: mode & 1 != 0 })
}

fn encryption(
    attributes: &Attributes<'_>,
    offer: &Offer,
) -> Result<AnnouncedEncryption, AnnounceError> {
    const AUDIO_FEATURE: u32 = 0x20;
    let enabled =
        Encryption::from_bits(attributes.number("x-ss-general.encryptionEnabled")?.unwrap_or(0));
    let features = attributes.number("x-nv-general.featureFlags")?.unwrap_or(135);
    let chosen = AnnouncedEncryption {
        control_v2: enabled.control,
        video: enabled.video,
        audio: enabled.audio || features & AUDIO_FEATURE != 0,
    };
    // 13 stands for an encrypted control stream; a client that would send input in clear is never served.
    if attributes.number("x-nv-general.useReliableUdp")?.unwrap_or(1) != 13 {
        return Err(AnnounceError::Policy { what: "the control stream" });
    }
    let required = offer.required;
    if (required.video || required.audio) && required.control && !chosen.control_v2 {
        return Err(AnnounceError::Policy { what: "the control stream with unique nonces" });
    }
    if required.video && !chosen.video {
        return Err(AnnounceError::Policy { what: "video" });
    }
    if required.audio && !chosen.audio {
        return Err(AnnounceError::Policy { what: "audio" });
    }
    if chosen.control_v2 && !offer.encryption.control {
        return Err(AnnounceError::NotOffered { what: "control encryption v2" });
    }
    if chosen.video && !offer.encryption.video {
        return Err(AnnounceError::NotOffered { what: "video encryption" });
    }
    Ok(chosen)
}

fn audio(
    attributes: &Attributes<'_>,
    high_quality_stereo: bool,
) -> Result<AnnouncedAudio, AnnounceError> {
    const CHANNELS: &str = "x-nv-audio.surround.numChannels";
    const MASK: &str = "x-nv-audio.surround.channelMask";
    const DURATION: &str = "x-nv-aqos.packetDuration";
    let channels = attributes.required(CHANNELS)?;
    let want_mask = match channels {
        2 => 0x3,
        6 => 0x3F,
        8 => 0x63F,
        got => return Err(out_of_range(CHANNELS, &got.to_string(), "2, 6 or 8")),
    };
    let mask = attributes.number(MASK)?.unwrap_or(want_mask);
    if mask != want_mask {
        return Err(out_of_range(MASK, &mask.to_string(), "3, 63 or 1599, as the channels are"));
    }
    let packet_duration_ms = match attributes.number(DURATION)?.unwrap_or(5) {
        5 => 5,
        10 => 10,
        got => return Err(out_of_range(DURATION, &got.to_string(), "5 or 10")),
    };
    let surround_quality = attributes.number("x-nv-audio.surround.AudioQuality")?.unwrap_or(0) == 1;
    Ok(AnnouncedAudio {
        channels: clamp_u8(channels, 2, 8),
        high_quality: if channels == 2 { high_quality_stereo } else { surround_quality },
        packet_duration_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests_support::minimal_announce;
    use super::*;

    fn parse(first: &str) -> Result<Announced, AnnounceError> {
        Announced::parse(minimal_announce(first).as_bytes(), &Offer::default(), false)
    }

    // spec: gamestream 13 item 62
    #[test]
    fn trailing_spaces_unknown_and_missing_attributes_give_the_defaults() {
        let announced = parse("a=x-new.thing:1 \r\nnonsense\r\na=alone\r\n").unwrap();
        assert_eq!(announced.mode, Mode::new(1280, 720, 60_000).unwrap());
        assert_eq!((announced.packet_size, announced.bitrate_kbps), (1392, 8000));
        assert_eq!((announced.codec, announced.slices), (Codec::H264, 1));
        assert_eq!((announced.max_reference_frames, announced.min_parity), (0, 0));
        assert_eq!(
            announced.colour,
            ColourSpace { matrix: ColourMatrix::Bt601, full_range: false }
        );
        assert_eq!(
            announced.encryption,
            AnnouncedEncryption { control_v2: false, video: false, audio: false }
        );
        assert_eq!(
            announced.audio,
            AnnouncedAudio { channels: 2, high_quality: false, packet_duration_ms: 5 }
        );
        assert!(!announced.fec_status && !announced.session_id && !announced.multiple_blocks);
        assert_eq!(announced.mark_traffic, (true, true));
        let lf = minimal_announce("").replace("\r\n", "\n");
        assert_eq!(
            Announced::parse(lf.as_bytes(), &Offer::default(), false).unwrap(),
            parse("").unwrap()
        );
    }

    #[test]
    fn what_is_required_is_named_when_it_is_missing() {
        for name in [
            "x-nv-video[0].clientViewportWd",
            "x-nv-video[0].clientViewportHt",
            "x-nv-video[0].maxFPS",
            "x-nv-video[0].packetSize",
            "x-nv-vqos[0].bw.maximumBitrateKbps",
            "x-nv-audio.surround.numChannels",
        ] {
            let body = minimal_announce("").replace(name, "x-other");
            assert_eq!(
                Announced::parse(body.as_bytes(), &Offer::default(), false),
                Err(AnnounceError::Missing { name })
            );
        }
    }

    #[test]
    fn values_outside_their_limits_are_refused() {
        for line in [
            "x-nv-video[0].clientViewportWd:8193",
            "x-nv-video[0].clientViewportHt:15",
            "x-nv-video[0].clientViewportHt:-720",
            "x-nv-video[0].clientViewportHt:99999999999",
            "x-nv-video[0].maxFPS:0",
            "x-nv-video[0].maxFPS:501",
            "x-nv-video[0].packetSize:1391",
            "x-nv-video[0].packetSize:240",
            "x-nv-video[0].packetSize:66560",
            "x-nv-vqos[0].bw.maximumBitrateKbps:499",
            "x-ml-video.configuredBitrateKbps:1000001",
            "x-nv-vqos[0].bitStreamFormat:3",
            "x-nv-video[0].encoderCscMode:6",
            "x-nv-audio.surround.numChannels:3",
            "x-nv-audio.surround.channelMask:63",
            "x-nv-aqos.packetDuration:20",
        ] {
            assert!(parse(&format!("a={line} \r\n")).is_err(), "{line}");
        }
        assert_eq!(parse("a=x-nv-video[0].clientViewportWd:1279 \r\n").unwrap().mode.width(), 1280);
        assert_eq!(parse("a=x-nv-video[0].videoEncoderSlicesPerFrame:0 \r\n").unwrap().slices, 1);
        assert_eq!(parse("a=x-nv-video[0].videoEncoderSlicesPerFrame:99 \r\n").unwrap().slices, 8);
    }

    // spec: gamestream 13 item 66
    #[test]
    fn an_exact_refresh_counts_only_near_the_frame_rate() {
        let refresh = |x100: u32, fps: u32| {
            let lines = format!(
                "a=x-nv-video[0].clientRefreshRateX100:{x100} \r\na=x-nv-video[0].maxFPS:{fps} \r\n"
            );
            parse(&lines).unwrap().mode.refresh_millihz()
        };
        assert_eq!(refresh(5994, 60), 59_940);
        assert_eq!(refresh(12000, 60), 60_000);
        assert_eq!(refresh(0, 60), 60_000);
        assert_eq!(refresh(5939, 60), 60_000);
        assert_eq!(refresh(5940, 60), 59_400);
        assert_eq!(refresh(0, 59_940), 59_940);
        assert_eq!(refresh(u32::MAX, 60), 60_000);
    }

    // spec: gamestream 13 item 63
    #[test]
    fn what_was_not_offered_is_refused() {
        for line in [
            "x-nv-vqos[0].bitStreamFormat:1",
            "x-nv-vqos[0].bitStreamFormat:2",
            "x-nv-video[0].dynamicRangeMode:1",
            "x-ss-video[0].chromaSamplingType:1",
        ] {
            assert!(
                matches!(parse(&format!("a={line} \r\n")), Err(AnnounceError::NotOffered { .. })),
                "{line}"
            );
        }
        let offer = Offer { codecs: vec![Codec::H264, Codec::Hevc], ..Offer::default() };
        let body = minimal_announce("a=x-nv-vqos[0].bitStreamFormat:1 \r\n");
        assert_eq!(Announced::parse(body.as_bytes(), &offer, false).unwrap().codec, Codec::Hevc);
    }

    // spec: gamestream 13 item 64
    #[test]
    fn a_policy_that_is_not_met_is_told_apart_from_nonsense() {
        let policy = |first: &str, required: Encryption| {
            let offer = Offer { required, ..Offer::default() };
            match Announced::parse(minimal_announce(first).as_bytes(), &offer, false) {
                Err(AnnounceError::Policy { what }) => Some(what),
                Ok(_) => None,
                Err(other) => panic!("{other}"),
            }
        };
        assert!(policy("a=x-nv-general.useReliableUdp:1 \r\n", Encryption::CONTROL).is_some());
        assert_eq!(policy("", Encryption::CONTROL), None);
        let enabled = |bits: u32| format!("a=x-ss-general.encryptionEnabled:{bits} \r\n");
        assert!(policy("", Encryption::ALL).is_some());
        assert_eq!(policy(&enabled(5), Encryption::ALL), Some("video"));
        assert_eq!(policy(&enabled(3), Encryption::ALL), Some("audio"));
        assert_eq!(policy(&enabled(7), Encryption::ALL), None);
    }

    // spec: gamestream 13 item 117
    #[test]
    fn the_old_feature_bit_encrypts_audio_by_itself() {
        assert!(parse("a=x-nv-general.featureFlags:167 \r\n").unwrap().encryption.audio);
        assert!(!parse("a=x-nv-general.featureFlags:135 \r\n").unwrap().encryption.audio);
    }

    // spec: gamestream 13 item 65
    #[test]
    fn the_host_header_decides_the_quality_of_stereo_only() {
        let audio = |first: &str, high| {
            let body = minimal_announce(first);
            Announced::parse(body.as_bytes(), &Offer::default(), high).unwrap().audio
        };
        assert_eq!(audio("", false).bitrate_kbps(), 96);
        assert_eq!(audio("", true).bitrate_kbps(), 512);
        let surround =
            "a=x-nv-audio.surround.numChannels:6 \r\na=x-nv-audio.surround.channelMask:63 \r\n";
        assert_eq!(audio(surround, true).bitrate_kbps(), 256);
        let better = format!("{surround}a=x-nv-audio.surround.AudioQuality:1 \r\n");
        assert_eq!(audio(&better, false).bitrate_kbps(), 1536);
        assert_eq!(audio("a=x-nv-aqos.packetDuration:10 \r\n", false).packet_duration_ms, 10);
    }

    #[test]
    fn the_configured_bitrate_pays_for_parity_sound_and_a_reserve() {
        let left = |kbps: u32| {
            parse(&format!("a=x-ml-video.configuredBitrateKbps:{kbps} \r\n")).unwrap().bitrate_kbps
        };
        // 10000 less 20 % = 8000, less 2 x 96, less 500.
        assert_eq!(left(10_000), 7_308);
        // 1000 less 20 % = 800, less a fifth (160) = 640, less a tenth.
        assert_eq!(left(1_000), 576);
        assert_eq!(left(500), 500);
        assert_eq!(left(1_000_000), 799_308);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Announced::parse(&bytes, &Offer::default(), true);
        }

        #[test]
        fn no_value_makes_it_panic_or_leave_its_limits(
            at in 0usize..24, value in "-?[0-9]{0,12}|[ -~]{0,12}",
        ) {
            let names = [
                "x-nv-video[0].clientViewportWd", "x-nv-video[0].clientViewportHt",
                "x-nv-video[0].maxFPS", "x-nv-video[0].clientRefreshRateX100",
                "x-nv-video[0].packetSize", "x-nv-vqos[0].bw.maximumBitrateKbps",
                "x-ml-video.configuredBitrateKbps", "x-nv-vqos[0].bitStreamFormat",
                "x-nv-video[0].dynamicRangeMode", "x-ss-video[0].chromaSamplingType",
                "x-nv-video[0].encoderCscMode", "x-nv-video[0].videoEncoderSlicesPerFrame",
                "x-nv-video[0].maxNumReferenceFrames", "x-nv-vqos[0].fec.minRequiredFecPackets",
                "x-nv-vqos[0].qosTrafficType", "x-nv-aqos.qosTrafficType",
                "x-nv-general.useReliableUdp", "x-nv-general.featureFlags",
                "x-ss-general.encryptionEnabled", "x-ml-general.featureFlags",
                "x-nv-audio.surround.numChannels", "x-nv-audio.surround.channelMask",
                "x-nv-audio.surround.AudioQuality", "x-nv-aqos.packetDuration",
            ];
            if let Ok(announced) = parse(&format!("a={}:{value} \r\n", names[at])) {
                prop_assert!((256..=65_000).contains(&announced.packet_size));
                prop_assert!((500..=1_000_000).contains(&announced.bitrate_kbps));
                prop_assert!((1..=8).contains(&announced.slices));
                prop_assert!(announced.max_reference_frames <= 16);
            }
        }
    }
}
