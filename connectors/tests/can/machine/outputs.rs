//! From rows to frames.

use std::time::Duration;

use serde_json::json;
use tidegate_connectors::DeliveryError;
use tokio::time::timeout;

use super::{Candump, DRIVE, cansend, run};
use crate::rig::Setup;

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn what_outputs_send_is_on_the_bus() {
    let mut candump = Candump::on("vcan0").await;
    let mut rig = Setup::interface("vcan0")
        .dbc(DRIVE)
        .output("command", json!({ "message": "MotorCommand", "defaults": { "Enable": 0 } }))
        .output("raw", json!({ "id": "0x18EF0102x" }))
        .output("fd", json!({ "id": "0x123", "fd": true }))
        .run();
    rig.begins().await;
    rig.write("command", &json!({ "Target": -1.0, "Enable": true })).await.unwrap();
    assert_eq!(candump.frame().await, "200#FEFF0100");
    rig.write("command", &json!({ "Target": 1500 })).await.unwrap();
    assert_eq!(candump.frame().await, "200#B80B0000");
    rig.write("raw", &json!({ "data": "X'0102'" })).await.unwrap();
    assert_eq!(candump.frame().await, "18EF0102#0102");
    rig.write("fd", &json!({ "data": "X'010203040506070809'" })).await.unwrap();
    assert_eq!(candump.frame().await, "123##5010203040506070809000000");
    for (output, row, words) in [
        ("command", json!({ "Target": 4000.0 }), "Target cannot be 4000: the database allows -3000 to 3000"),
        ("command", json!({ "Enable": true }), "no value for `Target`"),
        ("raw", json!({ "data": "X'010203040506070809'" }), "9 bytes do not fit"),
    ] {
        match rig.write(output, &row).await {
            Err(DeliveryError::Permanent(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    candump.is_silent("vcan0").await;
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn what_a_driver_holds_back_is_unknown_and_nothing_is_put_behind_it() {
    let mut candump = Candump::on("vcan2").await;
    let mut rig = Setup::interface("vcan2")
        .stream("frames", json!({ "ids": ["0x123", "0x124"] }))
        .output("raw", json!({ "id": "0x123" }))
        .run();
    rig.begins().await;
    run("tc", &["qdisc", "add", "dev", "vcan2", "root", "netem", "delay", "5s"]).await;
    match rig.write("raw", &json!({ "data": "X'01'" })).await {
        Err(DeliveryError::Unknown(why)) => assert!(why.contains("has not sent it within 250ms"), "{why}"),
        other => panic!("{other:?}"),
    }
    match rig.write("raw", &json!({ "data": "X'02'" })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("not sent within 250ms"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(candump.frame().await, "123#01");
    run("tc", &["qdisc", "del", "dev", "vcan2", "root"]).await;
    // The controller has room again when the box has seen the frame.
    while rig.write("raw", &json!({ "data": "X'03'" })).await.is_err() {}
    assert_eq!(candump.frame().await, "123#03", "the second one is never sent");
    assert_eq!(rig.status.count("sent_late"), 1);
    cansend("vcan2", "124#04").await;
    assert_eq!(rig.row().await["data"], "04", "what the box sends is no row");
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn a_command_is_sent_again_until_it_expires() {
    let mut candump = Candump::on("vcan0").await;
    let mut rig = Setup::interface("vcan0")
        .dbc(DRIVE)
        .output("command", json!({ "message": "MotorCommand", "every": "50ms", "expiry": "500ms" }))
        .run();
    rig.begins().await;
    rig.write("command", &json!({ "Target": 1.0, "Enable": true })).await.unwrap();
    rig.write("command", &json!({ "Target": 2.0, "Enable": true })).await.unwrap();
    let mut frames = Vec::new();
    while let Ok(frame) = timeout(Duration::from_secs(3), candump.timed()).await {
        frames.push(frame);
    }
    assert_eq!(frames[0].1, "200#02000100");
    assert!(frames[1..].iter().all(|(_, frame)| frame == "200#04000100"), "{frames:?}");
    let last = frames.last().unwrap().0 - frames[1].0;
    assert!((3..=12).contains(&frames.len()) && last <= 500_000, "{frames:?}");
    rig.end().await;
}
