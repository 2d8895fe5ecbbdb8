//! What every scenario has: a plant and a cloud, a wire to each, and a box in its cabinet that forwards
//! numbers from one to the other and writes them to the field on the way.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::json;
use tidegate_tests::box_under_test::{RunningBox, Site, connection_at};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::link::{Cabinet, Wire};
use tidegate_tests::mosquitto::Mosquitto;

const STREAM: &str = r#"
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

/// What the box says when a line is lost.
const LOST: &str = "not connected; trying again";

/// What a scenario may want otherwise.
pub struct Settings<'a> {
    /// `keep_alive` to the plant: short where its line is going to vanish
    pub plant_keep_alive: &'a str,
    /// `keep_alive` to the cloud, likewise
    pub uplink_keep_alive: &'a str,
    /// added to the configuration, which ends with the uplink's settings
    pub more: &'a str,
    /// the rule
    pub rule: &'a str,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        let rule = "INSERT INTO uplink SELECT n, text FROM numbers; INSERT INTO out SELECT n FROM numbers;";
        Self { plant_keep_alive: "30s", uplink_keep_alive: "2s", more: "", rule }
    }
}

/// A running scene. What ends first comes first.
pub struct Scene {
    pub the_box: RunningBox,
    pub field: Field,
    pub cloud: Cloud,
    devices: Client,
    /// between the box and the plant
    pub plant_wire: Wire,
    /// between the box and the cloud
    pub uplink_wire: Wire,
    _site: Site,
    _brokers: [Mosquitto; 2],
    _cabinet: Cabinet,
}

impl Scene {
    /// Both lines are good, everything is connected, and number 0 has come through.
    pub async fn set(settings: Settings<'_>) -> Self {
        let Settings { plant_keep_alive, uplink_keep_alive, more, rule } = settings;
        let cabinet = Cabinet::new();
        let (plant_wire, uplink_wire) = (Wire::new(&cabinet, 1).await, Wire::new(&cabinet, 2).await);
        let plant = Mosquitto::start_at(plant_wire.address()).await;
        let cloud = Mosquitto::start_at(uplink_wire.address()).await;
        let to_plant = connection_at("plant", plant_wire.address(), &plant, "5");
        let to_cloud = connection_at("cloud", uplink_wire.address(), &cloud, "5");
        let plant_keep_alive = format!("keep_alive = \"{plant_keep_alive}\"\n");
        let uplink_keep_alive = format!("keep_alive = \"{uplink_keep_alive}\"\n");
        let site =
            Site::new(&format!("{to_plant}{plant_keep_alive}{to_cloud}{uplink_keep_alive}{STREAM}{more}"));
        site.rule("rule", rule);
        let field = Field(Client::subscriber(&plant, "out").await);
        let receiver = Cloud::new(Client::subscriber(&cloud, "tidegate/box/rule").await);
        let devices = Client::publisher(&plant).await;
        let the_box = site.run_in(&cabinet);
        plant.subscribed("in/n").await;
        let mut scene = Self {
            the_box,
            field,
            cloud: receiver,
            devices,
            plant_wire,
            uplink_wire,
            _site: site,
            _brokers: [plant, cloud],
            _cabinet: cabinet,
        };
        scene.publish(0..1).await;
        assert_eq!(scene.field.until(0).await, [0]);
        scene.cloud.until(0).await;
        scene
    }

    /// A device sends these numbers, one a message.
    pub async fn publish(&self, numbers: Range<i64>) {
        self.devices.publish_all(numbers.map(|n| message(&row(n)))).await;
    }

    /// A device sends these numbers, a thousand a message.
    pub async fn publish_in_bulk(&self, numbers: Range<i64>) {
        let numbers: Vec<i64> = numbers.collect();
        self.devices
            .publish_all(
                numbers.chunks(1_000).map(|chunk| message(&chunk.iter().copied().map(row).collect())),
            )
            .await;
    }

    /// A device sends these rows.
    pub async fn publish_rows(&self, rows: impl IntoIterator<Item = serde_json::Value>) {
        self.devices.publish_all(rows.into_iter().map(|row| message(&row))).await;
    }

    /// Waits until the box has noticed that `connection`, and no other, is lost, after the first `after`
    /// lines of its log.
    pub async fn lost(&self, after: usize, connection: &str) {
        let line = self.the_box.log().wait_after(after, LOST).await;
        assert!(line.contains(&format!("{{connection={connection}}}")), "{line}");
    }

    /// How often the box has said that `connection` was lost, and that it was there again.
    pub fn outages(&self, connection: &str) -> (usize, usize) {
        let text = self.the_box.log().text();
        let said = |what| {
            text.lines()
                .filter(|line| line.contains(&format!("{{connection={connection}}}")) && line.contains(what))
                .count()
        };
        (said(LOST), said("connected again"))
    }
}

fn row(n: i64) -> serde_json::Value {
    json!({ "n": n, "text": format!("row {n}") })
}

fn message(payload: &serde_json::Value) -> (String, String) {
    ("in/n".to_owned(), payload.to_string())
}

/// What the box writes to the field.
pub struct Field(Client);

impl Field {
    /// Waits for number `n`, and returns all that came up to it.
    pub async fn until(&mut self, n: i64) -> Vec<i64> {
        let number = |message: &Message| message.json()["n"].as_i64().unwrap();
        self.0.take_until(|message| number(message) == n).await.iter().map(number).collect()
    }
}

/// The far side: it knows rows by their id and drops repeats, as a receiver has to.
pub struct Cloud {
    client: Client,
    rows: BTreeMap<String, i64>,
    /// in the order in which each came first
    numbers: Vec<i64>,
    repeats: usize,
}

impl Cloud {
    fn new(client: Client) -> Self {
        Self { client, rows: BTreeMap::new(), numbers: Vec::new(), repeats: 0 }
    }

    /// Waits for number `n`.
    pub async fn until(&mut self, n: i64) {
        while self.numbers.last() != Some(&n) {
            let message = self.client.next().await;
            self.keep(&message);
        }
    }

    /// Waits until there are `count` rows with different ids.
    pub async fn receive(&mut self, count: usize) {
        while self.numbers.len() < count {
            let message = self.client.next().await;
            self.keep(&message);
        }
    }

    /// The number of each row with an id of its own, in the order in which they came. What has come by now is
    /// in it.
    pub fn numbers(&mut self) -> &[i64] {
        for message in self.client.rest() {
            self.keep(&message);
        }
        &self.numbers
    }

    /// How many messages had an id that was known.
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    fn keep(&mut self, message: &Message) {
        let json = message.json();
        let (id, n) = (json["id"].as_str().unwrap(), json["row"]["n"].as_i64().unwrap());
        match self.rows.insert(id.to_owned(), n) {
            None => self.numbers.push(n),
            Some(known) => {
                assert_eq!(known, n, "{id} is the id of two rows");
                self.repeats += 1;
            }
        }
    }
}
