//! Any bytes as an answer to any request, and any registers as any value: no panic, and nothing that was not
//! asked for.

use tidegate_connectors::modbus::config::PointConfig;
use tidegate_connectors::modbus::config::ValueType::{
    self, Bcd16, Bcd32, Bool, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32,
    Uint64,
};
use tidegate_connectors::modbus::frame::{Expected, Look, find_rtu, tcp_frame};
use tidegate_connectors::modbus::points::{Point, Raw, Spelling};

const TYPES: [ValueType; 15] = [
    Bool,
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float16,
    Float32,
    Float64,
    Bcd16,
    Bcd32,
    ValueType::String,
];

pub type Input = (Vec<u8>, Vec<u8>, String);

pub fn take(input: Input) {
    let (request, bytes, at) = input;
    if let Some(expected) = Expected::answer_to(&request) {
        if let Look::Fits(len) = expected.look(&bytes) {
            assert!(len <= bytes.len());
        }
        if let Some(frame) = find_rtu(&bytes, 0, 1, &expected) {
            assert_eq!(bytes[frame.start], 1);
            assert_eq!(bytes[frame.start + 1] & 0x7f, request[0] & 0x7f);
        }
    }
    if let Ok(Some(frame)) = tcp_frame(&bytes) {
        assert!((10..=260).contains(&frame.len) && frame.len <= bytes.len());
    }
    let registers: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    for value_type in TYPES {
        let length = (value_type == ValueType::String).then_some(registers.len().min(100) as u16);
        let config =
            PointConfig { holding: Some(0), value_type: Some(value_type), length, ..PointConfig::default() };
        let Ok(point) = Point::parse("p", &config, Spelling::default()) else { continue };
        let Some(registers) = registers.get(..usize::from(point.count)) else { continue };
        if let Ok(value) = point.decode(Raw::Registers(registers)) {
            let _ = point.encode(&value);
        }
    }
    let _ = Point::parse(
        "p",
        &PointConfig { at: Some(at), value_type: Some(Int16), ..PointConfig::default() },
        Spelling::default(),
    );
}
