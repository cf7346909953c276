//! libFuzzer on `rbuild_fuzz::challenge`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::challenge::check(data));
