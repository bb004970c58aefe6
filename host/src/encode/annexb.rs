//! Annex B byte streams of H.264, as far as an encoder's output must be tidied before it is sent.
//!
//! Stock clients want an IDR access unit to begin with its parameter sets, directly followed by the first slice, all
//! within the first packet. What encoders like to put before them (delimiters, SEI) is therefore left out. Deliberately
//! absent: parsing of what is inside a NAL unit.

use std::ops::Range;

/// NAL unit types of H.264 (ITU-T H.264 table 7-1) that matter here.
pub(super) mod nal {
    pub(in super::super) const SLICE: u8 = 1;
    pub(in super::super) const IDR_SLICE: u8 = 5;
    pub(in super::super) const SEI: u8 = 6;
    #[cfg(test)]
    pub(in super::super) const SPS: u8 = 7;
    #[cfg(test)]
    pub(in super::super) const PPS: u8 = 8;
    pub(in super::super) const DELIMITER: u8 = 9;
}

/// One NAL unit of a byte stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NalUnit {
    /// Its type.
    pub(super) kind: u8,
    /// Where it lies, start code included.
    pub(super) range: Range<usize>,
}

/// Copies an access unit without delimiters and SEI into `out` (which is emptied first) and tells whether it is an IDR.
///
/// Only what lies before the first slice is searched; the slices, which are nearly all of it, are copied in one piece.
// spec: gamestream 7.9
pub(super) fn copy_tidy(unit: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.reserve(unit.len());
    for found in NalUnits::new(unit) {
        match found.kind {
            nal::SLICE | nal::IDR_SLICE => {
                out.extend_from_slice(&unit[found.range.start..]);
                return found.kind == nal::IDR_SLICE;
            }
            nal::SEI | nal::DELIMITER => {}
            _ => out.extend_from_slice(&unit[found.range]),
        }
    }
    false
}

/// The NAL units of a byte stream in order. Bytes before the first start code belong to none.
pub(super) struct NalUnits<'a> {
    bytes: &'a [u8],
    /// Where the next unit's start code begins and where its first byte is.
    next: Option<(usize, usize)>,
}

impl<'a> NalUnits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: start_code(bytes, 0) }
    }
}

impl Iterator for NalUnits<'_> {
    type Item = NalUnit;

    fn next(&mut self) -> Option<NalUnit> {
        let (begin, body) = self.next?;
        let kind = self.bytes.get(body)? & 0x1f;
        self.next = start_code(self.bytes, body);
        let end = self.next.map_or(self.bytes.len(), |(next, _)| next);
        Some(NalUnit { kind, range: begin..end })
    }
}

/// The next start code at or after `from`: where it begins (with its leading zero, if it has one) and where it ends.
fn start_code(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let found = from + bytes.get(from..)?.windows(3).position(|three| three == [0, 0, 1])?;
    let long = found > from && bytes[found - 1] == 0;
    Some((found - usize::from(long), found + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(bytes: &[u8]) -> Vec<(u8, Range<usize>)> {
        NalUnits::new(bytes).map(|unit| (unit.kind, unit.range)).collect()
    }

    #[test]
    fn both_start_codes_delimit_units() {
        let bytes = [0, 0, 0, 1, 0x67, 9, 0, 0, 1, 0x68, 7, 0, 0, 0, 1, 0x65, 1, 2];
        assert_eq!(kinds(&bytes), [(7, 0..6), (8, 6..11), (5, 11..18)]);
        assert_eq!(kinds(&[]), []);
        assert_eq!(kinds(&[1, 2, 3]), []);
        assert_eq!(kinds(&[0, 0, 1]), []);
    }

    #[test]
    fn delimiters_and_sei_before_the_slice_go_and_slices_stay() {
        let bytes = [
            0, 0, 0, 1, 0x09, 0xf0, 0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x06, 5, 5,
            0, 0, 1, 0x65, 3, 0, 0, 1, 0x65, 4,
        ];
        let mut out = vec![9; 3];
        assert!(copy_tidy(&bytes, &mut out));
        let expected =
            [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 3, 0, 0, 1, 0x65, 4];
        assert_eq!(out, expected);
    }

    #[test]
    fn a_predicted_picture_is_no_idr() {
        let mut out = Vec::new();
        assert!(!copy_tidy(&[0, 0, 0, 1, 0x41, 1, 2, 3], &mut out));
        assert_eq!(out, [0, 0, 0, 1, 0x41, 1, 2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived_and_never_grow(bytes in proptest::collection::vec(0u8..4, 0..64)) {
            let mut out = Vec::new();
            copy_tidy(&bytes, &mut out);
            assert!(out.len() <= bytes.len());
        }
    }
}
