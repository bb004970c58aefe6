//! OSTree's objects, from a repository in mode `bare-user`, in the form that they have in one in archive mode.
//!
//! A file there is a header - its length, owner, mode and attributes, in GVariant's form - and then its contents as a stream of
//! deflate. The stream here is of blocks that are stored: a whole layer is compressed better than each file by itself. OSTree
//! has no level that compresses nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Attributes under which a repository in that mode keeps what a file is.
const META: &str = "user.ostreemeta";

/// No file has more of them, in bytes.
const MAX_META_BYTES: usize = 64 << 10;

/// A stored block of deflate has at most so many bytes.
const STORED_BYTES: u64 = 65_535;

/// What stands before a stored block, in bytes.
const BLOCK_HEADER_BYTES: u64 = 5;

/// A file that is to be written.
#[derive(Debug)]
pub(crate) struct FileObject {
    header: Vec<u8>,
    /// Its contents and their length in bytes; a link has none.
    contents: Option<(File, u64)>,
}

impl FileObject {
    /// Reads what a file is.
    ///
    /// # Errors
    /// It is not as such files are.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let said = || format!("read the object {}", path.display());
        let mut file = File::open(path).with_context(said)?;
        let mut meta = vec![0; MAX_META_BYTES];
        let length = rustix::fs::fgetxattr(&file, META, meta.as_mut_slice()).with_context(said)?;
        meta.truncate(length);
        let (numbers, attributes) = meta.split_first_chunk::<12>().with_context(said)?;
        let mode = u32::from_be_bytes([numbers[8], numbers[9], numbers[10], numbers[11]]);
        let size = file.metadata()?.len();
        if mode & 0o170_000 == 0o120_000 {
            ensure!(size <= 4096, "a link is too long");
            let mut target = Vec::new();
            file.read_to_end(&mut target)?;
            return Ok(Self { header: header(0, numbers, &target, attributes), contents: None });
        }
        let header = header(size, numbers, &[], attributes);
        Ok(Self { header, contents: Some((file, size)) })
    }

    /// How long it will be, in bytes.
    pub(crate) fn length(&self) -> u64 {
        let contents = self
            .contents
            .as_ref()
            .map_or(0, |(_, size)| size + size.div_ceil(STORED_BYTES).max(1) * BLOCK_HEADER_BYTES);
        self.header.len() as u64 + contents
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file is shorter than it was, or the system says no.
    pub(crate) fn write(self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.header)?;
        let Some((mut file, size)) = self.contents else { return Ok(()) };
        let mut left = size;
        let mut block = vec![0; STORED_BYTES as usize];
        loop {
            let length = left.min(STORED_BYTES) as u16;
            left -= u64::from(length);
            let [low, high] = length.to_le_bytes();
            to.write_all(&[u8::from(left == 0), low, high, !low, !high])?;
            let block = &mut block[..usize::from(length)];
            file.read_exact(block)?;
            to.write_all(block)?;
            if left == 0 {
                return Ok(());
            }
        }
    }
}

/// The header: a variant of the type `(tuuuusa(ayay))`, after its own length and four bytes of nothing.
fn header(size: u64, numbers: &[u8; 12], target: &[u8], attributes: &[u8]) -> Vec<u8> {
    let mut variant = size.to_be_bytes().to_vec();
    // Owner, group and mode as they were; no device.
    variant.extend_from_slice(numbers);
    variant.extend_from_slice(&[0; 4]);
    variant.extend_from_slice(target);
    variant.push(0);
    let text_ends = variant.len() as u64;
    variant.extend_from_slice(attributes);
    // Where the text ends is said at the end, in as few bytes as the length of all takes.
    let width = [1, 2, 4]
        .into_iter()
        .find(|width| (variant.len() + width) as u64 <= u64::MAX >> (64 - 8 * width));
    variant.extend_from_slice(&text_ends.to_le_bytes()[..width.unwrap_or(8)]);
    let mut header = (variant.len() as u32).to_be_bytes().to_vec();
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&variant);
    header
}
