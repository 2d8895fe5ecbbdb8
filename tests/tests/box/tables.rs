//! Reference tables change while data flows, and what is run again after a crash sees what was there then.

use std::fs;

use serde_json::json;
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const TANKS: &str = r#"
[streams.tank]
connection = "plant"
topic = "tank/{device}"
ts = "time"
fields = { n = "int64" }

[tables.factors]
path = "factors.csv"

[uplink]
connection = "cloud"
"#;

const EACH: &str =
    "INSERT INTO uplink SELECT t.n, t.n * f.factor AS x FROM tank t JOIN factors f ON t.device = f.device";
const WINDOWS: &str = "CREATE VIEW scaled AS SELECT t.ts, t.n * f.factor AS x FROM tank t JOIN factors f ON \
    t.device = f.device; INSERT INTO uplink SELECT count(*) AS rows, sum(x) AS total FROM TUMBLE(scaled, \
    DESCRIPTOR(ts), INTERVAL '100' SECOND) GROUP BY window_start, window_end";

struct Stage {
    _plant: Mosquitto,
    _cloud: Mosquitto,
    site: Site,
    devices: Client,
    each: Client,
    windows: Client,
    /// number of the next row
    next: i64,
    /// the sum of what has come of the rows so far
    total: i64,
}

impl Stage {
    async fn new() -> Self {
        let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
        let site = Site::new(&format!(
            "{}{}{TANKS}",
            connection("plant", &plant, "5"),
            connection("cloud", &cloud, "5")
        ));
        site.rule("each", EACH);
        site.rule("windows", WINDOWS);
        factors(&site, "device,factor\nt1,1\n");
        let devices = Client::publisher(&plant).await;
        let each = Client::subscriber(&cloud, "tidegate/box/each").await;
        let windows = Client::subscriber(&cloud, "tidegate/box/windows").await;
        // The first start makes the session, so that the broker keeps what comes while the box is away.
        let first = site.run();
        plant.subscribed("tank/+").await;
        first.kill().await;
        Self { _plant: plant, _cloud: cloud, site, devices, each, windows, next: 1, total: 0 }
    }

    /// Publishes the next row. Returns the factor that it met.
    async fn row(&mut self) -> i64 {
        let n = self.next;
        self.next += 1;
        self.devices.publish("tank/t1", json!({ "time": n * 1000, "n": n }).to_string()).await;
        let came = self.each.take_until(|message| message.json()["row"]["n"] == n).await;
        let x = came.last().unwrap().json()["row"]["x"].as_i64().unwrap();
        self.total += x;
        x / n
    }

    /// Publishes rows until one meets `factor`; those before it meet `before`.
    async fn rows_until(&mut self, before: i64, factor: i64) {
        loop {
            let met = self.row().await;
            if met == factor {
                return;
            }
            assert_eq!(met, before);
        }
    }

    async fn put(&self, the_box: &RunningBox, text: &str, said: &str) {
        let before = the_box.log().count();
        factors(&self.site, text);
        the_box.log().wait_after(before, said).await;
    }
}

fn factors(site: &Site, text: &str) {
    let fresh = site.path("factors.new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, site.path("factors.csv")).unwrap();
}

#[tokio::test]
async fn a_table_is_read_anew_when_its_file_changes_and_a_wrong_file_changes_nothing() {
    let mut stage = Stage::new().await;
    let the_box = stage.site.run();
    assert_eq!(stage.row().await, 1);
    stage.put(&the_box, "device,factor\nt1,10\nt2,20\n", "the table is loaded").await;
    stage.rows_until(1, 10).await;
    stage.put(&the_box, "device,factor\nt1\n", "this is not CSV").await;
    assert_eq!(stage.row().await, 10);
    // Another column, and in another order: rules are compiled anew.
    stage.put(&the_box, "area,factor,device\nnorth,30,t1\n", "the table is loaded").await;
    stage.rows_until(10, 30).await;
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn what_is_run_again_after_a_crash_sees_what_the_table_held_then() {
    let mut stage = Stage::new().await;
    let the_box = stage.site.run();
    assert_eq!((stage.row().await, stage.row().await), (1, 1));
    stage.put(&the_box, "device,factor\nt1,10\n", "the table is loaded").await;
    stage.rows_until(1, 10).await;
    the_box.kill().await;
    factors(&stage.site, "device,factor\nt1,100\n");
    let the_box = stage.site.run();
    stage.rows_until(10, 100).await;
    the_box.kill().await;
    // Without its file a table holds what it held.
    fs::remove_file(stage.site.path("factors.csv")).unwrap();
    let the_box = stage.site.run();
    the_box.log().wait("cannot read the table").await;
    assert_eq!(stage.row().await, 100);
    let (rows, total) = (stage.next - 1, stage.total);
    stage.next = 100;
    stage.row().await;
    let window = stage.windows.next().await.json();
    assert_eq!(window["row"], json!({ "rows": rows, "total": total }));
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn check_says_what_is_wrong_with_a_table() {
    let broker = Mosquitto::start().await;
    let declared = TANKS
        .replace("[tables.factors]", "[tables.factors]\nfields = { device = \"utf8\", factor = \"int64\" }");
    let site = Site::new(&format!(
        "{}{}{declared}",
        connection("plant", &broker, "5"),
        connection("cloud", &broker, "5")
    ));
    site.rule("each", EACH);
    let missing = site.tidegate(&["check"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stdout).contains("cannot read the table"), "{missing:?}");
    factors(&site, "device,factor\nt1,x\n");
    let text = site.tidegate(&["check"]);
    assert!(!text.status.success());
    assert!(
        String::from_utf8_lossy(&text.stdout).contains("\"x\" in column `factor` is no int64"),
        "{text:?}"
    );
    factors(&site, "device,factor\nt1,3\n");
    let good = site.tidegate(&["check"]);
    assert!(good.status.success(), "{good:?}");
}
