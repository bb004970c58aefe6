//! What is done with bytes from strangers to see whether anything gives way: one function per parser of the network.
//!
//! The same functions serve the corpus test, which replays kept inputs and simple changes of them in every run, and the
//! fuzz targets in `core/fuzz`, which search. So a fuzzer checks every property that a test checks, and what it finds
//! fails in plain `cargo test` once it is kept. A body may refuse its input in any way; a panic is the finding.
//!
//! Where the bytes on the wire are sealed, the input is what is under the seal: a body seals it with the right key, so
//! that the search reaches the parser behind the seal, and tries the same bytes unsealed as well.

mod control;
mod media;
mod pairing;
mod rtsp;
mod text;

/// A body: takes any bytes, panics if a property does not hold.
pub(crate) type Body = fn(&[u8]);

/// Every body by the name of its folder in `tests/corpus`, with the longest input worth trying, in bytes.
pub(crate) const BODIES: &[(&str, Body, usize)] = &[
    ("query", text::query, 2048),
    ("pem", text::certificate, 2048),
    ("announce", text::announce, 2048),
    ("pairing", pairing::requests, 4096),
    ("pairing-machines", pairing::machines, 1024),
    ("rtsp", rtsp::requests, 4096),
    ("rtsp-sealed", rtsp::sealed, 4096),
    ("enet", control::enet, 1024),
    ("control", control::messages, 1024),
    ("control-sealed", control::sealed, 2048),
    ("input", control::input, 512),
    ("video", media::video, 8192),
    ("audio", media::audio, 4096),
];

/// The body of a name.
///
/// # Panics
/// If there is none: the caller's list and this one differ.
pub(crate) fn body(name: &str) -> Body {
    match BODIES.iter().find(|(have, ..)| *have == name) {
        Some((_, body, _)) => *body,
        None => panic!("there is no body \"{name}\""),
    }
}

/// Reads decisions and pieces from the front of an input, so that a change of one byte changes one thing.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A piece that says its length in its first byte; the last piece may be shorter than it says.
    fn piece(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        Some(self.take(length))
    }

    /// A piece whose length stands in two bytes, big-endian.
    fn long_piece(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.word()?);
        Some(self.take(length))
    }

    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// `N` bytes; zeros where the input has ended.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte().unwrap_or(0))
    }
}
