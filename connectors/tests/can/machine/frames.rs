//! From frames to rows.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_peers::PATIENCE;
use tokio::time::timeout;

use super::{Candump, DRIVE, cansend};
use crate::rig::Setup;

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn a_message_is_a_row_with_the_kernels_time() {
    let mut rig = Setup::interface("vcan0")
        .dbc(DRIVE)
        .stream("motor", json!({ "message": "MotorStatus", "labels": true, "stale_after": "1h" }))
        .stream("flow", json!({ "message": "Measured" }))
        .run();
    rig.begins().await;
    let mut candump = Candump::on("vcan0").await;
    // Speed -2 * 0.5; torque, Motorola from bit 23: 0x7D0 = 2000 -> 100 Nm; bit 40; 2 in the high nibble.
    cansend("vcan0", "100#FEFF7D00002100").await;
    let (_, mut row) = rig.timed_row().await;
    let ts = row.remove("ts").unwrap().as_i64().unwrap();
    let expected = json!({ "Speed": -1.0, "Torque": 100.0, "Running": true, "Mode": "run" });
    assert_eq!(Value::from(row), expected);
    let (time, _) = candump.timed().await;
    assert_eq!(ts / 1_000, time, "candump shows microseconds of the same stamp");
    // 1.5 as a float, in an FD frame of 16 bytes.
    cansend("vcan0", "300##1000000000000000000 00C03F00000000".replace(' ', "").as_str()).await;
    assert_eq!(rig.row().await, json!({ "Flow": 1.5 }));
    // What is not wanted is left out by the kernel.
    cansend("vcan0", "101#00").await;
    cansend("vcan0", "100#0000000000000000").await;
    assert_eq!(rig.row().await["Mode"], "off");
    assert_eq!(rig.status.messages.get(), 3);
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn frames_come_as_they_are() {
    let mut rig =
        Setup::interface("vcan0").stream("frames", json!({ "ids": ["0x100-0x1ff", "0x18FEF100x"] })).run();
    rig.begins().await;
    let row = |id: u32, extended: bool, fd: bool, remote: bool, length: u8, data: &str| {
        json!({
            "id": id, "extended": extended, "fd": fd, "remote": remote, "length": length, "data": data,
        })
    };
    for (frame, expected) in [
        ("1AB#112233", row(0x1ab, false, false, false, 3, "112233")),
        ("18FEF100#", row(0x18fe_f100, true, false, false, 0, "")),
        ("100#R4", row(0x100, false, false, true, 4, "")),
        ("1FF##5AABBCCDDEEFF00112233", row(0x1ff, false, true, false, 10, "AABBCCDDEEFF00112233")),
    ] {
        // Neither of these is wanted: another number, and the same number in the other width.
        cansend("vcan0", "200#FF").await;
        cansend("vcan0", "000001AB#FF").await;
        cansend("vcan0", frame).await;
        let mut got = rig.row().await;
        if got["fd"] == true {
            // There is no FD frame of 10 bytes: cansend fills it up to 12.
            let data = got["data"].as_str().unwrap().trim_end_matches("0000").to_owned();
            got["data"] = data.into();
            got["length"] = json!(10);
        }
        assert_eq!(got, expected, "{frame}");
    }
    assert_eq!(rig.status.messages.get(), 4);
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn all_frames_and_all_signals_can_be_had() {
    let mut rig = Setup::interface("vcan0")
        .dbc(DRIVE)
        .stream("frames", json!({ "ids": ["*"] }))
        .stream("signals", json!({ "signals": ["Speed", "MotorStatus.Mode"], "stale_after": "1h" }))
        .run();
    rig.begins().await;
    cansend("vcan0", "100#0200000000001000").await;
    assert_eq!(rig.row().await["data"], "0200000000001000");
    let row = |signal: &str, value: f64, text: Value, unit: Value| {
        json!({
            "message": "MotorStatus", "signal": signal, "value": value, "text": text, "unit": unit,
        })
    };
    assert_eq!(rig.row().await, row("Speed", 1.0, Value::Null, json!("rpm")));
    assert_eq!(rig.row().await, row("Mode", 0.0, json!("off"), Value::Null));
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn a_message_that_does_not_come_is_stale_once() {
    let mut rig = Setup::interface("vcan0")
        .dbc(DRIVE)
        .stream("motor", json!({ "message": "MotorStatus", "quality": true }))
        .run();
    rig.begins().await;
    let null = Value::Null;
    let mut stale = rig.row().await;
    assert!(stale["fault"].as_str().unwrap().contains("MotorStatus has not come for 300ms"), "{stale}");
    stale["fault"] = Value::Null;
    let nulls = json!({
        "Speed": null, "Torque": null, "Running": null, "Mode": null, "quality": "stale", "fault": null,
    });
    assert_eq!(stale, nulls);
    cansend("vcan0", "100#0000000000000000").await;
    let row = rig.row().await;
    assert_eq!((&row["quality"], &row["Speed"]), (&json!("good"), &json!(0.0)));
    assert_eq!(rig.row().await["quality"], "stale");
    assert_eq!(rig.status.count("stale"), 2);
    // Cut off behind the speed.
    cansend("vcan0", "100#0100").await;
    let row = rig.row().await;
    assert_eq!((&row["Speed"], &row["Torque"], &row["quality"]), (&json!(0.5), &null, &json!("uncertain")));
    assert!(row["fault"].as_str().unwrap().contains("too short"), "{row}");
    rig.end().await;
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn frames_that_find_no_room_in_the_kernel_are_counted() {
    let mut rig = Setup::interface("vcan0").stream("frames", json!({ "ids": ["0x001"] })).run();
    rig.begins().await;
    // The runtime has this thread only, so that nobody reads meanwhile.
    let sent = 40_000;
    let status = std::process::Command::new("cangen")
        .args(["vcan0", "-g", "0", "-I", "001", "-L", "8", "-n", &sent.to_string(), "-i"])
        .status()
        .unwrap();
    assert!(status.success());
    let counted = async {
        loop {
            // The kernel tells its count with the next frame.
            cansend("vcan0", "001#").await;
            while timeout(Duration::from_millis(100), rig.row()).await.is_ok() {}
            if rig.status.messages.get() + rig.status.dropped.get() >= sent {
                break;
            }
        }
    };
    timeout(PATIENCE, counted).await.expect("all are counted");
    assert!(rig.status.dropped.get() > 0);
    rig.end().await;
}
