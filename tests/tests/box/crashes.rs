//! The box is killed, as a power cut would, and starts again.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;

const NUMBERS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64" }

[uplink]
connection = "cloud"
"#;

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| ("in/n".to_owned(), json!({ "n": n }).to_string()))
}

/// What the cloud has got: numbers by the id of their row.
#[derive(Default)]
struct Received {
    rows: BTreeMap<String, i64>,
    numbers: HashSet<i64>,
    highest_seq: u64,
}

impl Received {
    fn take(&mut self, message: &Message) {
        let json = message.json();
        let (id, n) = (json["id"].as_str().unwrap().to_owned(), json["row"]["n"].as_i64().unwrap());
        let seq: u64 = id.split('/').nth(2).unwrap().parse().unwrap();
        let known = self.rows.insert(id.clone(), n);
        assert!(known.is_none_or(|known| known == n), "{id} was the id of {known:?}, and is now that of {n}");
        self.numbers.insert(n);
        self.highest_seq = self.highest_seq.max(seq);
    }
}

#[tokio::test]
async fn a_box_that_is_killed_while_it_forwards_loses_nothing_and_uses_no_id_twice() {
    const COUNT: i64 = 6_000;
    let plant = Mosquitto::start().await;
    let cloud = Mosquitto::start().await;
    let site = Site::new(&format!(
        "{}{}{NUMBERS}",
        connection("plant", &plant, "5"),
        connection("cloud", &cloud, "5")
    ));
    site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers");
    let mut uplink = Client::subscriber(&cloud, "tidegate/#").await;
    let mut the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    let publishing = tokio::spawn(async move { devices.publish_all(numbers(0..COUNT)).await });
    let mut received = Received::default();
    for enough in [300, 1_500, 3_000] {
        uplink
            .take_until(|message| {
                received.take(message);
                received.numbers.len() >= enough
            })
            .await;
        the_box.kill().await;
        uplink.rest().iter().for_each(|message| received.take(message));
        the_box = site.run();
    }
    publishing.await.unwrap();
    uplink
        .take_until(|message| {
            received.take(message);
            received.numbers.len() >= usize::try_from(COUNT).unwrap()
        })
        .await;
    assert!(received.numbers.iter().all(|n| (0..COUNT).contains(n)));
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn rows_of_a_new_start_have_higher_numbers() {
    let plant = Mosquitto::start().await;
    let cloud = Mosquitto::start().await;
    let site = Site::new(&format!(
        "{}{}{NUMBERS}",
        connection("plant", &plant, "5"),
        connection("cloud", &cloud, "5")
    ));
    site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers");
    let mut uplink = Client::subscriber(&cloud, "tidegate/#").await;
    let mut received = Received::default();
    let devices = Client::publisher(&plant).await;
    for round in 0..4 {
        let highest = received.highest_seq;
        let the_box = site.run();
        if round == 0 {
            plant.subscribed("in/n").await;
        }
        devices.publish_all(numbers(round..round + 1)).await;
        uplink
            .take_until(|message| {
                received.take(message);
                n_of(message) == round
            })
            .await;
        assert!(round == 0 || received.highest_seq > highest, "{} after {highest}", received.highest_seq);
        if round % 2 == 0 { the_box.kill().await } else { assert!(the_box.stop().await.success()) }
    }
}

fn n_of(message: &Message) -> i64 {
    message.json()["row"]["n"].as_i64().unwrap()
}

#[tokio::test]
async fn rules_load_from_the_kept_columns_after_a_crash() {
    let plant = Mosquitto::start().await;
    let config = "[streams.lab]\nconnection = \"plant\"\ntopic = \"lab/{bench}\"\n[outputs.out]\nconnection \
        = \"plant\"\ntopic = \"out\"\n";
    let site = Site::new(&format!("{}{config}", connection("plant", &plant, "5")));
    site.rule("rule", "INSERT INTO out SELECT bench, ph * 2 AS twice FROM lab");
    let mut out = Client::subscriber(&plant, "out").await;
    let the_box = site.run();
    plant.subscribed("lab/+").await;
    let devices = Client::publisher(&plant).await;
    devices.publish("lab/b1", r#"{"ph": 3.5}"#).await;
    assert_eq!(
        out.next().await.json(),
        json!({ "bench": "b1", "twice": 7.0 }),
        "the first row is not missed"
    );
    the_box.kill().await;

    let _the_box = site.run();
    // A message without the column: only the kept columns can say what `ph` is.
    devices.publish("lab/b2", r#"{"other": 1}"#).await;
    let next = out.take_until(|message| message.json()["bench"] == "b2").await;
    assert_eq!(next.last().unwrap().json(), json!({ "bench": "b2", "twice": null }));
}
