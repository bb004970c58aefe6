//! Listens: datagrams to Opus packets to samples, and in the samples the Test card's two tones.
//!
//! Samples are looked at in windows of 50 ms, into which both tones fit a whole number of times, so that each is measured
//! without the other. A window counts if nearly all of its power is in the quiet tone and that has the loudness that the
//! card gives it; the beep must be there at times and not always. So noise, silence, music and another pitch do not count.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use opus::{Channels, Decoder};
use punktfunk_core::gamestream::audio::{AudioEvent, AudioOptions, AudioReceiver};

use crate::audio::SAMPLE_RATE;
use crate::audio::tone::{BEEP_HZ, QUIET_HZ};

/// The duration of a packet that is asked for, in milliseconds.
pub(super) const PACKET_MS: u8 = 5;

/// Samples of a window.
const WINDOW: usize = SAMPLE_RATE as usize / 20;
/// So many windows in a row are looked at: a second.
const WINDOWS_WANTED: usize = 20;
/// So many of them must count; a busy machine may interrupt the others.
const WINDOWS_NEEDED: usize = 16;
/// The quiet tone's amplitude is 0.01; the codec changes it a little.
const QUIET_RANGE: (f64, f64) = (0.006, 0.015);
/// The beep's amplitude is 0.25, and it fills at least half of one window.
const BEEP_LEAST: f64 = 0.1;
/// How much of a window's power the tones have.
const SHARE_LEAST: f64 = 0.8;

/// What was heard so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) datagrams: u64,
    pub(super) packets: u64,
    pub(super) repaired: u64,
    pub(super) lost: u64,
    /// Packets that Opus does not take.
    pub(super) undecodable: u64,
    pub(super) windows: u64,
    /// Windows with the tone.
    pub(super) tone_windows: u64,
    /// Windows with the beep as well.
    pub(super) beeps: u64,
}

/// The listening end.
pub(super) struct Listener {
    receiver: AudioReceiver,
    decoder: Decoder,
    window: Vec<f32>,
    newest: VecDeque<bool>,
    heard: Heard,
}

impl Listener {
    pub(super) fn new(options: AudioOptions) -> Result<Self, opus::Error> {
        Ok(Self {
            receiver: AudioReceiver::new(options),
            decoder: Decoder::new(SAMPLE_RATE, Channels::Stereo)?,
            window: Vec::with_capacity(WINDOW),
            newest: VecDeque::with_capacity(WINDOWS_WANTED),
            heard: Heard::default(),
        })
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard
    }

    /// Whether a second of the quiet tone, and a beep at some time, was heard.
    pub(super) fn is_content(&self) -> bool {
        let good = self.newest.iter().filter(|good| **good).count();
        good >= WINDOWS_NEEDED && self.heard.beeps > 0
    }

    pub(super) fn take(&mut self, datagram: &[u8]) {
        self.heard.datagrams += 1;
        self.receiver.handle_datagram(datagram);
        while let Some(event) = self.receiver.poll_event() {
            match event {
                AudioEvent::Packet { repaired, bytes, .. } => {
                    self.heard.packets += 1;
                    self.heard.repaired += u64::from(repaired);
                    self.decode(&bytes);
                }
                AudioEvent::Lost { count, .. } => {
                    self.heard.lost += u64::from(count);
                    // What follows does not continue what was there.
                    self.window.clear();
                }
            }
        }
    }

    fn decode(&mut self, packet: &[u8]) {
        /// The longest packet that Opus knows: 120 ms.
        const MOST: usize = SAMPLE_RATE as usize * 120 / 1000 * 2;
        let mut samples = [0.0; MOST];
        let count = match self.decoder.decode_float(packet, &mut samples, false) {
            Ok(count) => count,
            Err(_) => {
                self.heard.undecodable += 1;
                self.window.clear();
                return;
            }
        };
        for frame in samples.chunks_exact(2).take(count) {
            self.window.push((frame[0] + frame[1]) / 2.0);
            if self.window.len() == WINDOW {
                let found = Tones::of(&self.window);
                self.window.clear();
                self.note(found);
            }
        }
    }

    fn note(&mut self, found: Tones) {
        self.heard.windows += 1;
        if found.has_beep() {
            self.heard.beeps += u64::from(found.beep >= BEEP_LEAST);
            return;
        }
        self.heard.tone_windows += u64::from(found.is_quiet_tone());
        if self.newest.len() == WINDOWS_WANTED {
            self.newest.pop_front();
        }
        self.newest.push_back(found.is_quiet_tone());
    }
}

/// What a window is made of.
#[derive(Debug, Clone, Copy)]
struct Tones {
    /// Amplitude of the quiet tone.
    quiet: f64,
    /// Amplitude of the beep.
    beep: f64,
    /// Mean square of all.
    power: f64,
}

impl Tones {
    fn of(window: &[f32]) -> Self {
        let power = window.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
        Self {
            quiet: amplitude(window, QUIET_HZ),
            beep: amplitude(window, BEEP_HZ),
            power: power / window.len().max(1) as f64,
        }
    }

    /// Whether the card beeps in a part of this window or all of it. The quiet tone drowns in the beep's ends.
    fn has_beep(&self) -> bool {
        self.beep >= BEEP_LEAST / 10.0 && self.share(self.beep) >= SHARE_LEAST / 4.0
    }

    /// Whether this is the card's quiet tone and nothing else.
    fn is_quiet_tone(&self) -> bool {
        let (low, high) = QUIET_RANGE;
        (low..=high).contains(&self.quiet) && self.share(self.quiet) >= SHARE_LEAST
    }

    /// How much of the power is in a tone of this amplitude.
    fn share(&self, amplitude: f64) -> f64 {
        if self.power > 0.0 { amplitude.powi(2) / 2.0 / self.power } else { 0.0 }
    }
}

/// The amplitude of one frequency, by Goertzel's algorithm.
fn amplitude(window: &[f32], hz: u32) -> f64 {
    let angle = TAU * f64::from(hz) / f64::from(SAMPLE_RATE);
    let (mut last, mut before) = (0.0, 0.0);
    for sample in window {
        (last, before) = (f64::from(*sample) + 2.0 * angle.cos() * last - before, last);
    }
    let power = last * last + before * before - 2.0 * angle.cos() * last * before;
    2.0 * power.max(0.0).sqrt() / window.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::AudioSpec;
    use crate::audio::opus::OpusEncoder;
    use punktfunk_core::gamestream::audio::AudioPacketizer;
    use punktfunk_core::line::AudioSender;
    use punktfunk_core::media::OpusPacket;
    use punktfunk_core::time::Timestamp;

    fn sine(hz: f64, amplitude: f64) -> impl Fn(f64) -> f64 {
        move |time| amplitude * (TAU * hz * time).sin()
    }

    /// Two seconds of this sound through encoder, packets and back.
    fn listen(sound: impl Fn(f64) -> f64) -> Listener {
        let options = AudioOptions { packet_duration_ms: PACKET_MS, encryption: None };
        let spec = AudioSpec { channels: 2, period_samples: 240, bitrate_kbps: 512 };
        let mut encoder = OpusEncoder::open(&spec).unwrap();
        let mut sender = AudioPacketizer::new(options.clone());
        let mut listener = Listener::new(options).unwrap();
        let mut packet = OpusPacket { captured_at: Timestamp::ZERO, bytes: Vec::new() };
        for period in 0..400 {
            let samples: Vec<f32> = (0..240)
                .map(|index| f64::from(period * 240 + index) / 48_000.0)
                .flat_map(|time| [sound(time) as f32; 2])
                .collect();
            encoder.encode(&samples, &mut packet).unwrap();
            sender.submit(&packet, &mut |datagram| listener.take(datagram));
        }
        listener
    }

    #[test]
    fn the_card_is_recognised_by_both_tones() {
        let card = |time: f64| {
            let beep = if time.fract() < 0.05 { sine(1000.0, 0.25)(time) } else { 0.0 };
            sine(440.0, 0.01)(time) + beep
        };
        let listener = listen(card);
        let heard = listener.heard();
        assert!(listener.is_content(), "{heard:?}");
        assert_eq!((heard.packets, heard.lost, heard.undecodable), (400, 0, 0));
        assert!(heard.tone_windows >= 36 && heard.beeps >= 2, "{heard:?}");
    }

    #[test]
    fn nothing_else_is() {
        let noise = |time: f64| (time * 1e7).sin() * (time * 777.0).cos() * 0.01;
        type Sound = Box<dyn Fn(f64) -> f64>;
        let strangers: [(&str, Sound); 6] = [
            ("silence", Box::new(|_| 0.0)),
            ("noise", Box::new(noise)),
            ("another pitch", Box::new(sine(523.0, 0.01))),
            ("too loud", Box::new(sine(440.0, 0.1))),
            ("a beep without an end", Box::new(sine(999.0, 0.25))),
            ("the quiet tone alone", Box::new(sine(440.0, 0.01))),
        ];
        for (name, sound) in strangers {
            assert!(!listen(sound).is_content(), "{name}");
        }
    }

    #[test]
    fn rubbish_is_counted_and_nothing_is_heard() {
        let options = AudioOptions { packet_duration_ms: PACKET_MS, encryption: None };
        let mut listener = Listener::new(options).unwrap();
        for seed in 0..2000_u32 {
            let bytes: Vec<u8> = (0..seed % 400).map(|at| ((at * seed) >> 3) as u8).collect();
            listener.take(&bytes);
        }
        assert_eq!(listener.heard().datagrams, 2000);
        assert!(!listener.is_content());
    }
}
