use std::time::Duration;

use super::*;
use proptest::prelude::*;

fn read_one(bytes: impl AsRef<[u8]>) -> Result<Database, Vec<String>> {
    let read = Database::read(&[("plant.dbc".into(), bytes.as_ref().to_vec())]);
    read.map_err(|errors| errors.iter().map(Diagnostic::to_string).collect())
}

fn error(text: &str) -> String {
    let errors = read_one(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

const SIGNAL: &str = r#"SG_ S : 0|8@1+ (1,0) [0|0] "" X"#;

fn with_signal(signal: &str) -> String {
    format!("BO_ 1 M: 8 X\n {signal}\n\nBO_ 2 Other: 8 X\n {SIGNAL}\n")
}

#[test]
fn syntax_errors_name_line_and_column_and_the_form() {
    let error_at = |text: &str, place: &str, words: &str| {
        let error = error(text);
        assert!(error.starts_with(&format!("plant.dbc:{place}: ")) && error.contains(words), "{error}");
    };
    error_at("VERSION \"\"\n\nBO_ 1 M 8 X\n", "3:9", "expected `:` behind the message's name, and found `8`");
    error_at("BO_ 1 M 8 X\n", "1:9", "it is written BO_ 256 NAME: 8 SENDER");
    error_at("BO_ 1 M: X\n", "1:10", "expected the message's length in bytes, and found `X`");
    error_at("BO_ 1 M: 8\n", "1:11", "expected the name of the node that sends it");
    let form = "it is written SG_ NAME : START|LENGTH@1+ (FACTOR,OFFSET) [MIN|MAX] \"UNIT\" RECEIVER";
    for (signal, column, words) in [
        ("SG_ S : 0|8@1+ (1,0) [0|0] X", 29, "expected the unit in quotes, such as \"rpm\", and found `X`"),
        ("SG_ S : 0|8@1+ (1,0) [0|0] X", 29, form),
        ("SG_ S : 0|8@1+ (1;0) [0|0] \"\" X", 19, "expected `,` between factor and offset, and found `;`"),
        ("SG_ S : 0|8@2+ (1,0) [0|0] \"\" X", 14, "0 for Motorola, 1 for Intel, and found `2`"),
        ("SG_ S : 0|8@1 (1,0) [0|0] \"\" X", 16, "expected `+` for a signal without sign"),
        ("SG_ S : -1|8@1+ (1,0) [0|0] \"\" X", 10, "expected the signal's first bit, and found `-`"),
        ("SG_ S : 0@1+ (1,0) [0|0] \"\" X", 11, "expected `|` behind the first bit, and found `@`"),
        ("SG_ S x : 0|8@1+ (1,0) [0|0] \"\" X", 8, "expected `:`, or how it is multiplexed: M, m5 or m5M"),
        ("SG_ S m1m : 0|8@1+ (1,0) [0|0] \"\" X", 8, "and found `m1m`"),
        ("SG_ : 0|8@1+ (1,0) [0|0] \"\" X", 6, "expected the signal's name, and found `:`"),
        ("SG_ S : 0|8@1+ (x,0) [0|0] \"\" X", 18, "expected the factor, and found `x`"),
        ("SG_ S : 0|8@1+ (1,0) [0|] \"\" X", 26, "expected the maximum, and found `]`"),
        ("SG_ S : 0|8@1+ (1,0) [0|0] \"\" X !", 34, "a node that receives it"),
    ] {
        error_at(&with_signal(signal), &format!("2:{column}"), words);
    }
    error_at("BO_ 1 M: 8 X\nSG_MUL_VAL_ 1 S T 1;\n", "2:20", "expected `-` in the range, and found `;`");
    error_at("BO_ 1 M: 8 X\nSIG_VALTYPE_ 1 S : 3;\n", "2:20", "expected 0, 1 or 2, and found `3`");
    error_at("BO_ 1 M: 8 X\nBA_ \"GenMsgCycleTime\" BO_ 1 ;\n", "2:29", "expected the attribute's value");
    error_at("BO_ 1 M: 8 X\nVAL 1 S 0 \"off\" ;\n", "2:1", "did you mean `VAL_`?");
    error_at("BO_ 1 M: 8 X\nVAL_ 1 S 0 off ;\n", "2:12", "expected its label in quotes, and found `off`");
    error_at("BO_ 1 M: 8 X\n\n\nCM_ \"no end;\nBO_ 2 N: 8 X\n", "4:5", "this text has no end");
    error_at("BO_ 1 M: 8 X\nCM_ \"a\"b\" ;\n", "2:9", "this text has no end");
    error_at("SG_ S : 0|8@1+ (1,0) [0|0] \"\" X\n", "1:1", "this signal has no message");
    error_at("<!DOCTYPE html>\n<html>", "1:1", "is it a DBC file");
    error_at(
        "BO_ 1 M: 8 X\nVAL_ 1 S 99999999999999999999 \"off\" ;\n",
        "2:10",
        "found `99999999999999999999`",
    );
    assert_eq!(
        error("VERSION \"\"\n"),
        "plant.dbc: the file has no messages; is it a DBC file, and whole? Messages begin with BO_"
    );
    assert!(error("").contains("no messages"));
    let two = read_one("BO_ 1 M: 8 X\nVAL_ 1 S 0 off ;\nVAL_ 1 S 1 on ;\n").unwrap_err();
    assert_eq!(two.len(), 2, "{two:?}");
}

#[test]
fn a_message_that_contradicts_itself_is_left_out_with_line_and_reason() {
    for (signal, place, words) in [
        (
            "SG_ S : 60|8@1+ (1,0) [0|0] \"\" X",
            "2:2",
            "`S` is not in the frame: 8 bits from bit 60, and it has 8 bytes",
        ),
        ("SG_ S : 56|9@0+ (1,0) [0|0] \"\" X", "2:2", "not in the frame"),
        ("SG_ S : 99999|8@1+ (1,0) [0|0] \"\" X", "2:2", "not in the frame"),
        ("SG_ S : 0|200@1+ (1,0) [0|0] \"\" X", "2:2", "`S` has 200 bits"),
        ("SG_ S : 0|0@1+ (1,0) [0|0] \"\" X", "2:2", "1 to 64"),
        ("SG_ S : 0|8@1+ (0,0) [0|0] \"\" X", "2:2", "the factor 0"),
        ("SG_ S : 0|8@1+ (1e999,0) [0|0] \"\" X", "2:2", "must be finite"),
        ("SG_ S : 0|8@1+ (1,1e999) [0|0] \"\" X", "2:2", "must be finite"),
        (&format!("{SIGNAL}\n {SIGNAL}"), "3:2", "there are two signals `S`"),
        (&format!("{SIGNAL}\nSIG_VALTYPE_ 1 S : 1;"), "3:1", "`S` is a float of 32 bits, and has 8"),
        ("SG_ S m1 : 0|8@1+ (1,0) [0|0] \"\" X", "2:2", "it cannot be told which multiplexor `S` belongs to"),
        (
            &format!("{SIGNAL}\nSG_MUL_VAL_ 1 S Mux 1-2;"),
            "2:2",
            "the multiplexor `Mux` of `S` is not in the message",
        ),
        (&format!("{SIGNAL}\nSG_MUL_VAL_ 1 S S 1-2;"), "2:2", "round in a circle"),
        (
            "SG_ S m9 : 0|8@1+ (1,0) [0|0] \"\" X\n SG_ T M : 8|3@1+ (1,0) [0|0] \"\" X",
            "2:2",
            "is 9, which it cannot be",
        ),
    ] {
        let database = read_one(with_signal(signal)).unwrap();
        let problem = database.problems()[0].to_string();
        assert!(
            problem.starts_with(&format!("plant.dbc:{place}: the message `M` is left out: ")),
            "{problem}"
        );
        assert!(problem.contains(words), "{problem}");
        assert!(database.message("Other").is_ok(), "the others can be used");
        let reason = database.message("M").unwrap_err().to_string();
        assert!(reason.contains("the message `M` cannot be used") && reason.contains(words), "{reason}");
    }
}

#[test]
fn ids_and_lengths_are_those_of_frames() {
    for (message, words) in [
        ("BO_ 2048 M: 8 X", "the id 2048 has more than 11 bits"),
        ("BO_ 2684354560 M: 8 X", "more than 29 bits"),
        ("BO_ 99999999999 M: 8 X", "the id 99999999999 has more than 32 bits"),
        ("BO_ 1 M: 65 X", "at most 64 bytes, and not 65"),
        ("BO_ 2147483649 M: 1786 X", "at most 1785 bytes"),
    ] {
        let database = read_one(message).unwrap();
        assert!(database.problems()[0].message.contains(words), "{:?}", database.problems());
    }
    let of_no_message = format!("BO_ 3221225472 VECTOR__INDEPENDENT_SIG_MSG: 0 X\n {SIGNAL}\n");
    let database = read_one("BO_ 2147483649 M: 8 X\nBO_ 1 N: 8 X\n".to_owned() + &of_no_message).unwrap();
    assert_eq!(database.problems(), []);
    assert_eq!(database.message("M").unwrap().id, Id::Extended(1));
    assert_eq!(database.by_id(Id::Extended(1)).map(|message| &*message.name), Some("M"));
    assert_eq!(database.by_id(Id::Standard(1)).map(|message| &*message.name), Some("N"));
    assert_eq!(database.message("0x1x").map(|message| &*message.name), Ok("M"));
    assert_eq!(database.messages().len(), 2);
}

#[test]
fn a_name_that_is_wrong_is_told_the_nearest_one() {
    let database = read_one(with_signal(SIGNAL)).unwrap();
    assert_eq!(
        database.message("Othr").unwrap_err().to_string(),
        "there is no message `Othr`; did you mean `Other`?"
    );
    assert_eq!(database.signal("S").unwrap().len(), 2);
    assert_eq!(database.signal("Other.S").unwrap().len(), 1);
    assert!(database.signal("Other.T").unwrap_err().to_string().contains("`Other` has no signal `T`"));
    assert!(database.signal("Speed").unwrap_err().to_string().contains("known names: `S`"));
}

#[test]
fn files_are_joined_and_doubles_are_told() {
    let read = |one: &str, other: &str| {
        let files = [("a.dbc".into(), one.into()), ("b.dbc".into(), other.into())];
        Database::read(&files).unwrap()
    };
    let message = |id: u32, name: &str, signal: &str| {
        format!("BO_ {id} {name}: 8 X\n SG_ {signal} : 0|8@1+ (1,0) [0|0] \"\" X\n")
    };
    let shared = read(&message(1, "M", "S"), &message(1, "M", "S"));
    assert_eq!((shared.problems(), shared.messages().len()), (&[][..], 1));
    let double = read(&message(1, "M", "S"), &(message(1, "N", "S") + &message(2, "O", "S")));
    let problem = double.problems()[0].to_string();
    assert!(
        problem.starts_with("b.dbc:1:1: the messages `N` and `M` (a.dbc:1) have the id 0x1"),
        "{problem}"
    );
    assert!(double.message("M").is_err() && double.message("N").is_err() && double.message("O").is_ok());
    assert_eq!(double.by_id(Id::Standard(1)), None);
    let of_one_name = read(&message(1, "M", "S"), &message(2, "M", "T"));
    assert_eq!(of_one_name.problems(), []);
    let error = of_one_name.message("M").unwrap_err().to_string();
    assert_eq!(error, "there are 2 messages `M`; write the id instead: \"0x1\" or \"0x2\"");
    assert_eq!(of_one_name.message("0x2").map(|message| &*message.signals[0].name), Ok("T"));
}

#[test]
fn attributes_give_long_names_cycles_and_formats() {
    let text = r#"
NS_ :
	NS_DESC_
	CM_
	BA_
	SG_MUL_VAL_

BS_:

BU_: A B
  C

BO_ 2364540158 EEC1_short: 8 X
 SG_ EngSpeed_short : 24|16@1+ (0.125,0) [0|8031.875] "rpm" X // with a "quote

// another " one
BO_ 1 Fast: 12 X
BO_ 2 Slow: 8 X
BO_ 3 Marked: 8 X
CM_ BO_ 1 "several
lines; BO_ 9 Not: 8 X
with \"quotes\"";
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","J1939PG","StandardCAN_FD";
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_ BO_ "SystemMessageLongSymbol" STRING ;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_DEF_DEF_ "VFrameFormat" "StandardCAN";
BA_ "Something" 17;
BA_ "VFrameFormat" BO_ 2364540158 2;
BA_ "VFrameFormat" BO_ 3 3;
BA_ "GenMsgCycleTime" BO_ 2364540158 20;
BA_ "SystemMessageLongSymbol" BO_ 2364540158 "ElectronicEngineController1_Long";
BA_ "SystemSignalLongSymbol" SG_ 2364540158 EngSpeed_short "EngineSpeed_Long";
VAL_ 2364540158 EngSpeed_short 65535 "not \"there\"" ;
"#;
    let database = read_one(text.replace('\n', "\r\n")).unwrap();
    assert_eq!(database.problems(), []);
    let engine = database.message("ElectronicEngineController1_Long").unwrap();
    // SAE J1939-71: EEC1 is PGN 61444 with priority 3; tools write nobody's address.
    assert_eq!(engine.id, Id::Extended(0x0cf0_04fe));
    assert_eq!((engine.format, engine.cycle), (Format::J1939, Some(Duration::from_millis(20))));
    assert_eq!(&*engine.signals[0].name, "EngineSpeed_Long");
    assert_eq!(engine.signals[0].labels().iter().collect::<Vec<_>>(), [(65_535, "not \"there\"")]);
    assert_eq!(database.message("Fast").unwrap().format, Format::Fd);
    assert_eq!(database.message("Marked").unwrap().format, Format::Fd);
    let slow = database.message("Slow").unwrap();
    assert_eq!((slow.format, slow.cycle), (Format::Classic, None));
}

#[test]
fn groups_of_j1939_are_found_by_number_and_source() {
    let message = |name: &str, priority: u8, source: u8| {
        let id = J1939Id { priority, pgn: 61_444, source, destination: None }.id();
        format!("BO_ {} {name}: 8 X\n", id.number() | 1 << 31)
    };
    let j1939 = "BA_ \"ProtocolType\" \"J1939\";\n";
    let name =
        |database: &Database, source| database.by_pgn(61_444, source).map(|message| message.name.to_string());
    let any = read_one(message("Engine", 6, 0xfe) + j1939).unwrap();
    assert_eq!(name(&any, 3).as_deref(), Some("Engine"));
    let only = read_one(message("Engine", 3, 0) + j1939).unwrap();
    assert_eq!(name(&only, 3).as_deref(), Some("Engine"));
    let two = read_one(message("Engine", 3, 0) + &message("Other", 3, 1) + j1939).unwrap();
    assert_eq!(
        [0, 1, 2].map(|source| name(&two, source)),
        [Some("Engine".into()), Some("Other".into()), None]
    );
    assert_eq!(name(&read_one(message("Engine", 3, 0)).unwrap(), 0), None);
}

#[test]
fn what_is_said_of_nothing_is_a_warning() {
    let text = with_signal(SIGNAL) + "VAL_ 1 Sped 0 \"off\" ;\nSIG_VALTYPE_ 7 S : 1;\n";
    let problems: Vec<String> =
        read_one(text).unwrap().problems().iter().map(Diagnostic::to_string).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("plant.dbc:6:1: this is said of a signal `Sped`"), "{problems:?}");
    assert!(problems[1].starts_with("plant.dbc:7:1: this is said of a signal `S`"), "{problems:?}");
    let many: String = (0..50).map(|at| format!("VAL_ 1 S{at} 0 \"off\" ;\n")).collect();
    let problems = read_one(with_signal(SIGNAL) + &many).unwrap();
    assert_eq!(problems.problems().len(), MOST_TOLD + 1);
    assert!(problems.problems()[MOST_TOLD].message.contains("30 more"));
}

#[test]
fn text_is_utf_8_or_windows_1252() {
    let text = "BO_ 1 M: 8 X\n SG_ S : 0|8@1+ (1,0) [0|0] \"°C\" X\nVAL_ 1 S 0 \"5 €\" ;\n";
    let windows: Vec<u8> = text
        .chars()
        .map(|c| match c {
            '€' => 0x80,
            c => u8::try_from(u32::from(c)).unwrap(),
        })
        .collect();
    for bytes in [text.as_bytes().to_vec(), windows, [b"\xef\xbb\xbf", text.as_bytes()].concat()] {
        let database = read_one(bytes).unwrap();
        let signal = &database.message("M").unwrap().signals[0];
        assert_eq!((&*signal.unit, signal.labels().iter().next()), ("°C", Some((0, "5 €"))));
    }
    let wide: Vec<u8> =
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert!(read_one(wide).unwrap_err()[0].contains("save it as UTF-8"));
}

#[test]
fn a_million_signals_are_refused() {
    let line = format!(" {SIGNAL}\n");
    let text = format!("BO_ 1 M: 8 X\n{}", line.repeat(1_000_000));
    assert!(read_one(&text).unwrap_err()[0].contains("this statement has more than 1 MiB"));
    assert!(read_one(text + &line.repeat(200_000)).unwrap_err()[0].contains("more than 32 MiB"));
    let text: String = (0..250).map(|id| format!("BO_ {id} M{id}: 8 X\n{}", line.repeat(900))).collect();
    assert!(read_one(text).unwrap_err()[0].contains("more than 200000 signals"));
    let one = format!("BO_ 1 M: 8 X\n{}", line.repeat(20_000));
    let database = read_one(one).unwrap();
    assert_eq!((database.messages().len(), database.problems().len()), (0, MOST_TOLD));
}

/// Pieces of DBC files, in any order and damaged.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("BO_ 1 M: 8 X\n".to_owned()),
        Just("BO_ 2147483650 N: 64 X\n".to_owned()),
        (0..70_u8, 0..70_u8, "[01]", "[+-]", "(M|m[0-9]M?)?", "[a-d]").prop_map(
            |(start, width, order, sign, mux, name)| {
                format!(" SG_ {name} {mux} : {start}|{width}@{order}{sign} (1,0) [0|0] \"\" X\n")
            }
        ),
        "[a-d]".prop_map(|name| format!("VAL_ 1 {name} 0 \"off\" 1 \"on\" ;\n")),
        ("[a-d]", "[a-d]").prop_map(|(one, other)| format!("SG_MUL_VAL_ 1 {one} {other} 0-3, 7-9;\n")),
        ("[a-d]", "[0-2]").prop_map(|(name, kind)| format!("SIG_VALTYPE_ 1 {name} : {kind};\n")),
        Just("BA_ \"GenMsgCycleTime\" BO_ 1 -5;\nCM_ \"x\";\nNS_ :\n BA_\nBU_: A\n".to_owned()),
        "\\PC{0,20}",
    ];
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (proptest::collection::vec(piece, 0..20), damage, any::<bool>()).prop_map(
        |(pieces, damage, is_damaged)| {
            let mut bytes = pieces.concat().into_bytes();
            for (index, byte) in damage {
                if is_damaged && !bytes.is_empty() {
                    let at = index.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_and_any_frame_decoded(
        file in any_file(),
        payload in proptest::collection::vec(any::<u8>(), 0..70),
    ) {
        let Ok(database) = read_one(file) else { return Ok(()) };
        for message in database.messages() {
            let decoded = message.decode(&payload);
            let mut given = Vec::new();
            for at in 0..message.signals.len() {
                let _ = decoded.value(at, true);
                if let Ok(value) = decoded.value(at, false) {
                    given.push((at, value));
                }
            }
            // What was read can be sent and is read again, unless signals share bits.
            if let Ok(encoded) = message.encode(&given) {
                let again = message.decode(&encoded);
                for (at, value) in given {
                    prop_assert_eq!(again.value(at, false), Ok(value));
                }
            }
        }
    }
}
