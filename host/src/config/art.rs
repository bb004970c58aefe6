//! Whether a picture is fit to be an app's: a PNG of bounded size and sides. Its pixels are not decoded.

/// The largest picture, in bytes; consoles hold it in memory.
// spec: gamestream 2.10
pub const MAX_ART_BYTES: usize = 1024 * 1024;
/// The longest side of a picture, in pixels. A small file can hold a very large picture, and clients unpack it.
pub const MAX_ART_SIDE: u32 = 4096;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The last chunk of every PNG: no data, and its checksum.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Whether these bytes begin as a PNG file does.
pub(crate) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(PNG_SIGNATURE)
}

/// Why a picture is not fit to be an app's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArtError {
    /// It is too large.
    #[error("the picture has {got} bytes; it may have {MAX_ART_BYTES}")]
    TooLarge {
        /// Its length in bytes.
        got: usize,
    },
    /// It is no PNG.
    #[error("the picture is no PNG file")]
    NotPng,
    /// The file ends early, or something follows the picture.
    #[error("the PNG file is damaged; its end is not where it should be")]
    Damaged,
    /// It is too wide or too high, or has no size.
    #[error("the picture has {width}x{height} pixels; each side may have 1 to {MAX_ART_SIDE}")]
    Sides {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

/// Whether a picture is fit to be an app's: a PNG of bounded size and sides. Its pixels are not decoded.
///
/// # Errors
/// See [`ArtError`].
pub fn check(picture: &[u8]) -> Result<(), ArtError> {
    if picture.len() > MAX_ART_BYTES {
        return Err(ArtError::TooLarge { got: picture.len() });
    }
    // The signature, then a chunk of 13 bytes: width, height, five bytes of format, a checksum.
    let header = picture
        .strip_prefix(PNG_SIGNATURE)
        .and_then(|rest| rest.strip_prefix(b"\0\0\0\x0dIHDR"))
        .and_then(|rest| rest.first_chunk::<17>())
        .ok_or(ArtError::NotPng)?;
    if !picture.ends_with(PNG_END) {
        return Err(ArtError::Damaged);
    }
    let side =
        |at: usize| header[at..at + 4].iter().fold(0, |side, byte| side << 8 | u32::from(*byte));
    let (width, height) = (side(0), side(4));
    if (1..=MAX_ART_SIDE).contains(&width) && (1..=MAX_ART_SIDE).contains(&height) {
        return Ok(());
    }
    Err(ArtError::Sides { width, height })
}
