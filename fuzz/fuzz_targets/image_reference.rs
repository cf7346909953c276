//! libFuzzer on `rbuild_fuzz::image_reference`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::image_reference::check(data));
