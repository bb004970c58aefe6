//! The allocator's settings: what a stream took goes back to the system when the stream ends.
//!
//! By default glibc gives every few threads a heap of their own and moves its limits with what is freed, so that the
//! pictures of an encoder - megabytes each, allocated on one thread and freed on another - end up as holes in heaps
//! that never shrink: after a few streams the host held three times of what it needed. One heap, with everything from
//! [`LARGE_BYTES`] in a mapping of its own, gives all of it back. It costs no time on the line, which allocates nothing
//! per packet and keeps its buffers.
//!
//! glibc reads the settings from the environment when a program begins, so the host begins once more with them, unless
//! whoever starts it has set them, as the unit of a box does. What it starts does not inherit them: sessions get an
//! environment of their own.
//!
//! What is small and stays on the heap keeps the free memory below it: after a storm of requests, most of a mebibyte in
//! ten. So the host gives it back now and then while nobody plays ([`give_back`]).
//!
//! Deliberately absent: an allocator of our own, which would not hold what libraries in C allocate.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use tracing::warn;

/// From here on memory is mapped, and unmapped when it is freed; also how much may stay free at the heap's end.
const LARGE_BYTES: &str = "65536";

/// What glibc is told, by the names of its manual (mallopt(3)).
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", LARGE_BYTES),
    ("MALLOC_TRIM_THRESHOLD_", LARGE_BYTES),
];

/// Begins this program once more with the allocator's settings; returns if they are there, or if somebody has chosen
/// others. To be called before there is anything that would be lost.
pub(super) fn settle() {
    if is_settled(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let error = begin_again();
    warn!(%error, "memory of streams that have ended may stay with the host");
}

/// As often memory is given back, while nobody plays.
pub(super) const GIVE_BACK: Duration = Duration::from_secs(30);

/// Gives what is free on the heap back to the system. Everybody who allocates meanwhile waits, for less than a
/// millisecond: not to be called beside a stream.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: this is malloc_trim(3); it may be called by any thread at any time.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}

fn is_settled(has: impl Fn(&str) -> bool) -> bool {
    has("GLIBC_TUNABLES") || SETTINGS.iter().any(|(name, _)| has(name))
}

fn begin_again() -> io::Error {
    let mut arguments = std::env::args_os();
    let called = arguments.next();
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    Command::new(&program)
        .arg0(called.as_deref().unwrap_or_else(|| OsStr::new("punktfunk-host")))
        .args(arguments)
        .envs(SETTINGS)
        .exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_begins_again_just_once_and_respects_what_its_owner_chose() {
        assert!(!is_settled(|name| name == "PATH"));
        assert!(is_settled(|name| name == "GLIBC_TUNABLES"));
        assert!(SETTINGS.iter().all(|(set, _)| is_settled(|name| name == *set)));
    }

    #[test]
    fn a_box_has_them_set_so_that_the_host_begins_once() {
        let unit = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../overlays/base/usr/lib/systemd/system/punktfunk-host.service"
        ));
        let words = SETTINGS.map(|(name, value)| format!("{name}={value}")).join(" ");
        let line = format!("Environment={words}");
        assert!(unit.lines().any(|one| one == line), "{line}");
    }
}
