//! Every parser that reads what strangers send, on a kept corpus and on what becomes of it: cut, spliced, with bits
//! turned and numbers pushed to their ends. A parser may refuse anything; it may not panic. The same changes are made
//! in every run, so that what fails once fails again; what the fuzz targets in `core/fuzz` find is added to `corpus/`
//! and stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bodies;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Changed copies of all files of a folder together: at least, and, while time is left, at most.
const CHANGES: std::ops::Range<usize> = 2_000..30_000;
/// After that long no more changes than must be are tried.
const ENOUGH: Duration = Duration::from_secs(4);
/// The longest input, in bytes: more than any parser takes.
const MAX_BYTES: usize = 100_000;

/// Feeds the files of one folder, and what becomes of them, to the body of the same name.
fn check(name: &str) {
    let parse = bodies::body(name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    // The order of a folder is the file system's; the changes shall be the same everywhere.
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        parse(seed);
        let step = 1 + seed.len() / 1000;
        (0..seed.len()).step_by(step).for_each(|end| parse(&seed[..end]));
    }
    let (mut random, began) = (Random(0x9E37_79B9_7F4A_7C15), Instant::now());
    for change in 0..CHANGES.end {
        if change >= CHANGES.start && began.elapsed() > ENOUGH {
            break;
        }
        let mut bytes = seeds[change % seeds.len()].clone();
        for _ in 0..=random.below(4) {
            random.change(&mut bytes, &seeds);
        }
        parse(&bytes);
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
fn query_strings() {
    check("query");
}

// spec: gamestream 13 item 120
#[test]
fn certificates() {
    check("pem");
}

// spec: gamestream 13 item 120
#[test]
fn descriptions_of_streams() {
    check("announce");
}

// spec: gamestream 13 item 120
#[test]
fn pairing_requests() {
    check("pairing");
}

// spec: gamestream 13 item 120
#[test]
fn pairing_machines() {
    check("pairing-machines");
}

// spec: gamestream 13 item 120
#[test]
fn rtsp_requests() {
    check("rtsp");
}

// spec: gamestream 13 item 120
#[test]
fn sealed_rtsp_requests() {
    check("rtsp-sealed");
}

// spec: gamestream 13 item 120
#[test]
fn enet_datagrams() {
    check("enet");
}

// spec: gamestream 13 item 120
#[test]
fn control_messages() {
    check("control");
}

// spec: gamestream 13 item 120
#[test]
fn sealed_control_messages() {
    check("control-sealed");
}

// spec: gamestream 13 item 120
#[test]
fn input_packets() {
    check("input");
}

// spec: gamestream 13 item 120
#[test]
fn video_datagrams() {
    check("video");
}

// spec: gamestream 13 item 120
#[test]
fn audio_datagrams() {
    check("audio");
}

// A body that no test replays, or that no fuzzer searches, would be found by nobody.
#[test]
fn every_body_has_a_folder_and_a_fuzz_target() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(core.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).map(stem).collect()
    };
    let bodies: BTreeSet<_> = bodies::BODIES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(names("tests/corpus"), bodies);
    assert_eq!(names("fuzz/targets"), bodies);
}

fn stem(path: PathBuf) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}
