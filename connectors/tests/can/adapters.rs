//! An adapter on a serial port, as the CANUSB manual has it.

use std::num::NonZeroU32;

use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::port::{Dial, PortConfig, Settings, Wire};
use tidegate_peers::PATIENCE;
use tidegate_peers::devices::SerialCable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::rig::Setup;

/// The adapter's end of a cable.
struct Adapter(Wire);

impl Adapter {
    async fn at(cable: &SerialCable) -> Self {
        let config = PortConfig::at(cable.far().display().to_string());
        let settings = Settings::plain(NonZeroU32::new(115_200).unwrap());
        Self(Dial::new(&config, settings, PATIENCE).unwrap().open().await.unwrap())
    }

    /// The next line without its end.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            match timeout(PATIENCE, self.0.read_u8()).await.expect("the box writes").unwrap() {
                b'\r' => return String::from_utf8(line).unwrap(),
                byte => line.push(byte),
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }
}

fn setup(cable: &SerialCable) -> Setup {
    let device = cable.near().display().to_string();
    Setup::new(&json!({
        "slcan": { "device": device, "bitrate": 250_000 }, "backoff": { "min": "1ms", "max": "20ms" },
    }))
    .stream("frames", json!({ "ids": ["*"] }))
    .output("raw", json!({ "id": "0x123" }))
}

#[tokio::test]
async fn an_adapter_is_opened_and_frames_go_both_ways() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    for expected in ["", "C", "S5", "O"] {
        assert_eq!(adapter.line().await, expected);
    }
    // It was closed, so that it refuses to be closed; then a frame in two pieces, noise, and another one.
    adapter.say(b"\r\x07\r\rt10021").await;
    adapter.say(b"133\rt9\rT18FEF1000\r").await;
    let row = rig.row().await;
    assert_eq!((&row["id"], &row["data"]), (&json!(0x100), &json!("1133")));
    let row = rig.row().await;
    assert_eq!((&row["id"], &row["extended"], &row["data"]), (&json!(0x18fe_f100), &json!(true), &json!("")));
    assert_eq!((rig.status.malformed.get(), rig.status.refusals.get()), (1, 0));
    rig.write("raw", &json!({ "data": "X'0102'" })).await.unwrap();
    assert_eq!(adapter.line().await, "t12320102");
    adapter.say(b"\x07").await;
    adapter.say(b"t1000\r").await;
    rig.row().await;
    assert_eq!(rig.status.refusals.get(), 1);
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_stops_answering_gets_nothing_that_it_could_send_late() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    while adapter.line().await != "O" {}
    adapter.say(b"\r\x07\r\rt1000\r").await;
    rig.row().await;
    rig.write("raw", &json!({ "data": "X'01'" })).await.unwrap();
    assert_eq!(adapter.line().await, "t123101");
    for data in ["X'02'", "X'03'"] {
        match rig.write("raw", &json!({ "data": data })).await {
            Err(DeliveryError::Transient(why)) => assert!(why.contains("not sent within"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let why = rig.ends().await;
    assert!(why.contains("does not answer any more"), "{why}");
    // It is opened anew, and has heard of neither.
    for expected in ["", "C", "S5", "O"] {
        assert_eq!(adapter.line().await, expected);
    }
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_is_unplugged_is_an_outage_and_is_taken_up_again() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    while adapter.line().await != "O" {}
    rig.begins().await;
    drop((adapter, cable));
    let why = rig.ends().await;
    assert!(why.contains("plugged in"), "{why}");
    match rig.write("raw", &json!({ "data": "X'01'" })).await {
        Err(DeliveryError::Transient(why)) => assert!(why.contains("is down"), "{why}"),
        other => panic!("{other:?}"),
    }
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_may_only_listen_is_told_so() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let device = cable.near().display().to_string();
    let rig =
        Setup::new(&json!({ "slcan": { "device": device, "bitrate": 1_000_000 }, "listen_only": true }))
            .stream("frames", json!({ "ids": ["*"] }))
            .run();
    for expected in ["", "C", "S8", "L"] {
        assert_eq!(adapter.line().await, expected);
    }
    rig.end().await;
}

/// SAE J1939-21: parameter group 61 184 (0xEF00) goes to one node, whose address is in the id's third byte,
/// and the sender's in its last.
#[tokio::test]
async fn a_message_of_j1939_is_sent_from_the_boxs_address() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let dbc = "BU_: Box\nBO_ 2565865470 Command: 8 Box\n SG_ On : 0|8@1+ (1,0) [0|0] \"\" Box\n\
               BA_DEF_ \"ProtocolType\" STRING ;\nBA_DEF_DEF_ \"ProtocolType\" \"\";\n\
               BA_ \"ProtocolType\" \"J1939\";\n";
    let mut rig = setup(&cable)
        .dbc(dbc)
        .output("command", json!({ "message": "Command", "source": 0x27, "destination": 5 }))
        .run();
    while adapter.line().await != "O" {}
    rig.write("command", &json!({ "On": 1 })).await.unwrap();
    assert_eq!(adapter.line().await, "T18EF052780100000000000000");
    rig.end().await;
}
