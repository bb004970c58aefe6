//! A stream that is encrypted piece by piece: who reads it takes nothing that was changed, and needs no more memory for
//! much than for little.
//!
//! It is the STREAM construction: chunks of one size, each sealed by AES-256-GCM with a nonce that has the chunk's number
//! and whether it is the last. So a chunk opens in its place and nowhere else, and a stream that was cut has no end. That
//! the head is authenticated with every chunk, and that its salt makes the key, keeps two streams from being mixed.

use std::io::Read;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use super::{HomesError, Outlet};
use crate::backup::head::{self, Strength, TAG_BYTES};
use crate::backup::{BackupError, Passphrase};

/// What a backup of homes begins with.
const MAGIC: &[u8; 16] = b"punktfunk-homes\0";
/// As much every chunk has but the last, which has less or the same.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

const PREFIX_BYTES: usize = NONCE_LEN - 4 - 1;
const HEAD_BYTES: usize = head::BYTES + PREFIX_BYTES;

/// A head with its key, and the numbers of its chunks.
struct Keyed {
    head: Vec<u8>,
    key: LessSafeKey,
    prefix: [u8; PREFIX_BYTES],
    /// The number of the next chunk.
    next: u32,
}

impl Keyed {
    /// The nonce of the next chunk, once.
    fn nonce(&mut self, is_last: bool) -> Result<Nonce, BackupError> {
        let number = self.next;
        // 256 TiB.
        self.next = number.checked_add(1).ok_or(BackupError::TooLarge { got: usize::MAX })?;
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(is_last);
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Writes such a stream. One that is not [finished](Sealer::finish) has no end, and nobody takes it.
pub(super) struct Sealer<'a> {
    outlet: &'a mut dyn Outlet,
    keyed: Keyed,
    room: Zeroizing<Vec<u8>>,
}

/// What a stream is to be encrypted with.
pub(super) struct Begun(Keyed);

/// Derives a key, which takes long.
pub(super) fn begin(passphrase: &Passphrase, strength: Strength) -> Result<Begun, BackupError> {
    let mut prefix = [0; PREFIX_BYTES];
    let (head, key) = head::make(MAGIC, passphrase.bytes(), strength, &mut prefix)?;
    Ok(Begun(Keyed { head, key, prefix, next: 0 }))
}

impl<'a> Sealer<'a> {
    pub(super) fn new(begun: Begun, outlet: &'a mut dyn Outlet) -> Result<Self, HomesError> {
        let Begun(keyed) = begun;
        if !outlet.put(keyed.head.clone()) {
            return Err(HomesError::Gone);
        }
        Ok(Self { outlet, keyed, room: room() })
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), HomesError> {
        while !bytes.is_empty() {
            // A full chunk is the last one if nothing follows.
            if self.room.len() == CHUNK_BYTES {
                self.seal(false)?;
            }
            let (fits, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.room.len()));
            self.room.extend_from_slice(fits);
            bytes = rest;
        }
        Ok(())
    }

    /// Whether nobody wants more.
    pub(super) fn is_gone(&self) -> bool {
        self.outlet.is_gone()
    }

    pub(super) fn finish(mut self) -> Result<(), HomesError> {
        self.seal(true)
    }

    fn seal(&mut self, is_last: bool) -> Result<(), HomesError> {
        let nonce = self.keyed.nonce(is_last)?;
        let mut chunk = std::mem::replace(&mut self.room, room());
        self.keyed
            .key
            .seal_in_place_append_tag(nonce, Aad::from(&self.keyed.head), &mut *chunk)
            .map_err(|_| BackupError::Key("the contents could not be encrypted"))?;
        // From here on there is nothing secret in it.
        if self.outlet.put(std::mem::take(&mut *chunk)) { Ok(()) } else { Err(HomesError::Gone) }
    }
}

/// Room for a chunk that does not grow: a buffer that does leaves copies behind.
fn room() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(SEALED_BYTES))
}

/// Reads such a stream; what it gives was authenticated.
pub(super) struct Opener<'a> {
    source: &'a mut dyn Read,
    keyed: Keyed,
    /// Sealed bytes that have come: a chunk, and one byte more, which says that it is not the last.
    ahead: Vec<u8>,
    opened: Zeroizing<Vec<u8>>,
    /// As much of what was opened has been given.
    given: usize,
    /// What was opened is the last chunk.
    is_last: bool,
}

impl<'a> Opener<'a> {
    /// Reads the head, derives the key, which takes long, and opens the first chunk: whoever has no passphrase ends here.
    pub(super) fn new(
        passphrase: &Passphrase,
        source: &'a mut dyn Read,
    ) -> Result<Self, HomesError> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        source.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(HomesError::Broken)?;
        if head.len() < HEAD_BYTES {
            return Err(BackupError::NoBackup.into());
        }
        let (key, nonce) = head::read(MAGIC, passphrase.bytes(), &head)?;
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(nonce);
        let keyed = Keyed { head, key, prefix, next: 0 };
        let (ahead, opened) = (Vec::with_capacity(SEALED_BYTES + 1), room());
        let mut opener = Self { source, keyed, ahead, opened, given: 0, is_last: false };
        opener.advance()?;
        Ok(opener)
    }

    /// Fills `into`.
    pub(super) fn read_exact(&mut self, into: &mut [u8]) -> Result<(), HomesError> {
        let mut at = 0;
        while at < into.len() {
            if self.is_at_end()? {
                return Err(BackupError::unfit("it ends in the middle").into());
            }
            let there = &self.opened[self.given..];
            let count = there.len().min(into.len() - at);
            into[at..at + count].copy_from_slice(&there[..count]);
            at += count;
            self.given += count;
        }
        Ok(())
    }

    /// Whether all was given, and all of it has come.
    pub(super) fn is_at_end(&mut self) -> Result<bool, HomesError> {
        while self.given == self.opened.len() {
            if self.is_last {
                return Ok(true);
            }
            self.advance()?;
        }
        Ok(false)
    }

    fn advance(&mut self) -> Result<(), HomesError> {
        let missing = SEALED_BYTES + 1 - self.ahead.len();
        let mut more = self.source.take(missing as u64);
        more.read_to_end(&mut self.ahead).map_err(HomesError::Broken)?;
        let is_first = self.keyed.next == 0;
        self.is_last = self.ahead.len() <= SEALED_BYTES;
        let length = self.ahead.len().min(SEALED_BYTES);
        let nonce = self.keyed.nonce(self.is_last)?;
        self.opened.clear();
        self.opened.extend_from_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        self.given = 0;
        let aad = Aad::from(&self.keyed.head);
        let opened = self.keyed.key.open_in_place(nonce, aad, &mut self.opened);
        let length = match opened {
            Ok(opened) => opened.len(),
            Err(_) if is_first => return Err(BackupError::WrongPassphrase.into()),
            Err(_) => return Err(HomesError::Changed),
        };
        self.opened.truncate(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEAK: Strength = Strength { memory_kib: 8, passes: 1 };

    impl Outlet for Vec<u8> {
        fn put(&mut self, bytes: Vec<u8>) -> bool {
            self.extend_from_slice(&bytes);
            true
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    fn passphrase() -> Passphrase {
        Passphrase::new("correct horse battery")
    }

    fn sealed(contents: &[u8], pieces: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut sealer = Sealer::new(begin(&passphrase(), WEAK).unwrap(), &mut stream).unwrap();
        contents.chunks(pieces.max(1)).for_each(|piece| sealer.put(piece).unwrap());
        sealer.finish().unwrap();
        stream
    }

    fn open_with(passphrase: &Passphrase, stream: &[u8]) -> Result<Vec<u8>, HomesError> {
        let mut source = stream;
        let mut opener = Opener::new(passphrase, &mut source)?;
        let mut all = Vec::new();
        while !opener.is_at_end()? {
            let mut byte = [0];
            opener.read_exact(&mut byte)?;
            all.push(byte[0]);
        }
        Ok(all)
    }

    fn open(stream: &[u8]) -> Result<Vec<u8>, HomesError> {
        open_with(&passphrase(), stream)
    }

    fn contents(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_goes_in_comes_out_whatever_its_length() {
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let stream = sealed(&contents(bytes), 10_000);
            assert_eq!(open(&stream).unwrap(), contents(bytes));
            let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
            assert_eq!(stream.len(), HEAD_BYTES + bytes + chunks * TAG_BYTES);
        }
    }

    /// The head and the chunks of a stream.
    fn parts(stream: &[u8]) -> (&[u8], Vec<&[u8]>) {
        let (head, rest) = stream.split_at(HEAD_BYTES);
        (head, rest.chunks(SEALED_BYTES).collect())
    }

    #[test]
    fn chunks_open_in_their_places_and_nowhere_else() {
        let stream = sealed(&contents(3 * CHUNK_BYTES + 7), 10_000);
        let (head, chunks) = parts(&stream);
        let is_refused = |order: &[usize]| {
            let mixed = order.iter().flat_map(|at| chunks[*at]).copied();
            let mixed: Vec<u8> = head.iter().copied().chain(mixed).collect();
            open(&mixed).is_err()
        };
        assert!(!is_refused(&[0, 1, 2, 3]));
        for order in [&[][..], &[0], &[0, 1, 2], &[1, 0, 2, 3], &[0, 2, 3], &[0, 0, 1, 2, 3]] {
            assert!(is_refused(order), "{order:?}");
        }
        assert!(is_refused(&[0, 1, 2, 3, 3]) && is_refused(&[3]));
        // The end of a whole stream is no end of a longer one.
        let full = sealed(&contents(2 * CHUNK_BYTES), 10_000);
        assert!(open(&full[..full.len() - SEALED_BYTES]).is_err());
    }

    #[test]
    fn two_streams_of_one_passphrase_do_not_mix() {
        let (one, other) = (sealed(&contents(200_000), 999), sealed(&contents(200_000), 999));
        let ((head, first), (_, second)) = (parts(&one), parts(&other));
        for at in 0..first.len() {
            let chunks =
                (0..first.len()).map(|each| if each == at { second[each] } else { first[each] });
            let mixed: Vec<u8> = head.iter().copied().chain(chunks.flatten().copied()).collect();
            assert!(open(&mixed).is_err(), "chunk {at}");
        }
        let other_head = [&other[..HEAD_BYTES], &one[HEAD_BYTES..]].concat();
        assert!(matches!(open(&other_head), Err(HomesError::Backup(BackupError::WrongPassphrase))));
    }

    #[test]
    fn a_head_that_asks_for_too_much_or_is_none_is_refused_before_it_costs_anything() {
        let stream = sealed(b"words", 9);
        let with = |at: usize, number: u32| {
            let mut stream = stream.clone();
            stream[at..at + 4].copy_from_slice(&number.to_le_bytes());
            open(&stream).unwrap_err().to_string()
        };
        assert!(with(16, 2).contains("format 2"));
        for (at, number) in [(20, 7), (20, 64 * 1024 + 1), (20, u32::MAX), (24, 0), (24, 9)] {
            assert!(with(at, number).contains("no backup"), "{number} at {at}");
        }
        let no_backup = |stream: &[u8]| {
            let error = open(stream).unwrap_err();
            assert!(matches!(error, HomesError::Backup(BackupError::NoBackup)), "{error}");
        };
        no_backup(b"");
        no_backup(&stream[..HEAD_BYTES - 1]);
        no_backup(&[b"punktfunk-backup", &stream[16..]].concat());
        let wrong = open_with(&Passphrase::new("wrong horse battery"), &stream).unwrap_err();
        assert!(matches!(wrong, HomesError::Backup(BackupError::WrongPassphrase)));
    }

    #[test]
    fn who_is_gone_is_noticed() {
        struct Nobody;
        impl Outlet for Nobody {
            fn put(&mut self, _: Vec<u8>) -> bool {
                false
            }
            fn is_gone(&self) -> bool {
                true
            }
        }
        let begun = begin(&passphrase(), WEAK).unwrap();
        assert!(matches!(Sealer::new(begun, &mut Nobody).err(), Some(HomesError::Gone)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_stream_that_was_cut_or_changed_is_refused(
            bytes in prop::sample::select(vec![0, 1, 100, CHUNK_BYTES, CHUNK_BYTES + 1, 150_000]),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let stream = sealed(&contents(bytes), 5000);
            let at = at.index(stream.len());
            prop_assert!(open(&stream[..at]).is_err(), "cut at {at}");
            // Work that the head asks for is bounded, and not to be done for every test.
            if !(20..28).contains(&at) {
                let mut changed = stream.clone();
                changed[at] ^= 1 << bit;
                prop_assert!(open(&changed).is_err(), "changed at {at}");
            }
            let longer = [&stream[..], b"x"].concat();
            prop_assert!(open(&longer).is_err());
        }
    }
}
