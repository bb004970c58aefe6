//! What stands in the stream of a backup of homes: who has one in it, and each home's archive in pieces.
//!
//! A record is a letter, the length of its body in four bytes, the low one first, and the body.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::HomesError;
use super::chunks::{Opener, Sealer};
use crate::backup::BackupError;
use crate::store::{ClientId, MAX_PROFILES, clean_name};

/// The largest piece of an archive, in bytes.
pub(super) const MAX_PIECE_BYTES: usize = 32 * 1024;
/// The largest other body, in bytes.
const MAX_TEXT_BYTES: usize = 128 * 1024;
/// The longest name of a version, in characters.
const MAX_VERSION_CHARS: usize = 64;
/// As much of what was said about a home is kept, in characters.
pub(super) const MAX_SAID_CHARS: usize = 500;

const ABOUT: u8 = b'a';
const PIECE: u8 = b'p';
const END: u8 = b'e';

/// The first record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The version of the host that made it.
    pub(super) made_by: String,
    /// Games that stores can fetch again are in it.
    pub(super) games: bool,
    /// Whose homes are in it, in their order.
    pub(super) homes: Vec<Whose>,
}

/// Whose a home is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whose {
    /// The fingerprint of the device's certificate.
    #[serde(with = "fingerprint")]
    pub(super) device: ClientId,
    /// What the owner called it.
    pub(super) name: String,
}

/// What follows the pieces of a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// All of the home is there; if not, no host restores it.
    pub(super) whole: bool,
    /// What was said of it while it was read: mostly what could not be, or why it is not whole.
    pub(super) said: String,
}

impl End {
    /// The same with so much of what was said as anybody is to read.
    fn bounded(self) -> Self {
        let said = self.said.chars().filter(|c| !c.is_control()).take(MAX_SAID_CHARS).collect();
        Self { said, ..self }
    }
}

/// A record of a home.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// This much of the buffer is a piece of its archive.
    Piece(usize),
    End(End),
}

pub(super) fn put_about(sealer: &mut Sealer<'_>, about: &About) -> Result<(), HomesError> {
    put(sealer, ABOUT, &json(about))
}

/// `piece` has at most [`MAX_PIECE_BYTES`].
pub(super) fn put_piece(sealer: &mut Sealer<'_>, piece: &[u8]) -> Result<(), HomesError> {
    put(sealer, PIECE, piece)
}

pub(super) fn put_end(sealer: &mut Sealer<'_>, end: End) -> Result<(), HomesError> {
    put(sealer, END, &json(&end.bounded()))
}

fn put(sealer: &mut Sealer<'_>, kind: u8, body: &[u8]) -> Result<(), HomesError> {
    let too_large = |_| BackupError::TooLarge { got: body.len() };
    let length = u32::try_from(body.len()).map_err(too_large)?;
    sealer.put(&[kind])?;
    sealer.put(&length.to_le_bytes())?;
    sealer.put(body)
}

/// None of these types can fail to be JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The first record, in which each device stands once.
pub(super) fn about(opener: &mut Opener<'_>) -> Result<About, HomesError> {
    let (kind, length) = header(opener)?;
    if kind != ABOUT {
        return Err(unfit("it does not begin with whose it is"));
    }
    let mut about: About = text(opener, length)?;
    let devices: std::collections::BTreeSet<_> =
        about.homes.iter().map(|home| home.device).collect();
    if devices.len() != about.homes.len() || devices.len() > usize::from(MAX_PROFILES) {
        return Err(unfit("it has more homes than a host keeps, or one twice"));
    }
    about.made_by =
        about.made_by.chars().filter(|c| !c.is_control()).take(MAX_VERSION_CHARS).collect();
    for home in &mut about.homes {
        home.name = clean_name(&home.name).unwrap_or_else(|| "?".to_owned());
    }
    Ok(about)
}

/// The next record of a home; `room` has [`MAX_PIECE_BYTES`].
pub(super) fn next(opener: &mut Opener<'_>, room: &mut [u8]) -> Result<Record, HomesError> {
    match header(opener)? {
        (PIECE, length) => {
            let piece = room.get_mut(..length).ok_or_else(|| unfit("a piece in it is too long"))?;
            opener.read_exact(piece)?;
            Ok(Record::Piece(length))
        }
        (END, length) => Ok(Record::End(text::<End>(opener, length)?.bounded())),
        _ => Err(unfit("there is something in it that this host does not know")),
    }
}

fn header(opener: &mut Opener<'_>) -> Result<(u8, usize), HomesError> {
    let mut header = [0; 5];
    opener.read_exact(&mut header)?;
    let [kind, a, b, c, d] = header;
    let length = u32::from_le_bytes([a, b, c, d]);
    Ok((kind, usize::try_from(length).unwrap_or(usize::MAX)))
}

fn text<T: DeserializeOwned>(opener: &mut Opener<'_>, length: usize) -> Result<T, HomesError> {
    if length > MAX_TEXT_BYTES {
        return Err(unfit("a text in it is too long"));
    }
    let mut body = vec![0; length];
    opener.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(|error| unfit(&error.to_string()))
}

fn unfit(what: &str) -> HomesError {
    BackupError::unfit(what).into()
}

mod fingerprint {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::store::ClientId;

    pub(super) fn serialize<S: Serializer>(id: &ClientId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ClientId, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::homes::chunks;
    use crate::backup::{Passphrase, Strength};

    const WEAK: Strength = Strength { memory_kib: 8, passes: 1 };

    /// Writes with one and reads with the other, as two who have the passphrase.
    fn between<T>(
        write: impl FnOnce(&mut Sealer<'_>) -> Result<(), HomesError>,
        read: impl FnOnce(&mut Opener<'_>) -> Result<T, HomesError>,
    ) -> Result<T, HomesError> {
        let (passphrase, mut stream) = (Passphrase::new("correct horse battery"), Vec::new());
        let mut sealer = Sealer::new(chunks::begin(&passphrase, WEAK).unwrap(), &mut stream)?;
        write(&mut sealer)?;
        sealer.finish()?;
        let mut source = &*stream;
        read(&mut Opener::new(&passphrase, &mut source)?)
    }

    fn whose(number: u8) -> Whose {
        Whose { device: ClientId([number; 32]), name: format!("device {number}") }
    }

    fn about_of(homes: Vec<Whose>) -> About {
        About { made_by: "1.2.3".to_owned(), games: true, homes }
    }

    #[test]
    fn what_is_written_reads_back() {
        let written = about_of((0..63).map(whose).collect());
        let end = End { whole: true, said: "tar: x: Permission denied".to_owned() };
        let loud = End { whole: false, said: "\x1b[2J\n".repeat(999) };
        let write = |sealer: &mut Sealer<'_>| {
            put_about(sealer, &written)?;
            put_piece(sealer, &[7; MAX_PIECE_BYTES])?;
            put_end(sealer, end.clone())?;
            put_end(sealer, loud.clone())
        };
        let read = between(write, |opener| {
            let (about, mut room) = (about(opener)?, vec![0; MAX_PIECE_BYTES]);
            let mut record = || next(opener, &mut room);
            let records = [record()?, record()?, record()?];
            Ok((about, records, room, opener.is_at_end()?))
        });
        let (about, records, room, is_at_end) = read.unwrap();
        assert_eq!((about, is_at_end), (written, true));
        let loud = End { whole: false, said: "[2J".repeat(167)[..MAX_SAID_CHARS].to_owned() };
        assert_eq!(records, [Record::Piece(MAX_PIECE_BYTES), Record::End(end), Record::End(loud)]);
        assert!(room.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_list_of_homes_that_no_host_writes_is_refused() {
        let refused = |written: &About, says: &str| {
            let error =
                between(|sealer| put_about(sealer, written), about).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(&about_of((0..64).map(whose).collect()), "more homes");
        refused(&about_of(vec![whose(1), whose(1)]), "twice");
        refused(&About { made_by: "x".repeat(MAX_TEXT_BYTES), ..about_of(vec![]) }, "too long");
        let odd = About { made_by: "1\x1b[2J".repeat(99), ..about_of(vec![]) };
        let read = between(|sealer| put_about(sealer, &odd), about).unwrap();
        assert!(
            read.made_by.chars().count() == MAX_VERSION_CHARS && !read.made_by.contains('\x1b')
        );
        let named = Whose { name: "\x07".to_owned(), ..whose(1) };
        let read = between(|sealer| put_about(sealer, &about_of(vec![named])), about).unwrap();
        assert_eq!(read.homes[0].name, "?");
    }

    #[test]
    fn records_over_their_limits_and_unknown_ones_are_refused() {
        let refused = |bytes: &[u8], says: &str| {
            let read = |opener: &mut Opener<'_>| next(opener, &mut [0; MAX_PIECE_BYTES]);
            let error = between(|sealer| sealer.put(bytes), read).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(b"p\xff\xff\xff\xff", "too long");
        refused(b"p\x01\x80\x00\x00", "too long");
        refused(b"e\xff\xff\xff\xff", "too long");
        refused(b"p\x02\x00\x00\x00x", "ends in the middle");
        refused(b"p\x02", "ends in the middle");
        refused(b"", "ends in the middle");
        refused(b"z\x00\x00\x00\x00", "does not know");
        refused(b"a\x02\x00\x00\x00{}", "does not know");
        refused(b"e\x02\x00\x00\x00{]", "cannot be restored");
        // Whether it is whole is said.
        refused(b"e\x0b\x00\x00\x00{\"said\":\"\"}", "whole");
        let not_first = between(|sealer| sealer.put(b"e\x02\x00\x00\x00{}"), about).unwrap_err();
        assert!(not_first.to_string().contains("begin"), "{not_first}");
    }
}
