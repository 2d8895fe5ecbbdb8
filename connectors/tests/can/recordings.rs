//! Recordings instead of a bus.

use serde_json::{Value, json};
use tidegate_connectors::LineNews;

use crate::rig::Setup;

/// From the README of can-utils, and with a signal of its own.
const LOG: &str = "\
(1436509052.249713) vcan0 044#2A366C2BBA
(1436509052.449847) vcan0 0F6#7ADFE07BD2
nothing that candump would write
(1436509052.650004) vcan1 044#FF
(1436509052.650005) vcan0 044#0100
(1436509052.650006) vcan0 044#02";

const DBC: &str = "BU_: Box\nBO_ 68 Level: 2 Box\n SG_ Height : 0|16@1+ (0.5,0) [0|0] \"mm\" Box\n";

#[tokio::test(start_paused = true)]
async fn a_log_is_played_at_its_pace_and_its_end_is_said() {
    let mut rig = Setup::can(json!({ "log": { "path": "drive.log", "speed": 2.0, "interface": "vcan0" } }))
        .file("drive.log", LOG)
        .dbc(DBC)
        .stream("level", json!({ "message": "Level" }))
        .run();
    rig.begins().await;
    let began = tokio::time::Instant::now();
    assert_eq!(rig.row().await, json!({ "Height": f64::from(0x362a) / 2.0 }));
    assert_eq!(began.elapsed().as_millis(), 0);
    // 0.400292 s behind the first one, at twice the speed; tokio's clock counts milliseconds.
    assert_eq!(rig.row().await, json!({ "Height": 0.5 }));
    assert!((200..=202).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let why = rig.ends().await;
    assert!(why.contains("drive.log has been played to its end; it is played again when"), "{why}");
    // Something else, and a line that was written in part only.
    assert_eq!((rig.status.messages.get(), rig.status.malformed.get()), (3, 2));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_begins_again_if_it_is_asked_to() {
    let mut rig = Setup::can(json!({ "log": { "path": "drive.log", "repeat": true } }))
        .file("drive.log", LOG)
        .stream("frames", json!({ "ids": ["0x0f6"] }))
        .run();
    for _ in 0..3 {
        assert_eq!(rig.row().await["data"], "7ADFE07BD2");
    }
    rig.question.send_replace(7);
    while rig.news().await != (LineNews::Heard { asked: 7 }) {}
    rig.end().await;
}

/// In the rhythm of its frames, and not more than once a second.
#[tokio::test(start_paused = true)]
async fn a_log_that_begins_again_goes_on_in_its_rhythm() {
    let cases = [
        ("(0.5) can0 123#01\n", 1.0, [0, 1000, 2000, 3000]),
        ("(0.5) can0 123#01\n(0.6) can0 123#02\n", 1.0, [0, 100, 1000, 1100]),
        ("(0.5) can0 123#01\n(2.5) can0 123#02\n", 1.0, [0, 2000, 4000, 6000]),
        ("(0.5) can0 123#01\n(2.5) can0 123#02\n", 100.0, [0, 20, 1000, 1020]),
    ];
    for (log, speed, expected) in cases {
        let mut rig = Setup::can(json!({ "log": { "path": "drive.log", "repeat": true, "speed": speed } }))
            .file("drive.log", log)
            .stream("frames", json!({ "ids": ["*"] }))
            .run();
        rig.begins().await;
        let began = tokio::time::Instant::now();
        for millis in expected {
            rig.row().await;
            // tokio's clock counts milliseconds.
            let played = began.elapsed().as_millis();
            assert!((millis..=millis + 4).contains(&played), "{log} {millis} {played}");
        }
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_without_frames_is_said() {
    let rig = Setup::can(json!({ "log": { "path": "drive.log", "repeat": true } }))
        .file("drive.log", "# empty\n")
        .stream("frames", json!({ "ids": ["*"] }))
        .run();
    let why = rig.trouble().await;
    assert!(why.contains("has no frames"), "{why}");
    assert_eq!(rig.status.reconnects.get(), 0, "it was never there");
    assert!(!rig.status.is_connected());
    rig.end().await;
}

/// Which of several signals of a frame could be read makes how good its row is; a tall one is good or not.
#[tokio::test(start_paused = true)]
async fn infinite_values_are_null_and_bad() {
    let dbc = "BU_: A\nBO_ 256 M: 8 A\n SG_ X : 0|32@1- (1,0) [0|0] \"\" A\n \
               SG_ Y : 32|32@1- (1,0) [0|0] \"\" A\nSIG_VALTYPE_ 256 X : 1;\nSIG_VALTYPE_ 256 Y : 1;\n";
    // IEEE 754: 0x7F800000 is infinite, 0x3FC00000 is 1.5.
    let log = "(0.0) can0 100#0000807F0000C03F\n(0.1) can0 100#0000807F0000807F\n";
    let setup = |stream: Value| {
        Setup::can(json!({ "log": { "path": "drive.log" } }))
            .file("drive.log", log)
            .dbc(dbc)
            .stream("s", stream)
            .run()
    };
    let mut wide = setup(json!({ "message": "M", "quality": true }));
    let fault = "X: it is infinite";
    let row = json!({ "X": Value::Null, "Y": 1.5, "quality": "uncertain", "fault": fault });
    assert_eq!(wide.row().await, row);
    let fault_of_both = format!("{fault} (and 1 more)");
    let row = json!({ "X": Value::Null, "Y": Value::Null, "quality": "bad", "fault": fault_of_both });
    assert_eq!(wide.row().await, row);
    wide.end().await;
    let mut tall = setup(json!({ "signals": ["X", "Y"], "quality": true }));
    let row = tall.row().await;
    assert_eq!((&row["value"], &row["quality"], &row["fault"]), (&Value::Null, &json!("bad"), &json!(fault)));
    let row = tall.row().await;
    assert_eq!((&row["value"], &row["quality"]), (&json!(1.5), &json!("good")));
    assert_eq!(tall.row().await["fault"], fault);
    tall.end().await;
}

fn dm1(priority: u8, data: &str) -> Value {
    json!({
        "pgn": 65226, "source": 5, "destination": Value::Null, "priority": priority, "data": data,
    })
}

/// SAE J1939-21, 5.10.3: 20 bytes for everybody (BAM), in three packets; PGN 65 226 (DM1).
#[tokio::test(start_paused = true)]
async fn what_j1939_sends_in_several_frames_is_one_row() {
    let log = "\
(0.000000) can0 1CECFF05#20140003FFCAFE00
(0.060000) can0 1CEBFF05#0101020304050607
(0.120000) can0 1CEBFF05#0208090A0B0C0D0E
(0.180000) can0 1CEBFF05#030F1011121314FF
(0.200000) can0 18FECA05#FFFF000000000000
(0.210000) can0 18FECA06#0000000000000000
";
    let mut rig = Setup::can(json!({ "log": { "path": "drive.log" } }))
        .file("drive.log", log)
        .stream("dm1", json!({ "pgn": 65226, "source": 5 }))
        .run();
    let mut whole = rig.row().await;
    // A broadcast is to everybody, however that is written.
    if whole["destination"] == 255 {
        whole["destination"] = Value::Null;
    }
    assert_eq!(whole, dm1(7, "0102030405060708090A0B0C0D0E0F1011121314"));
    assert_eq!(rig.row().await, dm1(6, "FFFF000000000000"));
    rig.ends().await;
    rig.end().await;
}

/// SAE J1939-71: EEC1 is PGN 61 444; engine speed is in bytes 4 and 5, an eighth of a revolution a minute.
#[tokio::test(start_paused = true)]
async fn messages_of_j1939_are_found_by_group_and_source() {
    let dbc = "\
BU_: A
BO_ 2364539904 EEC1_Engine: 8 A
 SG_ Speed : 24|16@1+ (0.125,0) [0|0] \"rpm\" A
BO_ 2364540158 EEC1: 8 A
 SG_ Speed : 24|16@1+ (0.125,0) [0|0] \"rpm\" A
BA_DEF_ \"ProtocolType\" STRING ;
BA_DEF_DEF_ \"ProtocolType\" \"\";
BA_ \"ProtocolType\" \"J1939\";
";
    let log = "\
(0.000000) can0 0CF00400#000000401F000000
(0.010000) can0 18F00405#000000E02E000000
";
    let mut rig = Setup::can(json!({ "log": { "path": "drive.log" } }))
        .file("drive.log", log)
        .dbc(dbc)
        .stream("any", json!({ "message": "EEC1" }))
        .stream("engine", json!({ "message": "EEC1_Engine", "source": 0 }))
        .run();
    assert_eq!(rig.row().await, json!({ "Speed": 1000.0 }));
    assert_eq!(rig.row().await, json!({ "source": 5, "Speed": 1500.0 }));
    assert_eq!(rig.status.rows.get(), 2);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_named_twice_is_one_row() {
    let mut rig = Setup::can(json!({ "log": { "path": "drive.log" } }))
        .file("drive.log", "(0.000000) can0 123#01\n(0.001000) can0 124#02\n")
        .stream("frames", json!({ "ids": ["0x100-0x1ff", "0x123", "*"] }))
        .run();
    assert_eq!(rig.row().await["data"], "01");
    assert_eq!(rig.row().await["data"], "02");
    rig.end().await;
}
