use super::*;
use crate::can::database::Database;
use tidegate_core::FieldType;

fn database(text: &str) -> Database {
    let database = Database::read(&[("test.dbc".into(), text.as_bytes().to_vec())]).unwrap();
    assert_eq!(database.problems(), []);
    database
}

fn message(signals: &str, more: &str) -> Message {
    let text = format!("BO_ 256 M: 8 X\n{signals}\n{more}\n");
    database(&text).message("M").unwrap().clone()
}

/// The example of cantools' documents, from its `motohawk.dbc`, and what cantools makes of it.
const MOTOHAWK: &str = r#"
BO_ 496 ExampleMessage: 8 PCM1
 SG_ Temperature : 0|12@0- (0.01,250) [229.52|270.47] "degK"  PCM1,FOO
 SG_ AverageRadius : 6|6@0+ (0.1,0) [0|5] "m"  Vector__XXX
 SG_ Enable : 7|1@0+ (1,0) [0|0] "-"  Vector__XXX

VAL_ 496 Enable 1 "Enabled" 0 "Disabled" ;
"#;

#[test]
fn the_example_of_cantools_is_as_cantools_has_it() {
    let database = database(MOTOHAWK);
    let message = database.message("ExampleMessage").unwrap();
    let types: Vec<_> = message.signals.iter().map(|signal| signal.field_type(true)).collect();
    assert_eq!(types, [FieldType::Float64, FieldType::Float64, FieldType::Utf8]);
    let payload = [0xc0, 0x06, 0xe0, 0x00, 0x00, 0x00, 0x00, 0x00];
    let decoded = message.decode(&payload);
    let Ok(Value::Float(temperature)) = decoded.value(0, true) else { panic!() };
    assert!((temperature - 250.55).abs() < 1e-9, "{temperature}");
    assert_eq!(decoded.value(1, true), Ok(Value::Float(3.2)));
    assert_eq!(decoded.value(2, true), Ok(Value::Text("Enabled")));
    assert_eq!(decoded.value(2, false), Ok(Value::Bool(true)));
    let given = [(0, Value::Float(250.55)), (1, Value::Float(3.2)), (2, Value::Text("Enabled"))];
    assert_eq!(message.encode(&given), Ok(payload.to_vec()));
}

#[test]
fn values_that_do_not_fit_are_refused_with_signal_value_and_range() {
    let database = database(MOTOHAWK);
    let message = database.message("ExampleMessage").unwrap();
    for (at, value, words) in [
        (0, Value::Float(280.0), "its 12 bits hold 229.52 to 270.47"),
        (1, Value::Float(5.6), "AverageRadius cannot be 5.6: the database allows 0 to 5"),
        (1, Value::Float(f64::NAN), "not a number"),
        (1, Value::Text("far"), "no value table"),
        (1, Value::Bool(true), "takes a number"),
        (2, Value::Text("Enabld"), "did you mean `Enabled`?"),
        (2, Value::Int(2), "its 1 bits hold 0 to 1"),
        (7, Value::Int(2), "no signal number 7"),
    ] {
        let error = message.encode(&[(at, value)]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(
        message.signal("Temprature").unwrap_err().help.as_deref(),
        Some("did you mean `Temperature`?")
    );
}

/// Not even by less than half a step: it would be another value that is sent.
#[test]
fn what_is_outside_is_refused_before_it_is_rounded() {
    let table = "VAL_ 256 S 255 \"not available\" ;";
    let error = |signal: &str, value| {
        message(signal, table)
            .encode(&[(0, value)])
            .map_err(|why| why.split_once(": ").map(|(_, why)| why.to_owned()).unwrap())
    };
    let signal = r#" SG_ S : 0|8@1+ (0.1,0) [0|25] "" X"#;
    assert_eq!(error(signal, Value::Float(25.04)), Err("the database allows 0 to 25".into()));
    assert_eq!(error(signal, Value::Float(-0.04)), Err("its 8 bits hold 0 to 25.5".into()));
    assert_eq!(error(signal, Value::Float(25.54)), Err("its 8 bits hold 0 to 25.5".into()));
    assert_eq!(error(signal, Value::Float(25.46)), Err("the database allows 0 to 25".into()));
    assert_eq!(error(signal, Value::Float(25.5)).unwrap()[0], 255, "what the table names is meant");
    assert_eq!(error(signal, Value::Float(24.96)).unwrap()[0], 250);
    let coarse = r#" SG_ S : 0|8@1+ (2,0) [0|5] "" X"#;
    let why = "its nearest step is 6, and the database allows 0 to 5";
    assert_eq!(error(coarse, Value::Float(5.0)), Err(why.into()));
    assert_eq!(error(coarse, Value::Float(4.9)).unwrap()[0], 2);
}

/// IEEE 754 binary64 has 53 bits of significand.
#[test]
fn what_a_float64_does_not_hold_is_refused() {
    let scaled = message(r#" SG_ S : 0|64@1- (0.5,0) [0|0] "" X"#, "");
    let plain = message(r#" SG_ S : 0|64@1- (1,0) [0|0] "" X"#, "");
    let beyond = (1_i64 << 53) + 1;
    assert!(scaled.encode(&[(0, Value::Int(beyond))]).unwrap_err().contains("2^53"));
    assert!(scaled.encode(&[(0, Value::Float(1e18))]).unwrap_err().contains("2^53"));
    assert!(plain.encode(&[(0, Value::Float(1e18))]).unwrap_err().contains("2^53"));
    assert!(plain.encode(&[(0, Value::Float(1e19))]).unwrap_err().contains("its 64 bits hold"));
    let payload = scaled.encode(&[(0, Value::Int(1 << 51))]).unwrap();
    assert_eq!(payload, (1_u64 << 52).to_le_bytes());
    assert_eq!(plain.encode(&[(0, Value::Int(beyond))]).unwrap(), beyond.to_le_bytes());
}

#[test]
fn a_float_beyond_its_range_is_refused_however_little_it_is() {
    let float = message(r#" SG_ S : 0|32@1- (1,0) [-10|10] "" X"#, "SIG_VALTYPE_ 256 S : 1;");
    for value in [10.000_000_1, -10.000_000_1] {
        let error = float.encode(&[(0, Value::Float(value))]).unwrap_err();
        assert!(error.contains("the database allows -10 to 10"), "{error}");
    }
    // 10 is 1.25 * 2^3.
    assert_eq!(float.encode(&[(0, Value::Float(10.0))]).unwrap()[..4], 0x4120_0000_u32.to_le_bytes());
}

/// IEEE 754: exponents of ones alone are infinite, or not a number.
#[test]
fn infinite_floats_have_no_value() {
    let plain = message(r#" SG_ S : 0|32@1- (1,0) [0|0] "" X"#, "SIG_VALTYPE_ 256 S : 1;");
    let scaled = message(r#" SG_ S : 0|64@1- (10,0) [0|0] "" X"#, "SIG_VALTYPE_ 256 S : 2;");
    let read = |message: &Message, bits: u64| message.signals[0].value(bits);
    assert_eq!(read(&plain, 0x7f80_0000), Err(Absent::Infinite));
    assert_eq!(read(&plain, 0xff80_0000), Err(Absent::Infinite));
    assert_eq!(read(&plain, 0x7fc0_0000), Err(Absent::NotANumber));
    assert_eq!(read(&plain, 0x3fc0_0000), Ok(Value::Float(1.5)));
    assert_eq!(read(&scaled, f64::MAX.to_bits()), Err(Absent::Infinite));
}

#[test]
fn whole_numbers_are_exact_up_to_64_bits() {
    let signed = message(r#" SG_ S : 0|64@1- (1,0) [0|0] "" X"#, "");
    let unsigned = message(r#" SG_ S : 7|64@0+ (1,0) [0|0] "" X"#, "");
    let odd = 9_007_199_254_740_993_i64;
    for message in [&signed, &unsigned] {
        assert_eq!(message.signals[0].field_type(false), FieldType::Int64);
        let payload = message.encode(&[(0, Value::Int(odd))]).unwrap();
        assert_eq!(message.decode(&payload).value(0, false), Ok(Value::Int(odd)));
    }
    assert_eq!(signed.decode(&[0xff; 8]).value(0, false), Ok(Value::Int(-1)));
    assert_eq!(unsigned.decode(&[0xff; 8]).value(0, false), Err(Absent::TooGreat));
    let error = unsigned.encode(&[(0, Value::Int(-1))]).unwrap_err();
    assert!(error.contains("hold 0 to 18446744073709551615"), "{error}");
    let error = signed.encode(&[(0, Value::Text("9223372036854775808"))]).unwrap_err();
    assert!(error.contains("hold -9223372036854775808 to 9223372036854775807"), "{error}");
    let greatest = unsigned.encode(&[(0, Value::Text("18446744073709551615"))]).unwrap();
    assert_eq!(greatest, [0xff; 8]);
    assert!(unsigned.encode(&[(0, Value::Float(1.5))]).unwrap_err().contains("whole numbers"));
}

#[test]
fn a_short_frame_gives_null_for_what_it_lacks_and_counts_it() {
    let signals = r#" SG_ A : 0|8@1+ (1,0) [0|0] "" X
 SG_ B : 8|16@1+ (1,0) [0|0] "" X
 SG_ C : 24|1@1+ (1,0) [0|0] "" X"#;
    let message = message(signals, "");
    let decoded = message.decode(&[7, 1]);
    assert_eq!(decoded.value(0, false), Ok(Value::Int(7)));
    assert_eq!(decoded.value(1, false), Err(Absent::CutOff));
    assert_eq!(decoded.value(2, false), Err(Absent::CutOff));
    assert_eq!(decoded.cut_off(), 2);
    assert_eq!(message.decode(&[7, 1, 0, 1, 9, 9, 9, 9, 9, 9]).value(2, false), Ok(Value::Bool(true)));
    assert_eq!(message.decode(&[]).cut_off(), 3);
}

#[test]
fn a_label_that_is_not_in_the_table_is_its_number() {
    let flag = message(r#" SG_ S : 0|1@1+ (1,0) [0|0] "" X"#, r#"VAL_ 256 S 1 "on" ;"#);
    assert_eq!(flag.decode(&[0]).value(0, true), Ok(Value::Int(0)));
    assert_eq!(flag.decode(&[1]).value(0, true), Ok(Value::Text("on")));
    let gear =
        message(r#" SG_ S : 0|8@1- (0.5,0) [0|0] "" X"#, r#"VAL_ 256 S -1 "reverse" 3 "low" 4 "low" ;"#);
    assert_eq!(gear.decode(&[0xff]).value(0, true), Ok(Value::Text("reverse")));
    assert_eq!(gear.decode(&[5]).value(0, true), Ok(Value::Float(2.5)));
    assert_eq!(gear.encode(&[(0, Value::Text("reverse"))]).unwrap()[0], 0xff);
    assert!(gear.encode(&[(0, Value::Text("low"))]).unwrap_err().contains("the label of 3 and of 4"));
}

#[test]
fn signals_that_are_not_given_have_their_start_values() {
    let signals = r#" SG_ A : 0|8@1+ (0.5,1) [0|0] "" X
 SG_ B : 8|8@1- (1,0) [0|0] "" X
 SG_ F : 32|32@1- (1,0) [0|0] "" X"#;
    let more = r#"
BA_DEF_ SG_ "GenSigStartValue" FLOAT -100000 100000;
BA_ "GenSigStartValue" SG_ 256 A 9;
BA_ "GenSigStartValue" SG_ 256 B -2;
BA_ "GenSigStartValue" SG_ 256 F 1.5;
SIG_VALTYPE_ 256 F : 1;"#;
    let message = message(signals, more);
    assert_eq!(message.encode(&[]).unwrap(), [9, 0xfe, 0, 0, 0, 0, 0xc0, 0x3f]);
    assert_eq!(message.encode(&[(1, Value::Int(3))]).unwrap()[..2], [9, 3]);
}

/// Of the kind of cantools' `multiplex_2.dbc`, where multiplexors are in each other.
const NESTED: &str = r#"
BO_ 100 Extended: 8 X
 SG_ S0 M : 0|4@1+ (1,0) [0|0] "" X
 SG_ S1 m0M : 4|4@1+ (1,0) [0|0] "" X
 SG_ S2 m0 : 8|8@1+ (1,0) [0|0] "" X
 SG_ S3 m0 : 8|8@1+ (1,0) [0|0] "" X
 SG_ S4 m1 : 4|8@1+ (1,0) [0|0] "" X
 SG_ S5 : 24|8@1+ (1,0) [0|0] "" X

SG_MUL_VAL_ 100 S1 S0 0-0;
SG_MUL_VAL_ 100 S2 S1 0-2, 7-7;
SG_MUL_VAL_ 100 S3 S1 3-5;
SG_MUL_VAL_ 100 S4 S0 1-3;
"#;

#[test]
fn multiplexed_signals_are_in_the_frames_of_their_multiplexors() {
    let database = database(NESTED);
    let message = database.message("Extended").unwrap();
    let present = |payload: &[u8]| -> Vec<usize> {
        let decoded = message.decode(payload);
        (0..6).filter(|at| decoded.value(*at, false).is_ok()).collect()
    };
    assert_eq!(present(&[0x00, 1, 2, 3]), [0, 1, 2, 5]);
    assert_eq!(present(&[0x70, 1, 2, 3]), [0, 1, 2, 5]);
    assert_eq!(present(&[0x40, 1, 2, 3]), [0, 1, 3, 5]);
    assert_eq!(present(&[0x60, 1, 2, 3]), [0, 1, 5]);
    assert_eq!(present(&[0x03, 1, 2, 3]), [0, 4, 5]);
    assert_eq!(present(&[0x0f, 1, 2, 3]), [0, 5]);
    assert_eq!(message.decode(&[0x0f, 1, 2, 3]).value(4, false), Err(Absent::Multiplexed));
    assert_eq!(message.decode(&[]).value(4, false), Err(Absent::CutOff));
}

#[test]
fn multiplexors_are_set_by_what_is_given() {
    let database = database(NESTED);
    let message = database.message("Extended").unwrap();
    let encode = |given: &[(&str, i64)]| {
        let given: Vec<_> =
            given.iter().map(|(name, value)| (message.signal(name).unwrap(), Value::Int(*value))).collect();
        message.encode(&given)
    };
    let first_two = |given: &[(&str, i64)]| encode(given).unwrap()[..2].to_vec();
    assert_eq!(first_two(&[("S3", 9)]), [0x30, 9], "the least value that has it");
    assert_eq!(first_two(&[("S1", 5), ("S3", 9)]), [0x50, 9]);
    assert_eq!(first_two(&[("S4", 0xab)]), [0xb1, 0x0a]);
    assert_eq!(first_two(&[("S0", 2), ("S4", 0xab)]), [0xb2, 0x0a]);
    assert_eq!(first_two(&[("S5", 1)]), [0, 0]);
    for (given, words) in [
        (&[("S1", 2), ("S3", 9)][..], "S3 is only in frames in which S1 is 3 to 5, and not 2"),
        (&[("S2", 2), ("S3", 9)], "S2 and S3 are never in the same frame"),
        (&[("S2", 2), ("S4", 9)], "are never in the same frame"),
        (&[("S0", 9), ("S4", 9)], "S4 is only in frames in which S0 is 1 to 3, and not 9"),
    ] {
        let error = encode(given).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn of_signals_that_overlap_only_one_is_sent() {
    let signals = r#" SG_ All : 0|8@1+ (1,0) [0|0] "" X
 SG_ Bit : 3|1@1+ (1,0) [0|0] "" X"#;
    let message = message(signals, "");
    assert_eq!(message.encode(&[(0, Value::Int(0xff))]).unwrap()[0], 0xff);
    assert_eq!(message.encode(&[(1, Value::Bool(true))]).unwrap()[0], 8);
    let error = message.encode(&[(0, Value::Int(0)), (1, Value::Bool(true))]).unwrap_err();
    assert!(error.contains("All and Bit have bits in common"), "{error}");
}
