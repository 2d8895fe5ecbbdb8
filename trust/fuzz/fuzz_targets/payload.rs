//! Any payload behind a good signature, and any topic: no panic, and what is read is written as it was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_trust::command::{Command, Topic};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(command) = Command::parse(bytes) {
        let written = serde_json::to_vec(&command).unwrap();
        assert_eq!(Command::parse(&written).unwrap(), command);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Topic::parse("tidegate/v1", text);
        let _ = Topic::parse("", text);
    }
});
