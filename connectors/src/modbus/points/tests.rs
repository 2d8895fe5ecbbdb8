use super::config::PointConfig;
use super::*;
use crate::table::Problem;

fn point(config: &str) -> Point {
    parse(config).unwrap_or_else(|problem| panic!("{config}: {problem}"))
}

fn parse(config: &str) -> Result<Point, Problem> {
    let config: PointConfig = serde_json::from_str(config).unwrap();
    Point::parse("p", &config, Spelling::default())
}

fn read(config: &str, registers: &[u16]) -> Value {
    point(config).decode(Raw::Registers(registers)).unwrap()
}

#[test]
fn data_sheets_count_from_one_with_the_kind_in_front() {
    // Modbus Application Protocol V1.1b3, section 4.4, and the usual notation of data sheets.
    for (at, table, address) in [
        ("40031", Table::Holding, 30),
        ("400031", Table::Holding, 30),
        ("40001", Table::Holding, 0),
        ("30001", Table::Input, 0),
        ("10008", Table::Discrete, 7),
        ("00006", Table::Coil, 5),
        ("465536", Table::Holding, 65_535),
    ] {
        let value_type = if table.is_bits() { "" } else { r#", "type": "int16""# };
        let point = point(&format!(r#"{{"at": "{at}"{value_type}}}"#));
        assert_eq!((point.table, point.address), (table, address), "{at}");
    }
    for at in ["40000", "400000", "20001", "465537", "4001", "4x031", "", "40031.3"] {
        let problem = parse(&format!(r#"{{"at": "{at}", "type": "int16"}}"#)).unwrap_err();
        assert!(problem.to_string().contains("40001") || problem.to_string().contains("40031"), "{problem}");
    }
}

#[test]
fn a_data_sheet_that_counts_from_one_is_one_ahead_of_the_wire() {
    let config: PointConfig = serde_json::from_str(r#"{"holding": 1, "type": "int16"}"#).unwrap();
    let spelling = Spelling { addresses_from: 1, ..Spelling::default() };
    assert_eq!(Point::parse("p", &config, spelling).unwrap().address, 0);
    let config = PointConfig { holding: Some(0), ..config };
    assert_eq!(Point::parse("p", &config, spelling).unwrap_err().at, ["holding"]);
}

#[test]
fn what_contradicts_itself_is_refused_with_its_key() {
    for (config, at, words) in [
        (r#"{"type": "int16"}"#, "", "no place"),
        (r#"{"holding": 1, "input": 1, "type": "int16"}"#, "", "more than one place"),
        (r#"{"holding": 1}"#, "", "what the register holds"),
        (r#"{"coil": 1, "type": "int16"}"#, "type", "true or false"),
        (r#"{"coil": 1, "bit": 3}"#, "bit", "one bit already"),
        (r#"{"coil": 1, "order": "DCBA"}"#, "order", "no order"),
        (r#"{"holding": 1, "bit": 16}"#, "bit", "bits 0 to 15"),
        (r#"{"holding": 1, "bit": 1, "type": "int16"}"#, "type", "leave `type` out"),
        (r#"{"holding": 1, "type": "string"}"#, "length", "how many registers"),
        (r#"{"holding": 1, "type": "string", "length": 0}"#, "length", "how many registers"),
        (r#"{"holding": 1, "type": "int16", "length": 1}"#, "length", "its own length"),
        (r#"{"holding": 65535, "type": "int32"}"#, "holding", "behind the last register"),
        (r#"{"holding": 1, "type": "int16", "scale": 0}"#, "scale", "leaves nothing"),
        (r#"{"holding": 1, "type": "int16", "byte": "high"}"#, "byte", "int8 and uint8"),
        (r#"{"holding": 1, "type": "int16", "missing": 32768}"#, "missing", "-32768 to 32767"),
        (r#"{"holding": 1, "type": "bool", "scale": 2}"#, "scale", "for numbers"),
        (r#"{"holding": 1, "type": "float32", "values": {"0": "off"}}"#, "values", "whole numbers"),
        (r#"{"holding": 1, "type": "int16", "values": {"0": "off"}, "scale": 2}"#, "values", "keep one"),
        (r#"{"holding": 1, "type": "int16", "values": {"off": "0"}}"#, "values.off", "whole number"),
        (r#"{"holding": 1, "type": "uint8", "values": {"256": "off"}}"#, "values.256", "0 to 255"),
    ] {
        let problem = parse(config).unwrap_err();
        assert_eq!(problem.at.join("."), at, "{config}: {problem}");
        assert!(problem.to_string().contains(words), "{config}: {problem}");
    }
    let wrong: Result<PointConfig, _> = serde_json::from_str(r#"{"holding": 1, "order": "ACBD"}"#);
    assert!(wrong.unwrap_err().to_string().contains("CDAB"));
}

#[test]
fn a_decimal_scale_gives_decimal_values() {
    let read =
        |scale: &str, content| read(&format!(r#"{{"holding": 0, "type": "int16", {scale}}}"#), &[content]);
    assert_eq!(read(r#""scale": 0.1"#, 3), Value::Float(0.3));
    assert_eq!(read(r#""scale": 0.001"#, 1_001), Value::Float(1.001));
    assert_eq!(read(r#""scale": 10"#, 7), Value::Float(70.0));
    assert_eq!(read(r#""scale": 0.1, "offset": -40"#, 650), Value::Float(25.0));
    assert_eq!(read(r#""offset": 0.5"#, 0xffff), Value::Float(-0.5));
}

#[test]
fn bits_bytes_names_and_texts_are_found_in_registers() {
    let bit = |bit: u8, content| read(&format!(r#"{{"holding": 0, "bit": {bit}}}"#), &[content]);
    assert_eq!(
        [bit(0, 1), bit(3, 8), bit(3, 0xfff7), bit(15, 0x8000)].map(|value| value == Value::Bool(true)),
        [true, true, false, true]
    );
    let swapped = r#"{"holding": 0, "bit": 0, "order": "BA"}"#;
    assert_eq!(read(swapped, &[0x0100]), Value::Bool(true));
    assert_eq!(read(r#"{"holding": 0, "type": "bool"}"#, &[2]), Value::Bool(true));
    assert_eq!(read(r#"{"holding": 0, "type": "int8", "byte": "high"}"#, &[0xff01]), Value::Int(-1));
    assert_eq!(read(r#"{"holding": 0, "type": "uint8"}"#, &[0xff01]), Value::Int(1));
    let mode = r#"{"holding": 0, "type": "uint16", "values": {"0": "off", "1": "auto"}, "missing": 65535}"#;
    assert_eq!(read(mode, &[1]), Value::Text("auto".into()));
    assert_eq!(read(mode, &[7]), Value::Text("7".into()), "unnamed, but not lost");
    assert_eq!(read(mode, &[65_535]), Value::Null);
    let name = |registers: &[u16], more: &str| {
        read(&format!(r#"{{"holding": 0, "type": "string", "length": 4{more}}}"#), registers)
    };
    assert_eq!(name(&[0x5057, 0x4D20, 0x2020, 0x2020], ""), Value::Text("PWM".into()));
    assert_eq!(name(&[0x5057, 0x4D00, 0xffff, 0xffff], ""), Value::Text("PWM".into()));
    assert_eq!(name(&[0x5750, 0x004D, 0, 0], r#", "order": "BADC""#), Value::Text("PWM".into()));
    assert_eq!(name(&[0xB043, 0, 0, 0], ""), Value::Text("°C".into()), "Latin-1, as many devices have it");
}

#[test]
fn what_means_nothing_is_said_and_not_made_up() {
    let fails =
        |config: &str, registers: &[u16]| point(config).decode(Raw::Registers(registers)).unwrap_err();
    assert!(fails(r#"{"holding": 0, "type": "bcd16"}"#, &[0x12A4]).contains("0x12A4"));
    let great = fails(r#"{"holding": 0, "type": "uint64"}"#, &[0xffff; 4]);
    assert!(great.contains("18446744073709551615"), "{great}");
    assert!(fails(r#"{"holding": 0, "type": "int32"}"#, &[1]).contains("as many registers"));
    // IEEE 754: a quiet NaN, infinity and its negative.
    let float = r#"{"holding": 0, "type": "float32", "scale": 2.0}"#;
    for (high, words) in [(0x7fc0, "not a number"), (0x7f80, "infinite"), (0xff80, "infinite")] {
        assert!(fails(float, &[high, 0]).contains(words), "{high:#x}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_point_value_and_range() {
    for (config, value, words) in [
        (r#"{"holding": 40, "type": "uint16", "scale": 0.1}"#, Value::Float(7000.0), "0 to 6553.5"),
        (r#"{"holding": 40, "type": "uint16"}"#, Value::Int(-1), "0 to 65535"),
        (r#"{"holding": 40, "type": "int16"}"#, Value::Int(40_000), "-32768 to 32767"),
        (r#"{"holding": 40, "type": "int16"}"#, Value::Float(1.5), "whole numbers"),
        (r#"{"holding": 40, "type": "int16"}"#, Value::Float(f64::NAN), "not a number"),
        (r#"{"holding": 40, "type": "int16"}"#, Value::Text("1".into()), "takes a number"),
        (r#"{"holding": 40, "type": "uint8"}"#, Value::Int(256), "0 to 255"),
        (r#"{"holding": 40, "type": "bcd16"}"#, Value::Int(10_000), "0 to 9999"),
        (r#"{"holding": 40, "type": "float32"}"#, Value::Float(1e300), "float32"),
        (r#"{"holding": 40, "type": "float16"}"#, Value::Float(65_520.0), "65504"),
        (r#"{"coil": 40}"#, Value::Int(1), "true or false"),
        (r#"{"coil": 40}"#, Value::Null, "no value"),
        (r#"{"holding": 40, "type": "string", "length": 2}"#, Value::Text("alarm".into()), "4 bytes"),
        (
            r#"{"holding": 40, "type": "uint16", "values": {"0": "off", "1": "auto"}}"#,
            Value::Text("atuo".into()),
            "did you mean `auto`",
        ),
    ] {
        let error = point(config).encode(&value).unwrap_err();
        assert!(error.contains(words) && error.contains("p (") && error.contains("40"), "{config}: {error}");
    }
}

#[test]
fn bits_and_bytes_change_nothing_beside_them() {
    let encode = |config: &str, value| point(config).encode(&value).unwrap();
    let bits = |mask, bits| Encoded::Bits { mask, bits };
    assert_eq!(encode(r#"{"holding": 0, "bit": 3}"#, Value::Bool(true)), bits(8, 8));
    assert_eq!(encode(r#"{"holding": 0, "bit": 3}"#, Value::Bool(false)), bits(8, 0));
    assert_eq!(encode(r#"{"holding": 0, "bit": 3, "order": "BA"}"#, Value::Bool(true)), bits(0x800, 0x800));
    assert_eq!(encode(r#"{"holding": 0, "type": "int8"}"#, Value::Int(-1)), bits(0xff, 0xff));
    let high = r#"{"holding": 0, "type": "uint8", "byte": "high"}"#;
    assert_eq!(encode(high, Value::Int(1)), bits(0xff00, 0x100));
    assert_eq!(encode(r#"{"coil": 0}"#, Value::Bool(true)), Encoded::Coil(true));
}

#[test]
fn numbers_in_every_order_are_as_pythons_struct_has_them() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/modbus/points/struct.py");
    let output = std::process::Command::new("python3").arg(script).output().expect("there is python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases = String::from_utf8(output.stdout).unwrap();
    assert!(cases.lines().count() > 1_500);
    for case in cases.lines() {
        let [value_type, order, wire, value] = case.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{case}")
        };
        let registers: Vec<u16> = (0..wire.len())
            .step_by(4)
            .map(|at| u16::from_str_radix(&wire[at..at + 4], 16).unwrap())
            .collect();
        let expected = match value_type.starts_with("float") {
            true => Value::Float(value.parse().unwrap()),
            false => Value::Int(value.parse().unwrap()),
        };
        let point = point(&format!(r#"{{"holding": 7, "type": "{value_type}", "order": "{order}"}}"#));
        let decoded = point.decode(Raw::Registers(&registers)).unwrap();
        match (&decoded, &expected) {
            (Value::Float(decoded), Value::Float(expected)) => {
                assert_eq!(decoded.to_bits(), expected.to_bits(), "{case}");
            }
            _ => assert_eq!(decoded, expected, "{case}"),
        }
        assert_eq!(point.encode(&decoded).unwrap(), Encoded::Registers(registers), "{case}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a device sends, what was read can be written and is the same again.
        #[test]
        fn what_is_read_can_be_written(
            registers in prop::collection::vec(any::<u16>(), 4),
            value_type in prop::sample::select(vec![
                "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
                "bcd16", "bcd32", "bool",
            ]),
            order in prop::sample::select(vec!["ABCD", "CDAB", "BADC", "DCBA"]),
        ) {
            let point = point(&format!(r#"{{"holding": 7, "type": "{value_type}", "order": "{order}"}}"#));
            let registers = &registers[..usize::from(point.count)];
            match point.decode(Raw::Registers(registers)) {
                Ok(Value::Null) | Err(_) => {}
                Ok(Value::Bool(value)) => prop_assert_eq!(value, registers[0] != 0),
                Ok(value) => {
                    prop_assert_eq!(point.encode(&value), Ok(Encoded::Registers(registers.to_vec())));
                }
            }
        }

        /// A scaled value comes back to within half a step.
        #[test]
        fn a_scaled_value_is_written_to_the_nearest_step(
            value in -3000.0..3000.0_f64, digits in 0_u32..2, offset in -100..100_i32,
        ) {
            let scale = 1.0 / f64::from(10_u32.pow(digits));
            let place = r#""holding": 0, "type": "int16""#;
            let point = point(&format!(r#"{{{place}, "scale": {scale}, "offset": {offset}}}"#));
            let Ok(Encoded::Registers(registers)) = point.encode(&Value::Float(value)) else {
                return Err(TestCaseError::fail("it fits"));
            };
            let Ok(Value::Float(read)) = point.decode(Raw::Registers(&registers)) else {
                return Err(TestCaseError::fail("it is a float"));
            };
            prop_assert!((read - value).abs() <= scale / 2.0 + 1e-9, "{value} became {read}");
        }

        #[test]
        fn any_text_that_fits_is_read_as_it_was_written(text in "[a-zA-Z0-9äß -]{0,8}", swapped: bool) {
            let order = if swapped { "BADC" } else { "ABCD" };
            let config = format!(r#"{{"holding": 0, "type": "string", "length": 8, "order": "{order}"}}"#);
            let point = point(&config);
            let Ok(Encoded::Registers(registers)) = point.encode(&Value::Text(text.clone())) else {
                return Err(TestCaseError::fail("it fits"));
            };
            let read = point.decode(Raw::Registers(&registers));
            prop_assert_eq!(read, Ok(Value::Text(text.trim_end().to_owned())));
        }
    }
}
