//! The machine as it is: its disks, its network, what it is made of. Read, never changed.
//!
//! What the kernel says in /proc and /sys is read by one function and understood by another, which takes text and can be
//! tried with the text of any machine. Everything is asked for when it is wanted: nothing is watched, nothing kept.
//!
//! Deliberately absent: setting up a network. That needs a backend with the right to do so, which comes with the image.

pub mod facts;
pub mod network;
pub mod storage;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The most that is read of one of the kernel's files, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// What stands in a file of the kernel's; nothing if it is not there, not readable, or not set.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}
