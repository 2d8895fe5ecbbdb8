//! See `inputs/condition.rs`.
#![no_main]

#[path = "../inputs/condition.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
