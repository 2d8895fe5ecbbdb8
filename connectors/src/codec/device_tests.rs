//! Telegrams of devices, as their protocols' descriptions have them.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use serde_json::{Value, json};

use super::{Decoder, Encoder, PayloadConfig};
use crate::table::{Remark, Review};

fn payload(config: Value) -> PayloadConfig {
    serde_json::from_value(config).unwrap()
}

fn decoder(config: Value) -> Decoder {
    let config = payload(config);
    assert_eq!(remarks(&config), [], "{config:?}");
    config.decoder(&[], None, Vec::new()).unwrap()
}

fn remarks(config: &PayloadConfig) -> Vec<Remark> {
    let mut review = Review::new("[streams.s]", Path::new("/"), Vec::new());
    config.check_fields(&mut review);
    config.check_format(&mut review);
    config.check_times(&mut review);
    review.remarks
}

/// The row of one payload, without its time; or why there is none.
fn row(decoder: &mut Decoder, payload: &[u8]) -> Result<Value, String> {
    decoder.decode(payload, &[], 0).map_err(|error| error.to_string())?;
    let rows = decoder.finish().unwrap();
    let mut text = Vec::new();
    Encoder::new(rows.schema_ref()).encode_row(&rows, 0, &mut text);
    let mut row: Value = serde_json::from_slice(&text).unwrap();
    row.as_object_mut().unwrap().remove("ts");
    Ok(row)
}

fn one(config: Value, payload: &[u8]) -> Result<Value, String> {
    row(&mut decoder(config), payload)
}

/// A&D and many other scales: header, sign and digits, unit.
#[test]
fn a_pattern_gives_its_groups() {
    let config = json!({
        "format": "regex", "pattern": r"^(?<state>ST|US|OL),(?<net>[+-][0-9.]+)?\s*(?<unit>kg|g)?$",
        "fields": { "state": "utf8", "net": "float64", "unit": "utf8" },
    });
    let mut scale = decoder(config.clone());
    assert_eq!(row(&mut scale, b"ST,+00012.5  kg"), Ok(json!({ "state": "ST", "net": 12.5, "unit": "kg" })));
    assert_eq!(row(&mut scale, b"OL,"), Ok(json!({ "state": "OL", "net": null, "unit": null })));
    assert_eq!(row(&mut scale, b"ST,?"), Err("not such a text: the pattern does not fit".into()));
    assert!(payload(config.clone()).fits(b"US,-1.0g") && !payload(config).fits(b"GS,1"));
    let latin = json!({ "format": "regex", "pattern": "(?<t>[0-9.]+)°C" });
    assert_eq!(one(latin, b"21.5\xb0C"), Ok(json!({ "t": 21.5 })), "types are inferred");
}

/// Readings of a meter by IEC 62056-21: OBIS code, value, unit.
#[test]
fn a_meters_readings_are_found_by_their_codes() {
    let config = json!({
        "format": "regex",
        "pattern": r"(?s)^(?<id>\S+).*1-0:1\.8\.1\((?<import>[0-9.]+)\*kWh\).*1-0:1\.7\.0\((?<power>[0-9.]+)\*kW\)",
        "fields": { "id": "utf8", "import": "float64", "power": "float64" },
    });
    let telegram =
        b"ISk5\\2MT382-1000\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.8.1(123456.789*kWh)\r\n1-0:1.7.0(01.193*kW)\r\n";
    let expected = json!({ "id": "ISk5\\2MT382-1000", "import": 123_456.789, "power": 1.193 });
    assert_eq!(one(config, telegram), Ok(expected));
    let pairs = json!({
        "format": { "key_value": { "pairs": "\u{7c}", "separator": "(" } },
        "fields": { "energy": { "type": "utf8", "path": "1-0:1" } },
    });
    assert_eq!(one(pairs, b"1-0:1(5*kWh)|x(1"), Ok(json!({ "energy": "5*kWh)" })));
}

#[test]
fn pairs_name_their_values() {
    let config = json!({
        "format": "key_value",
        "fields": { "T": "float64", "rh": { "type": "int64", "path": "RH" }, "name": "utf8", "on": "bool" },
    });
    let mut sensor = decoder(config);
    let expected = json!({ "T": 21.5, "rh": 48, "name": "hall 3, east", "on": true });
    assert_eq!(row(&mut sensor, b"DATA T=21.5;RH=+48, name=\"hall 3, east\" on=ON"), Ok(expected));
    assert_eq!(
        row(&mut sensor, b"T:-3\r\nRH:"),
        Ok(json!({ "T": -3.0, "rh": null, "name": null, "on": null }))
    );
    assert_eq!(
        row(&mut sensor, b"ERROR"),
        Err("not pairs: there is no pair of a key and a value in it".into())
    );
    let inferred = json!({ "format": { "key_value": { "pairs": ";", "separator": ":" } } });
    assert_eq!(one(inferred, b"a:1;b:x y"), Ok(json!({ "a": 1, "b": "x y" })));
}

/// The examples of RMC and GGA that receivers' manuals have.
#[test]
fn sentences_have_positions() {
    let rmc = b"GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W";
    let config = json!({
        "format": { "nmea": { "sentence": "RMC" } },
        "fields": {
            "talker": "utf8", "latitude": "float64", "longitude": "float64",
            "knots": { "type": "float64", "path": "7" }, "status": { "type": "utf8", "path": "2" },
        },
    });
    let mut gps = decoder(config);
    let fix = row(&mut gps, rmc).unwrap();
    // 48 degrees and 7.038 minutes
    assert!((fix["latitude"].as_f64().unwrap() - 48.1173).abs() < 1e-9, "{fix}");
    assert!((fix["longitude"].as_f64().unwrap() - 11.516_666_666_7).abs() < 1e-9, "{fix}");
    assert_eq!((&fix["knots"], &fix["status"], &fix["talker"]), (&json!(22.4), &json!("A"), &json!("GP")));
    let south = row(&mut gps, b"$GPRMC,,V,0030.0,S,00130.0,W,,,,,*00\r\n").unwrap_err();
    assert!(south.contains("its checksum is 00"), "{south}");
    let south = row(&mut gps, b"$GPRMC,,V,0030.0,S,00130.0,W,,,,,").unwrap();
    assert_eq!(
        (&south["latitude"], &south["longitude"], &south["knots"]),
        (&json!(-0.5), &json!(-1.5), &Value::Null)
    );
    assert!(row(&mut gps, b"GPGSV,1,1,0").unwrap_err().contains("another sentence"));
}

/// A made-up frame with each type, spelled out byte by byte.
#[test]
fn a_layout_has_places() {
    let config = json!({
        "format": "layout",
        "fields": {
            "net": { "at": 2, "type": "int16", "scale": 0.1 },
            "tare": { "at": 4, "type": "uint16", "order": "little" },
            "overload": { "at": 1, "type": "uint8", "bit": 7 },
            "range": { "at": 1, "type": "uint8", "mask": 0x70 },
            "unit": { "at": 0, "type": "uint8", "values": { "1": "kg", "2": "g" } },
            "ratio": { "at": 6, "type": "float32" },
            "serial": { "at": 10, "type": "bcd", "length": 3 },
            "name": { "at": 13, "type": "utf8", "length": 4 },
            "shown": { "at": 17, "type": "digits", "length": 6 },
            "deep": { "at": 23, "type": "int24", "order": "little", "scale": 0.5, "offset": 10 },
            "sum": { "at": -1, "type": "uint8" },
            "raw": { "at": -2, "type": "bytes" },
        },
    });
    let frame = [
        0x02, 0xb5, 0xff, 0x85, 0x2c, 0x01, 0x3f, 0xc0, 0x00, 0x00, 0x12, 0x34, 0x56, b'a', b'b', 0x00, b'x',
        b' ', b'-', b' ', b'1', b'.', b'5', 0xfe, 0xff, 0xff, 0xaa, 0x55,
    ];
    let expected = json!({
        "net": -12.3, "tare": 300, "overload": true, "range": 3, "unit": "g", "ratio": 1.5, "serial": 123_456,
        "name": "ab", "shown": -1.5, "deep": 9.0, "sum": 0x55, "raw": "qlU=",
    });
    let mut scale = decoder(config);
    assert_eq!(row(&mut scale, &frame), Ok(expected));
    let error = row(&mut scale, &frame[..20]).unwrap_err();
    assert!(error.starts_with("not of this layout: it has 20 bytes, which is too short for"), "{error}");
}

/// Continuous output of Mettler Toledo's terminals: STX, three status bytes, weight and tare of six digits.
#[test]
fn a_scale_with_digits_in_places() {
    let config = json!({
        "format": "layout",
        "fields": {
            "weight": { "at": 4, "type": "digits", "length": 6, "scale": 0.1 },
            "tare": { "at": 10, "type": "digits", "length": 6, "scale": 0.1 },
            "in_motion": { "at": 2, "type": "uint8", "bit": 3 },
            "negative": { "at": 2, "type": "uint8", "bit": 1 },
        },
    });
    let frame = b"\x02+8 012345 00050\r";
    let row = one(config, frame).unwrap();
    assert_eq!(row, json!({ "weight": 1234.5, "tare": 5.0, "in_motion": true, "negative": false }));
}

#[test]
fn a_float_that_is_no_number_or_infinite_is_null_and_counted() {
    let config = json!({ "format": "layout", "fields": {
        "a": { "at": 0, "type": "float32" }, "b": { "at": 0, "type": "float32", "scale": 10.0 },
    } });
    // IEEE 754: infinity, its negative, a quiet NaN, and the greatest finite number.
    for (bits, misfits) in [(0x7f80_0000_u32, 2), (0xff80_0000, 2), (0x7fc0_0000, 2), (0x7f7f_ffff, 0)] {
        let mut decoder = decoder(config.clone());
        decoder.decode(&bits.to_be_bytes(), &[], 0).unwrap();
        let found = decoder.take_findings().map_or(0, |findings| findings.misfits.count);
        let rows = decoder.finish().unwrap();
        let nulls: usize = rows.columns().iter().skip(1).map(|column| column.null_count()).sum();
        assert_eq!((found, nulls), (misfits, usize::try_from(misfits).unwrap()), "{bits:#x}");
    }
}

#[test]
fn what_a_format_does_not_go_with_is_named() {
    let net = |more: Value| {
        let mut field = json!({ "at": 0, "type": "uint8" });
        field.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "format": "layout", "fields": { "net": field } })
    };
    for (config, words) in [
        (json!({ "format": "regex" }), "needs a `pattern`"),
        (json!({ "format": "regex", "pattern": "a" }), "no named groups"),
        (
            json!({ "format": "regex", "pattern": "(?<net>a)", "fields": { "nett": "utf8" } }),
            "no group `nett`",
        ),
        (json!({ "pattern": "(?<net>a)" }), "`pattern` is for the format `regex`"),
        (json!({ "format": "key_value", "rows": "a" }), "`rows` is for nested values"),
        (json!({ "format": "nmea", "fields": { "speed": "float64" } }), "no value called `speed`"),
        (json!({ "format": "layout" }), "there are none"),
        (json!({ "format": "layout", "fields": { "a": "bool" } }), "has to know the first byte"),
        (json!({ "fields": { "a": { "type": "int16" } } }), "a type of bytes"),
        (json!({ "fields": { "a": { "type": "int64", "scale": 0.1 } } }), "`scale` is for bytes"),
        (net(json!({ "bit": 8 })), "bits 0 to 7"),
        (net(json!({ "mask": 256 })), "some of the 8 bits"),
        (net(json!({ "scale": 0.0 })), "not 0"),
        (net(json!({ "type": "utf8", "scale": 2 })), "for numbers"),
        (net(json!({ "type": "bcd" })), "needs the number of bytes"),
        (net(json!({ "type": "float32", "bit": 1 })), "for whole numbers"),
        (net(json!({ "type": "timestamp" })), "to_timestamp_seconds"),
        (net(json!({ "length": 2 })), "a length of its own"),
        (net(json!({ "values": { "x": "a" } })), "no whole number"),
    ] {
        let said = remarks(&payload(config));
        assert!(said.len() == 1 && said[0].message.contains(words), "{words}: {said:?}");
    }
    for (pattern, words) in
        [("(", "no regular expression: unclosed group"), ("a{9999999}", "exceeds size limit")]
    {
        let error = serde_json::from_value::<super::Pattern>(json!(pattern)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_taken_by_every_format(
            bytes: Vec<u8>, at in prop_oneof![-12_i32..=-8, 0..40_i32], length in 1_usize..9,
        ) {
            for config in [
                json!({ "format": "regex", "pattern": "(?<a>[0-9]+)|(?<b>.*)" }),
                json!({ "format": "key_value" }),
                json!({ "format": "nmea" }),
                json!({ "format": "layout", "fields": {
                    "a": { "at": at, "type": "uint64", "mask": 0xff00 }, "b": { "at": at, "type": "digits" },
                    "c": { "at": at, "type": "bcd", "length": length }, "d": { "at": at, "type": "int64" },
                    "e": { "at": at, "type": "float16", "scale": 3.0 }, "f": { "at": at, "type": "utf8" },
                } }),
            ] {
                let mut decoder = decoder(config);
                if decoder.decode(&bytes, &[], 0).is_ok() {
                    prop_assert_eq!(decoder.finish().unwrap().num_rows(), 1);
                }
            }
        }

        #[test]
        fn a_number_in_a_layout_is_the_number(value: i32, scale in 1_u8..100) {
            let config = json!({ "format": "layout", "fields": {
                "big": { "at": 0, "type": "int32" }, "little": { "at": 4, "type": "int32", "order": "little" },
                "scaled": { "at": 0, "type": "int32", "scale": scale },
            } });
            let bytes = [value.to_be_bytes(), value.to_le_bytes()].concat();
            let row = one(config, &bytes).unwrap();
            let scaled = f64::from(value) * f64::from(scale);
            prop_assert_eq!(row, json!({ "big": value, "little": value, "scaled": scaled }));
        }
    }
}
