//! See `inputs/serial.rs`.
#![no_main]

#[path = "../inputs/serial.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: input::Input| input::take(data));
