//! Sound: the encoder has to make packets of the length it promises, and a program that plays in a session has to be
//! heard outside it.

use std::f32::consts::TAU;
use std::time::{Duration, Instant};

use punktfunk_core::media::OpusPacket;
use punktfunk_core::time::Timestamp;

use super::{DOCTOR, Finding};
use crate::agent::{Agent, AgentError, AgentStarter, ProcessSpec};
use crate::audio::opus::OpusEncoder;
use crate::audio::pipewire::{SoundError, SoundOptions, SoundServer, probe};
use crate::audio::{AudioError, AudioSource, AudioSpec, SAMPLE_RATE};

/// How long a sound server may take to come up, and a program to be heard.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What is played: a tone of this pitch in Hz, at half of full scale.
const TONE_HZ: f32 = 1_000.0;
/// Its length in samples; with two bytes a sample it is a file that an agent takes.
const TONE_SAMPLES: u16 = 28_800;
/// The file it is played from.
const TONE_FILE: &str = "doctor.wav";

/// Encodes a few periods of a tone.
pub(super) fn opus() -> Finding {
    match encode() {
        Ok(bytes) => Finding::works_with(format!("encoded packets of {bytes} bytes")),
        Err(error) => Finding::broken(&error),
    }
}

fn encode() -> Result<usize, AudioError> {
    let spec = AudioSpec { channels: 2, period_samples: 240, bitrate_kbps: 128 };
    let mut encoder = OpusEncoder::open(&spec)?;
    let mut packet = OpusPacket { captured_at: Timestamp::ZERO, bytes: Vec::new() };
    for number in 0..4_u16 {
        let period: Vec<f32> = (0..480_u16)
            .map(|sample| (f32::from(number * 240 + sample / 2) * 0.05).sin() * 0.5)
            .collect();
        encoder.encode(&period, &mut packet)?;
    }
    Ok(packet.bytes.len())
}

/// Starts the sound server of a session, lets a program of the session play a tone and listens.
pub(super) fn pipewire(agents: &dyn AgentStarter) -> Finding {
    let report = match probe() {
        Ok(report) => report,
        Err(SoundError::Missing { program, package }) => {
            let reason = format!("the program `{program}` is not installed");
            return Finding::missing(reason, format!("apt install {package}"));
        }
        Err(error) => return Finding::broken(&error),
    };
    let heard = report.options().map_err(Trouble::from).and_then(|options| {
        let agent = agents.start(DOCTOR)?;
        let heard = play_and_listen(&agent, options);
        agent.end(GRACE);
        heard
    });
    match heard {
        Ok(()) => {
            Finding::works_with(format!("heard what a program of a session played ({report})"))
        }
        Err(Trouble::Agent(error)) => Finding::without_agent(&error),
        Err(trouble) => Finding::broken(&trouble),
    }
}

fn play_and_listen(
    agent: &std::sync::Arc<dyn Agent>,
    options: SoundOptions,
) -> Result<(), Trouble> {
    let channels = options.channels;
    let mut server = SoundServer::start(agent, options)?;
    if !server.settle(PATIENCE) {
        return Err(Trouble::NotReady { seconds: PATIENCE.as_secs() });
    }
    let mut source = server.source(channels)?;
    agent.write_file(TONE_FILE, &tone())?;
    let file = agent.runtime_dir().join(TONE_FILE);
    let _player = agent.spawn(&ProcessSpec {
        program: "pw-play".to_owned(),
        arguments: vec![file.to_string_lossy().into_owned()],
        environment: server.child_env(),
        keeps_last_words: false,
    })?;
    let mut period = vec![0.0; usize::from(channels) * 480];
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        source.read(&mut period)?;
        if loudness(&period, usize::from(channels)) > 0.1 {
            return Ok(());
        }
    }
    Err(Trouble::Silence { seconds: PATIENCE.as_secs() })
}

/// The tone as a WAV file: one channel of 16 bits.
fn tone() -> Vec<u8> {
    let bytes = u32::from(TONE_SAMPLES) * 2;
    let mut file = Vec::with_capacity(44 + bytes as usize);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + bytes).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    file.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&bytes.to_le_bytes());
    for sample in 0..TONE_SAMPLES {
        let value = (f32::from(sample) * TONE_HZ * TAU / SAMPLE_RATE as f32).sin();
        file.extend_from_slice(&((value * 16_384.0) as i16).to_le_bytes());
    }
    file
}

/// How much of the tone is in the first channel, as its amplitude: other pitches do not count.
fn loudness(period: &[f32], channels: usize) -> f32 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    let count = period.len() / channels;
    for (index, frame) in period.chunks_exact(channels).enumerate() {
        let phase = index as f32 * TONE_HZ * TAU / SAMPLE_RATE as f32;
        sine += frame[0] * phase.sin();
        cosine += frame[0] * phase.cos();
    }
    2.0 * (sine.hypot(cosine)) / count as f32
}

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Server(#[from] SoundError),
    #[error(transparent)]
    Source(#[from] AudioError),
    #[error("the sound server was not ready after {seconds} s")]
    NotReady { seconds: u64 },
    #[error("a program of the session played, and nothing was heard for {seconds} s")]
    Silence { seconds: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tone_counts_as_heard() {
        let at = |hz: f32| -> Vec<f32> {
            let angle = |index: u16| f32::from(index / 2) * hz * TAU / SAMPLE_RATE as f32;
            (0..960_u16).map(|index| 0.5 * angle(index).sin()).collect()
        };
        assert!((loudness(&at(TONE_HZ), 2) - 0.5).abs() < 0.01);
        assert!(loudness(&at(400.0), 2) < 0.01 && loudness(&[0.0; 960], 2) == 0.0);
    }

    #[test]
    fn opus_works_here() {
        assert_eq!(opus(), Finding::works_with("encoded packets of 80 bytes"));
    }
}
