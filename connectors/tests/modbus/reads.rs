//! Outputs that are asked what the device has.

use futures::FutureExt;
use serde_json::{Value, json};
use tidegate_connectors::DeliveryError;

use super::script::{Nature, Script};
use crate::rig::{Rig, Setup, write};

/// The points of a pump, and one that has no number in it.
fn fields() -> Value {
    json!({
        "run": { "coil": 5 },
        "open": { "coil": 6 },
        "speed": { "holding": 40, "type": "uint16", "scale": 0.1 },
        "ramp": { "holding": 41, "type": "int32" },
        "remote": { "holding": 50, "bit": 3 },
        "local": { "holding": 50, "bit": 4 },
        "mode": { "holding": 60, "type": "uint16", "values": { "0": "off", "1": "auto" } },
        "torque": { "holding": 70, "type": "float32" },
    })
}

fn nature() -> Nature {
    let coils = [(5, 1), (6, 0)];
    // 1234 tenths; -2; bit 3; 1; not a number.
    let holding = [(40, 1234), (41, 0xffff), (42, 0xfffe), (50, 8), (60, 1), (70, 0x7fc0), (71, 0)];
    Nature { registers: [(1, coils.into()), (3, holding.into())].into(), ..Nature::default() }
}

async fn pump(nature: Nature, more: &[(&str, Value)]) -> (Script, Rig) {
    let device = Script::start(nature).await;
    let setup = Setup::tcp(device.port()).set("timeout", json!("200ms")).set("retries", json!(0));
    let setup = more.iter().fold(setup, |setup, (key, value)| setup.set(key, value.clone()));
    let rig = setup.output("pump", json!({ "fields": fields() })).run();
    (device, rig)
}

#[tokio::test]
async fn columns_are_read_as_they_are_in_the_device_with_few_requests() {
    let (mut device, mut rig) = pump(nature(), &[]).await;
    let row = rig.read("pump", &["speed", "ramp", "run", "open", "remote", "local", "mode"]).await;
    let expected = json!({
        "speed": 123.4, "ramp": -2, "run": true, "open": false, "remote": true, "local": false, "mode": "auto",
    });
    assert_eq!(row, Ok(expected));
    for request in [[1, 0, 5, 0, 2], [3, 0, 40, 0, 3], [3, 0, 50, 0, 1], [3, 0, 60, 0, 1]] {
        assert_eq!(device.request().await.1, request);
    }
    assert_eq!(rig.read("pump", &["ramp"]).await, Ok(json!({ "ramp": -2 })));
    assert_eq!(device.request().await.1, [3, 0, 41, 0, 2], "nothing else is read");
    device.nature.lock().unwrap().registers.get_mut(&1).unwrap().insert(5, 0);
    assert_eq!(rig.read("pump", &["run"]).await, Ok(json!({ "run": false })), "it is as it is now");
    let batch = rig.sinks.get_mut("pump").unwrap().read(&["speed".into(), "run".into()]).await.unwrap();
    let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!((names, batch.num_rows()), (vec!["speed", "run"], 1), "in the order in which it was asked");
    rig.end().await;
}

#[tokio::test]
async fn what_a_device_does_not_give_at_once_is_read_one_by_one_from_then_on() {
    let (mut device, mut rig) = pump(Nature { missing: vec![42], ..nature() }, &[]).await;
    let together = [3, 0, 40, 0, 3];
    let apart = [[3, 0, 40, 0, 1], [3, 0, 41, 0, 2]];
    for requests in [[&[together][..], &apart].concat(), apart.to_vec()] {
        match rig.read("pump", &["speed", "ramp"]).await {
            Err(DeliveryError::Permanent(why)) => {
                let words = "ramp (holding register 41 to 42): the device answers \"illegal data address\"";
                assert!(why.starts_with(words), "{why}");
            }
            other => panic!("{other:?}"),
        }
        for request in requests {
            assert_eq!(device.request().await.1, request);
        }
    }
    assert_eq!(rig.read("pump", &["speed"]).await, Ok(json!({ "speed": 123.4 })));
    rig.end().await;
}

#[tokio::test]
async fn a_read_that_gives_no_row_says_why() {
    let (_device, mut rig) = pump(nature(), &[]).await;
    match rig.read("pump", &["run", "torque"]).await {
        Err(DeliveryError::Transient(why)) => {
            assert_eq!(why, "torque (holding register 70 to 71): it is not a number");
        }
        other => panic!("{other:?}"),
    }
    match rig.read("pump", &["sped"]).await {
        Err(DeliveryError::Permanent(why)) => {
            assert!(why.contains("output pump has no `sped`; did you mean `speed`"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    rig.end().await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_left_alone_by_reads_too() {
    let silent = Nature { silent: vec![1], ..nature() };
    let (_device, mut rig) = pump(silent, &[("park", json!({ "after": 2, "for": "1h" }))]).await;
    for _ in 0..2 {
        match rig.read("pump", &["run"]).await {
            Err(DeliveryError::Transient(why)) => {
                assert!(why.starts_with("run (coil 5): no answer within 200ms"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Nobody else has answered, so that the connection was made anew.
    loop {
        match rig.read("pump", &["run"]).await {
            Err(DeliveryError::Transient(why)) if why.contains("is down: nobody has answered") => {}
            Err(DeliveryError::Transient(why)) => break assert!(why.contains("left alone"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rig.status.timeouts.get(), rig.status.parked().len()), (2, 1));
    rig.end().await;
}

#[tokio::test]
async fn a_read_goes_before_the_next_request_of_a_poll_and_never_beside_one() {
    let mut device = Script::start(nature()).await;
    let hold = device.hold().await;
    // Two requests a poll.
    let stream = json!({ "fields": {
        "a": { "holding": 0, "type": "uint16" }, "b": { "holding": 10, "type": "uint16" },
    } });
    let mut rig =
        Setup::tcp(device.port()).stream("s", stream).output("pump", json!({ "fields": fields() })).run();
    assert_eq!(device.request().await.1, [3, 0, 0, 0, 1]);
    let (mut sink, columns) = (rig.sinks.remove("pump").unwrap(), ["run".to_owned()]);
    let mut reading = sink.read(&columns);
    assert!((&mut reading).now_or_never().is_none());
    drop(hold);
    assert_eq!(device.request().await.1, [1, 0, 5, 0, 1]);
    assert_eq!(device.request().await.1, [3, 0, 10, 0, 1], "and the poll goes on");
    assert_eq!(reading.await.unwrap().num_rows(), 1);
    drop(sink);
    rig.end().await;
}

#[tokio::test]
async fn a_read_that_nobody_waits_for_is_not_asked() {
    let mut device = Script::start(nature()).await;
    let output = || json!({ "fields": fields() });
    let mut rig = Setup::tcp(device.port()).output("one", output()).output("other", output()).run();
    let (mut one, mut other) = (rig.sinks.remove("one").unwrap(), rig.sinks.remove("other").unwrap());
    let hold = device.hold().await;
    let writing = tokio::spawn(async move { write(&mut *one, &json!({ "run": true })).await });
    assert_eq!(device.request().await.1[0], 5, "it is under way");
    assert!(other.read(&["speed".to_owned()]).now_or_never().is_none(), "it waits, and is given up");
    drop(hold);
    assert_eq!(writing.await.unwrap(), Ok(()));
    assert_eq!(write(&mut *other, &json!({ "open": true })).await, Ok(()));
    assert_eq!(device.request().await.1, [5, 0, 6, 0xff, 0], "the next request is not the read");
    drop(other);
    rig.end().await;
}

#[tokio::test]
async fn connections_that_cannot_read_say_what_helps() {
    let mut rig = Setup::mqtt("5", 1).output("pump", json!({ "topic": "act/pump" })).run();
    match rig.read("pump", &["run"]).await {
        Err(DeliveryError::Permanent(why)) => assert!(why.contains("`read_back.from`"), "{why}"),
        other => panic!("{other:?}"),
    }
    rig.end().await;
}
