//! What a broker retains is told to an output once, whatever becomes of the box.

use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::mosquitto::Mosquitto;

const STREAM: &str = r#"
[streams.s]
connection = "plant"
topic = "s/{device}"
fields = { v = "int64" }

[outputs.out]
connection = "plant"
topic = "out"
payload = "{v}"
"#;

struct Stage {
    plant: Mosquitto,
    site: Site,
    devices: Client,
    out: Client,
    markers: i64,
}

impl Stage {
    /// Starts the box, and waits until it has seen all that was retained. Returns what it wrote of it; a
    /// marker of before a crash may come again, when it was written and not yet on disk.
    async fn start(&mut self) -> (RunningBox, Vec<String>) {
        let lines = self.plant.lines().count();
        let running = self.site.run();
        self.plant.subscribed_after(lines, "s/+").await;
        self.markers += 1;
        let marker = self.markers.to_string();
        self.devices.publish("s/marker", format!("{{\"v\": {marker}}}")).await;
        let written = self.out.take_until(|message| message.text() == marker).await;
        let is_marker = |text: &String| text.len() == marker.len();
        (
            running,
            written.iter().map(|message| message.text().to_owned()).filter(|text| !is_marker(text)).collect(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_moves_an_output_once_over_starts_stops_and_crashes() {
    for version in ["3.1.1", "5"] {
        let plant = Mosquitto::start().await;
        let site = Site::new(&format!("{}{STREAM}", connection("plant", &plant, version)));
        site.rule("copy", "INSERT INTO out SELECT v FROM s;");
        let devices = Client::publisher(&plant).await;
        let out = Client::subscriber(&plant, "out").await;
        let mut stage = Stage { plant, site, devices, out, markers: 100 };
        stage.devices.retain("s/a", r#"{"v": 1}"#).await;

        let (running, written) = stage.start().await;
        assert_eq!(written, ["1"], "{version}");
        assert!(running.stop().await.success());
        let (running, written) = stage.start().await;
        assert_eq!(written, [""; 0], "{version}, after a stop");
        running.kill().await;
        let (running, written) = stage.start().await;
        assert_eq!(written, [""; 0], "{version}, after a crash");
        stage.devices.retain("s/a", r#"{"v": 2}"#).await;
        assert_eq!(stage.out.next().await.text(), "2");
        assert!(running.stop().await.success());
        let (running, written) = stage.start().await;
        assert_eq!(written, [""; 0], "{version}, it came live before");
        running.kill().await;
        stage.devices.retain("s/a", r#"{"v": 1}"#).await;
        let (running, written) = stage.start().await;
        assert_eq!(written, ["1"], "{version}, a new value");
        assert!(running.stop().await.success());
    }
}
