//! The source that reads a session's sound from its capture.
//!
//! The beat is our own clock's, so that a period is always complete when it should be: with what has come, or silence.
//! Reading never blocks; the one wait is for the beat. A line that breaks is asked for again on a thread beside, because
//! connecting may take seconds.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use rustix::net::RecvFlags;
use tracing::{debug, warn};

use super::cushion::{Counts, Cushion};
use crate::audio::period::{Beat, wait_until};
use crate::audio::{AudioError, AudioSource, SAMPLE_RATE};
use crate::clock;

/// Makes a connection to the capture of a session, a stream of samples; `None` while there is none to be had. Blocks for
/// up to a few seconds.
pub type Connector = Box<dyn FnMut() -> Option<OwnedFd> + Send>;

/// The first pause between two tries to connect; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is read of a line for one period at most. More than a socket holds by default is no sound, but a flood.
const MOST_PER_PERIOD: usize = 512 * 1024;

/// A source that plays what a session's capture hands over.
pub struct PipewireSource {
    cushion: Cushion,
    channels: usize,
    beat: Beat,
    line: Option<OwnedFd>,
    /// Whether the line has brought anything.
    heard: bool,
    lines: Receiver<OwnedFd>,
    /// Asks `pf-sound` for a line; dropped to end it.
    asks: Option<SyncSender<()>>,
    connecting: Option<JoinHandle<()>>,
    buffer: Vec<u8>,
    told: Counts,
}

impl PipewireSource {
    /// The sound of `channels` channels that `connector` leads to.
    ///
    /// # Errors
    /// [`AudioError::Lost`] if its thread does not start.
    pub fn new(channels: u8, connector: Connector) -> Result<Self, AudioError> {
        let (asks, asked) = sync_channel(1);
        let (made, lines) = sync_channel(1);
        let connecting = std::thread::Builder::new()
            .name("pf-sound".to_owned())
            .spawn(move || connect(&asked, &made, connector))
            .map_err(|error| AudioError::Lost { reason: error.to_string() })?;
        let source = Self {
            cushion: Cushion::new(channels),
            channels: usize::from(channels.max(1)),
            beat: Beat::default(),
            line: None,
            heard: false,
            lines,
            asks: Some(asks),
            connecting: Some(connecting),
            buffer: vec![0; 16 * 1024],
            told: Counts::default(),
        };
        source.ask();
        Ok(source)
    }

    fn ask(&self) {
        // One that waits already is enough.
        let _ = self.asks.as_ref().map(|asks| asks.try_send(()));
    }

    /// Takes what has come; an end of the line is the beginning of the next.
    fn drain(&mut self) {
        if let Ok(line) = self.lines.try_recv() {
            debug!("the session's sound is connected");
            self.cushion.begin_line();
            self.line = Some(line);
            self.heard = false;
        }
        let Some(line) = &self.line else { return };
        let mut read = 0;
        while read < MOST_PER_PERIOD {
            match rustix::net::recv(line, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => {
                    self.cushion.push(&self.buffer[..count]);
                    self.heard = true;
                    read += count;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                ended => {
                    let error = ended.err();
                    if self.heard {
                        warn!(?error, "the session's sound is lost; silence until it is back");
                    } else {
                        debug!(?error, "the session's sound was lost before it was heard");
                    }
                    self.line = None;
                    return self.ask();
                }
            }
        }
    }

    fn tell(&mut self) {
        let counts = self.cushion.counts();
        if counts.left_out != self.told.left_out {
            debug!(samples = counts.left_out - self.told.left_out, "sound was left out");
        }
        self.told = counts;
    }
}

impl AudioSource for PipewireSource {
    fn read(&mut self, period: &mut [f32]) -> Result<Timestamp, AudioError> {
        let samples = (period.len() / self.channels) as u64;
        let (begins, complete) = self.beat.advance(clock::now(), samples);
        wait_until(complete);
        self.drain();
        let played = self.cushion.take(period);
        self.tell();
        Ok(match played {
            // What was in hand for so long was captured so long ago.
            Some(in_hand) => complete - samples_to_time(in_hand),
            None => begins,
        })
    }
}

impl Drop for PipewireSource {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(connecting) = self.connecting.take()
            && connecting.join().is_err()
        {
            tracing::error!("the thread that connects a session's sound has panicked");
        }
    }
}

/// The thread `pf-sound`: one line for each time that it is asked.
fn connect(asked: &Receiver<()>, made: &SyncSender<OwnedFd>, mut connector: Connector) {
    while asked.recv().is_ok() {
        let mut pause = FIRST_PAUSE;
        let line = loop {
            if let Some(line) = connector() {
                break line;
            }
            match asked.recv_timeout(pause) {
                Err(RecvTimeoutError::Disconnected) => return,
                _ => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        };
        if made.send(line).is_err() {
            return;
        }
        // A line that ends as soon as it is made costs no more than one that cannot be made.
        std::thread::sleep(FIRST_PAUSE);
    }
}

fn samples_to_time(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(SAMPLE_RATE))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    use super::*;

    fn loud(period: &[f32]) -> bool {
        period.iter().any(|sample| *sample != 0.0)
    }

    fn tone(frames: usize) -> Vec<u8> {
        0.5_f32.to_le_bytes().repeat(frames * 2)
    }

    #[test]
    fn silence_keeps_its_pace_while_nobody_is_there() {
        let mut source = PipewireSource::new(2, Box::new(|| None)).unwrap();
        let mut period = [1.0; 480];
        let first = source.read(&mut period).unwrap();
        assert!(!loud(&period));
        for turn in 1..20 {
            let begins = source.read(&mut period).unwrap();
            assert_eq!(begins.since(first), Duration::from_millis(5 * turn));
            assert!(clock::now() >= begins + Duration::from_millis(5));
        }
    }

    #[test]
    fn a_lost_line_is_silence_and_the_next_one_is_heard() {
        let (give, given) = channel::<OwnedFd>();
        let mut source = PipewireSource::new(2, Box::new(move || given.try_recv().ok())).unwrap();
        let mut period = [0.0; 480];
        for _ in 0..2 {
            let (mut near, far) = UnixStream::pair().unwrap();
            give.send(far.into()).unwrap();
            near.write_all(&tone(2_400)).unwrap();
            let mut heard = 0;
            while heard < 5 {
                let before = clock::now();
                let captured = source.read(&mut period).unwrap();
                heard += usize::from(loud(&period));
                assert!(captured <= clock::now());
                assert!(clock::now().since(before) < Duration::from_secs(10));
            }
            drop(near);
            while loud(&period) || source.line.is_some() {
                source.read(&mut period).unwrap();
            }
        }
    }

    #[test]
    fn a_flood_is_bounded_and_what_is_no_number_is_silence() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut far = Some(OwnedFd::from(far));
        let mut source = PipewireSource::new(2, Box::new(move || far.take())).unwrap();
        let flood = f32::NAN.to_le_bytes().repeat(65_536);
        let mut period = [0.0; 480];
        for _ in 0..40 {
            while near.write(&flood).is_ok() {}
            source.read(&mut period).unwrap();
            assert!(!loud(&period));
        }
        assert!(source.told.left_out > 48_000, "{:?}", source.told);
    }
}
