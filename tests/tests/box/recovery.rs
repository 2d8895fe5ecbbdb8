//! The box is killed or stopped, and rules go on as if nothing had happened.

use std::collections::HashSet;

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const TANKS: &str = r#"
[streams.tank]
connection = "plant"
topic = "tank/{device}"
ts = "time"
fields = { n = "int64" }

[streams.doubled]
fields = { device = "utf8", n = "int64" }

[outputs.lamp]
connection = "plant"
topic = "lamp/{device}"

[uplink]
connection = "cloud"
"#;

const EACH: &str = "INSERT INTO uplink SELECT n FROM tank;";
const WINDOWS: &str = "INSERT INTO uplink SELECT device, count(*) AS rows, sum(n) AS total \
     FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device";

struct Stage {
    _plant: Mosquitto,
    cloud: Mosquitto,
    site: Site,
    devices: Client,
    each: Client,
    windows: Client,
    lamps: Client,
    /// ids of windows
    seen: HashSet<String>,
}

impl Stage {
    async fn new(rules: &[(&str, &str)]) -> Self {
        let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
        let site = Site::new(&format!(
            "{}{}{TANKS}",
            connection("plant", &plant, "5"),
            connection("cloud", &cloud, "5")
        ));
        site.rule("each", EACH);
        rules.iter().for_each(|(name, text)| site.rule(name, text));
        let devices = Client::publisher(&plant).await;
        let each = Client::subscriber(&cloud, "tidegate/box/each").await;
        let windows = Client::subscriber(&cloud, "tidegate/box/windows").await;
        let lamps = Client::subscriber(&plant, "lamp/#").await;
        let stage = Self { _plant: plant, cloud, site, devices, each, windows, lamps, seen: HashSet::new() };
        // The first start makes the session, so that the broker keeps what comes while the box is away.
        let first = stage.site.run();
        stage._plant.subscribed("tank/+").await;
        first.kill().await;
        stage
    }

    /// Publishes rows, `n` at second `n`, and waits until they are on disk: what has reached the cloud is.
    async fn rows(&mut self, numbers: std::ops::Range<i64>) {
        for n in numbers {
            self.devices.publish("tank/t1", json!({ "time": n * 1000, "n": n }).to_string()).await;
            self.each.take_until(|message| message.json()["row"]["n"] == n).await;
        }
    }

    /// The next window's row. A row that was delivered and not confirmed before a crash comes again, with the
    /// same id.
    async fn window(&mut self) -> Value {
        loop {
            let message = self.windows.next().await.json();
            if self.seen.insert(message["id"].to_string()) {
                return message["row"].clone();
            }
        }
    }

    /// Stops the box. Nothing of a window is on its way to the cloud any more.
    async fn no_more_windows(&mut self, the_box: RunningBox) {
        assert!(the_box.stop().await.success());
        Client::publisher(&self.cloud)
            .await
            .publish("tidegate/box/windows", r#"{"id": "end", "row": "end"}"#)
            .await;
        assert_eq!(self.window().await, "end");
    }
}

#[tokio::test]
async fn an_open_window_survives_a_crash_and_a_stop() {
    let mut stage = Stage::new(&[("windows", WINDOWS)]).await;
    let the_box = stage.site.run();
    stage.rows(0..3).await;
    the_box.kill().await;
    let the_box = stage.site.run();
    stage.rows(3..5).await;
    assert!(the_box.stop().await.success());
    let the_box = stage.site.run();
    stage.rows(5..7).await;
    the_box.kill().await;
    let the_box = stage.site.run();
    stage.rows(7..11).await;
    assert_eq!(stage.window().await, json!({ "device": "t1", "rows": 10, "total": 45 }));
    the_box.kill().await;
    let the_box = stage.site.run();
    the_box.log().wait("the rules' state is restored").await;
    stage.rows(11..21).await;
    assert_eq!(stage.window().await, json!({ "device": "t1", "rows": 10, "total": 145 }));
    stage.no_more_windows(the_box).await;
}

#[tokio::test]
async fn a_window_over_a_derived_stream_survives_a_crash() {
    let derived = "INSERT INTO doubled SELECT ts, device, n * 2 AS n FROM tank";
    let windows = WINDOWS.replace("TUMBLE(tank", "TUMBLE(doubled");
    let mut stage = Stage::new(&[("doubles", derived), ("windows", &windows)]).await;
    let the_box = stage.site.run();
    stage.rows(0..6).await;
    the_box.kill().await;
    let _the_box = stage.site.run();
    stage.rows(6..11).await;
    assert_eq!(stage.window().await, json!({ "device": "t1", "rows": 10, "total": 90 }));
}

#[tokio::test]
async fn outputs_are_not_written_again_by_what_was_before_a_crash() {
    let mut stage = Stage::new(&[("lamps", "INSERT INTO lamp SELECT device, n FROM tank")]).await;
    let the_box = stage.site.run();
    stage.rows(0..5).await;
    stage.lamps.take_until(|message| message.json()["n"] == 4).await;
    the_box.kill().await;
    let _the_box = stage.site.run();
    stage.rows(5..6).await;
    assert_eq!(stage.lamps.next().await.json()["n"], 5, "the five before were dealt with");
}

#[tokio::test]
async fn a_rule_that_was_swapped_before_a_crash_or_while_the_box_was_down_keeps_its_windows() {
    let above = |least: i64| format!("{WINDOWS} HAVING sum(n) > {least}");
    let mut stage = Stage::new(&[("windows", &above(1_000))]).await;
    let the_box = stage.site.run();
    stage.rows(0..3).await;
    let before = the_box.log().count();
    stage.site.rule("windows", &above(50));
    // Another file, since a version says nothing when it is loaded: files are taken in one look.
    stage.site.rule("broken", "INSERT INTO");
    the_box.log().wait_after(before, "broken.sql").await;
    std::fs::remove_file(stage.site.rule_path("broken")).unwrap();
    stage.rows(3..5).await;
    the_box.kill().await;
    let the_box = stage.site.run();
    stage.rows(5..7).await;
    the_box.kill().await;
    stage.site.rule("windows", &above(40));
    let _the_box = stage.site.run();
    stage.rows(7..11).await;
    assert_eq!(stage.window().await, json!({ "device": "t1", "rows": 10, "total": 45 }));
}

#[tokio::test]
async fn a_rule_whose_file_went_while_the_box_was_down_does_not_come_back() {
    let mut stage = Stage::new(&[("lamps", "INSERT INTO lamp SELECT device, n FROM tank")]).await;
    let the_box = stage.site.run();
    stage.rows(0..1).await;
    stage.lamps.next().await;
    the_box.kill().await;
    std::fs::remove_file(stage.site.rule_path("lamps")).unwrap();
    stage.site.rule("other", "INSERT INTO lamp SELECT 'other' AS device, n FROM tank");
    let _the_box = stage.site.run();
    stage.rows(1..3).await;
    let lit: Vec<String> = stage.lamps.take(2).await.into_iter().map(|message| message.topic).collect();
    assert_eq!(lit, ["lamp/other", "lamp/other"]);
}

#[tokio::test]
async fn a_buffer_that_is_empty_or_gone_though_there_was_one_is_said() {
    let stage = Stage::new(&[]).await;
    let buffer = stage.site.path("data/buffer.db");
    for delete in [false, true] {
        if delete {
            std::fs::remove_file(&buffer).unwrap();
        } else {
            std::fs::write(&buffer, "").unwrap();
        }
        let the_box = stage.site.run();
        let said = the_box.log().wait("though there has been one").await;
        assert!(said.contains("ERROR") && said.contains("buffer.db"), "{said}");
        the_box.stop().await;
    }
    let the_box = stage.site.run();
    the_box.log().wait("the box runs").await;
    assert_eq!(the_box.log().find("though there has been one"), None);
    the_box.stop().await;
}
