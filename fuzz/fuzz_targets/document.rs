//! libFuzzer on `rbuild_fuzz::document`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::document::check(data));
