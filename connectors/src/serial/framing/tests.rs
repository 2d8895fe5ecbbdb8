#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn framer(config: Value) -> Framer {
    Framer::new(&serde_json::from_value(config).unwrap()).unwrap()
}

fn ms(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// The frames in bytes that come one by one, after the line was quiet.
fn frames(config: Value, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (frames, tally) = tallied(config, bytes, 1);
    assert_eq!(tally.bytes, bytes.len() as u64);
    frames
}

fn tallied(config: Value, bytes: &[u8], cut: usize) -> (Vec<Vec<u8>>, Tally) {
    let mut framer = framer(config);
    let start = Instant::now();
    framer.opened(start, SETTLED);
    let (mut frames, mut now) = (Vec::new(), start + SETTLED);
    for piece in bytes.chunks(cut) {
        framer.push(piece, now, &mut |frame| frames.push(frame.to_vec()));
        now = ms(now, 1);
    }
    framer.silence(ms(now, 120_000), &mut |frame| frames.push(frame.to_vec()));
    let tally = framer.tally();
    let all = tally.framed + tally.filler + tally.skipped + framer.waiting() as u64;
    assert_eq!((tally.bytes, tally.frames), (all, frames.len() as u64));
    (frames, tally)
}

fn text(frames: &[Vec<u8>]) -> Vec<&str> {
    frames.iter().map(|frame| std::str::from_utf8(frame).unwrap()).collect()
}

#[test]
fn lines_end_with_their_delimiter() {
    let lines = json!({ "end": "\r\n", "max": "16B" });
    assert_eq!(text(&frames(lines.clone(), b"ST,+1.0\r\nUS,+2.5\r\n3")), ["ST,+1.0", "US,+2.5"]);
    assert_eq!(text(&frames(lines.clone(), b"\r\n\ra\r\n")), ["", "\ra"]);
    let long = [b"a\r\n".as_slice(), &[b'x'; 50], b"\r\nb\r\n"].concat();
    let (found, tally) = tallied(lines, &long, 7);
    assert_eq!((text(&found), tally.too_long > 0), (vec!["a", "b"], true));
}

#[test]
fn what_was_under_way_when_the_port_was_opened_is_no_frame() {
    let mut framer = framer(json!({ "end": "\n" }));
    let start = Instant::now();
    let mut frames = Vec::new();
    framer.opened(start, SETTLED);
    framer.push(b"2.", ms(start, 20), &mut |_| panic!("it has no end"));
    framer.push(b"5\n12.5\n", ms(start, 900), &mut |frame| frames.push(frame.to_vec()));
    assert_eq!(text(&frames), ["12.5"], "it may have been 12.5");
    assert_eq!(
        framer.take_skipped().unwrap(),
        Skipped { count: 4, sample: b"2.5\n".to_vec(), why: Some(Why::Torn) }
    );
    framer.opened(start, SETTLED);
    framer.push(b"2.5\n", start + SETTLED, &mut |frame| frames.push(frame.to_vec()));
    assert_eq!(text(&frames), ["12.5", "2.5"], "the device was silent");
}

#[test]
fn frames_between_start_and_stop_begin_anew_when_a_stop_was_lost() {
    let config = json!({ "start": "\\x02", "end": "\\x03" });
    assert_eq!(text(&frames(config, b"no\x02a\x03 \x02torn\x02b\x03")), ["a", "b"]);
}

#[test]
fn frames_by_length_find_their_start_again() {
    let fixed = json!({ "start": "\\xAA\\x55", "length": 4 });
    assert_eq!(frames(fixed, b"\x01\xaa\xaa\x55ab\xaa\x55cd\xaa"), [b"\xaa\x55ab", b"\xaa\x55cd"]);
    let prefix = json!({ "start": ":", "length": { "at": 1 }, "max": "8B" });
    let found = frames(prefix, b":\x02ab:\xffx:\x01c:\x00");
    assert_eq!(found, [b":\x02ab".to_vec(), b":\x01c".to_vec(), b":\x00".to_vec()]);
    let little = json!({
        "length": { "type": "uint16", "order": "little", "counts": "frame" }, "checksum": "crc16_modbus",
    });
    // 06 00 'a' 'b' and the CRC of these four
    let crc = Sum::Crc16Modbus.of(b"\x06\x00ab").to_le_bytes();
    let frame = [b"\x06\x00ab".as_slice(), &crc[..2]].concat();
    assert_eq!(
        frames(little, &[b"\x07".as_slice(), &frame, &frame].concat()),
        [b"\x06\x00ab", b"\x06\x00ab"]
    );
}

#[test]
fn a_length_that_was_none_holds_nothing_up_when_the_line_falls_silent() {
    let config = json!({ "start": ":", "length": { "at": 1 } });
    assert_eq!(frames(config, b":\xff:\x01a"), [b":\x01a"]);
}

#[test]
fn frames_without_a_start_begin_behind_silence() {
    let mut framer = framer(json!({ "length": 3, "gap": "20ms" }));
    let start = Instant::now();
    let mut frames = Vec::new();
    for (at, bytes) in [(0, "abc"), (1, "de"), (50, "fgh"), (51, "ijk"), (80, "l")] {
        framer.push(bytes.as_bytes(), ms(start, at), &mut |frame| frames.push(frame.to_vec()));
    }
    assert_eq!(text(&frames), ["abc", "fgh", "ijk"]);
    assert_eq!((framer.tally().skipped, framer.due()), (2, Some(ms(start, 100))));
}

#[test]
fn silence_ends_a_frame() {
    let mut framer = framer(json!({ "gap": "20ms", "max": "4B" }));
    let start = Instant::now();
    let mut frames = Vec::new();
    for (at, bytes) in [(0, "a"), (10, "b"), (40, "toolong"), (50, "x"), (90, "c")] {
        framer.push(bytes.as_bytes(), ms(start, at), &mut |frame| frames.push(frame.to_vec()));
    }
    assert_eq!(text(&frames), ["ab"]);
    framer.silence(ms(start, 100), &mut |_| panic!("it is not time yet"));
    framer.silence(ms(start, 110), &mut |frame| frames.push(frame.to_vec()));
    assert_eq!((text(&frames), framer.due()), (vec!["ab", "c"], None));
}

#[test]
fn slip_is_that_of_the_rfc() {
    // RFC 1055: END 300 octal, ESC 333, ESC_END 334, ESC_ESC 335
    let bytes = b"\xc0a\xdb\xdcb\xdb\xdd\xc0\xc0c\xdbx\xc0d\xc0";
    assert_eq!(frames(json!("slip"), bytes), [b"a\xc0b\xdb".to_vec(), b"d".to_vec()]);
}

#[test]
fn cobs_is_that_of_the_paper() {
    // Examples of Cheshire and Baker's paper, and of its description in Wikipedia.
    for (encoded, decoded) in [
        (b"\x01\x01\x00".as_slice(), b"\x00".as_slice()),
        (b"\x01\x01\x01\x00", b"\x00\x00"),
        (b"\x03\x11\x22\x02\x33\x00", b"\x11\x22\x00\x33"),
        (b"\x05\x11\x22\x33\x44\x00", b"\x11\x22\x33\x44"),
        (b"\x02\x11\x01\x01\x01\x00", b"\x11\x00\x00\x00"),
    ] {
        assert_eq!(frames(json!("cobs"), encoded), [decoded], "{encoded:?}");
    }
    let full: Vec<u8> = (1..=254).collect();
    let encoded = [b"\xff".as_slice(), &full, b"\x00"].concat();
    assert_eq!(frames(json!("cobs"), &encoded), [full]);
    assert_eq!(frames(json!("cobs"), b"\x05a\x00\x02b\x00"), [b"b"], "the first is too short");
}

#[test]
fn hdlc_has_the_check_of_the_rfc() {
    let fcs = Sum::Crc16X25.of(b"\xff\x03}~");
    let [low, high, ..] = fcs.to_le_bytes();
    let frame = [0x7e, 0xff, 0x7d, 0x23, 0x7d, 0x5d, 0x7d, 0x5e, low, high, 0x7e];
    assert_eq!(frames(json!("hdlc"), &frame), [b"\xff\x03}~"]);
    let (found, tally) = tallied(json!("hdlc"), b"~abcd~", 6);
    assert_eq!((found.len(), tally.mismatches), (0, 1));
}

#[test]
fn nmea_sentences_have_a_checksum() {
    // The example of RMC in many receivers' manuals, e.g. u-blox and Trimble.
    let rmc = "$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A\r\n";
    let bytes = format!("noise{rmc}$GPGLL,1*00\r\n{rmc}$GP{rmc}");
    let (found, tally) = tallied(json!("nmea"), bytes.as_bytes(), 5);
    let sentence = &rmc[1..rmc.len() - 5];
    assert_eq!((text(&found), tally.mismatches), (vec![sentence; 3], 1));
}

/// IEC 62056-21, 6.3: a data message in mode C: STX, data, `!` CR LF, ETX, and the BCC of all behind STX.
#[test]
fn a_meters_data_message_is_a_frame() {
    let data = "0.0.0(12345678)\r\n1.8.0(00012.345*kWh)\r\n!\r\n";
    let covered = format!("{data}\x03");
    let bcc = covered.bytes().fold(0, |bcc, byte| bcc ^ byte);
    let telegram = [format!("\x02{covered}").as_bytes(), &[bcc]].concat();
    let config = json!({
        "start": "\\x02", "end": "\\x03", "trailer": 1, "checksum": { "kind": "xor", "from": 1 },
    });
    assert_eq!(text(&frames(config.clone(), &[telegram.as_slice(), &telegram].concat())), [data, data]);
    let mut wrong = telegram;
    wrong[5] ^= 1;
    assert_eq!(tallied(config, &wrong, 3).1.frames, 0);
}

/// The P1 port of Dutch meters (DSMR 5.0, section 6.2): `/`, lines, `!`, the CRC of all from `/` to `!`.
#[test]
fn a_p1_telegram_is_a_frame() {
    let covered = "/ISk5\\2MT382-1000\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.8.1(123456.789*kWh)\r\n!";
    // CRC-16 with the polynomial x16+x15+x2+1, as the companion standard says; bit by bit from its text
    let crc = covered.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    });
    let telegram = format!("{covered}{crc:04X}\r\n");
    let config = json!({
        "start": "/", "end": "!", "trailer": 6,
        "checksum": { "kind": "crc16_arc", "ascii": true, "at": -6 },
    });
    let content = &covered[1..covered.len() - 1];
    assert_eq!(text(&frames(config, format!("x\r\n{telegram}{telegram}").as_bytes())), [content, content]);
}

/// A push of DLMS in HDLC (IEC 62056-46): flag, frame format with 11 bits of length, addresses, control,
/// checks, flag. The frame check is that of X.25.
#[test]
fn a_dlms_push_is_a_frame() {
    let mut inside = vec![0xa0, 0, 0x01, 0x02, 0x01, 0x10, 0, 0, 0xe6, 0xe7, 0x00, 0x0f, 0x7e, 0x01];
    inside[1] = u8::try_from(inside.len() + 2).unwrap();
    let fcs = Sum::Crc16X25.of(&inside).to_le_bytes();
    let frame = [&[0x7e], inside.as_slice(), &fcs[..2], &[0x7e]].concat();
    let config = json!({
        "start": "\\x7e",
        "length": { "at": 1, "type": "uint16", "mask": 0x07ff, "counts": "frame", "add": 2 },
        "checksum": { "kind": "crc16_x25", "from": 1, "at": -3 },
    });
    let found = frames(config, &[b"\x7e\xa0".as_slice(), &frame, &frame].concat());
    assert_eq!(found, vec![frame[..frame.len() - 3].to_vec(); 2]);
}

#[test]
fn frames_that_cannot_be_found_are_refused() {
    for (config, words) in [
        (json!({}), "where a frame ends"),
        (json!({ "end": "" }), "has no bytes"),
        (json!({ "end": "\n", "length": 3 }), "`end` and `length`"),
        (json!({ "length": 12 }), "once a byte was lost"),
        (json!({ "length": 0, "start": "a" }), "from 1 to `max`"),
        (json!({ "kind": "cobs", "end": "\n" }), "contradicts the kind"),
        (json!({ "kind": "nmea", "checksum": "xor" }), "contradicts the kind"),
        (json!({ "gap": "2min" }), "a gap is"),
        (json!({ "end": "\n", "max": "1MiB" }), "64KiB"),
        (json!({ "gap": "1s", "trailer": 2 }), "there is none"),
        (json!({ "end": "\n", "checksum": { "kind": "xor", "at": 2 } }), "from the end"),
    ] {
        let config: FrameConfig = serde_json::from_value(config).unwrap();
        let said: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
    }
    for (config, words) in [
        (json!("cbs"), "unknown variant `cbs`"),
        (json!({ "ende": "\n" }), "unknown field `ende`"),
        (json!({ "length": -1 }), "a number of bytes"),
        (json!({ "end": "\\y" }), "behind a backslash"),
        (json!({ "checksum": { "kind": "xor", "form": 1 } }), "unknown field `form`"),
    ] {
        let said = serde_json::from_value::<FrameConfig>(config).unwrap_err().to_string();
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// How a device sends something as a frame.
type Send = fn(&[u8]) -> Vec<u8>;

/// Kinds of frames, and how they are sent.
fn kinds() -> Vec<(Value, Send)> {
    fn printable(content: &[u8]) -> Vec<u8> {
        content.iter().map(|byte| b'a' + byte % 26).collect()
    }
    vec![
        (json!({ "end": "\r\n" }), |content| [&printable(content)[..], b"\r\n"].concat()),
        (json!({ "start": "<", "end": ">" }), |content| [b"<", &printable(content)[..], b">"].concat()),
        (json!({ "start": "\\x7e", "length": { "at": 1 }, "checksum": "crc16_ccitt" }), |content| {
            let mut frame = vec![0x7e, u8::try_from(content.len() + 2).unwrap()];
            frame.extend_from_slice(content);
            frame.extend_from_slice(&Sum::Crc16Ccitt.of(&frame).to_be_bytes()[2..]);
            frame
        }),
        (json!("slip"), |content| {
            let mut frame = vec![0xc0];
            for byte in content {
                match byte {
                    0xc0 => frame.extend([0xdb, 0xdc]),
                    0xdb => frame.extend([0xdb, 0xdd]),
                    byte => frame.push(*byte),
                }
            }
            frame.push(0xc0);
            frame
        }),
        (json!("nmea"), |content| {
            let content = printable(content);
            let sum = content.iter().fold(0, |sum, byte| sum ^ byte);
            [b"$", &content[..], format!("*{sum:02X}\r\n").as_bytes()].concat()
        }),
    ]
}

/// A minute at 115 200 baud, 8N1: 11 520 bytes a second, a frame each 40, every hundredth of them damaged.
#[test]
fn a_minute_at_full_rate_is_accounted_for() {
    let config = json!({ "start": "\\x7e", "length": { "at": 1 }, "checksum": "crc16_ccitt" });
    let mut framer = framer(config);
    let start = Instant::now();
    framer.opened(start, SETTLED);
    let mut bytes = Vec::new();
    let (mut sent, mut damaged) = (0_u64, 0_u64);
    while bytes.len() < 60 * 11_520 {
        let mut frame = vec![0x7e, 38];
        frame.extend((0..36).map(|n| (sent * 31 + n) as u8));
        frame.extend_from_slice(&Sum::Crc16Ccitt.of(&frame).to_be_bytes()[2..]);
        if sent % 100 == 99 {
            frame[20] ^= 0x10;
            damaged += 1;
        }
        sent += 1;
        bytes.extend(frame);
    }
    let mut frames = 0_u64;
    // What a driver hands over at a time, as it comes.
    for (n, piece) in bytes.chunks(16).enumerate() {
        let now =
            start + Duration::from_millis(200) + Duration::from_micros(n as u64 * 16 * 1_000_000 / 11_520);
        framer.push(piece, now, &mut |_| frames += 1);
    }
    let tally = framer.tally();
    assert_eq!((frames, tally.bytes), (sent - damaged, bytes.len() as u64));
    assert_eq!(tally.framed, (sent - damaged) * 40);
    assert_eq!(tally.framed + tally.skipped + framer.waiting() as u64, tally.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However bytes are cut, the frames are the same, and every byte is accounted for.
    #[test]
    fn cuts_change_nothing(
        contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..8),
        cut in 1_usize..64,
        kind in 0_usize..5,
    ) {
        let (config, send) = kinds().swap_remove(kind);
        let bytes: Vec<u8> = contents.iter().flat_map(|content| send(content)).collect();
        let (found, tally) = tallied(config.clone(), &bytes, cut);
        prop_assert_eq!(found.len(), contents.len());
        prop_assert_eq!(tally.skipped, 0);
        prop_assert_eq!(found, tallied(config, &bytes, bytes.len()).0);
    }

    /// Behind noise of any kind there are frames again, with checks at once, without after the next end.
    #[test]
    fn noise_costs_no_more_than_its_neighbours(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 1_usize..64,
        kind in 0_usize..5,
    ) {
        let (config, send) = kinds().swap_remove(kind);
        let good = send(b"0123456789");
        let bytes = [noise, good.repeat(3)].concat();
        let (found, _) = tallied(config.clone(), &bytes, cut);
        let expected = tallied(config, &good, 1).0.swap_remove(0);
        prop_assert!(found.iter().rev().take(2).all(|frame| *frame == expected), "{found:?}");
    }

    /// Any bytes, any cut, any kind: no more waits than a frame, and all is accounted for.
    #[test]
    fn any_bytes_are_accounted_for(bytes: Vec<u8>, cut in 1_usize..64, max in 1_u64..40) {
        for config in [
            json!({ "end": "\n" }),
            json!({ "start": "$", "end": "*", "trailer": 2, "checksum": { "kind": "xor", "ascii": true } }),
            json!({ "start": "a", "length": { "at": 0, "type": "uint32", "add": -3 } }),
            json!({ "length": 1, "checksum": "sum" }),
            json!({ "gap": "5ms", "checksum": { "kind": "crc32", "from": 3, "skip": 2 } }),
            json!({ "kind": "cobs", "checksum": "crc8" }),
            json!({ "kind": "slip" }),
            json!({ "kind": "hdlc" }),
            json!({ "kind": "nmea" }),
        ] {
            let mut config = config;
            config["max"] = format!("{max}B").into();
            let config: FrameConfig = serde_json::from_value(config).unwrap();
            let Ok(mut framer) = Framer::new(&config) else { continue };
            let now = Instant::now();
            for (n, piece) in bytes.chunks(cut).enumerate() {
                framer.push(piece, ms(now, n as u64 * 3), &mut |frame| assert!(frame.len() <= 3 * config.max() + 16));
                prop_assert!(framer.waiting() <= 2 * config.max() + 64);
            }
            let tally = framer.tally();
            prop_assert_eq!(
                tally.bytes,
                tally.framed + tally.filler + tally.skipped + framer.waiting() as u64
            );
        }
    }
}

#[test]
fn what_is_given_up_is_no_part_of_what_comes_then() {
    let mut framer = framer(json!({ "end": "\n" }));
    let pause = Duration::from_millis(100);
    let start = Instant::now();
    let mut frames = Vec::new();
    framer.push(b"12", start, &mut |_| panic!("it has no end"));
    framer.give_up(ms(start, 100), pause);
    framer.push(b"34\n5", ms(start, 110), &mut |frame| frames.push(frame.to_vec()));
    framer.give_up(ms(start, 120), pause);
    framer.push(b"6\n78\n", ms(start, 130), &mut |frame| frames.push(frame.to_vec()));
    assert_eq!(text(&frames), ["34", "78"], "a frame that may go on is skipped to its end");
    assert_eq!(framer.tally().skipped, 5);
}

#[test]
fn what_never_becomes_a_frame_is_found_out_with_its_probable_cause() {
    let patience = Duration::from_secs(10);
    let start = Instant::now();
    for (config, line, words) in [
        (json!({ "end": "\r\n" }), b"ST,1.5kg\r".as_slice(), r#"write end = "\r""#),
        (json!({ "end": "\r\n" }), b"ST,1.5kg\n", r#"write end = "\n""#),
        (json!({ "end": "\r" }), b"ST,1.5kg\n", r#"write end = "\n""#),
        (json!({ "start": "\\x02", "end": "\\x03" }), b"ST,1.5kg\r\n", r#"`start`, "\x02", does not come"#),
        (json!({ "start": "S", "end": "#" }), b"\xff\x53\x80\xf0\xfe\x80", "compare baud rate and parity"),
        (json!("nmea"), b"ST,1.5kg\r\n", "the `$` of a sentence does not come"),
    ] {
        let mut framer = framer(config.clone());
        for n in 0..40 {
            assert_eq!(framer.is_lost(ms(start, 500 * n), patience), n >= 20, "{config} {n}");
            framer.push(line, ms(start, 500 * n), &mut |_| panic!("{config}"));
        }
        let unframed = framer.unframed().unwrap();
        assert_eq!((unframed.since, unframed.count, unframed.pauses), (start, 40 * line.len() as u64, 39));
        assert!(unframed.newest().ends_with(line));
        let cause = framer.probable_cause();
        assert!(cause.contains(words), "{words}: {cause}");
    }
    // One frame may take long, and a byte of noise in front of it is no reason.
    let mut framer = framer(json!({ "end": "\n" }));
    framer.push(b"\0", start, &mut |_| panic!("it has no end"));
    framer.push(b"2", ms(start, 60_000), &mut |_| panic!("it has no end"));
    assert!(!framer.is_lost(ms(start, 60_000), patience));
    framer.push(b"\n", ms(start, 60_001), &mut |_| {});
    assert_eq!(framer.unframed(), None);
}
