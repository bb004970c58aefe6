//! Encryption of audio payloads: AES-128-CBC with an IV made of the packet's number. spec: gamestream 8.3
//!
//! The scheme is the wire's, not ours: nothing here authenticates, and a changed payload may decrypt to noise.

use aes::Aes128;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};

use crate::seal::SessionKey;

/// Bytes of a cipher block, and the most that padding adds.
pub(super) const BLOCK_BYTES: usize = 16;

/// The key of a session's sound and the number its IVs count from.
pub(super) struct AudioCipher {
    key: SessionKey,
    key_id: u32,
}

impl AudioCipher {
    pub(super) fn new((key, key_id): (SessionKey, u32)) -> Self {
        Self { key, key_id }
    }

    /// The first four bytes count, the others are zero.
    fn iv(&self, sequence: u16) -> [u8; BLOCK_BYTES] {
        let mut iv = [0; BLOCK_BYTES];
        let number = self.key_id.wrapping_add(u32::from(sequence));
        iv[..4].copy_from_slice(&number.to_be_bytes());
        iv
    }

    /// Appends the encrypted form of `text` to `out`.
    #[expect(clippy::expect_used, reason = "the buffer always has room for one block of padding")]
    pub(super) fn encrypt(&self, sequence: u16, text: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(text);
        out.resize(start + text.len() + BLOCK_BYTES, 0);
        let cipher =
            cbc::Encryptor::<Aes128>::new(self.key.expose().into(), &self.iv(sequence).into());
        let length = cipher
            .encrypt_padded::<Pkcs7>(&mut out[start..], text.len())
            .expect("sixteen bytes were added for the padding")
            .len();
        out.truncate(start + length);
    }

    /// Decrypts a payload in place and cuts its padding; false if the padding is wrong.
    pub(super) fn decrypt(&self, sequence: u16, payload: &mut Vec<u8>) -> bool {
        let cipher =
            cbc::Decryptor::<Aes128>::new(self.key.expose().into(), &self.iv(sequence).into());
        let length = cipher.decrypt_padded::<Pkcs7>(payload).map(<[u8]>::len);
        payload.truncate(length.unwrap_or(0));
        length.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gamestream::query::{Query, SessionParameters};

    // spec: gamestream 13 item 43
    #[test]
    fn an_unsigned_key_id_gives_the_ivs_of_the_signed_one() {
        let ivs = |key_id: &str| {
            let query = format!("rikey={}&rikeyid={key_id}", "5a".repeat(16));
            let launch = SessionParameters::read(&Query::parse(&query).unwrap()).unwrap();
            let cipher = AudioCipher::new((launch.key, launch.key_id));
            [0, 1, 4, u16::MAX].map(|sequence| cipher.iv(sequence)[..5].to_vec())
        };
        assert_eq!(ivs("-5"), ivs("4294967291"));
        assert_eq!(ivs("-5")[..2], [[0xff, 0xff, 0xff, 0xfb, 0], [0xff, 0xff, 0xff, 0xfc, 0]]);
        assert_eq!(ivs("-2147483648"), ivs("2147483648"));
        assert_eq!(ivs("0")[..2], [[0; 5], [0, 0, 0, 1, 0]]);
    }

    // spec: gamestream 13 item 113
    #[test]
    fn a_payload_equals_the_vector() {
        let key = SessionKey::new(std::array::from_fn(|i| i as u8));
        let cipher = AudioCipher::new((key, (-123_456_789_i32).cast_unsigned()));
        assert_eq!(cipher.iv(65_534)[..5], [0xf8, 0xa5, 0x32, 0xe9, 0]);
        let text: Vec<u8> = (1..=40).collect();
        let mut sealed = vec![0xaa];
        cipher.encrypt(65_534, &text, &mut sealed);
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "aabe6403c45509f3dec906fd54d36720657830a80072a0287c406f69e3a14b260f\
             9dfecf0e7bc5bc816cf148b2c9fe4df1"
        );
        let mut payload = sealed.split_off(1);
        assert!(cipher.decrypt(65_534, &mut payload));
        assert_eq!(payload, text);
        assert!(!cipher.decrypt(0, &mut vec![1, 2, 3]));
    }

    // spec: gamestream 8.3
    #[test]
    fn the_number_wraps_at_32_bits() {
        let cipher = AudioCipher::new((SessionKey::new([0; 16]), u32::MAX));
        assert_eq!(cipher.iv(3)[..5], [0, 0, 0, 2, 0]);
    }
}
