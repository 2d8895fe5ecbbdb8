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

/// The second block of `sh` under "Backup" in the document, for these places.
fn backup_script(data: &std::path::Path, stick: &std::path::Path) -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let text = std::fs::read_to_string(document).unwrap();
    let backup = text.split("## Backup").nth(1).unwrap().split("## Restore").next().unwrap();
    let block = backup.split("```sh\n").nth(2).unwrap().split("```").next().unwrap();
    assert!(block.contains(".backup"), "{block}");
    block
        .replace("/var/lib/tidegate", &data.display().to_string())
        .replace("/media/stick", &stick.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_restored_as_the_document_says_moves_nothing_by_old_commands() {
    let plant = Mosquitto::start().await;
    // Without tables and inferred columns: there is less to copy.
    let site = Site::new(&format!("{}{STREAM}", connection("plant", &plant, "5")));
    site.rule("copy", "INSERT INTO out SELECT v FROM s;");
    let devices = Client::publisher(&plant).await;
    let out = Client::subscriber(&plant, "out").await;
    let mut stage = Stage { plant, site, devices, out, markers: 100 };
    stage.devices.retain("s/a", r#"{"v": 1}"#).await;
    let (running, written) = stage.start().await;
    assert_eq!(written, ["1"]);
    assert!(running.stop().await.success());
    let (running, written) = stage.start().await;
    assert_eq!(written, [""; 0]);
    let (data, stick) = (stage.site.path("data"), tempfile::tempdir().unwrap());
    // What a box in the field has installed: `sqlite3`, and the binary.
    let tools = tempfile::tempdir().unwrap();
    let sqlite3 = "#!/usr/bin/env python3\nimport sqlite3, sys\n\
        sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2].split()[1]))\n";
    std::fs::write(tools.path().join("sqlite3"), sqlite3).unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(tools.path().join("sqlite3"), mode).unwrap();
    std::os::unix::fs::symlink(tidegate_tests::box_under_test::binary(), tools.path().join("tidegate"))
        .unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let script = format!("set -e\n{}", backup_script(&data, stick.path()));
    let saved = std::process::Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
    assert!(saved.status.success(), "{saved:?}");
    assert!(running.stop().await.success());

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(stick.path(), &data)
        .or_else(|_| {
            let copied = std::process::Command::new("cp").arg("-r").arg(stick.path()).arg(&data).status()?;
            copied.success().then_some(()).ok_or_else(|| std::io::Error::other("cp failed"))
        })
        .unwrap();
    let (running, written) = stage.start().await;
    assert_eq!(written, [""; 0], "nothing that was dealt with before the backup");
    assert!(running.stop().await.success());
}
