//! Query strings of the HTTP API: read tolerantly, turned into types that cannot be wrong.
//!
//! Clients send parameters in any order, leave pairs empty, glue two parameters together and repeat some. [`Query`]
//! takes all of that; the first of equal names wins. [`SessionParameters`] is what `/launch` and `/resume` ask for.
//!
//! Deliberately absent: `uniqueid` as an identity. Most clients share one constant; only a certificate says who asks.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::media::Mode;
use crate::seal::SessionKey;

/// The longest query that is read, in bytes.
pub const MAX_QUERY_BYTES: usize = 32 * 1024;
/// The most parameters that are kept; clients send some twenty-five.
pub const MAX_PARAMETERS: usize = 128;

/// The parameters of one request. Wiped when dropped, because one of them is a key.
// spec: gamestream 2.1
#[derive(Clone, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

/// Why a request's parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The query is longer than any client's.
    #[error("a query of {got} bytes is over the limit of {max}", max = MAX_QUERY_BYTES)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// There are more parameters than any client sends.
    #[error("a query of more than {max} parameters", max = MAX_PARAMETERS)]
    TooMany,
    /// A parameter that is needed is absent.
    #[error("the parameter {name} is missing")]
    Missing {
        /// The parameter.
        name: &'static str,
    },
    /// A parameter does not say what it should.
    #[error("the parameter {name} is not {expected}")]
    Malformed {
        /// The parameter.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl Query {
    /// Reads the text after the `?` of a request target.
    ///
    /// # Errors
    /// [`QueryError::TooLong`] and [`QueryError::TooMany`]; nothing else is an error.
    // spec: gamestream 2.1
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong { got: text.len() });
        }
        let mut query = Self { parameters: Vec::new() };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_percent(name);
            if query.get(&name).is_some() {
                continue;
            }
            if query.parameters.len() == MAX_PARAMETERS {
                return Err(QueryError::TooMany);
            }
            query.parameters.push((name, decode_percent(value)));
        }
        Ok(query)
    }

    /// The first parameter of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The parameter as a decimal number; `None` if it is absent or no number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.trim().parse().ok()
    }

    /// The bytes of a parameter of hex digits, at most `max_bytes` of them.
    ///
    /// # Errors
    /// [`QueryError::Missing`] and [`QueryError::Malformed`].
    pub fn hex(
        &self,
        name: &'static str,
        max_bytes: usize,
    ) -> Result<Zeroizing<Vec<u8>>, QueryError> {
        let text = self.get(name).ok_or(QueryError::Missing { name })?;
        if text.len() > max_bytes * 2 {
            return Err(QueryError::Malformed { name, expected: "short enough" });
        }
        decode_hex(text).ok_or(QueryError::Malformed { name, expected: "text of hex digits" })
    }
}

impl fmt::Debug for Query {
    /// Names only: values hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parameters.iter().map(|(name, _)| name)).finish()
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        for (_, value) in &mut self.parameters {
            value.zeroize();
        }
    }
}

/// What `/launch` and `/resume` ask for.
// spec: gamestream 2.11
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionParameters {
    /// `rikey`.
    pub key: SessionKey,
    /// `rikeyid`, reinterpreted as unsigned.
    pub key_id: u32,
    /// `appid`, if it is a number above 0.
    pub app: Option<u32>,
    /// `mode`, clamped to what a mode can be.
    pub mode: Option<Mode>,
    /// `surroundAudioInfo`.
    pub surround: Option<SurroundAudio>,
    /// `localAudioPlayMode`: keep playing on the host.
    pub play_on_host: Option<bool>,
    /// `hdrMode`.
    pub hdr: bool,
    /// `corever` of 1 and more: the client understands `rtspenc://`.
    pub encrypted_rtsp: bool,
}

/// The speakers a client has.
// spec: gamestream 2.11
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurroundAudio {
    /// 2, 6 or 8.
    pub channels: u8,
    /// Which speakers, as in WAVE files.
    pub mask: u16,
}

impl SurroundAudio {
    /// Two speakers.
    pub const STEREO: Self = Self { channels: 2, mask: 0x3 };
}

impl SessionParameters {
    /// Reads the parameters of `/launch` or `/resume`.
    ///
    /// # Errors
    /// [`QueryError`] if `rikey` or `rikeyid` is missing or malformed. Every other parameter is a hint: one that makes
    /// no sense counts as absent.
    // spec: gamestream 2.11, 2.12
    pub fn read(query: &Query) -> Result<Self, QueryError> {
        Ok(Self {
            key: session_key(query)?,
            key_id: key_id(query)?,
            app: query.number("appid").and_then(|id| u32::try_from(id).ok()).filter(|&id| id > 0),
            mode: query.get("mode").and_then(parse_mode),
            surround: query.number("surroundAudioInfo").and_then(surround_audio),
            play_on_host: query.number("localAudioPlayMode").map(|value| value != 0),
            hdr: query.number("hdrMode") == Some(1),
            encrypted_rtsp: query.number("corever").is_some_and(|version| version >= 1),
        })
    }
}

/// Reads `WxHxFPS`. FPS may be absent or 0 (60 is taken) or 1000 times the rate; sizes and rates are clamped to what
/// [`Mode`] can be. `None` if there are not at least two numbers above 0.
// spec: gamestream 2.11
pub fn parse_mode(text: &str) -> Option<Mode> {
    /// Above this a rate is in millihertz: no display refreshes 4000 times a second.
    const HIGHEST_WHOLE_RATE: u64 = 4000;
    let mut numbers = text.split('x').map(|part| {
        let digits = part.trim();
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        // Too many digits for the type are a very large number.
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    });
    let mut side = || match numbers.next().flatten() {
        Some(0) | None => None,
        Some(pixels) => Some(clamp(pixels, Mode::MIN_SIDE, Mode::MAX_SIDE)),
    };
    let (width, height) = (side()?, side()?);
    let refresh_millihz = match numbers.next().flatten() {
        Some(0) | None => 60_000,
        Some(rate) if rate <= HIGHEST_WHOLE_RATE => rate * 1000,
        Some(rate) => rate,
    };
    let refresh_millihz =
        clamp(refresh_millihz, Mode::MIN_REFRESH_MILLIHZ, Mode::MAX_REFRESH_MILLIHZ);
    Mode::new(width, height, refresh_millihz).ok()
}

/// Decodes hex digits of either case; `None` for anything else and for an odd count.
pub fn decode_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    Some(bytes)
}

/// Writes bytes as lower-case hex digits.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

fn session_key(query: &Query) -> Result<SessionKey, QueryError> {
    let bytes = query.hex("rikey", 16)?;
    let mut key = <[u8; 16]>::try_from(&bytes[..])
        .map_err(|_| QueryError::Malformed { name: "rikey", expected: "32 hex digits" })?;
    let session_key = SessionKey::new(key);
    key.zeroize();
    Ok(session_key)
}

/// Signed, or the same 32 bits printed unsigned.
fn key_id(query: &Query) -> Result<u32, QueryError> {
    let name = "rikeyid";
    if query.get(name).is_none() {
        return Err(QueryError::Missing { name });
    }
    query
        .number(name)
        .filter(|id| (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(id))
        .map(|id| id as u32)
        .ok_or(QueryError::Malformed { name, expected: "a number of 32 bits" })
}

fn surround_audio(info: i64) -> Option<SurroundAudio> {
    let info = u32::try_from(info).ok()?;
    let (channels, mask) = ((info & 0xffff) as u16, (info >> 16) as u16);
    match channels {
        2 | 6 | 8 => Some(SurroundAudio { channels: channels as u8, mask }),
        _ => None,
    }
}

fn clamp(value: u64, min: u32, max: u32) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX).clamp(min, max)
}

/// Decodes `%41` and `+`. An escape that is none stays as it is; bytes that are no UTF-8 become U+FFFD.
fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    bytes.push((high << 4 | low) as u8);
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    fn session(text: &str) -> Result<SessionParameters, QueryError> {
        SessionParameters::read(&query(text))
    }

    // spec: gamestream 13 item 15
    #[test]
    fn what_clients_do_to_queries_is_read() {
        let q = query(
            "a=1&&corever=1&b&devicename=rothupdateState=1&a=2&=x&hex=aBCd&n%61me=x%20y+z%zz%4",
        );
        assert_eq!(q.get("a"), Some("1"));
        assert_eq!(q.get("corever"), Some("1"));
        assert_eq!(q.get("b"), Some(""));
        assert_eq!(q.get("devicename"), Some("rothupdateState=1"));
        assert_eq!(q.get("updateState"), None);
        assert_eq!(q.hex("hex", 2).unwrap()[..], [0xab, 0xcd]);
        assert_eq!(q.get("name"), Some("x y z%zz%4"));
        assert_eq!(query("").get(""), None);
        assert_eq!(q.hex("none", 2), Err(QueryError::Missing { name: "none" }));
        assert!(matches!(q.hex("hex", 1), Err(QueryError::Malformed { .. })));
        assert!(matches!(query("hex=abc").hex("hex", 9), Err(QueryError::Malformed { .. })));
    }

    #[test]
    fn queries_have_limits() {
        let long = "a".repeat(MAX_QUERY_BYTES + 1);
        assert!(matches!(Query::parse(&long), Err(QueryError::TooLong { .. })));
        let many: String = (0..=MAX_PARAMETERS).map(|n| format!("p{n}=1&")).collect();
        assert_eq!(Query::parse(&many), Err(QueryError::TooMany));
    }

    #[test]
    fn values_are_not_printed() {
        assert_eq!(format!("{:?}", query("rikey=00ff&x=1")), r#"["rikey", "x"]"#);
    }

    const KEY: &str = "rikey=000102030405060708090a0B0C0D0E0F";

    // spec: gamestream 13 item 42
    #[test]
    fn key_and_key_id_are_required() {
        let missing = |name| Err(QueryError::Missing { name });
        assert_eq!(session("rikeyid=1"), missing("rikey"));
        assert_eq!(session(KEY), missing("rikeyid"));
        for wrong in [
            "rikey=00&rikeyid=1".to_owned(),
            format!("{KEY}00&rikeyid=1"),
            format!("{KEY}&rikeyid="),
            format!("{KEY}&rikeyid=4294967296"),
            format!("{KEY}&rikeyid=-2147483649"),
        ] {
            assert!(matches!(session(&wrong), Err(QueryError::Malformed { .. })), "{wrong}");
        }
        let least = session(&format!("{KEY}&rikeyid=7")).unwrap();
        assert_eq!(
            least.key,
            SessionKey::new(*b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")
        );
        assert_eq!((least.app, least.mode, least.surround), (None, None, None));
        assert!(!least.encrypted_rtsp && !least.hdr && least.play_on_host.is_none());
    }

    // spec: gamestream 13 item 43
    #[test]
    fn key_ids_are_the_same_bits_signed_and_unsigned() {
        let id = |text: &str| session(&format!("{KEY}&rikeyid={text}")).unwrap().key_id;
        assert_eq!(id("0"), 0);
        assert_eq!(id("-1"), 0xffff_ffff);
        assert_eq!(id("-1640531527"), id("2654435769"));
        assert_eq!(id("-2147483648"), 0x8000_0000);
    }

    #[test]
    fn a_whole_launch_is_read() {
        let launch = session(&format!(
            "uniqueid=0123456789ABCDEF&appid=881448767&mode=1280x720x59940&additionalStates=1&{KEY}\
             &rikeyid=-5&localAudioPlayMode=1&surroundAudioInfo=4128774&hdrMode=1&gcpersist=0&&corever=1"
        ))
        .unwrap();
        assert_eq!(launch.app, Some(881_448_767));
        assert_eq!(launch.mode, Some(Mode::new(1280, 720, 59_940).unwrap()));
        assert_eq!(launch.surround, Some(SurroundAudio { channels: 6, mask: 0x3f }));
        assert_eq!(launch.play_on_host, Some(true));
        assert!(launch.hdr && launch.encrypted_rtsp);
        let stereo = session(&format!("{KEY}&rikeyid=1&surroundAudioInfo=196610&appid=0")).unwrap();
        assert_eq!((stereo.surround, stereo.app), (Some(SurroundAudio::STEREO), None));
        let odd =
            session(&format!("{KEY}&rikeyid=1&surroundAudioInfo=9&appid=-4&corever=x")).unwrap();
        assert_eq!((odd.surround, odd.app, odd.encrypted_rtsp), (None, None, false));
    }

    // spec: gamestream 13 item 52
    #[test]
    fn odd_modes_are_clamped() {
        let mode = |text| parse_mode(text).map(|mode| mode.to_string());
        assert_eq!(mode("1920x1080x60").as_deref(), Some("1920x1080@60"));
        assert_eq!(mode("1920x1080x0").as_deref(), Some("1920x1080@60"));
        assert_eq!(mode("1920x1080").as_deref(), Some("1920x1080@60"));
        assert_eq!(mode("0x0x0"), None);
        assert_eq!(mode("1x1x1").as_deref(), Some("16x16@1"));
        assert_eq!(mode("99999x9x9").as_deref(), Some("8192x16@9"));
        assert_eq!(mode("1280x720x59940").as_deref(), Some("1280x720@59.940"));
        assert_eq!(mode("1280x720x3000").as_deref(), Some("1280x720@500"));
        assert_eq!(mode("1125x2436x120").as_deref(), Some("1126x2436@120"));
        assert_eq!(
            mode("99999999999999999999999x720x99999999999999999999").as_deref(),
            Some("8192x720@500")
        );
        assert_eq!(mode("-1x5x6"), None);
        assert_eq!(mode(""), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let q = query(&text);
            let _ = SessionParameters::read(&q);
            let _ = parse_mode(&text);
        }

        #[test]
        fn encoded_values_round_trip(value in "\\PC{0,40}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let q = query(&format!("x=1&v={encoded}&v=2"));
            prop_assert_eq!(q.get("v"), Some(value.as_str()));
        }

        #[test]
        fn hex_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(&decode_hex(&encode_hex(&bytes)).unwrap()[..], &bytes[..]);
        }
    }
}
