//! Text from HTTP requests and RTSP bodies.

use punktfunk_core::gamestream::certificate::{
    Certificate, MAX_DER_BYTES, MAX_PEM_BYTES, RsaScheme, decode_pem, encode_pem,
};
use punktfunk_core::gamestream::query::{
    MAX_QUERY_BYTES, Query, SessionParameters, decode_hex, encode_hex, parse_mode,
};
use punktfunk_core::gamestream::rtsp::Offer;
use punktfunk_core::gamestream::sdp::{Announced, Encryption};
use punktfunk_core::media::{Codec, Mode};

pub(super) fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(mode) = parse_mode(&text) {
        check_mode(mode);
    }
    if let Some(decoded) = decode_hex(&text) {
        assert_eq!(encode_hex(&decoded), text.to_ascii_lowercase());
    }
    let Ok(query) = Query::parse(&text) else { return };
    assert!(text.len() <= MAX_QUERY_BYTES);
    for name in ["appid", "mode", "uniqueid", "rikey"] {
        assert!(query.get(name).is_none_or(|value| value.len() <= 3 * text.len()));
    }
    if let Ok(read) = SessionParameters::read(&query) {
        assert_ne!(read.app, Some(0));
        if let Some(mode) = read.mode {
            check_mode(mode);
        }
        assert!(read.surround.is_none_or(|surround| [2, 6, 8].contains(&surround.channels)));
    }
}

fn check_mode(mode: Mode) {
    let sides = Mode::MIN_SIDE..=Mode::MAX_SIDE;
    assert!(sides.contains(&mode.width()) && sides.contains(&mode.height()));
    let rates = Mode::MIN_REFRESH_MILLIHZ..=Mode::MAX_REFRESH_MILLIHZ;
    assert!(rates.contains(&mode.refresh_millihz()));
}

pub(super) fn certificate(bytes: &[u8]) {
    if let Ok(der) = decode_pem(bytes) {
        assert!(bytes.len() <= MAX_PEM_BYTES && der.len() <= bytes.len());
        assert_eq!(decode_pem(encode_pem(&der).as_bytes()), Ok(der));
    }
    for certificate in [Certificate::from_pem(bytes), Certificate::from_der(bytes)] {
        let Ok(certificate) = certificate else { continue };
        assert!(certificate.der().len() <= MAX_DER_BYTES);
        assert_eq!(Certificate::from_der(certificate.der()).as_ref(), Ok(&certificate));
        // The peer chose the key that this signature is checked with.
        for scheme in [RsaScheme::Pkcs1Sha256, RsaScheme::PssSha512] {
            assert!(certificate.verify(scheme, b"message", &[0x5A; 256]).is_err());
            assert!(certificate.verify(scheme, b"message", certificate.signature()).is_err());
        }
    }
}

pub(super) fn announce(bytes: &[u8]) {
    let everything = Offer {
        codecs: vec![Codec::H264, Codec::Hevc, Codec::Av1],
        required: Encryption::ALL,
        ..Offer::default()
    };
    for (offer, high_quality) in [(Offer::default(), true), (everything, false)] {
        let Ok(announced) = Announced::parse(bytes, &offer, high_quality) else { continue };
        check_mode(announced.mode);
        assert!(offer.codecs.contains(&announced.codec));
        assert!((256..=65_000).contains(&announced.packet_size));
        assert!((500..=1_000_000).contains(&announced.bitrate_kbps));
        assert!((1..=8).contains(&announced.slices));
        assert!(announced.max_reference_frames <= 16);
        assert!([5, 10].contains(&announced.audio.packet_duration_ms));
        assert!([2, 6, 8].contains(&announced.audio.channels));
        assert!(!offer.required.video || announced.encryption.video);
    }
}
