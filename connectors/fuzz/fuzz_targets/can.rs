//! See `inputs/can.rs`.
#![no_main]

#[path = "../inputs/can.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: input::Input| input::take(data));
