//! See `inputs/plugin.rs`.
#![no_main]

#[path = "../inputs/plugin.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
