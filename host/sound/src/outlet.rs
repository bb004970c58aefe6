//! Where the samples go: one reader, which is never waited for.
//!
//! A socket takes as many bytes as it likes. What it has not taken of a period is kept, so that a reader never loses its
//! place within a frame; until that is out, further periods are left out whole.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;

/// The reader, if there is one, and what is left of the last period for it.
#[derive(Debug)]
pub(crate) struct Outlet {
    reader: Option<UnixStream>,
    rest: Vec<u8>,
    frame_bytes: usize,
}

impl Outlet {
    /// An outlet for frames of `frame_bytes` bytes.
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self { reader: None, rest: Vec::new(), frame_bytes }
    }

    /// From now on this reader gets the samples, and no other.
    pub(crate) fn serve(&mut self, reader: UnixStream) {
        self.rest.clear();
        self.reader = reader.set_nonblocking(true).is_ok().then_some(reader);
    }

    /// Writes a period of whole frames, or leaves it out.
    pub(crate) fn write(&mut self, period: &[u8]) {
        let Some(mut reader) = self.reader.as_ref() else { return };
        let whole = period.len() - period.len() % self.frame_bytes;
        let written = write_some(&mut reader, &self.rest).and_then(|written| {
            self.rest.drain(..written);
            if !self.rest.is_empty() {
                return Ok(());
            }
            let written = write_some(&mut reader, &period[..whole])?;
            // A reader that took nothing of a period has not begun it.
            if written > 0 {
                self.rest.extend_from_slice(&period[written..whole]);
            }
            Ok(())
        });
        if written.is_err() {
            self.reader = None;
        }
    }
}

/// Writes what fits now.
fn write_some(reader: &mut impl Write, bytes: &[u8]) -> std::io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match reader.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_slow_reader_loses_whole_periods_and_never_its_place() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut outlet = Outlet::new(8);
        outlet.serve(near);
        let mut read = Vec::new();
        for period in 0..4_000_u32 {
            // Frame `n` of a period is (period, n).
            let frames: Vec<u8> = (0..256_u32)
                .flat_map(|n| [period.to_le_bytes(), n.to_le_bytes()].concat())
                .collect();
            outlet.write(&frames);
            if period % 500 == 499 {
                let mut chunk = [0; 65_536];
                while let Ok(count) = far.read(&mut chunk) {
                    read.extend_from_slice(&chunk[..count]);
                }
            }
        }
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let mut last = None;
        for (index, frame) in read.chunks_exact(8).enumerate() {
            let (period, n) = (word(&frame[..4]), word(&frame[4..]));
            assert_eq!(n as usize, index % 256);
            if n == 0 {
                assert!(last.is_none_or(|last| period > last));
                last = Some(period);
            }
            assert_eq!(Some(period), last);
        }
        assert!(read.len() > 8 * 256 * 8, "{}", read.len());
        assert!(read.len() < 4_000 * 256 * 8, "nothing was left out");
    }

    #[test]
    fn a_reader_that_went_is_forgotten_and_the_next_one_begins_with_a_frame() {
        let mut outlet = Outlet::new(8);
        outlet.write(&[1; 64]);
        let (near, far) = UnixStream::pair().unwrap();
        outlet.serve(near);
        drop(far);
        outlet.write(&[2; 64]);
        assert!(outlet.reader.is_none());
        let (near, mut far) = UnixStream::pair().unwrap();
        outlet.serve(near);
        outlet.write(&[3; 67]);
        drop(outlet);
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(read, [3; 64]);
    }
}
