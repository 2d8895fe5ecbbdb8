//! See `inputs/formats.rs`.
#![no_main]

#[path = "../inputs/formats.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
