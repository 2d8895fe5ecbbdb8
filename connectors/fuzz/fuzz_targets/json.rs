//! See `inputs/json.rs`.
#![no_main]

#[path = "../inputs/json.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
