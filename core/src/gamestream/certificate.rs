//! Certificates as stock clients make them: read leniently, verified strictly.
//!
//! A client's certificate is an identity and nothing more: it is compared byte for byte, and the key in it must sign.
//! Many clients write certificates that no validating parser takes (serial number 0, a version that does not fit the
//! extensions, a PEM text with carriage returns or a trailing NUL), so a walker of our own finds the three things the
//! protocol needs: the DER bytes, the RSA key and the signature field. Whatever else is in there is skipped unread.
//!
//! Deliberately absent: chains, names, dates, key usage, extensions. Nobody in this protocol looks at them.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents};

/// The longest PEM text that is read, in bytes; clients send 1.2 to 1.4 KB.
pub const MAX_PEM_BYTES: usize = 8 * 1024;
/// The longest DER certificate that is read, in bytes.
pub const MAX_DER_BYTES: usize = 6 * 1024;
/// The only size of RSA key that pairs, in bits (spec: gamestream 3.2).
pub const RSA_KEY_BITS: usize = 2048;

/// A certificate whose RSA-2048 key and signature field were found.
// spec: gamestream 2.2
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    signature: Vec<u8>,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is longer than any client's certificate.
    #[error("a certificate of {got} bytes is over the limit of {max}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The text holds no PEM certificate.
    #[error("no PEM certificate in the text: {what}")]
    Pem {
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes are not the DER of a certificate.
    #[error("the certificate breaks off or is malformed at its {field}")]
    Der {
        /// The field that could not be read.
        field: &'static str,
    },
    /// The key is not an RSA key (item 40).
    #[error("the certificate's key is not an RSA key; only RSA-2048 pairs")]
    NotRsa,
    /// The key is an RSA key of another size.
    #[error("the certificate has an RSA key of {got} bits; only {max} bits pair", max = RSA_KEY_BITS)]
    KeySize {
        /// Its size in bits.
        got: usize,
    },
}

/// The signature was not made by the certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature was not made by the key of the certificate")]
pub struct SignatureMismatch;

/// The RSA signatures that GameStream and its TLS know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RsaScheme {
    /// PKCS#1 v1.5 with SHA-256; the one of pairing.
    Pkcs1Sha256,
    /// PKCS#1 v1.5 with SHA-384.
    Pkcs1Sha384,
    /// PKCS#1 v1.5 with SHA-512.
    Pkcs1Sha512,
    /// PSS with SHA-256.
    PssSha256,
    /// PSS with SHA-384.
    PssSha384,
    /// PSS with SHA-512.
    PssSha512,
}

impl Certificate {
    /// Reads PEM text: line ends of any kind, a trailing NUL and text around the block are fine.
    ///
    /// # Errors
    /// See [`CertificateError`].
    // spec: gamestream 3.2
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        Self::from_der(&decode_pem(text)?)
    }

    /// Reads DER bytes. Bytes after the certificate's own end are cut off.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let fields = Fields::find(der)?;
        let (modulus, exponent) = rsa_key(fields.key)?;
        let got = bit_length(modulus);
        if got != RSA_KEY_BITS {
            return Err(CertificateError::KeySize { got });
        }
        Ok(Self {
            der: fields.whole.to_vec(),
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
            signature: fields.signature.to_vec(),
        })
    }

    /// The DER bytes: the identity.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The content of the certificate's signature field, which pairing mixes into its hashes.
    // spec: gamestream 3.1
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Checks that this certificate's key made `signature` over `message`.
    ///
    /// # Errors
    /// [`SignatureMismatch`].
    pub fn verify(
        &self,
        scheme: RsaScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureMismatch> {
        let parameters = match scheme {
            RsaScheme::Pkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            RsaScheme::Pkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            RsaScheme::Pkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            RsaScheme::PssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            RsaScheme::PssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            RsaScheme::PssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        };
        RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent }
            .verify(parameters, message, signature)
            .map_err(|_| SignatureMismatch)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({} bytes)", self.der.len())
    }
}

/// Finds the first certificate block in PEM text and decodes it.
///
/// # Errors
/// [`CertificateError::TooLong`] and [`CertificateError::Pem`].
// spec: gamestream 3.2
pub fn decode_pem(text: &[u8]) -> Result<Vec<u8>, CertificateError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END";
    if text.len() > MAX_PEM_BYTES {
        return Err(CertificateError::TooLong { got: text.len(), max: MAX_PEM_BYTES });
    }
    let begin = find(text, BEGIN).ok_or(CertificateError::Pem { what: "no begin line" })?;
    let inside = &text[begin + BEGIN.len()..];
    let end = find(inside, END).ok_or(CertificateError::Pem { what: "no end line" })?;
    decode_base64(&inside[..end])
}

/// Writes DER bytes as PEM text with lines of 64 characters.
pub fn encode_pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let symbol = |bits: u32| char::from(BASE64[(bits & 0x3f) as usize]);
    for (index, group) in der.chunks(3).enumerate() {
        if index > 0 && index % 16 == 0 {
            text.push('\n');
        }
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.push(symbol(bits >> 18));
        text.push(symbol(bits >> 12));
        text.push(if group.len() > 1 { symbol(bits >> 6) } else { '=' });
        text.push(if group.len() > 2 { symbol(bits) } else { '=' });
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Decodes base64, skipping white space and NUL bytes. Input is bounded by [`MAX_PEM_BYTES`].
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for &symbol in text {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            0 | b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => return Err(CertificateError::Pem { what: "a character that is not base64" }),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(bytes)
}

/// Where the wanted fields of a certificate lie.
struct Fields<'a> {
    whole: &'a [u8],
    key: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Fields<'a> {
    fn find(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_DER_BYTES {
            return Err(CertificateError::TooLong { got: der.len(), max: MAX_DER_BYTES });
        }
        let mut outside = Walker(der);
        let mut certificate = Walker(outside.expect(tag::SEQUENCE, "outer sequence")?);
        let whole = &der[..der.len() - outside.0.len()];
        let mut signed = Walker(certificate.expect(tag::SEQUENCE, "signed part")?);
        certificate.expect(tag::SEQUENCE, "signature algorithm")?;
        let signature = bit_string(certificate.expect(tag::BIT_STRING, "signature")?, "signature")?;

        // Version 1 certificates have no version field; what the field says is of no interest.
        if signed.peek() == Some(tag::VERSION) {
            signed.expect(tag::VERSION, "version")?;
        }
        signed.expect(tag::INTEGER, "serial number")?;
        for field in ["inner signature algorithm", "issuer", "validity", "subject"] {
            signed.expect(tag::SEQUENCE, field)?;
        }
        let key = signed.expect(tag::SEQUENCE, "public key")?;
        Ok(Self { whole, key, signature })
    }
}

/// The modulus and exponent in the content of a SubjectPublicKeyInfo, without leading zeros.
fn rsa_key(key: &[u8]) -> Result<(&[u8], &[u8]), CertificateError> {
    /// rsaEncryption, 1.2.840.113549.1.1.1.
    const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let mut key = Walker(key);
    let mut algorithm = Walker(key.expect(tag::SEQUENCE, "key algorithm")?);
    if algorithm.expect(tag::OBJECT_ID, "key algorithm")? != RSA_ENCRYPTION {
        return Err(CertificateError::NotRsa);
    }
    let bits = bit_string(key.expect(tag::BIT_STRING, "key bits")?, "key bits")?;
    let mut numbers = Walker(Walker(bits).expect(tag::SEQUENCE, "RSA key")?);
    let modulus = strip_zeros(numbers.expect(tag::INTEGER, "RSA modulus")?);
    let exponent = strip_zeros(numbers.expect(tag::INTEGER, "RSA exponent")?);
    if modulus.is_empty() || exponent.is_empty() || exponent.len() > 8 {
        return Err(CertificateError::Der { field: "RSA key" });
    }
    Ok((modulus, exponent))
}

/// The content of a BIT STRING, which begins with the count of unused bits: always 0 here.
fn bit_string<'a>(content: &'a [u8], field: &'static str) -> Result<&'a [u8], CertificateError> {
    match content.split_first() {
        Some((0, bits)) => Ok(bits),
        _ => Err(CertificateError::Der { field }),
    }
}

fn strip_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

fn bit_length(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const OBJECT_ID: u8 = 0x06;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// `[0]`, constructed.
    pub(super) const VERSION: u8 = 0xa0;
}

/// Takes tag-length-value elements off the front of DER bytes.
struct Walker<'a>(&'a [u8]);

impl<'a> Walker<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes one element with this tag and returns its content.
    fn expect(&mut self, tag: u8, field: &'static str) -> Result<&'a [u8], CertificateError> {
        self.take(tag).ok_or(CertificateError::Der { field })
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&first, rest) = self.0.split_first()?;
        if first != tag {
            return None;
        }
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            // Two bytes of length say everything below MAX_DER_BYTES; a longer form may pad with zeros.
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                let length = length.iter().try_fold(0_usize, |sum, &byte| {
                    sum.checked_mul(256)?.checked_add(usize::from(byte))
                })?;
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use proptest::prelude::*;

    use super::*;

    /// One DER element.
    pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            length @ 0..=0x7f => bytes.push(length as u8),
            length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend(content);
        bytes
    }

    /// A certificate by hand: `version` as its DER field (empty for version 1), any tail after the key.
    pub(crate) fn craft(version: &[u8], serial: &[u8], spki: &[u8], tail: &[u8]) -> Vec<u8> {
        let algorithm = element(0x30, &[6, 3, 1, 2, 3, 5, 0]);
        let mut signed = version.to_vec();
        signed.extend(element(2, serial));
        signed.extend(&algorithm);
        for content in [&b""[..], b"\x17\x01\x30", b""] {
            signed.extend(element(0x30, content));
        }
        signed.extend(spki);
        signed.extend(tail);
        let mut inside = element(0x30, &signed);
        inside.extend(&algorithm);
        inside.extend(element(3, &[&[0][..], &[0xbb; 256]].concat()));
        element(0x30, &inside)
    }

    pub(crate) fn key(size: KeySize) -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate(size).unwrap();
        let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key());
        let spki = spki.unwrap().as_ref().to_vec();
        (key, spki)
    }

    fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
        signature
    }

    // spec: gamestream 13 item 22
    #[test]
    fn odd_versions_serials_and_extensions_are_read() {
        let (key, spki) = key(KeySize::Rsa2048);
        let signature = sign(&key, b"message");
        let extensions = element(0xa3, &element(0x30, b"\x01\x02garbage"));
        let versions: [&[u8]; 4] =
            [b"", b"\xa0\x03\x02\x01\x00", b"\xa0\x03\x02\x01\x01", b"\xa0\x03\x02\x01\x02"];
        for version in versions {
            for (serial, tail) in [(&b"\x00"[..], &extensions[..]), (b"", b""), (b"\x80\x01", b"")]
            {
                let der = craft(version, serial, &spki, tail);
                let certificate = Certificate::from_der(&[&der[..], b"\0\0"].concat()).unwrap();
                assert_eq!(certificate.der(), der);
                assert_eq!(certificate.signature(), [0xbb; 256]);
                let verify = |message: &[u8]| {
                    certificate.verify(RsaScheme::Pkcs1Sha256, message, &signature)
                };
                assert_eq!(verify(b"message"), Ok(()));
                assert_eq!(verify(b"another"), Err(SignatureMismatch));
            }
        }
    }

    // spec: gamestream 13 item 40
    #[test]
    fn keys_that_cannot_pair_are_refused_by_name() {
        let (_, spki) = key(KeySize::Rsa4096);
        let refused = Certificate::from_der(&craft(b"", b"\x01", &spki, b""));
        assert_eq!(refused, Err(CertificateError::KeySize { got: 4096 }));

        let point = element(3, &[0; 66]);
        let curve = element(0x30, &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]);
        let spki = element(0x30, &[curve, point].concat());
        let refused = Certificate::from_der(&craft(b"", b"\x01", &spki, b""));
        assert_eq!(refused, Err(CertificateError::NotRsa));
    }

    #[test]
    fn pem_is_read_whatever_its_line_ends() {
        let (_, spki) = key(KeySize::Rsa2048);
        let der = craft(b"", b"\x01", &spki, b"");
        let pem = encode_pem(&der);
        assert!(pem.lines().all(|line| line.len() <= 64));
        for text in [
            pem.clone(),
            pem.replace('\n', "\r\n"),
            pem.replace('\n', ""),
            format!("Bag Attributes\n{pem}\n\n\0"),
            pem.trim_end().to_owned(),
        ] {
            assert_eq!(Certificate::from_pem(text.as_bytes()).unwrap().der(), der, "{text}");
        }
        assert!(decode_pem(b"-----BEGIN CERTIFICATE-----").is_err());
        assert!(decode_pem(pem.replace('M', "%").as_bytes()).is_err());
        let long = vec![b'A'; MAX_PEM_BYTES + 1];
        assert!(matches!(decode_pem(&long), Err(CertificateError::TooLong { .. })));
    }

    #[test]
    fn no_truncation_is_taken_for_a_certificate() {
        let (_, spki) = key(KeySize::Rsa2048);
        let der = craft(b"\xa0\x03\x02\x01\x02", b"\x00", &spki, b"");
        for length in 0..der.len() {
            assert!(Certificate::from_der(&der[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn pem_round_trips(der in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(decode_pem(encode_pem(&der).as_bytes()).unwrap(), der);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Certificate::from_der(&bytes);
            let _ = Certificate::from_pem(&bytes);
        }

        #[test]
        fn no_change_of_a_certificate_panics(at in 0_usize..700, value in any::<u8>()) {
            let spki = element(0x30, &[element(0x30, &[6, 1, 1]), element(3, &[0; 270])].concat());
            let mut der = craft(b"\xa0\x03\x02\x01\x02", b"\x00", &spki, b"");
            let at = at % der.len();
            der[at] = value;
            let _ = Certificate::from_der(&der);
        }
    }
}
