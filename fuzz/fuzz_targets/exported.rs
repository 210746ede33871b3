#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jangbu_fuzz::exported(bytes));
