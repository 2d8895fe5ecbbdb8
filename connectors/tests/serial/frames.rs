//! Every framing over a real port: pieces of any size, noise between frames, and what comes behind it.

use serde_json::{Value, json};
use tidegate_connectors::serial::framing::Sum;
use tidegate_peers::devices::SerialCable;
use tidegate_peers::dice::Dice;

use super::device::Device;
use crate::rig::Setup;

type Send = fn(&str) -> Vec<u8>;

/// Framings, how a device sends a text in each, and what it may do between two of them.
fn framings() -> Vec<(&'static str, Value, Send)> {
    vec![
        ("lines", json!({ "end": "\r\n" }), |text| format!("{text}\r\n").into()),
        ("start and stop", json!({ "start": "\\x02", "end": "\\x03" }), |text| {
            format!("\x02{text}\x03").into()
        }),
        (
            "BCC",
            json!({ "start": "\\x02", "end": "\\x03", "trailer": 1, "checksum": { "kind": "xor", "from": 1 } }),
            |text| {
                let bcc = format!("{text}\x03").bytes().fold(0, |bcc, byte| bcc ^ byte);
                [format!("\x02{text}\x03").as_bytes(), &[bcc]].concat()
            },
        ),
        ("fixed length", json!({ "start": "#", "length": 9 }), |text| format!("#{text:<8}").into()),
        (
            "length in front",
            json!({ "start": "\\xAA", "length": { "at": 1 }, "checksum": "crc16_modbus" }),
            |text| {
                let mut frame = vec![0xaa, u8::try_from(text.len() + 2).unwrap()];
                frame.extend(text.bytes());
                let crc = Sum::Crc16Modbus.of(&frame).to_le_bytes();
                frame.extend(&crc[..2]);
                frame
            },
        ),
        ("slip", json!("slip"), |text| [b"\xc0", text.as_bytes(), b"\xc0"].concat()),
        // No text has a zero, so one block is the whole of it.
        ("cobs", json!("cobs"), |text| {
            [&[u8::try_from(text.len() + 1).unwrap()], text.as_bytes(), &[0]].concat()
        }),
        ("nmea", json!("nmea"), |text| {
            let sum = text.bytes().fold(0, |sum, byte| sum ^ byte);
            format!("${text}*{sum:02X}\r\n").into()
        }),
        ("hdlc", json!("hdlc"), |text| {
            let fcs = Sum::Crc16X25.of(text.as_bytes()).to_le_bytes();
            let mut frame = vec![0x7e];
            for byte in text.bytes().chain(fcs.into_iter().take(2)) {
                match byte {
                    0x7d | 0x7e => frame.extend([0x7d, byte ^ 0x20]),
                    byte => frame.push(byte),
                }
            }
            frame.push(0x7e);
            frame
        }),
    ]
}

#[tokio::test]
async fn frames_of_every_kind_come_through_pieces_and_noise() {
    for (name, frame, send) in framings() {
        let cable = SerialCable::plug().await;
        let mut device = Device::at(&cable.far());
        let stream = json!({ "format": "regex", "pattern": "n(?<n>[0-9]+);", "fields": { "n": "int64" } });
        let mut rig = Setup::serial(json!({ "device": cable.near(), "baud": 115_200, "frame": frame }))
            .stream("s", stream)
            .run();
        rig.news().await;
        let mut dice = Dice::new(42);
        let mut bytes = send("n0;");
        for n in 1..200 {
            // Noise, and behind it a frame that may be lost with it.
            if dice.chance(1, 10) {
                bytes.extend((0..dice.below(30)).map(|_| u8::try_from(128 + dice.below(64)).unwrap()));
                bytes.extend(send("x"));
            }
            bytes.extend(send(&format!("n{n};")));
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + usize::try_from(dice.below(50)).unwrap()));
            device.say(piece).await;
            rest = after;
        }
        // The first may have begun before the port was open.
        let mut next = rig.row().await["n"].as_i64().unwrap();
        assert!(next <= 1, "{name}: the first is {next}");
        while next < 199 {
            let n = rig.row().await["n"].as_i64().unwrap();
            assert_eq!(n, next + 1, "{name}");
            next = n;
        }
        let sent = bytes.len() as u64;
        assert!(rig.status.counter("skipped_bytes").get() < sent / 3, "{name}");
        rig.end().await;
    }
}

#[tokio::test]
async fn silence_ends_frames_of_a_real_port() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let frame = json!({ "gap": "100ms" });
    let stream = json!({
        "format": "raw", "fields": { "text": "utf8" }, "quality": true, "stale_after": "1200ms",
    });
    let mut rig = Setup::serial(json!({ "device": cable.near(), "baud": 9600, "frame": frame }))
        .stream("s", stream)
        .run();
    // The line has to be known as silent, or what comes first may be the end of a frame.
    rig.row_where(|row| row["quality"] == "stale").await;
    for n in 0..5 {
        device.say(b"a").await;
        device.say(format!("{n}").as_bytes()).await;
        let row = rig.row_where(|row| row["quality"] == "good").await;
        assert_eq!(row["text"], format!("a{n}"));
    }
    assert_eq!((rig.status.messages.get(), rig.status.counter("skipped_bytes").get()), (5, 0));
    rig.end().await;
}
