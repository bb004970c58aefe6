//! The storage of the records: one slice of fixed size that they are written into, one behind the other and round.
//!
//! A record that lay in allocations of its own would live as long as the book keeps it, hours on a quiet host, between
//! allocations of a stream that are freed within minutes. It would hold their pages: after fifty streams a host was a
//! mebibyte larger for it. Here a record takes no memory that was not set aside before, and leaves no hole.
//!
//! Pages of the slice that no record came to yet are not resident.

use super::record::Packed;

/// Packed records, oldest first.
pub(super) struct Ring {
    bytes: Box<[u8]>,
    /// As many records at most.
    most: usize,
    count: usize,
    /// Where the oldest record begins and where the next one will, counted on and on; the place in the slice is what
    /// is left after division by its size.
    begin: usize,
    end: usize,
}

impl Ring {
    /// An empty one of this size, at least that of the longest record; for `most` records, at least one.
    pub(super) fn new(bytes: usize, most: usize) -> Self {
        let bytes = vec![0; bytes.max(Packed::MAX_BYTES)].into_boxed_slice();
        Self { bytes, most: most.max(1), count: 0, begin: 0, end: 0 }
    }

    /// As many records as are kept.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where the oldest begins.
    pub(super) fn begin(&self) -> usize {
        self.begin
    }

    /// Where the next one will begin.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Puts a record in; the oldest ones make room for it.
    pub(super) fn put(&mut self, packed: &Packed) {
        let packed = packed.bytes();
        while self.count > 0 && (self.count >= self.most || self.free() < packed.len()) {
            self.begin += self.length_at(self.begin);
            self.count -= 1;
        }
        let at = self.end % self.bytes.len();
        let (front, back) = packed.split_at(packed.len().min(self.bytes.len() - at));
        self.bytes[at..at + front.len()].copy_from_slice(front);
        self.bytes[..back.len()].copy_from_slice(back);
        self.end += packed.len();
        self.count += 1;
    }

    /// Copies whole records from this place on, up to about `most` bytes but at least one record if there is one;
    /// returns the place behind the last.
    pub(super) fn copy(&self, from: usize, most: usize, into: &mut Vec<u8>) -> usize {
        let from = from.clamp(self.begin, self.end);
        let mut until = from;
        if self.end - from <= most {
            until = self.end;
        }
        while until < self.end && until - from < most {
            until += self.length_at(until);
        }
        let at = from % self.bytes.len();
        let front = (until - from).min(self.bytes.len() - at);
        into.extend_from_slice(&self.bytes[at..at + front]);
        into.extend_from_slice(&self.bytes[..until - from - front]);
        until
    }

    fn free(&self) -> usize {
        self.bytes.len() - (self.end - self.begin)
    }

    /// The length of the record that begins here.
    fn length_at(&self, place: usize) -> usize {
        let byte = |place: usize| self.bytes[place % self.bytes.len()];
        Packed::length_of([byte(place), byte(place + 1)])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::record::{Packed, Record, split};
    use super::*;

    fn record(sequence: u64, letters: usize) -> Record {
        let message = "m".repeat(letters);
        Record { sequence, message, ..Record::default() }
    }

    proptest! {
        #[test]
        fn a_ring_keeps_the_newest_that_fit(
            lengths in proptest::collection::vec(0_usize..1024, 1..200),
            bytes in Packed::MAX_BYTES..20_000,
            most in 1_usize..40,
        ) {
            let mut ring = Ring::new(bytes, most);
            let mut kept: VecDeque<(Record, usize)> = VecDeque::new();
            for (sequence, letters) in (1..).zip(lengths) {
                let record = record(sequence, letters);
                let packed = Packed::new(&record);
                let length = packed.bytes().len();
                ring.put(&packed);
                kept.push_back((record, length));
                let used = |kept: &VecDeque<(Record, usize)>| -> usize {
                    kept.iter().map(|(_, length)| length).sum()
                };
                while kept.len() > most || used(&kept) > bytes {
                    kept.pop_front();
                }
                prop_assert_eq!(ring.count(), kept.len());
                prop_assert_eq!(ring.end() - ring.begin(), used(&kept));
            }
            // All of it at once, and piece by piece.
            let wanted: Vec<Record> = kept.into_iter().map(|(record, _)| record).collect();
            for most in [usize::MAX, 1, 1000] {
                let (mut place, mut found) = (0, Vec::new());
                while place < ring.end() {
                    let mut piece = Vec::new();
                    place = ring.copy(place, most, &mut piece);
                    found.extend(split(&piece).map(|one| Record::unpack(one).unwrap()));
                }
                prop_assert_eq!(&found, &wanted);
            }
        }
    }
}
