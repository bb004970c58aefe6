//! Tar files of one form only: regular files with zeros for everything but name, mode and length.
//!
//! A header is read by writing the one that would be right and comparing. So there are no links, no devices, no sparse files,
//! no long names, no second meanings: whatever else tar has is refused without being known.

use std::io::{self, Read};

use crate::error::UpdateError;
use crate::transport::Cancel;

/// A header, and the unit of everything else, in bytes.
pub const BLOCK_BYTES: usize = 512;

/// What follows the last file.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The header of a file. Nothing when the name or the length has no place in it.
pub fn header(name: &str, size_bytes: u64) -> Option<[u8; BLOCK_BYTES]> {
    // Eleven octal digits.
    if name.is_empty() || name.len() > 99 || size_bytes >= 1 << 33 {
        return None;
    }
    let mut header = tar::Header::new_ustar();
    header.as_ustar_mut()?.name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size_bytes);
    header.set_cksum();
    Some(*header.as_bytes())
}

/// How much follows a file of this length, in bytes.
pub const fn padding(size_bytes: u64) -> u64 {
    size_bytes.wrapping_neg() % BLOCK_BYTES as u64
}

/// The name and length that a header has; nothing for a block of zeros.
///
/// # Errors
/// [`UpdateError::Content`].
pub fn parse_header(block: &[u8; BLOCK_BYTES]) -> Result<Option<(String, u64)>, UpdateError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let read = tar::Header::from_byte_slice(block);
    let name = read.as_ustar().and_then(|ustar| {
        let length = ustar.name.iter().position(|byte| *byte == 0)?;
        String::from_utf8(ustar.name[..length].to_vec()).ok()
    });
    let entry = name.zip(read.size().ok());
    let is_right =
        |(name, size): &(String, u64)| header(name, *size).is_some_and(|right| right == *block);
    entry.filter(is_right).map(Some).ok_or_else(|| {
        let detail = "a file in a tar is of a kind that is not taken".to_owned();
        UpdateError::Content { detail }
    })
}

/// The files of a tar, one after the other.
pub struct Entries<R> {
    from: R,
    /// Of the file that was begun so much was not read yet, in bytes, and so much follows it.
    left: (u64, u64),
}

impl<R: Read> Entries<R> {
    /// What is read here comes out of something whose digest was verified, or fails as [`UpdateError::Content`].
    pub fn new(from: R) -> Self {
        Self { from, left: (0, 0) }
    }

    /// The next file. After the last one, nothing may follow.
    ///
    /// # Errors
    /// [`UpdateError::Content`].
    pub fn next_file(&mut self) -> Result<Option<(String, u64)>, UpdateError> {
        if self.left != (0, 0) {
            return Err(flaw("a file in a tar was not read to its end"));
        }
        let block = self.block()?;
        if let Some((name, size)) = parse_header(&block)? {
            self.left = (size, padding(size));
            return Ok(Some((name, size)));
        }
        if self.block()? != [0; BLOCK_BYTES] || self.from.read(&mut [0]).map_err(flaw)? != 0 {
            return Err(flaw("something follows the end of a tar"));
        }
        Ok(None)
    }

    /// Gives the file that was begun to its end.
    ///
    /// # Errors
    /// [`UpdateError::Content`], [`UpdateError::Stopped`], and what `take` says.
    pub fn content(
        &mut self,
        cancel: &Cancel,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
    ) -> Result<(), UpdateError> {
        let mut piece = vec![0; PIECE_BYTES];
        while self.left.0 > 0 {
            cancel.check()?;
            let most = self.left.0.min(PIECE_BYTES as u64) as usize;
            let count = self.from.read(&mut piece[..most]).map_err(flaw)?;
            if count == 0 {
                return Err(flaw("a tar is cut off"));
            }
            take(&piece[..count])?;
            self.left.0 -= count as u64;
        }
        let end = &mut piece[..self.left.1 as usize];
        self.from.read_exact(end).map_err(flaw)?;
        if end.iter().any(|byte| *byte != 0) {
            return Err(flaw("something stands between the files of a tar"));
        }
        self.left.1 = 0;
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK_BYTES], UpdateError> {
        let mut block = [0; BLOCK_BYTES];
        self.from.read_exact(&mut block).map_err(flaw)?;
        Ok(block)
    }
}

fn flaw(detail: impl std::fmt::Display) -> UpdateError {
    UpdateError::Content { detail: punktfunk_os::status::bounded(&detail.to_string()) }
}

/// Reads no more than the limit; one byte more is an error, not an end.
pub struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    /// At most so many bytes.
    pub fn new(from: R, limit: u64) -> Self {
        Self { from, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 && !into.is_empty() {
            return match self.from.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other("it is longer than was promised")),
            };
        }
        let count = self.from.read(&mut into[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}
