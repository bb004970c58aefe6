//! Searches with the body `audio`; see `core/tests/bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| punktfunk_fuzz::try_on("audio", bytes));
