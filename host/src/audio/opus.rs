//! The Opus encoder of a stream: constant bitrate, lowest delay, every packet of the same length.
//!
//! Equal lengths are not a nicety: the parity of the sound is computed over packets of one length, and clients give up
//! repairing when two differ. Deliberately absent: more than two channels.

use ::opus::{Application, Bitrate, Channels, Encoder, Signal};
use punktfunk_core::media::OpusPacket;

use super::{AudioError, AudioSpec, SAMPLE_RATE};

/// Effort of the encoder, 0..=10. Above this, restricted low delay has next to nothing to gain.
const COMPLEXITY: i32 = 5;

/// The largest packet Opus makes from one frame (RFC 6716 sec. 3.4).
const MAX_PACKET_BYTES: u32 = 1275;

/// Turns periods of samples into packets. Stays on the `pf-audio` thread.
#[derive(Debug)]
pub struct OpusEncoder {
    encoder: Encoder,
    packet_bytes: usize,
}

impl OpusEncoder {
    /// An encoder for this sound.
    ///
    /// # Errors
    /// [`AudioError::Unsupported`] names the setting there is no encoder for, [`AudioError::Opus`] what Opus refused.
    // spec: gamestream 8.4
    pub fn open(spec: &AudioSpec) -> Result<Self, AudioError> {
        let unsupported =
            |what, got, supported| Err(AudioError::Unsupported { what, got, supported });
        if spec.channels != 2 {
            return unsupported("a number of channels", spec.channels.into(), "there is stereo");
        }
        if ![240, 480].contains(&spec.period_samples) {
            let supported = "packets have 240 or 480 samples";
            return unsupported("a packet length", spec.period_samples, supported);
        }
        // Bits of one period: bitrate * samples / 48000.
        let bits = spec.bitrate_kbps.saturating_mul(spec.period_samples) / (SAMPLE_RATE / 1000);
        let packet_bytes = bits / 8;
        if !(10..=MAX_PACKET_BYTES).contains(&packet_bytes) {
            let supported = "a packet must have 10 to 1275 bytes";
            return unsupported("a bitrate in kbit/s", spec.bitrate_kbps, supported);
        }
        let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Stereo, Application::LowDelay)
            .map_err(opus("open an encoder"))?;
        let set = opus("take its settings");
        let bitrate = i32::try_from(spec.bitrate_kbps * 1000).unwrap_or(i32::MAX);
        encoder.set_bitrate(Bitrate::Bits(bitrate)).map_err(&set)?;
        encoder.set_vbr(false).map_err(&set)?;
        encoder.set_dtx(false).map_err(&set)?;
        encoder.set_inband_fec(false).map_err(&set)?;
        encoder.set_signal(Signal::Music).map_err(&set)?;
        encoder.set_complexity(COMPLEXITY).map_err(&set)?;
        Ok(Self { encoder, packet_bytes: packet_bytes as usize })
    }

    /// The length of every packet in bytes.
    pub fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }

    /// Encodes one period (interleaved) into `packet`, whose memory is used again.
    ///
    /// # Errors
    /// [`AudioError::Opus`] if Opus failed, also if it made a packet of another length.
    pub fn encode(&mut self, period: &[f32], packet: &mut OpusPacket) -> Result<(), AudioError> {
        packet.bytes.resize(self.packet_bytes, 0);
        let written = self
            .encoder
            .encode_float(period, &mut packet.bytes)
            .map_err(opus("encode a period"))?;
        if written != self.packet_bytes {
            let reason = format!("it made {written} bytes instead of {}", self.packet_bytes);
            return Err(AudioError::Opus { doing: "keep its packets equal", reason });
        }
        Ok(())
    }
}

fn opus(doing: &'static str) -> impl Fn(::opus::Error) -> AudioError {
    move |error| AudioError::Opus { doing, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use punktfunk_core::time::Timestamp;

    use super::*;

    fn spec(period_samples: u32, bitrate_kbps: u32) -> AudioSpec {
        AudioSpec { channels: 2, period_samples, bitrate_kbps }
    }

    fn empty() -> OpusPacket {
        OpusPacket { captured_at: Timestamp::ZERO, bytes: Vec::new() }
    }

    #[test]
    fn all_packets_of_a_stream_have_one_length() {
        // spec: gamestream 13 item 114 (stereo), item 119
        for (samples, kbps, bytes) in
            [(240, 96, 60), (240, 512, 320), (480, 96, 120), (480, 512, 640)]
        {
            let mut encoder = OpusEncoder::open(&spec(samples, kbps)).unwrap();
            assert_eq!(encoder.packet_bytes(), bytes);
            let mut packet = empty();
            let mut seed = 1_u32;
            for period in 0..400 {
                // Silence, noise and full scale in turn: whatever tempts an encoder to spend less or more.
                let pcm: Vec<f32> = (0..samples * 2)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let noise = (seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
                        [0.0, noise, noise.signum()][period / 20 % 3]
                    })
                    .collect();
                encoder.encode(&pcm, &mut packet).unwrap();
                assert_eq!(packet.bytes.len(), bytes, "period {period}");
            }
        }
    }

    #[test]
    fn a_tone_survives() {
        let mut encoder = OpusEncoder::open(&spec(240, 96)).unwrap();
        let mut decoder = ::opus::Decoder::new(SAMPLE_RATE, Channels::Stereo).unwrap();
        let mut packet = empty();
        let mut heard = Vec::new();
        for period in 0..100_u32 {
            let pcm: Vec<f32> = (0..240)
                .map(|index| (period * 240 + index) as f32 / SAMPLE_RATE as f32)
                .flat_map(|time| [0.5 * (TAU * 1000.0 * time).sin(); 2])
                .collect();
            encoder.encode(&pcm, &mut packet).unwrap();
            let mut out = [0.0; 480];
            assert_eq!(decoder.decode_float(&packet.bytes, &mut out, false).unwrap(), 240);
            heard.extend(out.chunks(2).map(|frame| frame[0]));
        }
        // How much of the second half correlates with a tone of 1 kHz, whatever its phase.
        let half = &heard[12_000..];
        let (mut sine, mut cosine, mut power) = (0.0, 0.0, 0.0);
        for (index, &sample) in (0..).zip(half) {
            let angle = TAU * 1000.0 * (index % 48) as f32 / SAMPLE_RATE as f32;
            sine += sample * angle.sin();
            cosine += sample * angle.cos();
            power += sample * sample;
        }
        let share = 2.0 * (sine * sine + cosine * cosine) / (power * half.len() as f32);
        assert!(share > 0.95, "{share} of the power is the tone");
    }

    #[test]
    fn what_cannot_be_made_is_refused_by_name() {
        let with = |change: fn(&mut AudioSpec)| {
            let mut spec = spec(240, 96);
            change(&mut spec);
            OpusEncoder::open(&spec).unwrap_err()
        };
        for (error, what) in [
            (with(|spec| spec.channels = 6), "a number of channels"),
            (with(|spec| spec.period_samples = 960), "a packet length"),
            (with(|spec| spec.bitrate_kbps = 0), "a bitrate in kbit/s"),
            (with(|spec| spec.bitrate_kbps = u32::MAX), "a bitrate in kbit/s"),
        ] {
            assert!(matches!(error, AudioError::Unsupported { what: got, .. } if got == what));
        }
    }
}
