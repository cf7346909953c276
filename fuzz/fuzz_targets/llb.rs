//! libFuzzer on `rbuild_fuzz::llb`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::llb::check(data));
