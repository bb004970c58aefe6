//! What a simulated system takes in: a line that names a version of its script and says how many bytes follow, and those
//! bytes, whatever they are. Like a real one, it says where its end is, so one that was cut is none.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::os::{Cancel, OsError, Version};

/// The line begins with it.
const MARK: &str = "simulated ";
/// No line is longer, in bytes.
const MAX_LINE_BYTES: usize = 100;
/// What is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// How often it is looked whether this shall end.
const SLICE: Duration = Duration::from_millis(50);

/// A file that the simulation takes in, if it knows the version.
pub fn archive(version: Version, ballast_bytes: usize) -> Vec<u8> {
    let mut bytes = format!("{MARK}{version} {ballast_bytes}\n").into_bytes();
    bytes.resize(bytes.len() + ballast_bytes, b'x');
    bytes
}

/// What has come of one.
#[derive(Default)]
pub(super) struct Taken {
    line: Vec<u8>,
    said: Option<(Version, u64)>,
    /// Behind the line, in bytes.
    came: u64,
}

impl Taken {
    /// Takes what has come.
    pub(super) fn more(&mut self, piece: &[u8]) -> Result<(), OsError> {
        let mut rest = piece;
        if self.said.is_none() {
            let end = piece.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if self.line.len() > MAX_LINE_BYTES {
                return Err(flaw("it does not begin as one does"));
            }
            let Some(end) = end else { return Ok(()) };
            self.said =
                Some(parse(&self.line).ok_or_else(|| flaw("it does not begin as one does"))?);
            rest = &piece[end + 1..];
        }
        self.came = self.came.saturating_add(rest.len() as u64);
        if self.said.is_some_and(|(_, bytes)| self.came > bytes) {
            return Err(flaw("something follows its end"));
        }
        Ok(())
    }

    /// As much has come, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.came.saturating_add(self.line.len() as u64)
    }

    /// Which version it says it is of, once it has.
    pub(super) fn version(&self) -> Option<Version> {
        self.said.map(|(version, _)| version)
    }

    /// All has come.
    pub(super) fn whole(self) -> Result<Version, OsError> {
        match self.said {
            Some((version, bytes)) if self.came == bytes => Ok(version),
            _ => Err(flaw("it is cut off")),
        }
    }
}

fn parse(line: &[u8]) -> Option<(Version, u64)> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix(MARK)?;
    let (version, bytes) = line.split_once(' ')?;
    Some((version.parse().ok()?, bytes.parse().ok()?))
}

fn flaw(detail: &str) -> OsError {
    OsError::Content { detail: format!("the archive: {detail}") }
}

/// Reads to the end, and looks now and then whether it shall stop.
pub(super) fn read(
    from: &OwnedFd,
    cancel: &Cancel,
    take: &mut dyn FnMut(&[u8]) -> Result<(), OsError>,
) -> Result<(), OsError> {
    let failed = |error: Errno| OsError::Failed {
        doing: "read what was brought",
        detail: error.to_string(),
    };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(OsError::Stopped);
        }
        let limit = Timespec::try_from(SLICE).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => continue,
            done => done.map_err(failed)?,
        };
        match rustix::io::read(from, &mut *piece) {
            Ok(0) => return Ok(()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            count => take(&piece[..count.map_err(failed)?])?,
        }
    }
}
