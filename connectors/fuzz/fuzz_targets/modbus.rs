//! See `inputs/modbus.rs`.
#![no_main]

#[path = "../inputs/modbus.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: input::Input| input::take(data));
