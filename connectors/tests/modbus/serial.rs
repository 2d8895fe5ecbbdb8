//! RTU over serial ports, which are two ends of a cable that is none.

use std::io::{Read, Write};
use std::path::Path;

use crc::{CRC_16_MODBUS, Crc};
use serde_json::{Value, json};
use tidegate_connectors::LineNews;
use tidegate_peers::devices::SerialCable;

use crate::rig::Setup;

/// A device at the far end, on a thread of its own, that ends with the cable: register n has n.
fn device(port: &Path) {
    let mut port = std::fs::OpenOptions::new().read(true).write(true).open(port).unwrap();
    std::thread::spawn(move || {
        let mut request = [0; 8];
        while port.read_exact(&mut request).is_ok() {
            let (first, count) = (request[3], request[5]);
            let mut answer = vec![request[0], request[1], 2 * count];
            answer.extend((first..first + count).flat_map(|n| [0, n]));
            answer.extend(Crc::<u16>::new(&CRC_16_MODBUS).checksum(&answer).to_le_bytes());
            if port.write_all(&answer).is_err() {
                return;
            }
        }
    });
}

fn line(port: &Path) -> Setup {
    // A pty takes no parity.
    Setup::modbus(json!({ "serial": { "device": port, "baud": 115_200, "parity": "none" } }))
}

fn numbers() -> Value {
    json!({ "quality": true, "one_request_per_field": true, "fields": {
        "a": { "holding": 7, "type": "uint16" },
        "b": { "holding": 20, "type": "uint16" },
        "c": { "input": 30, "type": "uint32" },
    } })
}

#[tokio::test]
async fn a_serial_device_is_polled() {
    let cable = SerialCable::plug().await;
    device(&cable.far());
    let mut rig = line(&cable.near()).stream("s", numbers()).run();
    for _ in 0..20 {
        let row = rig.row().await;
        let expected = json!({ "a": 7, "b": 20, "c": (30 << 16) + 31, "quality": "good", "fault": null });
        assert_eq!(row, expected);
    }
    assert_eq!(rig.status.timeouts.get(), 0);
    rig.end().await;
}

#[tokio::test]
async fn a_port_belongs_to_one_connection() {
    let cable = SerialCable::plug().await;
    device(&cable.far());
    let mut rig = line(&cable.near()).stream("s", numbers()).run();
    rig.row().await;
    let mut other = line(&cable.near()).stream("s", numbers()).run();
    let row = other.row().await;
    let fault = row["fault"].as_str().unwrap();
    assert!(fault.contains("cannot be opened") && fault.contains("another program has it open"), "{fault}");
    other.end().await;
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_is_unplugged_is_a_lost_line() {
    let cable = SerialCable::plug().await;
    device(&cable.far());
    let mut rig = line(&cable.near()).stream("s", numbers()).run();
    assert!(matches!(rig.news().await, LineNews::Begins));
    rig.row_where(|row| row["quality"] == "good").await;
    drop(cable);
    assert!(matches!(rig.news().await, LineNews::Ends { .. }));
    let row =
        rig.row_where(|row| row["fault"].as_str().is_some_and(|fault| fault.contains("plugged in"))).await;
    assert_eq!((&row["a"], &row["quality"]), (&Value::Null, &json!("bad")));
    rig.end().await;
}

#[tokio::test]
async fn settings_that_a_port_does_not_take_are_named_unless_nobody_wants_to_know() {
    let cable = SerialCable::plug().await;
    device(&cable.far());
    let serial = |strict| json!({ "serial": { "device": cable.near(), "parity": "even", "strict": strict } });
    let mut strict = Setup::modbus(serial(true)).stream("s", numbers()).run();
    let fault = strict.row().await["fault"].as_str().unwrap().to_owned();
    assert!(fault.contains("the parity of 19200 baud, 8E1") && fault.contains("strict = false"), "{fault}");
    strict.end().await;
    let mut lax = Setup::modbus(serial(false)).stream("s", numbers()).run();
    assert_eq!(lax.row().await["a"], 7);
    lax.end().await;
}

#[tokio::test]
async fn a_write_that_the_line_has_kept_waiting_for_too_long_is_not_sent() {
    let cable = SerialCable::plug().await;
    let port = serial2::SerialPort::open(cable.far(), 115_200).unwrap();
    // Nobody answers, so that the line rests for a timeout after each request.
    let stream = json!({ "timeout": "400ms", "fields": { "a": { "holding": 7, "type": "uint16" } } });
    let output = json!({ "write_within": "100ms", "fields": { "run": { "coil": 1 } } });
    let mut rig = line(&cable.near())
        .set("retries", json!(0))
        .set("park", json!({ "after": 1000 }))
        .stream("s", stream)
        .output("pump", output)
        .run();
    let mut asked = [0; 8];
    tokio::task::spawn_blocking(move || port.read_exact(&mut asked).map(|()| asked[1]))
        .await
        .unwrap()
        .unwrap();
    let error = rig.write("pump", &json!({ "run": true })).await.unwrap_err();
    let why = "it could not be sent within 100ms (`write_within`), and is not sent late";
    assert_eq!(error, tidegate_connectors::DeliveryError::Transient(why.into()));
    assert_eq!(rig.status.count("late_writes"), 1);
    rig.end().await;
}
