//! libFuzzer on `rbuild_fuzz::git_url`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::git_url::check(data));
