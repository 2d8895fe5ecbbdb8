//! Brokers go away and come back.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;

/// A debug build that holds ten thousand rows in memory grows by more than this.
const FLAT_KIB: u64 = 60 << 10;

const NUMBERS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64", text = "utf8" }

[outputs.out]
connection = "plant"
topic = "out"
when_full = "block"

[uplink]
connection = "cloud"
"#;

const FORWARD: &str =
    "INSERT INTO uplink SELECT n, text FROM numbers; INSERT INTO out SELECT n FROM numbers;";

fn two_brokers(plant: &Mosquitto, cloud: &Mosquitto) -> Site {
    let site = Site::new(&format!(
        "{}{}{NUMBERS}",
        connection("plant", plant, "5"),
        connection("cloud", cloud, "5")
    ));
    site.rule("rule", FORWARD);
    site
}

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| {
        ("in/n".to_owned(), json!({ "n": n, "text": format!("row {n} {:0>100}", n * n) }).to_string())
    })
}

fn n_of(message: &Message) -> i64 {
    let json = message.json();
    json["row"]["n"].as_i64().or_else(|| json["n"].as_i64()).unwrap()
}

#[tokio::test]
async fn the_plants_broker_restarts_with_messages_in_flight_and_none_is_lost() {
    const COUNT: i64 = 6_000;
    let mut plant = Mosquitto::start().await;
    let cloud = Mosquitto::start().await;
    let site = two_brokers(&plant, &cloud);
    let mut uplink = Client::subscriber(&cloud, "tidegate/box/rule").await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    let publishing = tokio::spawn(async move {
        devices.publish_all(numbers(0..COUNT)).await;
        devices
    });
    let mut seen = HashSet::new();
    for enough in [500, 2_500] {
        uplink
            .take_until(|message| {
                seen.insert(n_of(message));
                seen.len() >= enough
            })
            .await;
        // In order, so that the broker writes down what it has acknowledged.
        plant.stop().await;
        plant.restart().await;
    }
    let devices = publishing.await.unwrap();
    uplink
        .take_until(|message| {
            seen.insert(n_of(message));
            seen.len() >= usize::try_from(COUNT).unwrap()
        })
        .await;
    assert!(seen.iter().all(|n| (0..COUNT).contains(n)));
    the_box.log().wait("connected again").await;

    // A broker that lost its disk knows no session: the box subscribes again by itself.
    let before = plant.lines().count();
    plant.kill().await;
    plant.forget();
    plant.restart().await;
    plant.subscribed_after(before, "in/n").await;
    devices.publish_all(numbers(COUNT..COUNT + 1)).await;
    uplink.take_until(|message| n_of(message) == COUNT).await;
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn ten_thousand_rows_wait_for_the_uplink_and_arrive_once_each_in_order() {
    const COUNT: i64 = 10_000;
    const SETTLED: i64 = 1_000;
    let plant = Mosquitto::start().await;
    let mut cloud = Mosquitto::start().await;
    let site = two_brokers(&plant, &cloud);
    let mut uplink = Client::subscriber(&cloud, "tidegate/box/rule").await;
    let mut out = Client::subscriber(&plant, "out").await;
    cloud.stop().await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all(numbers(0..SETTLED)).await;
    out.take_until(|message| n_of(message) == SETTLED - 1).await;
    let before = the_box.resident_kib();
    devices.publish_all(numbers(SETTLED..COUNT)).await;
    out.take_until(|message| n_of(message) == COUNT - 1).await;
    let after = the_box.resident_kib();
    assert!(after < before + FLAT_KIB, "resident memory grew from {before} KiB to {after} KiB");
    assert_eq!(uplink.rest(), [], "the cloud was away");

    cloud.restart().await;
    let came = uplink.take_until(|message| n_of(message) == COUNT - 1).await;
    let mut rows = BTreeMap::new();
    for message in &came {
        let id = message.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(rows.insert(id.clone(), n_of(message)), None, "{id} came twice");
    }
    assert!(came.iter().map(n_of).eq(0..COUNT), "all, once each, in order; {} came", came.len());
    // The box says goodbye after it has dealt with everything, so nothing can follow.
    assert!(the_box.stop().await.success());
    let mark = Client::publisher(&cloud).await;
    mark.publish("tidegate/box/rule", r#"{"n": -1}"#).await;
    assert_eq!(n_of(&uplink.next().await), -1, "and nothing else");
}

#[tokio::test]
async fn an_output_whose_broker_is_down_holds_nobody_up_and_gets_no_stale_commands() {
    let plant = Mosquitto::start().await;
    let mut actuators = Mosquitto::start().await;
    let site = Site::new(&format!(
        "{}{}{}",
        connection("plant", &plant, "5"),
        connection("actuators", &actuators, "5"),
        "[streams.numbers]\nconnection = \"plant\"\ntopic = \"in/n\"\nfields = { n = \"int64\" }\n\
         [outputs.lamp]\nconnection = \"plant\"\ntopic = \"lamp\"\nwhen_full = \"block\"\n\
         [outputs.pump]\nconnection = \"actuators\"\ntopic = \"pump\"\n"
    ));
    // The pump comes first, so that it would be the first to wait for.
    site.rule("rule", "INSERT INTO pump SELECT n FROM numbers; INSERT INTO lamp SELECT n FROM numbers;");
    let mut lamp = Client::subscriber(&plant, "lamp").await;
    let mut pump = Client::subscriber(&actuators, "pump").await;
    actuators.stop().await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all(numbers(0..3_000)).await;
    assert!(lamp.take(3_000).await.iter().map(n_of).eq(0..3_000));
    the_box.log().wait("rows could not be written").await;

    let before = the_box.log().count();
    actuators.restart().await;
    the_box.log().wait_after(before, "connected").await;
    // The first command that gets through is one that was given after the broker came back.
    let mut n = 3_000;
    let came = loop {
        devices.publish_all(numbers(n..n + 1)).await;
        lamp.take_until(|message| n_of(message) == n).await;
        if let Some(message) = pump.rest().into_iter().next() {
            break n_of(&message);
        }
        n += 1;
    };
    assert!(came >= 3_000, "command {came} was given while the broker was away");
}
