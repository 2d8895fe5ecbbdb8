//! What comes from a device, what it is asked and told, and what becomes of a cable that is pulled.

use std::path::Path;

use clap::Parser as _;
use serde_json::{Value, json};
use tidegate_connectors::commission::{CommandOutput, Known};
use tidegate_connectors::serial::commission::SerialCommand;
use tidegate_connectors::{DeliveryError, LineNews};
use tidegate_peers::devices::SerialCable;

use super::device::Device;
use crate::rig::Setup;

fn line(port: &Path) -> Setup {
    Setup::serial(json!({ "device": port, "baud": 115_200, "frame": { "end": "\r\n", "max": "256B" } }))
}

fn weight() -> Value {
    json!({
        "format": "regex", "pattern": r"^(?<state>ST|US),(?<net>[+-]?[0-9.]+)\s*(?<unit>kg|g)$",
        "fields": { "state": "utf8", "net": "float64", "unit": "utf8" },
    })
}

fn with(mut config: Value, more: &Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[tokio::test]
async fn a_scale_speaks_and_its_lines_become_rows() {
    let cable = SerialCable::plug().await;
    let mut scale = Device::at(&cable.far());
    let mut rig = line(&cable.near()).stream("weight", weight()).run();
    assert!(matches!(rig.news().await, LineNews::Begins));
    for n in 0..50 {
        // Pieces of a line come one by one.
        scale.say(b"ST,+0").await;
        scale.say(format!("{n}.5 kg\r\n").as_bytes()).await;
    }
    // The first may have begun before the port was open.
    let first = rig.row().await["net"].as_f64().unwrap();
    let mut expected = first;
    while expected < 49.0 {
        expected += 1.0;
        let row = rig.row().await;
        assert_eq!(row, json!({ "state": "ST", "net": expected, "unit": "kg" }));
    }
    rig.question.send(7).unwrap();
    assert_eq!(rig.news().await, LineNews::Heard { asked: 7 });
    rig.end().await;
}

#[tokio::test]
async fn several_streams_share_a_line_by_their_patterns_and_what_fits_none_is_counted() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let gross = json!({ "match": "^GS,", "format": "csv", "fields": { "gross": { "type": "float64", "path": "1" } } });
    let mut rig = line(&cable.near()).stream("gross", gross).stream("weight", weight()).run();
    rig.news().await;
    // Whatever was under way when the port was opened ends here.
    device.say(b"\r\n").await;
    device.say(b"GS,12.5\r\nST,10kg\r\n??\r\nGS,13.5\r\n").await;
    let mut rows = Vec::new();
    for _ in 0..3 {
        let (stream, row) = rig.row_and_stream().await;
        rows.push((stream, row));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(rows[0], ("gross".into(), json!({ "gross": 12.5 })));
    assert_eq!(rows[1], ("gross".into(), json!({ "gross": 13.5 })));
    assert_eq!(rows[2].1["net"], 10.0);
    let unclaimed = rig.status.counter("unclaimed").get();
    assert!((1..=2).contains(&unclaimed), "{unclaimed}");
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_that_is_unplugged_is_a_lost_line_and_is_taken_up_again() {
    let mut cable = SerialCable::plug().await;
    let mut scale = Device::at(&cable.far());
    let stream = with(weight(), &json!({ "quality": true }));
    let output = json!({ "payload": "T{net}\\r\\n" });
    let mut rig = line(&cable.near()).stream("weight", stream).output("display", output).run();
    assert!(matches!(rig.news().await, LineNews::Begins));
    scale.say(b"\r\nST,1kg\r\n").await;
    rig.row_where(|row| row["quality"] == "good").await;
    cable.unplug().await;
    let row = rig.row_where(|row| row["quality"] == "stale" && row["net"].is_null()).await;
    let fault = row["fault"].as_str().unwrap();
    assert!(fault.contains("is gone: was it unplugged?"), "{fault}");
    rig.trouble().await;
    let error = rig.write("display", &json!({ "net": 1 })).await.unwrap_err();
    assert!(
        matches!(&error, DeliveryError::Transient(why) if why.contains("connection c is down")),
        "{error}"
    );
    cable.replug().await;
    let mut scale = Device::at(&cable.far());
    rig.until_up().await;
    scale.say(b"\r\nST,2kg\r\n").await;
    let row = rig.row_where(|row| row["quality"] == "good").await;
    assert_eq!((&row["net"], rig.status.reconnects.get()), (&json!(2.0), 1));
    rig.end().await;
}

#[tokio::test]
async fn a_device_is_asked_and_late_answers_are_no_values() {
    let cable = SerialCable::plug().await;
    let mut scale = Device::at(&cable.far());
    let poll = json!({ "send": "P\\r\\n", "every": "20ms", "timeout": "300ms" });
    let stream = with(weight(), &json!({ "quality": true, "poll": poll }));
    let mut rig = line(&cable.near()).stream("weight", stream).run();
    assert_eq!(scale.asked().await, "P\r\n");
    scale.say(b"\r\nST,1kg\r\n").await;
    assert_eq!(rig.row_where(|row| row["quality"] == "good").await["net"], 1.0);
    // It does not answer in time; then it does, before it is asked again.
    assert_eq!(scale.asked().await, "P\r\n");
    let row = rig.row_where(|row| row["quality"] == "bad").await;
    assert_eq!((&row["fault"], &row["net"]), (&json!("no answer within 300ms"), &Value::Null));
    scale.say(b"ST,666kg\r\n").await;
    assert_eq!(scale.asked().await, "P\r\n");
    scale.say(b"ST,3kg\r\n").await;
    let row = rig.row_where(|row| row["quality"] == "good").await;
    assert_eq!(row["net"], 3.0, "666 was the answer to another question");
    assert_eq!((rig.status.timeouts.get(), rig.status.counter("strays").get()), (1, 1));
    rig.end().await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_left_alone_and_writes_go_through() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let dead = |send: &str| {
        let poll = json!({ "send": send, "every": "5ms", "timeout": "20ms" });
        json!({ "quality": true, "format": "raw", "match": "^A", "fields": { "a": "utf8" }, "poll": poll })
    };
    let mut rig = line(&cable.near())
        .set("park", json!({ "after": 2, "for": "1h" }))
        .stream("dead", dead("D\\r\\n"))
        .output("display", json!({ "payload": "T{net:6.1}\\r\\n", "answer": "^OK$", "timeout": "5s" }))
        .run();
    rig.row_where(|row| row["fault"].as_str().is_some_and(|fault| fault.contains("left alone"))).await;
    assert_eq!(rig.status.parked(), ["dead"]);
    let answering = async {
        loop {
            let asked = device.asked().await;
            if asked.starts_with('T') {
                device.say(b"\r\nOK\r\n").await;
                return asked;
            }
        }
    };
    let row = json!({ "net": 12.34 });
    let (written, sent) = tokio::join!(rig.write("display", &row), answering);
    assert_eq!((written, sent.as_str()), (Ok(()), "T  12.3\r\n"));
    rig.end().await;
}

#[tokio::test]
async fn a_write_that_the_device_does_not_confirm_has_failed() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let output = json!({ "payload": "T{net}\\r\\n", "answer": "^OK$", "timeout": "50ms" });
    let mut rig = line(&cable.near()).output("display", output).run();
    let error = rig.write("display", &json!({ "net": 1 })).await.unwrap_err();
    let why = "display: sent, and not confirmed by `answer` within 50ms";
    assert_eq!(error, DeliveryError::Unknown(why.into()));
    assert_eq!(device.asked().await, "T1\r\n", "and it was sent once");
    let error = rig.write("display", &json!({ "net": "1\r\nX" })).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Permanent(why) if why.contains("another command")), "{error}");
    rig.end().await;
}

#[tokio::test]
async fn a_float_that_is_infinite_is_bad_and_says_why() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let flow = json!({ "flow": { "at": 0, "type": "float32" } });
    let poll = json!({ "send": "P\\r\\n", "every": "20ms" });
    let stream = json!({ "format": "layout", "quality": true, "fields": flow, "poll": poll });
    let mut rig =
        line(&cable.near()).set("frame", json!({ "length": 4, "gap": "50ms" })).stream("s", stream).run();
    for (bytes, flow, quality) in [
        (1.5_f32.to_be_bytes(), json!(1.5), "good"),
        ([0x7f, 0x80, 0, 0], Value::Null, "bad"),
        ([0x7f, 0xc0, 0, 0], Value::Null, "bad"),
    ] {
        device.asked().await;
        device.say(&bytes).await;
        let row = rig.row().await;
        assert_eq!((&row["flow"], &row["quality"]), (&flow, &json!(quality)), "{row:?}");
        assert_eq!(row["fault"].is_null(), quality == "good");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_says_so_once() {
    let cable = SerialCable::plug().await;
    let mut scale = Device::at(&cable.far());
    let stream = with(weight(), &json!({ "quality": true, "stale_after": "50ms" }));
    let mut rig = line(&cable.near()).stream("weight", stream).run();
    let row = rig.row_where(|row| row["quality"] == "stale").await;
    assert_eq!(row["fault"], "nothing has come for 50ms");
    scale.say(b"\r\nST,1kg\r\n").await;
    assert_eq!(rig.row().await["quality"], "good", "it was said once");
    assert_eq!(rig.row().await["quality"], "stale");
    rig.end().await;
}

/// `tidegate serial`, as the box's own command line reads it.
#[derive(clap::Parser)]
struct Cli {
    #[command(subcommand)]
    command: SerialCommand,
}

#[tokio::test]
async fn what_comes_from_a_port_is_shown_by_hand() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let port = cable.near().display().to_string();
    let arguments = ["serial", "monitor", &port, "--end", "\\r\\n", "--send", "P\\r\\n", "-n", "2", "--json"];
    let command = Cli::parse_from(arguments).command;
    let mut shown = Vec::new();
    let mut show = |output: CommandOutput<'_>| {
        if let CommandOutput::Line(line) = output {
            shown.push(serde_json::from_str::<Value>(line).unwrap());
        }
        true
    };
    let known = Known::default();
    let answering = async {
        assert_eq!(device.asked().await, "P\r\n");
        device.say(b"ST,1kg\r\nUS,2kg\r\n").await;
    };
    let (outcome, ()) = tokio::join!(command.run(&known, &mut show), answering);
    assert!(!outcome.unwrap().failed);
    let texts: Vec<&Value> = shown.iter().map(|frame| &frame["text"]).collect();
    assert_eq!(texts, ["ST,1kg", "US,2kg"]);
    assert_eq!(shown[0]["hex"], "53542c316b67");
}

#[tokio::test]
async fn a_monitor_that_finds_no_frame_says_why_that_may_be() {
    for (said, words) in
        [(&b"ST,1kg\rST,2kg\r"[..], r#"write end = "\r""#), (b"", "what was sent was not answered")]
    {
        let cable = SerialCable::plug().await;
        let mut device = Device::at(&cable.far());
        let port = cable.near().display().to_string();
        let arguments = ["serial", "monitor", &port, "--end", "\\r\\n", "--send", "P\\r\\n", "--time", "3s"];
        let command = Cli::parse_from(arguments).command;
        let (known, mut show) = (Known::default(), |_: CommandOutput<'_>| true);
        let answering = async {
            assert_eq!(device.asked().await, "P\r\n");
            device.say(said).await;
        };
        let (outcome, ()) = tokio::join!(command.run(&known, &mut show), answering);
        let why = outcome.unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn two_wire_adapters_hear_themselves() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let poll = json!({ "send": "A1\\r\\n", "every": "20ms" });
    let stream = json!({ "format": "raw", "match": "^A", "fields": { "a": "utf8" }, "poll": poll });
    let mut rig = line(&cable.near()).set("echo", json!(true)).stream("s", stream).run();
    for n in 0..5 {
        let asked = device.asked().await;
        device.say(format!("{asked}A{n}\r\n").as_bytes()).await;
        assert_eq!(rig.row().await["a"], format!("A{n}"));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_port_belongs_to_one_connection_and_says_what_it_cannot() {
    let cable = SerialCable::plug().await;
    let mut rig = line(&cable.near()).stream("weight", weight()).run();
    rig.news().await;
    for (key, value, words) in [
        ("device", json!(cable.near()), "another program has it open"),
        ("device", json!("/dev/ttyNOTHING"), "is it plugged in? list the ports with: tidegate serial list"),
    ] {
        let other = line(&cable.near()).set(key, value).stream("weight", weight()).run();
        let why = other.trouble().await;
        assert!(why.contains(words), "{why}");
        other.end().await;
    }
    rig.end().await;
    for (key, value, words) in [
        ("rs485", json!(true), "the driver cannot switch RS-485 (TIOCSRS485 is unsupported)"),
        ("parity", json!("even"), "the driver does not take the parity of 115200 baud, 8E1"),
        ("data_bits", json!(7), "the data bits"),
    ] {
        let other = line(&cable.near()).set(key, value).stream("weight", weight()).run();
        let why = other.trouble().await;
        assert!(why.contains(words), "{why}");
        other.end().await;
    }
}
