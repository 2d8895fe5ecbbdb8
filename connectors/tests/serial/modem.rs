//! A LoRa modem on USB, as a microcontroller offers it: AT commands, messages that come by themselves, and a
//! plug that is pulled. Commands and messages are those of the RYLR modules' public AT command guide.

use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_peers::devices::SerialCable;

use super::device::Device;
use crate::rig::{Rig, Setup};

/// The modem's firmware.
async fn modem(mut port: Device) {
    // It starts when it is plugged in.
    port.say(b"\r\n+READY\r\n").await;
    let mut is_set = false;
    while let Some(line) = port.hear().await {
        let answer = match line.trim_end().split_once('=') {
            _ if line == "AT\r\n" => "+OK".to_owned(),
            Some(("AT+NETWORKID", _)) => {
                is_set = true;
                "+OK".into()
            }
            Some(("AT+SEND", message)) => {
                let mut parts = message.splitn(3, ',');
                let (to, length, text) =
                    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
                if length.parse() != Ok(text.len()) || !is_set {
                    "+ERR=5".into()
                } else {
                    // Somebody out there echoes what is sent to 50.
                    let echo = format!("+RCV={to},{length},{text},-99,40");
                    format!("+OK\r\n{echo}")
                }
            }
            _ => "+ERR=4".into(),
        };
        port.say(format!("{answer}\r\n").as_bytes()).await;
    }
}

fn rig(cable: &SerialCable) -> Rig {
    Setup::serial(json!({ "device": cable.near(), "baud": 115_200, "frame": { "end": "\r\n" } }))
        .stream(
            "radio",
            json!({
                "format": "regex", "quality": true,
                "pattern": r"^\+RCV=(?<node>\d+),\d+,(?<text>.*),(?<rssi>-?\d+),(?<snr>-?\d+)$",
                "fields": { "node": "int64", "text": "utf8", "rssi": "int64", "snr": "int64" },
            }),
        )
        .output("network", json!({ "payload": "AT+NETWORKID={id}\\r\\n", "answer": "^\\+OK$" }))
        .output("send", json!({ "payload": "AT+SEND={node},{length},{text}\\r\\n", "answer": "^\\+OK$", "timeout": "200ms" }))
        .run()
}

#[tokio::test]
async fn a_modem_takes_commands_and_gives_rows_and_comes_and_goes_with_its_plug() {
    let mut cable = SerialCable::plug().await;
    let firmware = tokio::spawn(modem(Device::at(&cable.far())));
    let mut rig = rig(&cable);
    let message = |text: &str| json!({ "node": 50, "length": text.len(), "text": text });
    let received = |text: &str| json!({ "node": 50, "text": text, "rssi": -99, "snr": 40, "quality": "good", "fault": null });
    // It refuses what it cannot do yet.
    let error = rig.write("send", &message("early")).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Unknown(why) if why.contains("not confirmed")), "{error}");
    assert_eq!(rig.write("network", &json!({ "id": 18 })).await, Ok(()));
    for text in ["hello", "with, commas", "42"] {
        assert_eq!(rig.write("send", &message(text)).await, Ok(()));
        let row = rig.row_where(|row| row["quality"] == "good").await;
        assert_eq!(row, received(text));
    }
    cable.unplug().await;
    let row = rig.row_where(|row| row["quality"] == "stale").await;
    assert!(row["fault"].as_str().unwrap().contains("unplugged"), "{row:?}");
    firmware.await.unwrap();
    rig.trouble().await;
    assert!(matches!(rig.write("send", &message("lost")).await, Err(DeliveryError::Transient(_))));
    cable.replug().await;
    let firmware = tokio::spawn(modem(Device::at(&cable.far())));
    rig.until_up().await;
    assert_eq!(rig.write("network", &json!({ "id": 18 })).await, Ok(()));
    assert_eq!(rig.write("send", &message("again")).await, Ok(()));
    let row = rig.row_where(|row| row["quality"] == "good").await;
    assert_eq!(row, received("again"), "what was written while it was away was not sent late");
    rig.end().await;
    drop(cable);
    firmware.await.unwrap();
}
