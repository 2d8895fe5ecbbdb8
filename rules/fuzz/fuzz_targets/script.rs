//! See `inputs/script.rs`.
#![no_main]

#[path = "../inputs/script.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
