//! libFuzzer on `rbuild_fuzz::layer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::layer::check(data));
