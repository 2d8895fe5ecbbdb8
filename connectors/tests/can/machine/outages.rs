//! Interfaces that go and come back, and controllers.

use std::process::Stdio;

use serde_json::{Value, json};
use tidegate_connectors::{DeliveryError, LineNews};
use tidegate_peers::PATIENCE;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Candump, DRIVE, cansend, link};
use crate::rig::Setup;

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn an_interface_goes_down_and_up_under_load_and_nothing_is_sent_late() {
    let mut rig = Setup::interface("vcan1")
        .dbc(DRIVE)
        .stream("motor", json!({ "message": "MotorStatus" }))
        .output("command", json!({ "message": "MotorCommand", "every": "20ms", "expiry": "1h" }))
        .output("raw", json!({ "id": "0x123" }))
        .run();
    rig.begins().await;
    let load = || {
        let mut command = Command::new("cangen");
        command.args(["vcan1", "-g", "1", "-I", "100", "-L", "8", "-i"]).kill_on_drop(true);
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let mut generator = load();
    rig.write("command", &json!({ "Target": 1.0, "Enable": true })).await.unwrap();
    rig.row().await;
    link(&["set", "vcan1", "down"]).await;
    let why = rig.ends().await;
    assert!(why.contains("vcan1 went down") || why.contains("vcan1 is down"), "{why}");
    generator.kill().await.unwrap();
    match rig.write("raw", &json!({ "data": "X'DEAD'" })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("vcan1"), "{why}"),
        other => panic!("{other:?}"),
    }
    match rig.write("command", &json!({ "Target": 3.0, "Enable": true })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("ip link set vcan1 up"), "{why}"),
        other => panic!("{other:?}"),
    }
    link(&["set", "vcan1", "up"]).await;
    let mut candump = Candump::on("vcan1").await;
    rig.begins().await;
    candump.is_silent("vcan1").await;
    let _generator = load();
    rig.row().await;
    assert!(rig.status.reconnects.get() > 0);
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn an_interface_is_taken_away_and_comes_back() {
    link(&["add", "dev", "vcan7", "type", "vcan"]).await;
    link(&["set", "vcan7", "up"]).await;
    let mut rig = Setup::interface("vcan7").stream("frames", json!({ "ids": ["*"] })).run();
    rig.begins().await;
    link(&["del", "dev", "vcan7"]).await;
    let why = rig.ends().await;
    assert!(why.contains("vcan7"), "{why}");
    link(&["add", "dev", "vcan7", "type", "vcan"]).await;
    link(&["set", "vcan7", "up"]).await;
    rig.begins().await;
    cansend("vcan7", "123#01").await;
    assert_eq!(rig.row().await["data"], "01");
    link(&["del", "dev", "vcan7"]).await;
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn error_frames_are_rows_and_bus_off_is_an_outage() {
    let mut rig = Setup::interface("vcan0")
        .stream("errors", json!({ "errors": true }))
        .output("raw", json!({ "id": "0x123" }))
        .run();
    rig.begins().await;
    // `linux/can/error.h`: a problem of the controller (4), with its counters (0x200): error passive (0x20).
    cansend("vcan0", "20000204#0020000000000C88").await;
    let row = rig.row().await;
    assert_eq!(
        (&row["class"], &row["tx_errors"], &row["rx_errors"], &row["data"]),
        (&json!(0x204), &json!(12), &json!(136), &json!("0020000000000C88"))
    );
    assert!(row["error"].as_str().unwrap().contains("passive"), "{row}");
    cansend("vcan0", "20000040#0000000000000000").await;
    let row = rig.row().await;
    assert_eq!((&row["error"], &row["tx_errors"]), (&json!("bus off"), &Value::Null));
    let why = rig.ends().await;
    assert!(why.contains("bus-off") && why.contains("restart"), "{why}");
    match rig.write("raw", &json!({ "data": "X'DEAD'" })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("bus-off"), "{why}"),
        other => panic!("{other:?}"),
    }
    cansend("vcan0", "20000100#0000000000000000").await;
    rig.begins().await;
    rig.write("raw", &json!({ "data": "X'01'" })).await.unwrap();
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn controllers_are_seen_with_their_settings() {
    link(&["set", "can0", "down"]).await;
    link(&["set", "can1", "up", "type", "can", "bitrate", "250000"]).await;
    let mut rig = Setup::interface("can0")
        .stream("frames", json!({ "ids": ["*"] }))
        .output("raw", json!({ "id": "0x123" }))
        .output("fd", json!({ "id": "0x123", "fd": true }))
        .run();
    match rig.write("raw", &json!({ "data": "X'01'" })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("ip link set can0 up type can"), "{why}"),
        other => panic!("{other:?}"),
    }
    link(&["set", "can0", "up", "type", "can", "bitrate", "250000", "restart-ms", "100"]).await;
    rig.begins().await;
    rig.question.send_replace(5);
    while rig.news().await != (LineNews::Heard { asked: 5 }) {}
    let mut candump = Candump::on("can1").await;
    rig.write("raw", &json!({ "data": "X'0102030405060708'" })).await.unwrap();
    assert_eq!(candump.frame().await, "123#0102030405060708");
    cansend("can1", "321#01").await;
    assert_eq!(rig.row_where(|row| row["id"] == 0x321).await["data"], "01");
    match rig.write("fd", &json!({ "data": "X'01'" })).await {
        Err(DeliveryError::Permanent(why)) => assert!(why.contains("fd on"), "{why}"),
        other => panic!("{other:?}"),
    }
    link(&["set", "can0", "down"]).await;
    link(&["set", "can0", "up", "type", "can", "listen-only", "on"]).await;
    // It comes back with the next look.
    let refused = async {
        loop {
            match rig.write("raw", &json!({ "data": "X'01'" })).await {
                Err(DeliveryError::Permanent(why)) => return why,
                Err(DeliveryError::Transient(_) | DeliveryError::Unknown(_)) | Ok(()) => {
                    tokio::task::yield_now().await
                }
            }
        }
    };
    let why = timeout(PATIENCE, refused).await.expect("a controller that listens sends nothing");
    assert!(why.contains("listen-only off"), "{why}");
    rig.end().await;
    link(&["set", "can0", "down"]).await;
    link(&["set", "can0", "type", "can", "listen-only", "off"]).await;
    link(&["set", "can1", "down"]).await;
}
