//! Writes, as they go over the line, and what comes back when they fail.

use serde_json::{Value, json};
use tidegate_connectors::DeliveryError;

use super::script::{Nature, Script};
use crate::rig::{Rig, Setup};

async fn pump(nature: Nature, more: &[(&str, Value)]) -> (Script, Rig) {
    let device = Script::start(nature).await;
    let mut output = json!({ "fields": {
        "run": { "coil": 5 },
        "open": { "coil": 6 },
        "speed": { "holding": 40, "type": "uint16", "scale": 0.1 },
        "ramp": { "holding": 41, "type": "int32" },
        "remote": { "holding": 50, "bit": 3 },
        "mode": { "holding": 60, "type": "uint16", "values": { "0": "off", "1": "auto" } },
    } });
    for (key, value) in more {
        output[*key] = value.clone();
    }
    let rig = Setup::tcp(device.port()).set("timeout", json!("200ms")).output("pump", output).run();
    (device, rig)
}

#[tokio::test]
async fn each_value_takes_the_function_that_fits() {
    let (mut device, mut rig) = pump(Nature::default(), &[]).await;
    for (row, requests) in [
        (json!({ "run": true }), vec![vec![5, 0, 5, 0xff, 0]]),
        (json!({ "run": true, "open": false }), vec![vec![15, 0, 5, 0, 2, 1, 1]]),
        (json!({ "speed": 123.4 }), vec![vec![6, 0, 40, 0x04, 0xD2]]),
        (json!({ "speed": 1, "ramp": -2 }), vec![vec![16, 0, 40, 0, 3, 6, 0, 10, 0xff, 0xff, 0xff, 0xfe]]),
        (json!({ "remote": true }), vec![vec![22, 0, 50, 0xff, 0xf7, 0, 8]]),
        (json!({ "mode": "auto", "run": null }), vec![vec![6, 0, 60, 0, 1]]),
        // The setpoint comes before the command.
        (json!({ "run": false, "speed": 0 }), vec![vec![6, 0, 40, 0, 0], vec![5, 0, 5, 0, 0]]),
    ] {
        assert_eq!(rig.write("pump", &row).await, Ok(()), "{row}");
        for request in requests {
            assert_eq!(device.request().await.1, request, "{row}");
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn what_a_device_does_not_know_is_done_otherwise() {
    let nature = Nature {
        lacks: vec![5, 6, 22, 23],
        registers: [(3, [(50, 0x1234)].into())].into(),
        ..Nature::default()
    };
    let (mut device, mut rig) = pump(nature, &[("read_back", json!("same_request"))]).await;
    let row = json!({ "run": true, "speed": 1, "remote": false });
    assert_eq!(rig.write("pump", &row).await, Ok(()));
    let functions = async |device: &mut Script, count| {
        let mut functions = Vec::new();
        for _ in 0..count {
            functions.push(device.request().await.1[0]);
        }
        functions
    };
    // 23 is not known, nor 6; it is written by 16 and read by 3. The bit: not 22, so it is read, and written.
    assert_eq!(functions(&mut device, 11).await, [23, 6, 16, 3, 22, 3, 16, 3, 5, 15, 1]);
    assert_eq!(device.nature.lock().unwrap().registers[&3][&50], 0x1234 & !8);
    // It is remembered.
    assert_eq!(rig.write("pump", &row).await, Ok(()));
    assert_eq!(functions(&mut device, 7).await, [16, 3, 3, 16, 3, 15, 1]);
    rig.end().await;
}

#[tokio::test]
async fn reading_back_finds_what_was_not_taken() {
    for read_back in [json!(true), json!("same_request")] {
        let (_device, mut rig) =
            pump(Nature { forgets: true, ..Nature::default() }, &[("read_back", read_back)]).await;
        for (row, words) in [
            (json!({ "speed": 1 }), "speed (holding register 40)"),
            (json!({ "run": false }), "run (coil 5)"),
            (json!({ "remote": true }), "remote (holding register 50, bit 3)"),
        ] {
            match rig.write("pump", &row).await {
                Err(DeliveryError::Permanent(why)) => {
                    assert!(why.contains(words) && why.contains("instead of"), "{why}");
                }
                other => panic!("{row}: {other:?}"),
            }
        }
        rig.end().await;
    }
    let (_device, mut rig) = pump(Nature::default(), &[("read_back", json!(true))]).await;
    for row in [json!({ "speed": 1 }), json!({ "run": true, "open": false }), json!({ "remote": true })] {
        assert_eq!(rig.write("pump", &row).await, Ok(()));
    }
    rig.end().await;
}

#[tokio::test]
async fn what_cannot_be_written_says_point_value_and_range() {
    let (mut device, mut rig) = pump(Nature::default(), &[]).await;
    for (row, words) in [
        (json!({ "speed": 7000.0 }), "speed (holding register 40) cannot be 7000: it takes 0 to 6553.5"),
        (json!({ "mode": "atuo" }), "did you mean `auto`"),
        (json!({ "sped": 1.0 }), "output pump has no `sped`; did you mean `speed`"),
        (json!({ "run": 1 }), "run (coil 5) cannot be 1: it takes true or false"),
    ] {
        match rig.write("pump", &row).await {
            Err(DeliveryError::Permanent(why)) => assert!(why.contains(words), "{row}: {why}"),
            other => panic!("{row}: {other:?}"),
        }
    }
    assert_eq!(rig.write("pump", &json!({ "run": null })).await, Ok(()), "nothing is asked for");
    assert_eq!(rig.write("pump", &json!({ "run": true })).await, Ok(()));
    assert_eq!(device.request().await.1[0], 5, "nothing else was sent");
    rig.end().await;
}

#[tokio::test]
async fn a_refusal_names_the_register_and_a_silence_says_that_nobody_knows() {
    let (device, mut rig) = pump(Nature { lacks: vec![6, 16], ..Nature::default() }, &[]).await;
    match rig.write("pump", &json!({ "speed": 1, "run": true })).await {
        Err(DeliveryError::Permanent(why)) => {
            assert!(
                why.starts_with("speed (holding register 40): the device answers \"illegal function\""),
                "{why}"
            );
            assert!(why.ends_with("not tried: run (coil 5)"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    device.nature.lock().unwrap().silent.push(1);
    match rig.write("pump", &json!({ "run": true })).await {
        Err(DeliveryError::Unknown(why)) => {
            assert!(why.contains("no answer within 200ms; whether it was written is not known"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    rig.end().await;
}
