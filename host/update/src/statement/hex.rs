//! Bytes in hexadecimal digits, as keys and signatures are written: lower case, nothing between them.

use std::fmt::Write as _;

/// The digits of bytes, two for each.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The `N` bytes that digits say, or nothing where they are not exactly twice as many digits.
pub fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, two) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(two[0])? << 4 | value(two[1])?;
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_survive_a_round_trip_and_nothing_else_is_read() {
        assert_eq!(hex(&[0x00, 0x7f, 0xff]), "007fff");
        assert_eq!(unhex("007fff"), Some([0x00, 0x7f, 0xff]));
        for wrong in ["", "007ff", "007fff0", "007FFF", "007f f", "+07fff", "00é\u{e9}f"] {
            assert_eq!(unhex::<3>(wrong), None, "{wrong}");
        }
    }
}
