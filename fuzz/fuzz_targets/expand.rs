//! libFuzzer on `rbuild_fuzz::expand`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::expand::check(data));
