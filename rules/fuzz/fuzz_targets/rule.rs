//! See `inputs/rule.rs`.
#![no_main]

#[path = "../inputs/rule.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| input::take(data));
