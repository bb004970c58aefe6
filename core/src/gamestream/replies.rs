//! The XML documents of the HTTP API, in the shape that every client's parser survives.
//!
//! One root with a numeric `status_code`, elements without attributes, no text between elements, no empty element, five
//! escapes, UTF-8. Some clients scan for literal tags, some crash on a text node, some on an empty element; the writer
//! here can make none of these.
//!
//! Deliberately absent: HTTP. A protocol error is a document with its own code under the HTTP status 200.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use crate::media::Codec;

/// What we claim to be; clients choose their dialect by it.
// spec: gamestream 2.5
pub const APP_VERSION: &str = "7.1.431.-1";
/// The software version beside it.
// spec: gamestream 2.5
pub const GFE_VERSION: &str = "3.23.0.74";

/// What `/serverinfo` says.
// spec: gamestream 2.4
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo<'a> {
    /// The name clients show.
    pub host_name: &'a str,
    /// The host's stable id.
    pub host_id: &'a str,
    /// Where HTTPS listens.
    pub https_port: u16,
    /// Where HTTP listens.
    pub http_port: u16,
    /// The hardware address of the interface the request came in on; `None` for strangers and if it has none.
    pub mac: Option<[u8; 6]>,
    /// The address the request came in on.
    pub local: IpAddr,
    /// What this machine encodes in real time.
    pub codecs: &'a [Codec],
    /// The request came with a paired certificate.
    pub paired: bool,
    /// The app that runs for this client; `None` for strangers.
    pub current_app: Option<u32>,
}

/// One app of `/applist`.
// spec: gamestream 2.9
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppEntry<'a> {
    /// Its number, in `1..2^31`.
    pub id: u32,
    /// Its title.
    pub title: &'a str,
}

/// An inner status code that is not 200, with a text for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    // spec: gamestream 2.15
    pub code: u16,
    /// What clients show.
    pub message: String,
}

impl Refusal {
    /// A refusal with this code and text.
    pub fn new(code: u16, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// The bit field of codecs for serverinfo and for the RTSP description. Bit 0 (H.264) is always set.
// spec: gamestream 2.6
pub fn codec_bits(codecs: &[Codec]) -> u32 {
    codecs.iter().fold(H264_BIT, |bits, codec| {
        bits | match codec {
            Codec::H264 => H264_BIT,
            Codec::Hevc => 0x100,
            Codec::Av1 => 0x1_0000,
        }
    })
}

const H264_BIT: u32 = 0x1;

/// `/serverinfo`.
// spec: gamestream 2.4
pub fn server_info(info: &ServerInfo<'_>) -> String {
    /// Says "HEVC is there"; clients only compare it with 0.
    const HEVC_LUMA_PIXELS: u32 = 1_869_449_984;
    let [a, b, c, d, e, f] = info.mac.unwrap_or([0; 6]);
    let local = match info.local.to_canonical() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::LOCALHOST,
    };
    let has_hevc = info.codecs.contains(&Codec::Hevc);
    let state = if info.current_app.is_some() { "BUSY" } else { "FREE" };

    let mut document = Document::ok();
    document.element("hostname", info.host_name);
    document.element("appversion", APP_VERSION);
    document.element("GfeVersion", GFE_VERSION);
    document.element("uniqueid", info.host_id);
    document.element("HttpsPort", info.https_port);
    document.element("ExternalPort", info.http_port);
    document.element("mac", format_args!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    document.element("LocalIP", local);
    document.element("MaxLumaPixelsHEVC", if has_hevc { HEVC_LUMA_PIXELS } else { 0 });
    document.element("ServerCodecModeSupport", codec_bits(info.codecs));
    document.element("PairStatus", u8::from(info.paired));
    document.element("currentgame", info.current_app.unwrap_or(0));
    document.element("state", format_args!("PUNKTFUNK_SERVER_{state}"));
    display_modes(&mut document);
    document.end()
}

/// The sizes and rates that some clients insist on finding.
// spec: gamestream 2.8
fn display_modes(document: &mut Document) {
    const SIZES: [(u32, u32); 7] = [
        (1280, 720),
        (1920, 1080),
        (2560, 1440),
        (3840, 2160),
        (7680, 4320),
        (1280, 800),
        (960, 544),
    ];
    document.open("SupportedDisplayMode");
    for (width, height) in SIZES {
        for rate in [30, 60, 90, 120, 144] {
            document.open("DisplayMode");
            document.element("Width", width);
            document.element("Height", height);
            document.element("RefreshRate", rate);
            document.close("DisplayMode");
        }
    }
    document.close("SupportedDisplayMode");
}

/// `/applist`.
// spec: gamestream 2.9
pub fn app_list(apps: &[AppEntry<'_>]) -> String {
    let mut document = Document::ok();
    for app in apps {
        document.open("App");
        document.element("IsHdrSupported", 0);
        document.element("AppTitle", app.title);
        document.element("ID", app.id);
        document.close("App");
    }
    document.end()
}

/// The address of RTSP for a session.
// spec: gamestream 2.11
pub fn session_url(local: IpAddr, rtsp_port: u16, encrypted: bool) -> String {
    let scheme = if encrypted { "rtspenc" } else { "rtsp" };
    match local.to_canonical() {
        IpAddr::V4(address) => format!("{scheme}://{address}:{rtsp_port}"),
        IpAddr::V6(address) => format!("{scheme}://[{address}]:{rtsp_port}"),
    }
}

/// `/launch`.
///
/// # Errors
/// None; a refusal is a document too.
// spec: gamestream 2.11
pub fn launch(outcome: Result<&str, &Refusal>) -> String {
    match outcome {
        Ok(url) => {
            let mut document = Document::ok();
            document.element("sessionUrl0", url);
            document.element("gamesession", 1);
            document.end()
        }
        Err(refusal) => {
            let mut document = Document::refused(refusal);
            document.element("gamesession", 0);
            document.end()
        }
    }
}

/// `/resume`.
// spec: gamestream 2.12
pub fn resume(outcome: Result<&str, &Refusal>) -> String {
    match outcome {
        Ok(url) => {
            let mut document = Document::ok();
            document.element("sessionUrl0", url);
            document.element("resume", 1);
            document.element("gamesession", 1);
            document.end()
        }
        Err(refusal) => {
            let mut document = Document::refused(refusal);
            document.element("resume", 0);
            document.element("gamesession", 0);
            document.end()
        }
    }
}

/// `/cancel`, done.
// spec: gamestream 2.13
pub fn cancelled() -> String {
    let mut document = Document::ok();
    document.element("cancel", 1);
    document.end()
}

/// `/unpair`, whatever it did.
// spec: gamestream 2.14
pub fn unpaired() -> String {
    Document::ok().end()
}

/// One step of `/pair`: what the reply carries beside `paired`, as an element's name and its hex digits.
// spec: gamestream 3.1
pub fn paired(payload: Option<(&'static str, &str)>) -> String {
    let mut document = Document::ok();
    document.element("paired", 1);
    if let Some((name, digits)) = payload {
        document.element(name, digits);
    }
    document.end()
}

/// A step of `/pair` that failed.
// spec: gamestream 3.1
pub fn not_paired(refusal: &Refusal) -> String {
    let mut document = Document::refused(refusal);
    document.element("paired", 0);
    document.end()
}

/// For every HTTPS path if the certificate is not paired.
// spec: gamestream 2.3
pub fn unauthorized(path: &str) -> String {
    let mut text = String::from(DECLARATION);
    let _ = write!(
        Raw(&mut text),
        r#"<root status_code="401" query="{}" status_message="This device is not paired"/>"#,
        Escaped(path)
    );
    text
}

/// An error without elements of its own, for unknown paths and malformed requests.
// spec: gamestream 2.15
pub fn error(refusal: &Refusal) -> String {
    Document::refused(refusal).end()
}

const DECLARATION: &str = r#"<?xml version="1.0" encoding="utf-8"?>"#;

/// A document being written.
struct Document(String);

impl Document {
    fn ok() -> Self {
        Self(format!(r#"{DECLARATION}<root status_code="200">"#))
    }

    fn refused(refusal: &Refusal) -> Self {
        let mut text = String::from(DECLARATION);
        let _ = write!(
            Raw(&mut text),
            r#"<root status_code="{}" status_message="{}">"#,
            refusal.code,
            Escaped(&refusal.message)
        );
        Self(text)
    }

    fn open(&mut self, name: &'static str) {
        let _ = write!(Raw(&mut self.0), "<{name}>");
    }

    fn close(&mut self, name: &'static str) {
        let _ = write!(Raw(&mut self.0), "</{name}>");
    }

    /// Writes an element; a value without any visible character is written as `-`, since an empty one makes Android
    /// throw.
    fn element(&mut self, name: &'static str, value: impl fmt::Display) {
        self.open(name);
        let begin = self.0.len();
        let _ = write!(Escape(&mut self.0), "{value}");
        if self.0[begin..].trim().is_empty() {
            self.0.truncate(begin);
            self.0.push('-');
        }
        self.close(name);
    }

    fn end(mut self) -> String {
        self.0.push_str("</root>");
        self.0
    }
}

/// Writes as is. Writing to a `String` cannot fail.
struct Raw<'a>(&'a mut String);

impl Write for Raw<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        Ok(())
    }
}

/// Writes with the five characters escaped that XML reserves, and without those it forbids.
struct Escape<'a, W: Write + ?Sized>(&'a mut W);

impl<W: Write + ?Sized> Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&apos;")?,
                // Tabs and line ends would be changed by the reader; the rest XML 1.0 does not allow at all.
                '\t' | '\n' | '\r' => self.0.write_char(' ')?,
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
                _ => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escape(f).write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gamestream::sdp::{Offer, describe};

    fn unescape(text: &str) -> String {
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&")
    }

    fn value<'a>(document: &'a str, name: &str) -> Option<&'a str> {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    }

    /// Reads the document as a strict reader would and panics at what some client cannot read.
    fn check(document: &str) {
        let mut rest = document.strip_prefix(DECLARATION).expect("declaration");
        let mut open: Vec<&str> = Vec::new();
        let mut text = "";
        let mut opened_last = false;
        while let Some(begin) = rest.find('<') {
            text = &rest[..begin];
            let end = begin + rest[begin..].find('>').expect("a tag ends");
            let tag = &rest[begin + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                let is_leaf = opened_last && name != "root";
                assert_eq!(is_leaf, !text.is_empty(), "text only in leaves: {name} {text:?}");
                opened_last = false;
                continue;
            }
            assert_eq!(text, "", "text before an element");
            let name = tag.split(' ').next().unwrap();
            assert_eq!(name != "root", !tag.contains(' '), "attributes only on the root");
            assert_eq!(open.is_empty(), name == "root", "one root");
            if tag.ends_with('/') {
                assert!(open.is_empty() && rest.is_empty());
                return;
            }
            open.push(name);
            opened_last = true;
        }
        assert!(open.is_empty() && rest.is_empty(), "{text}");
    }

    fn info<'a>(name: &'a str, codecs: &'a [Codec]) -> ServerInfo<'a> {
        ServerInfo {
            host_name: name,
            host_id: "8f0c1c9e-6a7d-4f0e-9c53-7d6f3a0b9f11",
            https_port: 47984,
            http_port: 47989,
            mac: None,
            local: IpAddr::from([192, 168, 1, 20]),
            codecs,
            paired: false,
            current_app: None,
        }
    }

    // spec: gamestream 13 item 4
    #[test]
    fn server_info_has_every_element_and_none_is_empty() {
        let document = server_info(&info("Living room", &[Codec::H264]));
        check(&document);
        for (name, expected) in [
            ("hostname", "Living room"),
            ("appversion", "7.1.431.-1"),
            ("GfeVersion", "3.23.0.74"),
            ("uniqueid", "8f0c1c9e-6a7d-4f0e-9c53-7d6f3a0b9f11"),
            ("HttpsPort", "47984"),
            ("ExternalPort", "47989"),
            ("mac", "00:00:00:00:00:00"),
            ("LocalIP", "192.168.1.20"),
            ("MaxLumaPixelsHEVC", "0"),
            ("ServerCodecModeSupport", "1"),
            ("PairStatus", "0"),
            ("currentgame", "0"),
            ("state", "PUNKTFUNK_SERVER_FREE"),
        ] {
            assert_eq!(value(&document, name), Some(expected), "{name}");
        }
        assert!(document.contains(
            "<DisplayMode><Width>960</Width><Height>544</Height><RefreshRate>60</RefreshRate></DisplayMode>"
        ));
    }

    // spec: gamestream 13 item 7
    #[test]
    fn server_info_tells_a_paired_client_what_runs() {
        let document = server_info(&ServerInfo {
            mac: Some([0x02, 0, 0xab, 0xcd, 0xef, 0x09]),
            local: "fd00::1".parse().unwrap(),
            paired: true,
            current_app: Some(77),
            ..info("x", &[Codec::H264, Codec::Hevc, Codec::Av1])
        });
        check(&document);
        assert_eq!(value(&document, "mac"), Some("02:00:ab:cd:ef:09"));
        assert_eq!(value(&document, "LocalIP"), Some("127.0.0.1"));
        assert_eq!(value(&document, "currentgame"), Some("77"));
        assert_eq!(value(&document, "PairStatus"), Some("1"));
        assert_eq!(value(&document, "ServerCodecModeSupport"), Some("65793"));
        assert_eq!(value(&document, "MaxLumaPixelsHEVC"), Some("1869449984"));
        let state = value(&document, "state").unwrap();
        assert!(state.ends_with("_SERVER_BUSY") && !state.contains("MJOLNIR"));
    }

    // spec: gamestream 13 item 6
    #[test]
    fn h264_is_always_among_the_codecs() {
        assert_eq!(codec_bits(&[]), 1);
        assert_eq!(codec_bits(&[Codec::Hevc]), 0x101);
    }

    // spec: gamestream 13 item 6
    #[test]
    fn server_info_and_the_rtsp_description_name_the_same_codecs() {
        for set in 0..8 {
            let every = [Codec::H264, Codec::Hevc, Codec::Av1];
            let codecs: Vec<Codec> =
                (0..3).filter(|bit| set >> bit & 1 == 1).map(|bit| every[bit]).collect();
            let document = server_info(&info("x", &codecs));
            let bits = value(&document, "ServerCodecModeSupport").unwrap().parse::<u32>().unwrap();
            let offer = describe(&Offer { codecs, ..Offer::default() });
            let mut offered = H264_BIT;
            for (marker, bit) in [("sprop-parameter-sets=", 0x100), ("AV1/90000", 0x1_0000)] {
                offered |= if offer.contains(marker) { bit } else { 0 };
            }
            assert_eq!(bits, offered, "{offer}");
        }
    }

    // spec: gamestream 13 item 44
    #[test]
    fn session_urls_name_scheme_and_address() {
        let url =
            |address: &str, encrypted| session_url(address.parse().unwrap(), 48010, encrypted);
        assert_eq!(url("10.0.0.1", false), "rtsp://10.0.0.1:48010");
        assert_eq!(url("10.0.0.1", true), "rtspenc://10.0.0.1:48010");
        assert_eq!(url("fd00::1", true), "rtspenc://[fd00::1]:48010");
        assert_eq!(url("::ffff:10.0.0.1", true), "rtspenc://10.0.0.1:48010");
    }

    // spec: gamestream 13 item 45
    #[test]
    fn launch_and_resume_carry_both_tags() {
        let refusal = Refusal::new(503, "no \"encoder\" <here>");
        for document in [launch(Ok("rtsp://a:1")), resume(Ok("rtsp://a:1"))] {
            check(&document);
            assert_eq!(value(&document, "gamesession"), Some("1"));
            assert_eq!(value(&document, "sessionUrl0"), Some("rtsp://a:1"));
        }
        assert_eq!(value(&resume(Ok("x")), "resume"), Some("1"));
        assert_eq!(value(&resume(Err(&refusal)), "resume"), Some("0"));
        let refused = launch(Err(&refusal));
        check(&refused);
        assert_eq!(value(&refused, "gamesession"), Some("0"));
        assert!(refused.contains(
            r#"<root status_code="503" status_message="no &quot;encoder&quot; &lt;here&gt;">"#
        ));
    }

    // spec: gamestream 13 item 12
    #[test]
    fn every_other_document_is_well_formed() {
        for document in [
            cancelled(),
            unpaired(),
            paired(None),
            paired(Some(("plaincert", "00ff"))),
            not_paired(&Refusal::new(400, "wrong order")),
            error(&Refusal::new(404, "unknown")),
            unauthorized("/app\"list<&\n"),
            app_list(&[]),
        ] {
            check(&document);
        }
        assert!(unauthorized("/applist").contains(r#"status_code="401" query="/applist""#));
        assert_eq!(value(&not_paired(&Refusal::new(400, "x")), "paired"), Some("0"));
    }

    #[test]
    fn an_empty_name_still_fills_its_element() {
        assert_eq!(value(&server_info(&info(" ", &[])), "hostname"), Some("-"));
    }

    proptest! {
        // spec: gamestream 13 item 13
        #[test]
        fn names_round_trip(title in "[\\PC&<>\"']{1,30}", id in 1_u32..1 << 31) {
            prop_assume!(!title.trim().is_empty());
            let document = app_list(&[AppEntry { id, title: &title }, AppEntry { id: 1, title: "b" }]);
            check(&document);
            prop_assert_eq!(unescape(value(&document, "AppTitle").unwrap()), title);
            let id = id.to_string();
            prop_assert_eq!(value(&document, "ID"), Some(id.as_str()));
        }

        #[test]
        fn any_text_makes_a_well_formed_document(text in any::<String>()) {
            check(&server_info(&info(&text, &[])));
            check(&unauthorized(&text));
            check(&error(&Refusal::new(400, &text)));
        }
    }
}
