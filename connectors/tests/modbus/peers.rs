//! Against devices and clients that others wrote: pymodbus, libmodbus, mbpoll. `tests/devices/prepare` makes
//! them.

use serde_json::{Value, json};
use tidegate_connectors::modbus::ConnectionConfig;
use tidegate_connectors::modbus::commission::{self, Session};
use tidegate_connectors::modbus::config::PointConfig;
use tidegate_connectors::modbus::plan::Limits;
use tidegate_connectors::modbus::points::{Point, Spelling};
use tidegate_peers::devices::{Device, SerialCable, mbpoll};

use crate::rig::Setup;

/// What `tests/devices/pymodbus/server.py` has, in all orders of pymodbus' own.
fn image() -> Value {
    json!({ "quality": true, "units": { "one": 1, "two": 2 }, "gap": 4, "fields": {
        "i16": { "holding": 0, "type": "int16" },
        "i32": { "holding": 2, "type": "int32" },
        "u32": { "holding": 4, "type": "uint32" },
        "i64": { "holding": 6, "type": "int64" },
        "f32": { "holding": 10, "type": "float32" },
        "f32_low_first": { "holding": 12, "type": "float32", "order": "CDAB" },
        "f64": { "holding": 14, "type": "float64" },
        "f64_low_first": { "holding": 18, "type": "float64", "order": "CDAB" },
        "text": { "holding": 22, "type": "string", "length": 4 },
        "bit_2": { "holding": 30, "bit": 2 },
        "bit_3": { "holding": 30, "bit": 3 },
        "plain": { "at": "40101", "type": "uint16" },
        "input": { "input": 5, "type": "uint16" },
        "coil_3": { "coil": 3 },
        "coil_4": { "coil": 4 },
        "discrete_3": { "discrete": 3 },
        "discrete_4": { "discrete": 4 },
    } })
}

fn expected(unit: u64) -> Value {
    let device = if unit == 1 { "one" } else { "two" };
    json!({
        "device": device,
        "i16": -1234, "i32": -123_456_789, "u32": 4_000_000_000_u64, "i64": -1_234_567_890_123_456_789_i64,
        "f32": 3.25, "f32_low_first": -2.5, "f64": 6.0221e23, "f64_low_first": 6.0221e23, "text": "pressure",
        "bit_2": false, "bit_3": true, "plain": 1100, "input": 100 * unit + 5, "coil_3": true,
        "coil_4": false,
        "discrete_3": true, "discrete_4": false, "quality": "good", "fault": null,
    })
}

fn pump() -> Value {
    json!({ "unit": 2, "read_back": true, "fields": {
        "run": { "coil": 4 },
        "open": { "coil": 5 },
        "speed": { "holding": 40, "type": "uint16", "scale": 0.1 },
        "ramp": { "holding": 41, "type": "float32" },
        "remote": { "holding": 50, "bit": 3 },
    } })
}

/// What of the image can be written.
fn writable() -> Value {
    let mut fields = image()["fields"].clone();
    fields
        .as_object_mut()
        .unwrap()
        .retain(|_, point| point["input"].is_null() && point["discrete"].is_null());
    json!({ "unit": 2, "fields": fields })
}

/// Reads everything of both units, writes to the second one, and looks what the device has printed, and what
/// it has then.
async fn talk(setup: Setup, device: &mut Device, writes: &[&str]) {
    let setup = setup.stream("all", image()).output("pump", pump()).output("image", writable());
    let mut rig = setup.run();
    let columns = writable()["fields"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut there = expected(2);
    there.as_object_mut().unwrap().retain(|name, _| columns.contains(&name.as_str()));
    assert_eq!(rig.read("image", &columns).await, Ok(there));
    for _ in 0..6 {
        let row = rig.row().await;
        assert_eq!(row, expected(if row["device"] == "one" { 1 } else { 2 }));
    }
    for row in [
        json!({ "run": true }),
        json!({ "run": true, "open": false }),
        json!({ "speed": 123.4 }),
        json!({ "speed": 1, "ramp": 3.25 }),
        json!({ "remote": true }),
    ] {
        assert_eq!(rig.write("pump", &row).await, Ok(()), "{row}");
    }
    for write in writes {
        assert_eq!(device.line().await, *write);
    }
    let there = json!({ "run": true, "open": false, "speed": 1.0, "ramp": 3.25, "remote": true });
    assert_eq!(rig.read("pump", &["run", "open", "speed", "ramp", "remote"]).await, Ok(there));
    assert_eq!((rig.status.timeouts.get(), rig.status.malformed.get()), (0, 0));
    rig.end().await;
}

const WRITES: [&str; 5] = [
    "write 2 5 4 1",
    "write 2 15 4 1 0",
    "write 2 6 40 1234",
    "write 2 16 40 10 16464 0",
    // Register 50 had 1050, in which the bit is set.
    "write 2 22 50 1050",
];

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn pymodbus_by_tcp() {
    let mut device = Device::pymodbus(&["tcp"]).await;
    talk(Setup::tcp(device.port()), &mut device, &WRITES).await;
    // As libmodbus sees it.
    let port = device.port();
    assert_eq!(mbpoll(port, &["-a", "2", "-r", "40", "-c", "3"]).await, [10, 16464, 0]);
    assert_eq!(mbpoll(port, &["-a", "2", "-t", "0", "-r", "4", "-c", "2"]).await, [1, 0]);
    assert_eq!(mbpoll(port, &["-a", "1", "-r", "40", "-c", "1"]).await, [1040], "the other unit has its own");
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn pymodbus_by_rtu_over_tcp() {
    let mut device = Device::pymodbus(&["rtu"]).await;
    talk(Setup::tcp(device.port()).set("framing", json!("rtu")), &mut device, &WRITES).await;
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn pymodbus_on_a_serial_port() {
    let cable = SerialCable::plug().await;
    let mut device = Device::pymodbus(&["serial", cable.far().to_str().unwrap()]).await;
    let serial = json!({ "serial": { "device": cable.near(), "baud": 115_200, "parity": "none" } });
    talk(Setup::modbus(serial), &mut device, &WRITES).await;
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn pymodbus_without_mask_and_read_write() {
    let mut device = Device::pymodbus(&["bare"]).await;
    let writes = [
        "write 2 5 4 1",
        "write 2 15 4 1 0",
        "write 2 6 40 1234",
        "write 2 16 40 10 16464 0",
        "write 2 6 50 1050",
    ];
    talk(Setup::tcp(device.port()), &mut device, &writes).await;
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn libmodbus_by_tcp_and_on_a_serial_port() {
    let cable = SerialCable::plug().await;
    let serial = Device::libmodbus(&["serial", cable.far().to_str().unwrap()]).await;
    let tcp = Device::libmodbus(&["tcp"]).await;
    let by_serial = json!({ "serial": { "device": cable.near(), "baud": 115_200, "parity": "none" } });
    for setup in [Setup::tcp(tcp.port()), Setup::modbus(by_serial)] {
        let mut rig = setup
            .stream(
                "s",
                json!({ "quality": true, "fields": {
                "h": { "holding": 7, "type": "uint16" }, "i": { "input": 99, "type": "uint16" },
                "c": { "coil": 3 }, "d": { "discrete": 4 },
            } }),
            )
            .output(
                "o",
                json!({ "read_back": "same_request", "fields": {
                "run": { "coil": 20 }, "speed": { "holding": 20, "type": "int32" },
                "bit": { "holding": 30, "bit": 15 },
            } }),
            )
            .run();
        let expected = json!({ "h": 22, "i": 298, "c": true, "d": false, "quality": "good", "fault": null });
        for _ in 0..5 {
            assert_eq!(rig.row().await, expected);
        }
        for run in [true, false] {
            assert_eq!(rig.write("o", &json!({ "run": run, "speed": -5, "bit": run })).await, Ok(()));
        }
        assert_eq!((rig.status.timeouts.get(), rig.status.refusals.get()), (0, 0));
        rig.end().await;
    }
    drop(serial);
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn a_device_is_commissioned_by_hand() {
    let mut device = Device::pymodbus(&["tcp"]).await;
    let config = json!({ "host": "127.0.0.1", "port": device.port(), "timeout": "200ms", "retries": 0 });
    let config: ConnectionConfig = serde_json::from_value(config).unwrap();
    let mut session = Session::open(&config).await.unwrap();
    let mut seen = Vec::new();
    let found = session.scan(1..=2, |found| seen.push(found.unit)).await.unwrap();
    assert_eq!(seen, [1, 2]);
    assert_eq!(found[0].answer, "holding register 0 has 64302");
    assert_eq!(found[0].identification["vendor"], "ACME");

    let point = |name: &str, config: Value| -> Point {
        let config: PointConfig = serde_json::from_value(config).unwrap();
        commission::point(name, &config, Spelling::default()).unwrap()
    };
    let speed = point("speed", json!({ "holding": 40, "type": "uint16", "scale": 0.1 }));
    let points = [
        point("level", json!({ "holding": 10, "type": "float32" })),
        point("beyond", json!({ "holding": 5000, "type": "uint16" })),
    ];
    let limits = Limits { registers: 125, bits: 2000, gap: 0, one_each: false };
    let readings = session.read(1, &points, limits).await.unwrap();
    assert_eq!((&readings[0].value, readings[0].raw.as_deref()), (&json!(3.25), Some("4050 0000")));
    let fault = readings[1].fault.as_deref().unwrap();
    assert!(fault.contains("illegal data address"), "{fault}");

    let written = session.write(1, &speed, "12.5", true).await.unwrap();
    assert_eq!(serde_json::to_value(&written).unwrap()["value"], 12.5);
    assert_eq!(device.line().await, "write 1 6 40 125");
    let written = session.write(1, &speed, "12.34", false).await.unwrap();
    assert_eq!(
        serde_json::to_value(&written).unwrap()["value"],
        12.3,
        "what is written, and not what was asked"
    );
    assert_eq!(device.line().await, "write 1 6 40 123");
    for (value, words) in [("fast", "it takes numbers"), ("9000", "0 to 6553.5")] {
        let error = session.write(1, &speed, value, false).await.unwrap_err();
        assert!(error.contains("speed (holding register 40)") && error.contains(words), "{error}");
    }
}
