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

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, content) in files {
            tar.extend_from_slice(&header(name, content.len() as u64).unwrap());
            tar.extend_from_slice(content);
            tar.extend_from_slice(&END[..padding(content.len() as u64) as usize]);
        }
        [tar, END.to_vec()].concat()
    }

    /// What is in it, or what is wrong.
    fn read(tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>, UpdateError> {
        let mut entries = Entries::new(tar);
        let mut files = Vec::new();
        while let Some((name, _)) = entries.next_file()? {
            let mut content = Vec::new();
            let mut take = |piece: &[u8]| {
                content.extend_from_slice(piece);
                Ok(())
            };
            entries.content(&Cancel::default(), &mut take)?;
            files.push((name, content));
        }
        Ok(files)
    }

    #[test]
    fn what_is_written_is_read_and_others_read_it_too() {
        let long = vec![7; 200_000];
        let files: [(&str, &[u8]); 3] = [("a", b""), ("b/c", &[1; 512]), (&"d".repeat(99), &long)];
        let bytes = tar(&files);
        let expected: Vec<_> =
            files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        assert_eq!(read(&bytes).unwrap(), expected);
        let mut others = tar::Archive::new(bytes.as_slice());
        let names = others
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned());
        assert_eq!(names.collect::<Vec<_>>(), files.map(|(name, _)| name.to_owned()));
        assert!(header("", 0).is_none() && header(&"x".repeat(100), 0).is_none());
        assert!(header("x", 1 << 33).is_none());
    }

    #[test]
    fn whatever_else_a_tar_has_is_refused() {
        let good = tar(&[("a", b"hello")]);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            // Of contents nobody can know here whether they are right.
            let may_differ = (512..517).contains(&at);
            assert!(may_differ || read(&bytes).is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        assert!(read(&[good.as_slice(), &[0]].concat()).is_err());
        assert!(read(&[good.as_slice(), good.as_slice()].concat()).is_err());
        let tricks: [fn(&mut tar::Header); 8] = [
            |it| it.set_entry_type(tar::EntryType::Symlink),
            |it| it.set_entry_type(tar::EntryType::Link),
            |it| it.set_entry_type(tar::EntryType::GNUSparse),
            |it| it.set_entry_type(tar::EntryType::XHeader),
            |it| it.set_entry_type(tar::EntryType::Char),
            |it| it.set_mode(0o4755),
            |it| it.set_uid(1),
            |it| it.as_ustar_mut().unwrap().prefix[0] = b'x',
        ];
        for trick in tricks {
            let mut head = tar::Header::from_byte_slice(&header("a", 0).unwrap()).clone();
            trick(&mut head);
            head.set_cksum();
            assert!(parse_header(head.as_bytes()).is_err(), "{head:?}");
        }
    }

    #[test]
    fn more_than_was_promised_is_an_error_and_no_end() {
        let all = |limit| {
            let mut bytes = Vec::new();
            Bounded::new(&[1_u8; 10][..], limit).read_to_end(&mut bytes).map(|_| bytes.len())
        };
        assert_eq!(all(10).unwrap(), 10);
        assert_eq!(all(11).unwrap(), 10);
        assert!(all(9).is_err() && all(0).is_err());
    }
}
