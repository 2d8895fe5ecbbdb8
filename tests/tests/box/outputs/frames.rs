//! Outputs on serial lines and on a CAN bus: what they are told goes out whole, whatever has changed of it.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::json;
use tidegate_tests::PATIENCE;
use tidegate_tests::devices::SerialCable;
use tokio::sync::mpsc;

use super::stage::{Stage, TANK, WANT};

const TERMS: &str = r#"expiry = "60s"
range = { SPEED = [0, 80] }
failsafe = { RUN = false, SPEED = 0 }
interlock = { when = "tank.level > 10", max_age = "never" }
"#;

fn terms(run: &str, speed: &str) -> String {
    TERMS.replace("RUN", run).replace("SPEED", speed)
}

/// What comes out of the far end of a cable, in parts that end with `end`.
struct Frames(mpsc::Receiver<String>);

impl Frames {
    fn follow(end_of_cable: &Path, end: u8) -> Self {
        let file = std::fs::File::open(end_of_cable).unwrap();
        let (sender, frames) = mpsc::channel(1_000);
        std::thread::spawn(move || {
            let mut parts = BufReader::new(file).split(end);
            while let Some(Ok(part)) = parts.next() {
                let text = String::from_utf8_lossy(&part).trim().to_owned();
                if sender.blocking_send(text).is_err() {
                    return;
                }
            }
        });
        Self(frames)
    }

    /// The next one that begins with `start`.
    async fn next(&mut self, start: &str) -> String {
        let next = async {
            loop {
                let frame = self.0.recv().await.expect("the cable is there");
                if frame.starts_with(start) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame comes")
    }
}

/// Has a box go through a day of an output. `sent`: the next that was sent, as `run` and `speed`.
async fn a_day(mut stage: Stage, mut sent: impl AsyncFnMut() -> (bool, f64)) {
    stage.start().await;
    stage.row("tank", json!({ "level": 20 })).await;
    for (run, speed, expected) in
        [(true, 40.0, 40.0), (true, 45.0, 45.0), (false, 45.0, 45.0), (true, 95.0, 80.0)]
    {
        stage.row("want", json!({ "run": run, "speed": speed })).await;
        assert_eq!(sent().await, (run, expected));
    }
    stage.row("tank", json!({ "level": 5 })).await;
    assert_eq!(sent().await, (false, 0.0), "the interlock has tripped");
    stage.row("want", json!({ "run": true, "speed": 30.0 })).await;
    stage.row("tank", json!({ "level": 20 })).await;
    assert_eq!(sent().await, (true, 30.0));
    stage.says(&["why", "pump"], &["acknowledged", "follow"]).await;
    stage.stop().await;
    assert_eq!(sent().await, (false, 0.0), "the box has stopped");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_serial_device_is_told_all_of_it() {
    let cable = SerialCable::plug().await;
    let mut frames = Frames::follow(&cable.far(), b'\n');
    let outputs = format!(
        "[connections.port]\nkind = \"serial\"\ndevice = {:?}\nbaud = 9600\nframe = {{ end = \"\\r\\n\" }}\n\
         [outputs.pump]\nconnection = \"port\"\npayload = \"DRIVE {{run}} {{speed}}\\r\\n\"\n\
         [outputs.pump.contract]\n{}",
        cable.near(),
        terms("run", "speed")
    );
    let stage = Stage::new(&outputs, &[WANT, TANK]).await;
    stage.site.rule("follow", "INSERT INTO pump SELECT run, speed FROM want");
    a_day(stage, async || {
        let frame = frames.next("DRIVE ").await;
        let mut words = frame.split(' ').skip(1);
        (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap())
    })
    .await;
}

const DATABASE: &str = r#"VERSION ""

NS_ :

BS_:

BU_: Plc Drive

BO_ 256 MotorCommand: 3 Plc
 SG_ Target : 0|16@1+ (0.1,0) [0|1000] "rpm" Drive
 SG_ Enable : 16|1@1+ (1,0) [0|1] "" Drive
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tests/devices/prepare"]
async fn a_message_on_a_can_bus_has_all_its_signals() {
    let cable = SerialCable::plug().await;
    let mut frames = Frames::follow(&cable.far(), b'\r');
    let outputs = format!(
        "[connections.bus]\nkind = \"can\"\nslcan = {{ device = {:?}, bitrate = 250000, answers = false }}\n\
         dbc = [\"drive.dbc\"]\n\
         [outputs.pump]\nconnection = \"bus\"\nmessage = \"MotorCommand\"\n\
         [outputs.pump.contract]\n{}",
        cable.near(),
        terms("Enable", "Target")
    );
    let stage = Stage::new(&outputs, &[WANT, TANK]).await;
    std::fs::write(stage.site.path("drive.dbc"), DATABASE).unwrap();
    stage.site.rule("follow", "INSERT INTO pump SELECT run AS \"Enable\", speed AS \"Target\" FROM want");
    a_day(stage, async || {
        // The id, how many bytes, and these: Target in tenths, least byte first, and Enable.
        let frame = frames.next("t100").await;
        assert_eq!(&frame[4..5], "3", "{frame}");
        let byte = |at: usize| u16::from_str_radix(&frame[at..at + 2], 16).unwrap();
        (byte(9) == 1, f64::from(byte(5) + 256 * byte(7)) / 10.0)
    })
    .await;
}
