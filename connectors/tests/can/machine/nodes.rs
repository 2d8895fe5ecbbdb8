//! Nodes that are asked, and what passes between others.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Candump, run};
use crate::rig::Setup;

/// A node that answers by ISO-TP, of isotprecv and isotpsend.
async fn ecu(answers: &'static [(&'static str, &'static str)]) -> tokio::task::JoinHandle<()> {
    // Line by line, or it would keep them.
    let mut child = Command::new("stdbuf")
        .args(["-oL", "isotprecv", "-l", "-s", "7E8", "-d", "7E0", "vcan0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("there is isotprecv");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    tokio::spawn(async move {
        let _child = child;
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some((_, answer)) = answers.iter().find(|(asked, _)| *asked == line.trim()) else { continue };
            let mut sender = Command::new("isotpsend")
                .args(["-s", "7E8", "-d", "7E0", "vcan0"])
                .stdin(Stdio::piped())
                .spawn()
                .expect("there is isotpsend");
            let mut input = sender.stdin.take().unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut input, answer.as_bytes()).await.unwrap();
            drop(input);
            assert!(sender.wait().await.unwrap().success());
        }
    })
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn nodes_are_asked_with_iso_tp() {
    // ISO 15031-5: engine speed. ISO 14229-1: a vehicle's number, which takes several frames, and a refusal.
    let ecu = ecu(&[
        ("01 0C", "41 0C 1A F8"),
        ("22 F1 90", "62 F1 90 57 50 30 5A 5A 5A 39 39 5A 54 53 33 39 32 31 32 34"),
        ("22 F1 91", "7F 22 31"),
    ])
    .await;
    let stream = |mut stream: Value| {
        let more = json!({ "every": "100ms", "timeout": "2s", "quality": true });
        stream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stream
    };
    let refused = json!({
        "isotp": { "tx": 0x7e0, "rx": 0x7e8 }, "request": "22 F1 91",
        "fields": { "x": { "at": 3, "type": "uint8" } },
    });
    let mut rig = Setup::interface("vcan0")
        .stream("engine", stream(documented("engine")))
        .stream("vehicle", stream(documented("vehicle")))
        .stream("none", stream(refused))
        .run();
    let row = rig.row_where(|row| row["quality"] == "good" && row.get("rpm").is_some()).await;
    assert_eq!(row, json!({ "rpm": 1726.0, "quality": "good", "fault": Value::Null }));
    let row = rig.row_where(|row| row["quality"] == "good" && row.get("vin").is_some()).await;
    assert_eq!(row["vin"], "WP0ZZZ99ZTS392124");
    let row = rig.row_where(|row| row.get("x").is_some() && rig_refused(row)).await;
    assert_eq!((&row["x"], &row["quality"]), (&Value::Null, &json!("bad")));
    ecu.abort();
    let _ = ecu.await;
    let row = rig.row_where(|row| row["fault"].as_str().is_some_and(|why| why.contains("no answer"))).await;
    assert!(row["fault"].as_str().unwrap().contains("0x7e8"), "{row}");
    rig.end().await;
}

/// A stream of the manual's page.
fn documented(stream: &str) -> Value {
    let page = include_str!("../../../../docs/can.md");
    let blocks = page.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let block = blocks.into_iter().find(|block| block.contains(&format!("[streams.{stream}]")));
    let config: Value = toml::from_str(block.expect("the page has it")).unwrap();
    config["streams"][stream].clone()
}

fn rig_refused(row: &Value) -> bool {
    row["fault"].as_str().is_some_and(|why| why.contains("request out of range (0x31)"))
}

/// The bytes of a transfer's packets, as candump has them.
async fn transferred(candump: &mut Candump, length: usize) -> String {
    let mut bytes = String::new();
    while bytes.len() < 2 * length {
        let frame = candump.frame().await;
        let (id, data) = frame.split_once('#').unwrap();
        // TP.DT, of any priority, from node 0x80.
        if &id[2..4] == "EB" && id.ends_with("80") {
            bytes += &data[2..];
        }
    }
    bytes.truncate(2 * length);
    bytes
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn what_others_transport_by_j1939_is_one_row() {
    let mut rig = Setup::interface("vcan0").stream("group", json!({ "pgn": 0x12300, "source": 0x80 })).run();
    rig.begins().await;
    let mut candump = Candump::on("vcan0").await;
    // To everybody.
    run("testj1939", &["-B", "-s20", "vcan0:0x80", ":,0x12300"]).await;
    let expected = transferred(&mut candump, 20).await;
    let row = rig.row().await;
    assert_eq!((&row["source"], &row["data"]), (&json!(0x80), &json!(expected)));
    // To one node, which confirms each part.
    let receiver = Command::new("testj1939")
        .args(["-r", "vcan0:0x90"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let expected = loop {
        // It does not say when it listens.
        let sender = Command::new("testj1939").args(["-s100", "vcan0:0x80", ":0x90,0x12300"]).status().await;
        assert!(sender.is_ok());
        if let Ok(expected) = timeout(Duration::from_secs(5), transferred(&mut candump, 100)).await {
            break expected;
        }
    };
    let row = rig.row().await;
    assert_eq!((&row["destination"], &row["data"]), (&json!(0x90), &json!(expected)));
    drop(receiver);
    rig.end().await;
}
