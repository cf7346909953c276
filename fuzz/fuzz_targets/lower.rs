//! libFuzzer on `rbuild_fuzz::lower`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::lower::check(data));
