//! Searches with the body `pem`; see `core/tests/bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| punktfunk_fuzz::try_on("pem", bytes));
