//! What is fuzzed, with random bytes: so that it can be at any time, and on any machine. Longer:
//! `PROPTEST_CASES=100000 cargo test -p tidegate-connectors --test connections fuzz`; with a fuzzer, see
//! connectors/fuzz.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../../fuzz/inputs/can.rs"]
mod can;
#[path = "../../fuzz/inputs/formats.rs"]
mod formats;
#[path = "../../fuzz/inputs/json.rs"]
mod json;
#[path = "../../fuzz/inputs/modbus.rs"]
mod modbus;
#[path = "../../fuzz/inputs/serial.rs"]
mod serial;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_from_a_can_bus_are_frames_or_an_error(
        file in bytes(),
        payload in bytes(),
        text in any::<String>(),
        packets in vec(any::<(u8, u8, bool, Vec<u8>, u16)>(), 0..20),
    ) {
        can::take((file, payload, text, packets));
    }

    #[test]
    fn any_bytes_are_rows_in_a_format_or_an_error(bytes in bytes()) {
        formats::take(&bytes);
    }

    #[test]
    fn any_bytes_are_rows_in_json_or_an_error(bytes in bytes()) {
        json::take(&bytes);
    }

    #[test]
    fn any_bytes_are_an_answer_by_modbus_or_an_error(
        request in vec(any::<u8>(), 0..20),
        bytes in bytes(),
        at in any::<String>(),
    ) {
        modbus::take((request, bytes, at));
    }

    #[test]
    fn any_bytes_from_a_serial_line_are_frames_or_an_error(
        (framing, format, cut) in any::<(u8, u8, u8)>(),
        bytes in bytes(),
    ) {
        serial::take((framing, format, cut, bytes));
    }
}
