//! Silence is what a rule takes note of when the box listened and nothing came: not a time without a
//! connection, nor one without the box.

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const DEVICES: [&str; 3] = ["press", "saw", "oven"];
/// `idle_after` of the rule, and what ends a session, in seconds.
const SILENT_AFTER: i64 = 2;

const MEAS: &str = r#"
[streams.meas]
connection = "plant"
topic = "line1/{device}/meas"
ts = "time"
fields = { n = "int64" }

[outputs.alarm]
connection = "plant"
topic = "alarm"
when_full = "block"

[outputs.seen]
connection = "plant"
topic = "seen"
when_full = "block"
"#;

struct Stage {
    plant: Mosquitto,
    site: Site,
    devices: Client,
    alarms: Client,
    seen: Client,
    /// the newest message of each device, and its time in seconds
    n: i64,
}

impl Stage {
    async fn new() -> Self {
        let plant = Mosquitto::start().await;
        let site = Site::new(&format!("{}{MEAS}", connection("plant", &plant, "5")));
        site.rule("seen", "INSERT INTO seen SELECT device, n FROM meas");
        site.rule(
            "silent",
            &format!(
                "--! idle_after = \"{SILENT_AFTER}s\"\nINSERT INTO alarm SELECT device, count(*) AS rows, \
                max(n) AS last FROM SESSION(meas PARTITION BY device, DESCRIPTOR(ts), INTERVAL \
                '{SILENT_AFTER}' SECOND) GROUP BY window_start, window_end, device"
            ),
        );
        let devices = Client::publisher(&plant).await;
        let (alarms, seen) =
            (Client::subscriber(&plant, "alarm").await, Client::subscriber(&plant, "seen").await);
        Self { plant, site, devices, alarms, seen, n: 0 }
    }

    /// Every device says something, a second after it did last.
    async fn publish(&mut self) {
        self.n += 1;
        let message = |device: &&str| {
            (format!("line1/{device}/meas"), json!({ "time": self.n * 1000, "n": self.n }).to_string())
        };
        self.devices.publish_all(DEVICES.iter().map(message)).await;
    }

    /// Waits until rules have had all of that.
    async fn passed(&mut self) {
        let mut left = DEVICES.len();
        let last = self.n;
        while left > 0 {
            left -= usize::from(self.seen.next().await.json()["n"] == last);
        }
    }

    /// The first alarm of each device: how many rows it had had, and the last of them.
    async fn alarms(&mut self) -> Vec<Value> {
        let mut alarms = Vec::new();
        for _ in DEVICES {
            alarms.push(self.alarms.next().await.json());
        }
        alarms.sort_by_key(|alarm| alarm["device"].to_string());
        alarms
    }

    fn one_silence(&self) -> Vec<Value> {
        let mut devices = DEVICES;
        devices.sort_unstable();
        devices.iter().map(|device| json!({ "device": device, "rows": self.n, "last": self.n })).collect()
    }

    async fn until_idle(&self) {
        // It is the broker or the box that is away: there is nothing else to wait for.
        tokio::time::sleep(std::time::Duration::from_secs(2 * SILENT_AFTER.unsigned_abs())).await;
    }

    fn no_row_was_late(&self, the_box: &RunningBox) {
        assert_eq!(the_box.log().find("rows came after their window had closed"), None);
    }
}

#[tokio::test]
async fn a_box_that_was_off_takes_no_device_for_silent_and_counts_what_was_queued() {
    let mut stage = Stage::new().await;
    let the_box = stage.site.run();
    stage.plant.subscribed("line1/+/meas").await;
    stage.publish().await;
    stage.passed().await;
    assert!(the_box.stop().await.success());
    for _ in 0..5 {
        stage.publish().await;
    }
    stage.until_idle().await;
    let the_box = stage.site.run();
    stage.passed().await;
    // Now they are silent.
    assert_eq!(stage.alarms().await, stage.one_silence());
    stage.no_row_was_late(&the_box);
    the_box.stop().await;
}

#[tokio::test]
async fn a_broker_that_hangs_is_no_silence() {
    let mut stage = Stage::new().await;
    let the_box = stage.site.run();
    stage.plant.subscribed("line1/+/meas").await;
    stage.publish().await;
    stage.passed().await;
    stage.plant.hang().await;
    stage.until_idle().await;
    stage.plant.go_on().await;
    for _ in 0..3 {
        stage.publish().await;
    }
    stage.passed().await;
    assert_eq!(stage.alarms().await, stage.one_silence());
    stage.no_row_was_late(&the_box);
    the_box.stop().await;
}
