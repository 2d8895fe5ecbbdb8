//! Register maps of devices as they are sold: what their data sheets say is in the registers, and what it
//! means.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::script::{Nature, Script};
use crate::rig::Setup;

async fn reads(function: u8, image: &[(u16, &[u16])], stream: Value, expected: Value) {
    let table: BTreeMap<u16, u16> =
        image.iter().flat_map(|(first, words)| (*first..).zip(words.iter().copied())).collect();
    let nature = Nature { registers: [(function, table)].into(), ..Nature::default() };
    let device = Script::start(nature).await;
    let mut rig = Setup::tcp(device.port()).stream("map", stream).run();
    assert_eq!(rig.row().await, expected);
    rig.end().await;
}

#[tokio::test]
async fn an_energy_meter() {
    // Three-phase meters of the Eastron SDM630 kind: floats in input registers, high word first. Its protocol
    // description answers a request for 30001 with 43 66 33 34, which is 230.2 V.
    let image: &[(u16, &[u16])] = &[
        (0, &[0x4366, 0x3334, 0x4366, 0x0000, 0x4365, 0x8000]),
        (6, &[0x4120, 0x0000]),
        (70, &[0x4248, 0x0000]),
        (342, &[0x4640, 0xE400]),
    ];
    let stream = json!({ "gap": 10, "fields": {
        "voltage_1": { "at": "30001", "type": "float32" },
        "voltage_2": { "at": "30003", "type": "float32" },
        "voltage_3": { "at": "30005", "type": "float32" },
        "current_1": { "at": "30007", "type": "float32" },
        "frequency": { "at": "30071", "type": "float32" },
        "energy": { "at": "30343", "type": "float32" },
    } });
    let expected = json!({
        "current_1": 10.0, "energy": 12345.0, "frequency": 50.0,
        "voltage_1": 230.200_012_207_031_25, "voltage_2": 230.0, "voltage_3": 229.5,
    });
    reads(4, image, stream, expected).await;
}

#[tokio::test]
async fn a_solar_inverter() {
    // SunSpec: "SunS" in front, the common model (1), then a three-phase inverter (103). Scale factors are in
    // registers of their own; what an inverter does not have is 0x8000, or 0xffff where there is no sign.
    let image: &[(u16, &[u16])] = &[
        (40_000, &[0x5375, 0x6E53, 1, 66]),
        (40_004, &[0x4143, 0x4D45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (40_070, &[103, 50]),
        (40_072, &[0x03E8, 0x014D, 0x014E, 0x014D, 0xFFFE]),
        (40_084, &[0x1388, 0x0000]),
        (40_094, &[0x0001, 0x86A0]),
        (40_103, &[0x8000]),
        (40_108, &[4]),
    ];
    let stream = json!({ "gap": 20, "fields": {
        "marker": { "holding": 40_000, "type": "string", "length": 2 },
        "maker": { "holding": 40_004, "type": "string", "length": 16 },
        "model": { "holding": 40_070, "type": "uint16" },
        "current": { "holding": 40_072, "type": "uint16", "missing": 65_535 },
        "current_sf": { "holding": 40_076, "type": "int16", "missing": -32_768 },
        "power": { "holding": 40_084, "type": "int16", "missing": -32_768 },
        "energy": { "holding": 40_094, "type": "uint32" },
        "cabinet": { "holding": 40_103, "type": "int16", "missing": -32_768 },
        "state": { "holding": 40_108, "type": "uint16", "values": {
            "1": "off", "2": "sleeping", "3": "starting", "4": "mppt", "5": "throttled", "6": "shutting down",
            "7": "fault", "8": "standby",
        } },
    } });
    let expected = json!({
        "cabinet": null, "current": 1000, "current_sf": -2, "energy": 100_000, "maker": "ACME",
        "marker": "SunS",
        "model": 103, "power": 5000, "state": "mppt",
    });
    reads(3, image, stream, expected).await;
}

#[tokio::test]
async fn a_temperature_controller() {
    // Controllers of the Watlow EZ-ZONE kind: floats with the low word first, and modes with numbers that
    // only the manual explains (62 off, 10 automatic, 54 manual).
    let image: &[(u16, &[u16])] =
        &[(360, &[0x8000, 0x42A3]), (1_880, &[10]), (2_160, &[0x0000, 0x42A0]), (1_904, &[0x0000, 0x4248])];
    let stream = json!({ "order": "CDAB", "fields": {
        "temperature": { "holding": 360, "type": "float32" },
        "setpoint": { "holding": 2_160, "type": "float32" },
        "power": { "holding": 1_904, "type": "float32" },
        "mode": { "holding": 1_880, "type": "uint16", "values": {
            "62": "off", "10": "auto", "54": "manual",
        } },
    } });
    let expected = json!({ "mode": "auto", "power": 50.0, "setpoint": 80.0, "temperature": 81.75 });
    reads(3, image, stream, expected).await;
}
