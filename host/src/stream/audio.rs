//! `pf-audio`: one period of sound after the other, from the source to the socket.
//!
//! Sound never ends a stream: a source that fails is followed by silence, an encoder that fails by no sound at all. The
//! source is read even while nobody listens, so that what is sent first is what plays then.

use punktfunk_core::line::AudioSender;
use punktfunk_core::media::OpusPacket;
use punktfunk_core::time::Timestamp;

use super::counts::bump;
use super::links::Links;
use super::send::Outlet;
use crate::audio::opus::OpusEncoder;
use crate::audio::silence::SilenceSource;
use crate::audio::{AudioSource, AudioSpec};

/// What the thread owns.
pub(super) struct Sounding {
    pub(super) source: Box<dyn AudioSource>,
    pub(super) encoder: OpusEncoder,
    pub(super) spec: AudioSpec,
    pub(super) sender: Box<dyn AudioSender>,
    /// Where its datagrams leave. Its peer counts only once the inbox has one.
    pub(super) outlet: Outlet,
}

pub(super) fn run(links: &Links, sounding: Sounding) {
    let Sounding { mut source, mut encoder, spec, mut sender, mut outlet } = sounding;
    let mut period = vec![0.0; spec.period_samples as usize * usize::from(spec.channels)];
    let bytes = Vec::with_capacity(encoder.packet_bytes());
    let mut packet = OpusPacket { captured_at: Timestamp::ZERO, bytes };
    while !links.has_ended() {
        match source.read(&mut period) {
            Ok(captured_at) => packet.captured_at = captured_at,
            Err(error) => {
                tracing::warn!(%error, "the stream goes on in silence");
                source = Box::new(SilenceSource::new(spec.channels));
                continue;
            }
        }
        let Some(peer) = links.audio.look(|inbox| inbox.peer) else { continue };
        outlet.peer = peer;
        if let Err(error) = encoder.encode(&period, &mut packet) {
            tracing::error!(%error, "the stream goes on without sound");
            return;
        }
        let mut sent = Ok(());
        sender.submit(&packet, &mut |datagram| {
            if sent.is_ok() {
                sent = outlet.send_one(datagram);
            }
        });
        if let Err(reason) = sent {
            return links.end(reason);
        }
        bump(&links.counters.audio_packets);
    }
}
