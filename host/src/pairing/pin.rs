//! A PIN: four digits, kept as text because leading zeros count.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// The PIN a client shows: exactly four ASCII digits. Wiped when dropped, never printed.
// spec: gamestream 3.2 (PIN)
#[derive(Clone)]
pub struct Pin(Zeroizing<[u8; 4]>);

/// The text is not a PIN. It is not repeated here: it may be one with a slip of the finger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PIN is exactly four digits, as the device shows it")]
pub struct PinError;

impl Pin {
    /// The four digits as they enter the key.
    pub fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: [u8; 4] = text.trim().as_bytes().try_into().map_err(|_| PinError)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(PinError);
        }
        Ok(Self(Zeroizing::new(digits)))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // spec: gamestream 13 item 37
    #[test]
    fn leading_zeros_stay() {
        assert_eq!("0042".parse::<Pin>().unwrap().as_bytes(), b"0042");
        assert_eq!(" 0000\n".parse::<Pin>().unwrap().as_bytes(), b"0000");
    }

    #[test]
    fn a_pin_is_not_printed() {
        assert_eq!(format!("{:?}", "1234".parse::<Pin>().unwrap()), "Pin(redacted)");
        assert!(!PinError.to_string().contains("1234"));
    }

    proptest! {
        #[test]
        fn only_four_ascii_digits_are_a_pin(text in ".{0,6}") {
            let is_pin = text.trim().len() == 4 && text.trim().bytes().all(|b| b.is_ascii_digit());
            prop_assert_eq!(text.parse::<Pin>().is_ok(), is_pin);
        }

        #[test]
        fn every_number_below_ten_thousand_is_a_pin(number in 0..10_000u32) {
            let text = format!("{number:04}");
            prop_assert!(text.parse::<Pin>().is_ok());
        }
    }
}
