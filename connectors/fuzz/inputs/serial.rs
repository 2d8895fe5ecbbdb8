//! Any bytes on a serial line, in pieces of any size: every framing, what finds values in frames, and a
//! serial server's answers. No panic, no more memory than a frame takes, and every byte is accounted for.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_connectors::codec::PayloadConfig;
use tidegate_connectors::port::{Client, PortConfig, Settings};
use tidegate_connectors::serial::escapes::unescape;
use tidegate_connectors::serial::framing::{FrameConfig, Framer, SETTLED};
use tidegate_connectors::serial::telegram::Telegram;
use tokio::time::Instant;

fn framings() -> Vec<Value> {
    vec![
        json!({ "end": "\r\n", "max": "64B" }),
        json!({ "start": "\\x02", "end": "\\x03", "trailer": 1, "checksum": { "kind": "xor", "from": 1 } }),
        json!({ "start": "/", "end": "!", "trailer": 6, "checksum": { "kind": "crc16_arc", "ascii": true, "at": -6 } }),
        json!({ "start": "$", "length": 9 }),
        json!({ "start": "~", "length": { "at": 1, "type": "uint16", "mask": 2047, "counts": "frame", "add": 2 } }),
        json!({ "length": { "type": "uint32", "add": -7 }, "checksum": "crc32", "max": "1KiB" }),
        json!({ "gap": "3ms", "checksum": "lrc" }),
        json!("cobs"),
        json!("slip"),
        json!("hdlc"),
        json!("nmea"),
    ]
}

fn formats() -> Vec<Value> {
    vec![
        json!({ "format": "regex", "pattern": "(?<a>[0-9]+)[^;]*(?<b>;.*)?" }),
        json!({ "format": "key_value" }),
        json!({ "format": { "nmea": { "sentence": "GGA" } } }),
        json!({ "format": "layout", "fields": {
            "a": { "at": 1, "type": "int24", "scale": 0.1 }, "b": { "at": -4, "type": "float32" },
            "c": { "at": 0, "type": "bcd", "length": 9 }, "d": { "at": 2, "type": "digits" },
            "e": { "at": -1, "type": "uint8", "bit": 3 }, "f": { "at": 3, "type": "utf8", "length": 2 },
        } }),
    ]
}

pub type Input = (u8, u8, u8, Vec<u8>);

pub fn take(input: Input) {
    let (framing, format, cut, bytes) = input;
    let framings = framings();
    let config: FrameConfig =
        serde_json::from_value(framings[usize::from(framing) % framings.len()].clone()).unwrap();
    let formats = formats();
    let payload: PayloadConfig =
        serde_json::from_value(formats[usize::from(format) % formats.len()].clone()).unwrap();
    let mut decoder = payload.decoder(&[], None, Vec::new()).unwrap();
    let mut framer = Framer::new(&config).unwrap();
    let mut now = Instant::now();
    framer.opened(now, SETTLED);
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        now += Duration::from_millis(u64::from(cut % 7));
        framer.push(piece, now, &mut |frame| {
            let _ = payload.fits(frame);
            let rows = decoder.decode(frame, &[], 0).unwrap_or(0);
            assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
        });
        assert!(framer.waiting() <= 2 * config.max() + 64);
    }
    assert!(!framer.probable_cause().is_empty());
    let tally = framer.tally();
    assert_eq!(tally.bytes, tally.framed + tally.filler + tally.skipped + framer.waiting() as u64);

    let mut client = Client::new(&PortConfig::default(), Settings::plain(NonZeroU32::new(9600).unwrap()));
    let (mut data, mut out) = (Vec::new(), Vec::new());
    client.begin(&mut Vec::new());
    let _ = client.take(&bytes, &mut data, &mut out);
    assert!(data.len() <= bytes.len() && out.len() <= bytes.len() + 256);
    if let Ok(text) = std::str::from_utf8(&bytes) {
        let _ = (unescape(text), text.parse::<Telegram>());
    }
}
