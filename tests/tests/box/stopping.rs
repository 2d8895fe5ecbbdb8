//! The box is asked to end.

use std::collections::HashSet;

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;

const NUMBERS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64" }

[outputs.out]
connection = "plant"
topic = "out"
when_full = "block"

[uplink]
connection = "cloud"
"#;

fn site(plant: &Mosquitto, cloud: &Mosquitto) -> Site {
    let site = Site::new(&format!(
        "{}{}{NUMBERS}",
        connection("plant", plant, "5"),
        connection("cloud", cloud, "5")
    ));
    site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers; INSERT INTO out SELECT n FROM numbers;");
    site
}

fn n_of(message: &Message) -> i64 {
    message.json()["row"]["n"].as_i64().unwrap()
}

#[tokio::test]
async fn a_box_that_is_stopped_under_load_drains_and_what_it_took_reaches_the_cloud() {
    const COUNT: i64 = 4_000;
    let plant = Mosquitto::start().await;
    let cloud = Mosquitto::start().await;
    let site = site(&plant, &cloud);
    let mut uplink = Client::subscriber(&cloud, "tidegate/#").await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    let messages =
        |range: std::ops::Range<i64>| range.map(|n| ("in/n".to_owned(), json!({ "n": n }).to_string()));
    let publishing = tokio::spawn(async move { devices.publish_all(messages(0..COUNT)).await });
    let mut seen = HashSet::new();
    uplink
        .take_until(|message| {
            seen.insert(n_of(message));
            seen.len() >= 200
        })
        .await;
    let log = the_box.log().clone();
    assert_eq!(the_box.stop().await.code(), Some(0), "{}", log.text());
    log.wait("the box has stopped").await;

    let the_box = site.run();
    publishing.await.unwrap();
    uplink
        .take_until(|message| {
            seen.insert(n_of(message));
            seen.len() >= usize::try_from(COUNT).unwrap()
        })
        .await;
    assert_eq!(the_box.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_box_whose_brokers_are_away_ends_as_well() {
    let mut plant = Mosquitto::start().await;
    let mut cloud = Mosquitto::start().await;
    let site = site(&plant, &cloud);
    plant.stop().await;
    cloud.stop().await;
    let the_box = site.run();
    let log = the_box.log().clone();
    log.wait("not connected; trying again until it works").await;
    assert_eq!(the_box.stop().await.code(), Some(0), "{}", log.text());
}

#[tokio::test]
async fn rows_that_wait_for_the_cloud_survive_a_stop() {
    let plant = Mosquitto::start().await;
    let mut cloud = Mosquitto::start().await;
    let site = site(&plant, &cloud);
    let mut uplink = Client::subscriber(&cloud, "tidegate/#").await;
    let mut out = Client::subscriber(&plant, "out").await;
    cloud.stop().await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all((0..300).map(|n| ("in/n".to_owned(), json!({ "n": n }).to_string()))).await;
    out.take(300).await;
    assert_eq!(the_box.stop().await.code(), Some(0));
    cloud.restart().await;
    // Nothing comes in any more: what arrives was on disk.
    let _the_box = site.run();
    assert!(uplink.take(300).await.iter().map(n_of).eq(0..300));
}
