//! Every parser that reads what strangers send, on a kept corpus and on what becomes of it: cut, spliced, with bits
//! turned and numbers pushed to their ends. A parser may refuse anything; it may not panic. The same changes are made
//! in every run, so that what fails once fails again; what a longer search finds is added to `corpus/` and stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::control::{ClientMessage, Opened, Opener, Scheme, Side};
use punktfunk_core::gamestream::enet::Datagram;
use punktfunk_core::gamestream::input::Packet;
use punktfunk_core::gamestream::query::{Query, SessionParameters};
use punktfunk_core::gamestream::rtsp::{self, Offer, Request};
use punktfunk_core::gamestream::sdp::Announced;
use punktfunk_core::seal::SessionKey;

/// Changed copies of each file.
const CHANGES: u64 = 10_000;
/// The longest input, in bytes: more than any parser takes.
const MAX_BYTES: usize = 100_000;

/// Feeds the files of one folder, and what becomes of them, to a parser.
fn check(parser: &str, mut parse: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    // The order of a folder is the file system's; the changes shall be the same everywhere.
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for seed in &seeds {
        parse(seed);
        for end in 0..seed.len() {
            parse(&seed[..end]);
        }
        for _ in 0..CHANGES {
            let mut bytes = seed.clone();
            for _ in 0..=random.below(4) {
                random.change(&mut bytes, &seeds);
            }
            parse(&bytes);
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let ends = [0x00, 0x7F, 0x80, 0xFF, b'\n', b':', b'%', b' '];
        match self.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = ends[self.below(ends.len())],
            3 => {
                let count = 1 + self.below(8);
                let end = (at + count).min(bytes.len());
                bytes[at..end].fill(ends[self.below(4)]);
            }
            4 => {
                let other = &seeds[self.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len()).min(other.len())..]);
            }
            5 => {
                let end = at + self.below(bytes.len() - at + 1);
                let piece = bytes[at..end].repeat(1 + self.below(40));
                bytes.splice(at..at, piece);
            }
            _ => bytes.extend((0..self.below(20)).map(|_| 0).collect::<Vec<_>>()),
        }
        bytes.truncate(MAX_BYTES);
    }
}

// spec: gamestream 13 item 120
#[test]
fn rtsp_requests() {
    check("rtsp", |bytes| {
        let _ = Request::parse(bytes);
        if rtsp::is_sealed(bytes) == Some(true) {
            let _ = rtsp::frame_bytes(bytes);
        }
    });
}

// spec: gamestream 13 item 120
#[test]
fn descriptions_of_streams() {
    let offer = Offer::default();
    check("announce", |bytes| {
        let _ = Announced::parse(bytes, &offer, true);
    });
}

// spec: gamestream 13 item 120
#[test]
fn control_messages() {
    let key = SessionKey::new([7; 16]);
    let mut opener = Opener::new(&key, Scheme::V2, Side::Client);
    check("control", |bytes| {
        let _ = opener.open(bytes);
        // What is inside a message that opened.
        if let Some((kind, rest)) = bytes.split_first_chunk::<2>() {
            let kind = u16::from_le_bytes(*kind);
            let payload = rest.get(2..).unwrap_or_default();
            let _ = ClientMessage::parse(Opened { kind, payload });
        }
    });
}

// spec: gamestream 13 item 120
#[test]
fn input_packets() {
    check("input", |bytes| {
        if let Ok(packet) = Packet::parse(bytes) {
            assert!(packet.events().count() <= bytes.len().max(1));
        }
    });
}

// spec: gamestream 13 item 120
#[test]
fn enet_datagrams() {
    check("enet", |bytes| {
        if let Ok(Datagram::Peer { commands, .. }) = Datagram::parse(bytes) {
            assert!(commands.messages().map(<[u8]>::len).sum::<usize>() <= bytes.len());
            let _ = commands.disconnects();
        }
    });
}

// spec: gamestream 13 item 120
#[test]
fn query_strings() {
    check("query", |bytes| {
        if let Ok(query) = Query::parse(&String::from_utf8_lossy(bytes)) {
            let _ = SessionParameters::read(&query);
        }
    });
}

// spec: gamestream 13 item 120
#[test]
fn certificates() {
    check("pem", |bytes| {
        let _ = Certificate::from_pem(bytes);
        let _ = Certificate::from_der(bytes);
    });
}
