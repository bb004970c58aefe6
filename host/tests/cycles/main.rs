//! Launch, play, quit, over and over: what one stream takes, the host has back when the stream has ended.
//!
//! The host is a process of its own, so that what is counted - descriptors, threads, memory, processes - is the
//! host's alone. A client of a few lines starts the Test card through the host's real doors, waits until it could
//! decode a picture and has a packet of sound, and quits.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod client;
mod host;
#[path = "../control/player.rs"]
#[expect(dead_code, reason = "the tests of the control door need more of this client")]
mod player;

use std::fmt::Write as _;
use std::time::Duration;

use client::{Cycle, Device, cycle};
use host::{Counts, Host, becomes_the_host};

/// Streams before anything is compared: the first ones load what is loaded once (pages of the libraries, the pool of
/// blocking threads, the allocator's caches). A daemon that lives for weeks has them behind it after minutes.
const WARM_UP: usize = 10;

/// Streams that are counted, unless `PUNKTFUNK_CYCLES` says another number.
const CYCLES: usize = 50;

/// What the host's memory may grow by over all counted streams.
const MAX_GROWTH_KIB: u64 = 1024;

#[test]
#[ignore = "takes ten seconds and needs an unprivileged user"]
fn launching_and_quitting_again_and_again_leaves_nothing() {
    const NAME: &str = "launching_and_quitting_again_and_again_leaves_nothing";
    becomes_the_host();
    let device = Device::stock().unwrap();
    let host = Host::start(NAME, &device);
    let count = std::env::var("PUNKTFUNK_CYCLES").map_or(CYCLES, |count| count.parse().unwrap());

    let fresh = host.counts();
    let mut cycles = Vec::new();
    let mut after = Vec::new();
    for number in 0..WARM_UP + count {
        cycles.push(cycle(&device, &host, number));
        after.push(host.settled(&fresh));
    }
    // What comes and goes is not what stays: the least of a few cycles counts.
    let warm = lowest(&after[WARM_UP / 2..WARM_UP]);
    let end = lowest(&after[after.len() - WARM_UP / 2..]);
    println!(
        "memory after each stream: {:?} KiB",
        after.iter().map(|c| c.rss_kib).collect::<Vec<_>>()
    );
    let report = report(&cycles, [("fresh", fresh), ("warm", warm), ("end", end)]);
    println!("{report}");
    host::keep("cycles", &report);

    assert_eq!(end.zombies, 0, "ended programs that nobody has asked after");
    assert!(end.children <= warm.children, "programs are left: {warm:?} became {end:?}");
    assert!(end.descriptors <= warm.descriptors, "descriptors leak: {warm:?} became {end:?}");
    assert!(end.threads <= warm.threads, "threads are left: {warm:?} became {end:?}");
    let grown = end.rss_kib.saturating_sub(warm.rss_kib);
    assert!(grown <= MAX_GROWTH_KIB, "{count} streams made the host {grown} KiB larger");
}

/// The least of everything over some cycles: what stays, without what comes and goes.
fn lowest(counts: &[Counts]) -> Counts {
    counts.iter().copied().reduce(Counts::least).expect("there was a cycle")
}

/// What was measured, as JSON.
fn report(cycles: &[Cycle], counts: [(&str, Counts); 3]) -> String {
    let median = |of: fn(&Cycle) -> Duration| {
        let mut all: Vec<Duration> = cycles.iter().map(of).collect();
        all.sort();
        all[all.len() / 2].as_secs_f64() * 1000.0
    };
    let mut text = format!(
        "{{\"launch and quit\": {{\"cycles\": {}, \"first_picture_ms\": {:.1}, \
         \"first_sound_ms\": {:.1}, \"whole_ms\": {:.1}",
        cycles.len(),
        median(|cycle| cycle.picture),
        median(|cycle| cycle.sound),
        median(|cycle| cycle.whole),
    );
    for (when, counts) in counts {
        write!(text, ", \"{when}\": {}", counts.json()).unwrap();
    }
    text + "}}"
}
