//! What is refused when the configuration is read, and where that is said.

use serde_json::json;
use tidegate_core::FieldType;

use crate::rig::Setup;

const DBC: &str = r#"BU_: A B
BO_ 256 Status: 8 A
 SG_ Speed : 0|16@1- (0.5,0) [0|0] "rpm" B
 SG_ Mode : 16|4@1+ (1,0) [0|0] "" B
 SG_ On : 20|1@1+ (1,0) [0|0] "" B
 SG_ Count : 24|8@1+ (1,0) [0|0] "" B
BO_ 512 Choice: 8 B
 SG_ Kind M : 0|8@1+ (1,0) [0|0] "" A
 SG_ Left m0 : 8|8@1+ (1,0) [0|0] "" A
 SG_ Right m1 : 8|8@1+ (1,0) [0|0] "" A
 SG_ Always : 16|8@1+ (1,0) [0|100] "" A
BO_ 768 Odd: 8 A
 SG_ ts : 0|8@1+ (1,0) [0|0] "" B
VAL_ 256 Mode 0 "off" 1 "run" ;
"#;

fn setup() -> Setup {
    Setup::interface("can0").dbc(DBC)
}

fn said(setup: &Setup) -> String {
    match setup.check() {
        Ok(_) => String::new(),
        Err(said) => {
            assert_eq!(said.len(), 1, "{said:#?}");
            said.concat()
        }
    }
}

#[test]
fn columns_are_signals_with_their_types() {
    let checked = setup()
        .stream("plain", json!({ "message": "Status" }))
        .stream("labels", json!({ "message": "0x100", "labels": true, "quality": true }))
        .output("choice", json!({ "message": "Choice" }))
        .output("always", json!({ "message": "Choice", "defaults": { "Always": 1 } }))
        .check()
        .unwrap_or_else(|said| panic!("{said:#?}"));
    let columns = |at: usize| checked.streams[at].1.columns().unwrap();
    let of = |name: &str, of: FieldType| (name.to_owned(), of);
    let (float, int, text) = (FieldType::Float64, FieldType::Int64, FieldType::Utf8);
    let plain = [of("Speed", float), of("Mode", int), of("On", FieldType::Bool), of("Count", int)];
    assert_eq!(columns(0), plain);
    assert_eq!(columns(1)[1], of("Mode", text));
    assert_eq!(columns(1)[4..], [of("quality", text), of("fault", text)]);
    // What follows from the other signals, or is only in some frames, need not be given.
    assert_eq!(checked.outputs[0].1.required_columns(), ["Always"]);
    assert_eq!(checked.outputs[1].1.required_columns(), [""; 0]);
    assert_eq!(checked.outputs[0].1.columns().unwrap().len(), 4);
}

#[test]
fn connections_that_contradict_themselves_are_refused() {
    for (connection, words) in [
        (json!({}), "none of `interface`, `slcan` and `log`"),
        (
            json!({ "interface": "can0", "slcan": { "device": "/dev/x", "bitrate": 250_000 } }),
            "keep one of them",
        ),
        (json!({ "interface": "/dev/ttyACM0" }), "slcan = { device = \"/dev/ttyACM0\""),
        (json!({ "slcan": { "device": "/dev/ttyACM0", "bitrate": 333_000 } }), "one of 10000, 20000"),
        (json!({ "slcan": { "device": "ttyACM0", "bitrate": 250_000 } }), "/dev/ttyACM0"),
        (json!({ "log": { "path": "/dev/null", "speed": 0.0 } }), "1.0 for the pace"),
        (json!({ "log": { "path": "nowhere.log" } }), "nowhere.log cannot be read"),
        (json!({ "log": { "path": "." } }), "is a folder"),
        (json!({ "interface": "can0", "send_timeout": "0s" }), "from 1ms to 1min"),
        (json!({ "interface": "can0", "dbc": ["nowhere.dbc"] }), "nowhere.dbc: the file cannot be read"),
        (
            json!({ "interface": "can0", "backoff": { "min": "2s", "max": "1s" } }),
            "longer than `backoff.max`",
        ),
    ] {
        let said = said(&Setup::can(connection.clone()));
        assert!(said.contains(words), "{connection}: {said}");
    }
    let wrong = Setup::interface("can0").dbc("BO_ 256 Status: 8 A\n SG_ Speed : 0|16@1-\n");
    let said = said(&wrong);
    assert!(said.contains("test.dbc:"), "{said}");
}

#[test]
fn streams_that_contradict_themselves_are_refused_with_the_nearest_name() {
    for (stream, words) in [
        (json!({}), "none of `message`, `signals`, `ids`, `pgn`, `errors` and `isotp`"),
        (json!({ "message": "Status", "ids": ["*"] }), "it says `message` and `ids`"),
        (json!({ "message": "Statsu" }), "did you mean `Status`?"),
        (json!({ "message": "Status", "source": 5 }), "no message of J1939"),
        (json!({ "message": "Odd" }), "a signal `ts`"),
        (json!({ "signals": ["Sped"] }), "did you mean `Speed`?"),
        (json!({ "signals": ["Status.Sped"] }), "did you mean `Speed`?"),
        (json!({ "signals": [] }), "names no signal"),
        (json!({ "ids": ["0x900"] }), "0x900x"),
        (json!({ "ids": ["0x200-0x100"] }), "lesser one first"),
        (json!({ "ids": ["*"], "quality": true }), "`quality` is for streams with"),
        (json!({ "ids": ["*"], "stale_after": "1s" }), "`stale_after` is for streams with"),
        (json!({ "signals": ["*"], "labels": true }), "`labels` is for streams with"),
        (json!({ "pgn": 0x18fe_f100 }), "no parameter group"),
        (json!({ "message": "Status", "stale_after": "0s" }), "at least 1ms"),
        (json!({ "message": "Status", "every": "1s" }), "`every` is for streams with `isotp`"),
        (json!({ "isotp": { "tx": 1, "rx": 1 } }), "have one id"),
        (json!({ "isotp": { "tx": 1, "rx": 2 } }), "request = \"01 0C\""),
        (json!({ "isotp": { "tx": 1, "rx": 2 }, "request": "01 0C" }), "every = \"1s\""),
        (json!({ "isotp": { "tx": 1, "rx": 2 }, "request": "01 0C", "every": "1s" }), "it has no fields"),
        (
            json!({
                "isotp": { "tx": 1, "rx": 2 }, "request": "010", "every": "1s",
                "fields": { "x": { "at": 0, "type": "uint8" } },
            }),
            "\"010\" is no request",
        ),
    ] {
        let said = said(&setup().stream("s", stream.clone()));
        assert!(said.contains(words), "{stream}: {said}");
    }
    // The fields of an answer are those of the format `layout`.
    for (fields, words) in [
        (json!({ "x": "int64" }), "the first byte"),
        (json!({ "x": { "at": 0, "type": "utf8", "scale": 2 } }), "for numbers"),
        (json!({ "x": { "at": 0, "type": "uint8", "length": 2 } }), "a length of its own"),
        (json!({ "x": { "at": 0, "type": "uint8", "path": "a" } }), "bytes have no names"),
        (json!({ "x": { "at": 0, "type": "uint8", "unit": "s" } }), "`unit` is for times"),
        (json!({ "ts": { "at": 0, "type": "uint8" } }), "must not be called `ts`"),
        (json!({ "quality": { "at": 0, "type": "uint8" } }), "the column `quality` already"),
    ] {
        let stream = json!({
            "isotp": { "tx": 1, "rx": 2 }, "request": "01 0C", "every": "1s", "fields": fields,
            "quality": true,
        });
        let said = said(&setup().stream("s", stream));
        assert!(said.contains(words), "{fields}: {said}");
    }
    let none = Setup::interface("can0").stream("s", json!({ "message": "Status" }));
    assert!(said(&none).contains("dbc = [\"drive.dbc\"]"), "{}", said(&none));
}

#[test]
fn signals_of_messages_that_cannot_be_used_are_named() {
    let dbc = "BU_: A\nBO_ 256 Good: 8 A\n SG_ Speed : 0|8@1+ (1,0) [0|0] \"\" A\n\
               BO_ 257 Short: 1 A\n SG_ Speed : 0|8@1+ (1,0) [0|0] \"\" A\n \
               SG_ Torque : 0|16@1+ (1,0) [0|0] \"\" A\n";
    for (name, words) in [
        ("Torque", "no message that can be used has a signal `Torque`"),
        ("Torque", "the message `Short` is left out: `Torque` is not in the frame"),
        ("Short.Torque", "the message `Short` cannot be used"),
        ("Speed", "\"Speed\" is without the signals of Short, which cannot be used"),
        ("*", "\"*\" is without the signals of Short"),
    ] {
        let setup = Setup::interface("can0").dbc(dbc).stream("s", json!({ "signals": [name] }));
        // The connection has the warning of the file.
        let said = setup.check().err().unwrap();
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[1].contains(words), "{said:#?}");
    }
}

#[test]
fn an_output_knows_the_ranges_and_the_labels_of_its_signals() {
    let dbc = r#"BU_: A
BO_ 256 Command: 8 A
 SG_ Speed : 0|16@1- (0.5,0) [-3000|3000] "rpm" A
 SG_ Share : 16|8@1+ (0.4,0) [0|100] "%" A
 SG_ Turned : 24|8@1+ (-1,5) [0|0] "" A
 SG_ Mode : 32|4@1+ (1,0) [0|0] "" A
 SG_ On : 36|1@1+ (1,0) [0|0] "" A
VAL_ 256 Share 255 "not available" ;
VAL_ 256 Mode 0 "off" 1 "run" ;
"#;
    let output = |labels: bool| {
        let setup = Setup::interface("can0").dbc(dbc);
        let setup = setup.output("o", json!({ "message": "Command", "labels": labels }));
        setup.check().unwrap_or_else(|said| panic!("{said:#?}")).outputs.remove(0).1
    };
    let range = |name: &str, least, most| (name.to_owned(), least, most);
    // What has a label is taken beyond the range, and nothing beyond the bits.
    let turned = range("Turned", -250.0, 5.0);
    let expected =
        [range("Speed", -3000.0, 3000.0), range("Share", 0.0, 102.0), turned, range("Mode", 0.0, 15.0)];
    assert_eq!(output(false).ranges(), expected);
    assert!(output(false).labels().is_empty());
    let labels =
        |name: &str, labels: &[&str]| (name.to_owned(), labels.iter().map(|of| (*of).to_owned()).collect());
    assert_eq!(output(true).labels(), [labels("Share", &["not available"]), labels("Mode", &["off", "run"])]);
    assert_eq!(output(true).ranges().len(), 2);
}

#[test]
fn outputs_that_contradict_themselves_are_refused() {
    for (output, words) in [
        (json!({}), "neither `message` nor `id`"),
        (json!({ "message": "Status", "id": "0x1" }), "keep one of them"),
        (json!({ "message": "Staus" }), "did you mean `Status`?"),
        (json!({ "id": "0x900" }), "0x900x"),
        (json!({ "id": "0x100", "defaults": { "a": 1 } }), "`defaults` are of signals"),
        (json!({ "id": "0x100", "labels": true }), "`labels` are of signals"),
        (json!({ "message": "Status", "fd": true }), "leave `fd` out"),
        (json!({ "message": "Status", "every": "100ms" }), "add expiry = \"1s\""),
        (json!({ "message": "Status", "expiry": "1s" }), "add every = \"100ms\""),
        (json!({ "message": "Status", "every": "1s", "expiry": "100ms" }), "shorter than `every`"),
        (json!({ "message": "Choice", "defaults": { "Alwys": 1 } }), "did you mean `Always`?"),
        (json!({ "message": "Choice", "defaults": { "Always": 101 } }), "the database allows 0 to 100"),
    ] {
        let said = said(&setup().output("o", output.clone()));
        assert!(said.contains(words), "{output}: {said}");
    }
    let j1939 = "BO_ 2565865470 Command: 8 Box\n SG_ On : 0|8@1+ (1,0) [0|0] \"\" Box\nBA_DEF_ \"ProtocolType\" \
        STRING ;\nBA_DEF_DEF_ \"ProtocolType\" \"\";\nBA_ \"ProtocolType\" \"J1939\";\n";
    let command = |setup: Setup, more: &[(&str, u8)]| {
        let mut output = json!({ "message": "Command" });
        more.iter().for_each(|(key, address)| output[*key] = json!(address));
        said(&setup.output("o", output))
    };
    let setup_j1939 = || Setup::interface("can0").dbc(j1939);
    assert!(command(setup_j1939(), &[]).contains("source = 0x27"), "{}", command(setup_j1939(), &[]));
    assert_eq!(command(setup_j1939(), &[("source", 0x27), ("destination", 5)]), "");
    let plain = said(&setup().output("o", json!({ "message": "Status", "source": 5 })));
    assert!(plain.contains("no message of J1939"), "{plain}");
    for connection in
        [json!({ "log": { "path": "/dev/null" } }), json!({ "interface": "can0", "listen_only": true })]
    {
        let said = said(&Setup::can(connection.clone()).output("o", json!({ "id": "0x1" })));
        assert!(said.contains("connection"), "{said}");
    }
}
