//! libFuzzer on `rbuild_fuzz::ignore`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::ignore::check(data));
