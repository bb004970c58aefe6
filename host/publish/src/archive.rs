//! A release in one file, for boxes that reach no registry.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};
use punktfunk_update::statement::MAX_ENVELOPE_BYTES;
use punktfunk_update::transport::tarball::{END, header, padding};
use punktfunk_update::transport::{BLOBS, ENVELOPE};

use crate::layout::Layout;

/// Writes an archive of what is stated and of one release.
///
/// # Errors
/// Something is missing or too long, or the system says no.
pub fn archive(out: &Path, envelope: &Path, layout: &Layout) -> anyhow::Result<()> {
    let part = punktfunk_os::files::part(out);
    let mut to = BufWriter::new(File::create(&part)?);
    let stated = punktfunk_os::files::read(envelope, MAX_ENVELOPE_BYTES)?;
    put(&mut to, ENVELOPE, &mut stated.as_slice(), stated.len() as u64)?;
    let (digest, _, manifest) = layout.manifest()?;
    for digest in [digest].into_iter().chain(manifest.blobs().map(|blob| blob.digest)) {
        let (mut file, length) = layout.open_blob(digest)?;
        put(&mut to, &format!("{BLOBS}{}", digest.digits()), &mut file, length)?;
    }
    to.write_all(&END)?;
    to.into_inner()?.sync_all()?;
    std::fs::rename(&part, out).with_context(|| format!("rename to {}", out.display()))
}

/// Puts what can be read into a tar.
///
/// # Errors
/// It is not as long as it was said to be, or the system says no.
pub(crate) fn put(
    to: &mut dyn Write,
    name: &str,
    from: &mut dyn io::Read,
    length: u64,
) -> anyhow::Result<()> {
    put_with(to, name, length, |mut to| io::copy(&mut from.take(length), &mut to).map(drop))
}

/// Puts what is written into a tar.
///
/// # Errors
/// It is not as long as it was said to be, or the system says no.
pub(crate) fn put_with(
    to: &mut dyn Write,
    name: &str,
    length: u64,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    to.write_all(&header(name, length).with_context(|| format!("{name} has no place in a tar"))?)?;
    let mut counted = Counted { to, bytes: 0 };
    write(&mut counted)?;
    let Counted { to, bytes } = counted;
    ensure!(bytes == length, "{name} has {bytes} bytes and not {length}");
    to.write_all(&END[..padding(length) as usize])?;
    Ok(())
}

/// Counts what is written.
struct Counted<'a> {
    to: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
