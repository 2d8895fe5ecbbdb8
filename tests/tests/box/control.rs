//! Control does not wait for the cloud, for room in the buffer or for the disk, with nothing configured for
//! that.

use std::collections::BTreeSet;

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;

const STREAMS: &str = r#"
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

fn site(plant: &Mosquitto, cloud: &Mosquitto, more: &str) -> Site {
    let site = Site::new(&format!(
        "{}{}{STREAMS}{more}",
        connection("plant", plant, "5"),
        connection("cloud", cloud, "5")
    ));
    site.rule("up", "INSERT INTO uplink SELECT n, text FROM numbers");
    // It has nothing to do with the uplink.
    site.rule("move", "INSERT INTO out SELECT n FROM numbers");
    site
}

/// Not to be packed: the buffer has to grow.
fn numbers(count: i64) -> impl Iterator<Item = (String, String)> {
    let text = |n: i64| -> String {
        (0..20)
            .map(|i| format!("{:016x}", (n * 20 + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)))
            .collect()
    };
    (0..count).map(move |n| ("in/n".to_owned(), json!({ "n": n, "text": text(n) }).to_string()))
}

fn n_of(message: &Message) -> i64 {
    message.json()["n"].as_i64().unwrap()
}

#[tokio::test]
async fn a_full_buffer_stops_no_output_and_the_cloud_is_told_what_it_misses() {
    const COUNT: i64 = 12_000;
    let plant = Mosquitto::start().await;
    let mut cloud = Mosquitto::start().await;
    let site = site(&plant, &cloud, "[buffer]\nmax_size = \"1MiB\"\n");
    let mut out = Client::subscriber(&plant, "out").await;
    let mut uplink = Client::subscriber(&cloud, "tidegate/box/up").await;
    cloud.stop().await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    let publishing = tokio::spawn(async move { devices.publish_all(numbers(COUNT)).await });
    assert!(out.take(COUNT as usize).await.iter().map(n_of).eq(0..COUNT));
    publishing.await.unwrap();
    the_box.log().wait("there was no room for all rows").await;

    cloud.restart().await;
    let (mut came, mut missing) = (BTreeSet::new(), 0);
    uplink
        .take_until(|message| {
            let json = message.json();
            came.extend(json["row"]["n"].as_i64());
            missing += json["gap"]["rows"].as_i64().unwrap_or(0);
            came.len() as i64 + missing >= COUNT
        })
        .await;
    assert!(missing > 0 && came.contains(&(COUNT - 1)), "the newest rows are kept; {missing} are missing");
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn a_database_that_cannot_be_written_stops_no_output_and_everything_is_stored_afterwards() {
    const COUNT: i64 = 2_000;
    let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
    let site = site(&plant, &cloud, "");
    let mut out = Client::subscriber(&plant, "out").await;
    let mut uplink = Client::subscriber(&cloud, "tidegate/box/up").await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let database = rusqlite::Connection::open(site.path("data/buffer.db")).unwrap();
    database.busy_timeout(tidegate_tests::PATIENCE).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let devices = Client::publisher(&plant).await;
    let publishing = tokio::spawn(async move { devices.publish_all(numbers(COUNT)).await });
    // More than the broker sends without an acknowledgement.
    assert!(out.take(COUNT as usize).await.iter().map(n_of).eq(0..COUNT));
    publishing.await.unwrap();
    let said = the_box.log().wait("the buffer cannot be written").await;
    assert!(said.contains("another program has locked it"), "{said}");
    assert_eq!(uplink.rest(), [], "nothing is sent that is not stored");

    database.execute_batch("COMMIT").unwrap();
    drop(database);
    let rows = uplink.take(COUNT as usize).await;
    assert!(rows.iter().map(|message| message.json()["row"]["n"].as_i64().unwrap()).eq(0..COUNT));
    the_box.log().wait("the buffer can be written again").await;
    assert!(the_box.stop().await.success());
    // An empty log is folded in: SQLite finds nothing to complain of.
    assert!(site.tidegate(&["buffer", "verify"]).status.success());
}
