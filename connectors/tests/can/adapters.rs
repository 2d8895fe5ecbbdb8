//! An adapter on a serial port, as the CANUSB manual has it.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use tidegate_connectors::DeliveryError;
use tidegate_connectors::port::{Dial, PortConfig, Settings, Wire};
use tidegate_peers::PATIENCE;
use tidegate_peers::devices::SerialCable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::rig::{Setup, write};

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

    /// It was closed, so that it refuses to be closed.
    async fn is_asked_for_its_version(&mut self) {
        for (expected, answer) in [("", &b"\r"[..]), ("C", b"\x07"), ("V", b"V1013\r")] {
            assert_eq!(self.line().await, expected);
            self.say(answer).await;
        }
    }

    async fn is_opened(&mut self, commands: &[&str]) {
        self.is_asked_for_its_version().await;
        for expected in commands {
            assert_eq!(self.line().await, *expected);
            self.say(b"\r").await;
        }
    }
}

fn setup_with(cable: &SerialCable, more: &Value) -> Setup {
    let mut slcan = json!({ "device": cable.near().display().to_string(), "bitrate": 250_000 });
    slcan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Setup::can(json!({ "slcan": slcan, "backoff": { "min": "1ms", "max": "20ms" } }))
        .stream("frames", json!({ "ids": ["*"] }))
        .output("raw", json!({ "id": "0x123" }))
        .output("other", json!({ "id": "0x124" }))
}

fn setup(cable: &SerialCable) -> Setup {
    setup_with(cable, &json!({}))
}

#[tokio::test]
async fn an_adapter_is_opened_and_frames_go_both_ways() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    // A frame in two pieces, noise, and another one.
    adapter.say(b"t10021").await;
    adapter.say(b"133\rt9\rT18FEF1000\r").await;
    let row = rig.row().await;
    assert_eq!((&row["id"], &row["data"]), (&json!(0x100), &json!("1133")));
    let row = rig.row().await;
    assert_eq!((&row["id"], &row["extended"], &row["data"]), (&json!(0x18fe_f100), &json!(true), &json!("")));
    assert_eq!((rig.status.malformed.get(), rig.status.refusals.get()), (1, 0));
    for answer in [b"z\r", b"\r\n"] {
        let written = async {
            assert_eq!(adapter.line().await, "t12320102");
            adapter.say(answer).await;
        };
        let row = json!({ "data": "X'0102'" });
        let (outcome, ()) = tokio::join!(rig.write("raw", &row), written);
        outcome.unwrap();
    }
    rig.end().await;
}

/// The manual: four digits behind the data are a time, if that is switched on; then a frame could not be told
/// from one whose length is wrong.
#[tokio::test]
async fn a_frame_of_another_length_than_it_says_is_left_out() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    adapter.say(b"t1004AABBCCDDEEFF\rt100211\rt10101\rt1000\r").await;
    assert_eq!(rig.row().await["data"], "");
    assert_eq!((rig.status.messages.get(), rig.status.malformed.get()), (1, 3));
    rig.end().await;
}

/// The manual: BEL is no, and `F` asks for the status; 0x82 is a bus error, and a send queue that is full.
#[tokio::test]
async fn a_frame_that_the_adapter_refuses_is_not_written_and_the_reason_is_said() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    for (answer, words) in [(&b"F82\r"[..], "send queue full, bus error"), (b"\x07", "does not say why")] {
        let refused = async {
            assert_eq!(adapter.line().await, "t12320102");
            adapter.say(b"\x07").await;
            assert_eq!(adapter.line().await, "F");
            adapter.say(answer).await;
        };
        let row = json!({ "data": "X'0102'" });
        match tokio::join!(rig.write("raw", &row), refused).0 {
            Err(DeliveryError::Transient(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.status.refusals.get(), 2);
    // It is open as before.
    adapter.say(b"t1000\r").await;
    rig.row().await;
    rig.end().await;
}

#[tokio::test]
async fn what_an_adapter_does_not_answer_is_unknown_and_nothing_is_sent_after_it() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    rig.begins().await;
    let mut other = rig.sinks.remove("other").unwrap();
    let unanswered = async {
        assert_eq!(adapter.line().await, "t123101");
        match write(&mut *other, &json!({ "data": "X'02'" })).await {
            Err(DeliveryError::Transient(why)) => assert!(why.contains("not sent within"), "{why}"),
            other => panic!("{other:?}"),
        }
    };
    let row = json!({ "data": "X'01'" });
    match tokio::join!(rig.write("raw", &row), unanswered).0 {
        Err(DeliveryError::Unknown(why)) => assert!(why.contains("may have been sent"), "{why}"),
        other => panic!("{other:?}"),
    }
    let why = rig.ends().await;
    assert!(why.contains("does not answer") && why.contains("answers = false"), "{why}");
    // It is opened anew, and has heard of nothing else.
    adapter.is_opened(&["S5", "O"]).await;
    drop(other);
    rig.end().await;
}

#[tokio::test]
async fn a_line_without_an_adapter_is_an_outage_that_says_what_was_tried() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let rig = setup(&cable).run();
    for expected in ["", "C", "V"] {
        assert_eq!(adapter.line().await, expected);
    }
    // What a device says that is none.
    adapter.say(b"+ 12.5 kg\r\n").await;
    let why = rig.trouble().await;
    assert!(why.contains("nothing answers `C` and `V`: is it an adapter"), "{why}");
    assert!(!rig.status.is_connected());
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_refuses_to_take_part_in_the_bus_is_an_outage() {
    for (answers, words) in [
        (&[&b"\r"[..], b"\x07"][..], "refuses to take part in the bus (`O`)"),
        (&[b"\x07"], "refuses the bit rate (`S5`)"),
    ] {
        let cable = SerialCable::plug().await;
        let mut adapter = Adapter::at(&cable).await;
        let rig = setup(&cable).run();
        adapter.is_asked_for_its_version().await;
        for (answer, expected) in answers.iter().zip(["S5", "O"]) {
            assert_eq!(adapter.line().await, expected);
            adapter.say(answer).await;
        }
        let why = rig.trouble().await;
        assert!(why.contains(words), "{why}");
        rig.end().await;
    }
}

/// What is said before is of frames of earlier.
#[tokio::test]
async fn an_adapter_that_knows_no_version_is_opened_all_the_same() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    for (expected, answer) in
        [("", &b"\r"[..]), ("C", b"\r"), ("V", b"\x07"), ("S5", b"\r"), ("O", b"\rt1000\r")]
    {
        assert_eq!(adapter.line().await, expected);
        adapter.say(answer).await;
    }
    assert_eq!(rig.row().await["id"], 0x100);
    rig.end().await;
}

/// A no to the bit rate that comes behind what is left of earlier: the bus must not be joined.
#[tokio::test]
async fn an_answer_of_earlier_is_no_yes_to_the_bit_rate() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let rig = setup(&cable).run();
    for expected in ["", "C", "V"] {
        assert_eq!(adapter.line().await, expected);
    }
    adapter.say(b"\r\r\x07\rz\rV1013\r").await;
    assert_eq!(adapter.line().await, "S5");
    adapter.say(b"\x07").await;
    let why = rig.trouble().await;
    assert!(why.contains("refuses the bit rate (`S5`)"), "{why}");
    assert_eq!(adapter.line().await, "C", "and never `O`");
    rig.end().await;
}

#[tokio::test]
async fn a_no_that_comes_late_ends_the_connection_and_takes_the_adapter_off_the_bus() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    rig.begins().await;
    adapter.say(b"\x07").await;
    let why = rig.ends().await;
    assert!(why.contains("said no after it had said yes to its bit rate"), "{why}");
    assert_eq!(adapter.line().await, "C");
    adapter.is_opened(&["S5", "O"]).await;
    rig.begins().await;
    rig.end().await;
}

/// ITU-T V.250: a modem repeats what it is told (5.2.3), and its results stand between CR and LF (5.7.1).
#[tokio::test]
async fn a_modem_is_no_adapter() {
    for (echoes, words) in [(true, "that is an echo"), (false, "`S5` is answered with \"ERROR\"")] {
        let cable = SerialCable::plug().await;
        let mut adapter = Adapter::at(&cable).await;
        let rig = setup(&cable).run();
        for expected in ["", "C", "V", "S5"] {
            assert_eq!(adapter.line().await, expected);
            let echo = format!("{expected}\r");
            adapter.say(format!("{}\r\nERROR\r\n", if echoes { &echo } else { "" }).as_bytes()).await;
            if echoes && expected == "V" {
                break;
            }
        }
        let why = rig.trouble().await;
        assert!(why.contains(words), "{why}");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_frame_that_comes_back_instead_of_its_answer_is_an_echo_and_is_not_received() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    rig.begins().await;
    let echoed = async {
        assert_eq!(adapter.line().await, "t12320102");
        adapter.say(b"t12320102\r").await;
    };
    let row = json!({ "data": "X'0102'" });
    match tokio::join!(rig.write("raw", &row), echoed).0 {
        Err(DeliveryError::Unknown(why)) => assert!(why.contains("that is an echo"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.status.messages.get(), 0);
    rig.end().await;
}

/// As with the firmware of CANable.
#[tokio::test]
async fn an_adapter_that_never_answers_is_written_to_if_that_is_configured() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup_with(&cable, &json!({ "answers": false })).run();
    for expected in ["", "C", "S5", "O"] {
        assert_eq!(adapter.line().await, expected);
    }
    for expected in ["t12301", "t12302"] {
        rig.write("raw", &json!({ "data": format!("X'{}'", &expected[4..]) })).await.unwrap();
        let length = (expected.len() - 4) / 2;
        assert_eq!(adapter.line().await, format!("{}{length}{}", &expected[..4], &expected[4..]));
    }
    adapter.say(b"t1000\r").await;
    rig.row().await;
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_is_unplugged_is_an_outage_and_is_taken_up_again() {
    let cable = SerialCable::plug().await;
    let mut adapter = Adapter::at(&cable).await;
    let mut rig = setup(&cable).run();
    adapter.is_opened(&["S5", "O"]).await;
    rig.begins().await;
    let unplugged = async {
        assert_eq!(adapter.line().await, "t123101");
        drop((adapter, cable));
    };
    let row = json!({ "data": "X'01'" });
    match tokio::join!(rig.write("raw", &row), unplugged).0 {
        Err(DeliveryError::Unknown(why)) => assert!(why.contains("may have been sent"), "{why}"),
        other => panic!("{other:?}"),
    }
    let why = rig.ends().await;
    assert!(why.contains("plugged in"), "{why}");
    match rig.write("raw", &row).await {
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
    let rig = Setup::can(json!({ "slcan": { "device": device, "bitrate": 1_000_000 }, "listen_only": true }))
        .stream("frames", json!({ "ids": ["*"] }))
        .run();
    adapter.is_opened(&["S8", "L"]).await;
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
    adapter.is_opened(&["S5", "O"]).await;
    let sent = async {
        assert_eq!(adapter.line().await, "T18EF052780100000000000000");
        adapter.say(b"Z\r").await;
    };
    let row = json!({ "On": 1 });
    tokio::join!(rig.write("command", &row), sent).0.unwrap();
    rig.end().await;
}
