//! The punktfunk host: it touches the world - displays, encoders, sound, sockets - and decides nothing about bytes.
//!
//! Rooms, from the hardware up (an upper room may use a lower one, never the other way; a test reads the `use` lines):
//! 0. below all: [`clock`]; [`logbook`], what was logged last; [`agent`], the hands of a session
//! 1. hardware and OS: [`display`], [`capture`], [`encode`], [`audio`], [`input`], [`os`], [`store`], [`listen`],
//!    [`machine`]
//! 2. the line: [`stream`], [`pairing`], [`identity`], [`access`], [`config`], [`backup`]
//! 3. the owner: [`session`], [`health`]
//! 4. the doors: [`gamestream`], [`mgmt`], [`discovery`]
//! 5. a client of our own: [`selftest`]
//! 6. the entry: [`cli`]

pub mod access;
pub mod agent;
pub mod audio;
pub mod backup;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod discovery;
pub mod display;
pub mod encode;
pub mod gamestream;
pub mod health;
pub mod identity;
pub mod input;
pub mod listen;
pub mod logbook;
pub mod machine;
pub mod mgmt;
pub mod os;
pub mod pairing;
pub mod selftest;
pub mod session;
pub mod store;
pub mod stream;
