//! What somebody else has written, and what overrides are told of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::tests::*;
use super::*;
use crate::config::Value;
use crate::decision::Verdict;
use ControlKind::{Ends, Holds};

/// A contract that looks every ten seconds.
fn looking(more: &str) -> String {
    format!(
        "expiry = \"20h\"\nfailsafe = {{ run = false, speed = 0 }}\n\
        read_back = {{ within = \"1s\", every = \"10s\" }}\n{more}"
    )
}

/// Somebody writes at the device.
fn panel(bench: &mut Bench, output: &str, column: &str, value: Value) {
    bench.has.get_mut(output).unwrap().insert(column.into(), value);
}

fn alarms(bench: &Bench) -> usize {
    let is_alarm = |decision: &&Decision| {
        matches!(decision.verdict, Verdict::Answered { outcome: Outcome::External, .. })
    };
    bench.decisions.iter().filter(is_alarm).count()
}

#[test]
fn what_somebody_else_has_written_is_said_once_and_left_so() {
    let mut bench = bench(&looking(""));
    bench.claim("a", speed(40.0));
    bench.pass(60 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![40.0], 0));
    panel(&mut bench, "pump", "speed", Value::Float(70.0));
    bench.pass(60 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![40.0], 1));
    // A device that is back where it was, and away again, is news.
    panel(&mut bench, "pump", "speed", Value::Float(40.0));
    bench.pass(20 * S);
    panel(&mut bench, "pump", "speed", Value::Float(71.0));
    bench.pass(20 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![40.0], 2));
    bench.claim("a", speed(50.0));
    bench.pass(60 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![40.0, 50.0], 2));
}

#[test]
fn a_device_that_differs_once_is_not_somebody_else() {
    let mut bench = bench(&looking("external = \"reassert\"\n"));
    bench.claim("a", speed(40.0));
    bench.pass(9 * S);
    panel(&mut bench, "pump", "speed", Value::Float(70.0));
    bench.pass(S);
    panel(&mut bench, "pump", "speed", Value::Float(40.0));
    bench.pass(60 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![40.0], 0));
}

#[test]
fn an_interlock_stops_also_what_somebody_else_has_turned_on() {
    let terms = looking("interlock = { when = \"tank.level > 10\", max_age = \"never\" }\n");
    let mut bench = bench(&terms);
    bench.tank(Some(20.0), None);
    bench.claim("a", run(false));
    panel(&mut bench, "pump", "run", Value::Bool(true));
    bench.pass(30 * S);
    assert_eq!((bench.switched(), alarms(&bench)), (vec![(0, false)], 1));
    bench.tank(Some(5.0), None);
    assert_eq!(bench.switched(), [(0, false), (30_000, false)]);
}

#[test]
fn one_of_a_pair_waits_until_what_somebody_else_has_turned_on_is_off() {
    let mut bench =
        bench_with(&[("forward", &looking("never_with = [\"reverse\"]\n")), ("reverse", &looking(""))]);
    bench.claim_of("forward", "a", run(false));
    bench.claim_of("reverse", "a", run(false));
    panel(&mut bench, "forward", "run", Value::Bool(true));
    bench.pass(30 * S);
    let before = bench.written.len();
    bench.claim_of("reverse", "a", run(true));
    let then: Vec<(&str, &Value)> =
        bench.written.iter().skip(before).map(|(_, output, values, _)| (&**output, &values["run"])).collect();
    assert_eq!(then, [("forward", &Value::Bool(false)), ("reverse", &Value::Bool(true))]);
}

#[test]
fn an_output_that_yields_is_as_overridden() {
    let mut bench =
        bench(&looking("external = \"yield\"\nslew = { speed = \"10/s\" }\nslew_every = \"1s\"\n"));
    bench.claim("a", speed(10.0));
    bench.pass(20 * S);
    panel(&mut bench, "pump", "speed", Value::Float(70.0));
    bench.pass(30 * S);
    bench.claim("a", speed(50.0));
    bench.pass(3_600 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![10.0], 1), "no ramp begins below the panel");
    bench.control("release", "", 0, true);
    bench.pass(5 * S);
    assert_eq!(bench.speeds(), [10.0, 60.0, 50.0]);
    panel(&mut bench, "pump", "speed", Value::Float(30.0));
    bench.pass(9 * 3_600 * S);
    assert_eq!(bench.speeds(), [10.0, 60.0, 50.0, 40.0, 50.0], "after `max_lease`, from where it was");
}

#[test]
fn what_is_wanted_is_written_again_by_slew_and_not_too_often() {
    let terms = "external = \"reassert\"\nslew = { speed = \"10/s\" }\nslew_every = \"1s\"\n";
    let mut bench = bench(&looking(terms));
    bench.claim("a", speed(10.0));
    bench.pass(20 * S);
    panel(&mut bench, "pump", "speed", Value::Float(35.0));
    bench.pass(20 * S);
    assert_eq!((bench.speeds(), alarms(&bench)), (vec![10.0, 25.0, 15.0, 10.0], 1));
    // Somebody who insists.
    let begun = bench.now;
    for _ in 0..600 {
        panel(&mut bench, "pump", "speed", Value::Float(15.0));
        bench.pass(S / 10);
    }
    let insisted = bench.written.iter().filter(|(at, ..)| *at > begun).count();
    assert!((2..=6).contains(&insisted), "in a minute: {insisted}");
}

#[test]
fn rows_that_show_what_the_device_does_are_looked_at_one_by_one() {
    let terms = "expiry = \"1h\"\nfailsafe = \"hold\"\n\
        read_back = { within = \"1s\", from = { speed = \"tank.level\" }, tolerance = { speed = 1 } }\n";
    for (levels, is_external) in [
        (&[40.5, 70.0, 40.0, 70.0][..], false),
        (&[70.0, 40.0, 70.0, 40.0], false),
        (&[40.0, 70.0, 70.0, 40.0], true),
    ] {
        for cut in [1, 2, 4] {
            let mut bench = bench(terms);
            bench.claim("a", speed(40.0));
            bench.tank(Some(40.0), None);
            for part in levels.chunks(cut) {
                let rows: Vec<RecordBatch> =
                    part.iter().map(|level| tank(bench.now, Some(*level), None)).collect();
                let batch = arrow::compute::concat_batches(&tank_columns(), &rows).unwrap();
                let seqs = tidegate_core::Seqs::Run { first: bench.seq + 1 };
                bench.seq += part.len() as u64;
                bench.contracts.rows(&"tank".into(), &Rows { batch, seqs });
                bench.settle();
            }
            assert_eq!(alarms(&bench), usize::from(is_external), "{levels:?} by {cut}");
        }
    }
}

#[test]
fn external_needs_somebody_who_looks() {
    let columns = [("speed", FieldType::Float64)];
    let check = |more: &str| {
        let text = format!("expiry = \"1h\"\nfailsafe = \"hold\"\nexternal = \"yield\"\n{more}");
        Contract::of_text(&text, &columns).map(drop)
    };
    assert!(check("").is_err());
    assert!(check("read_back = { within = \"1s\" }").is_err());
    assert_eq!(check("read_back = { within = \"1s\", every = \"5s\" }"), Ok(()));
    assert_eq!(check("read_back = { within = \"1s\", from = { speed = \"a.b\" } }"), Ok(()));
    assert!(check("read_back = { within = \"1s\", every = \"500ms\" }").is_err());
    assert!(check("read_back = { within = \"1s\", every = \"5s\", from = { speed = \"a.b\" } }").is_err());
}

#[test]
fn an_override_is_told_every_hour_and_before_it_ends() {
    let mut bench = bench("expiry = \"1h\"\nfailsafe = { speed = 0 }\n");
    bench.control("override", r#"{ "speed": 60 }"#, 3 * 3_600_000, true);
    bench.pass(4 * 3_600 * S);
    let told = |bench: &mut Bench| -> Vec<(i64, ControlKind, u64)> {
        let said = std::mem::take(&mut bench.said);
        said.into_iter().map(|(at, event)| (at, event.event, event.lease.unwrap().as_secs())).collect()
    };
    let expected = [(3_600, Holds, 7_200), (7_200, Holds, 3_600), (10_500, Ends, 300)];
    assert_eq!(told(&mut bench), expected);
    bench.control("override", r#"{ "speed": 60 }"#, 100_000, true);
    bench.pass(200 * S);
    assert_eq!(told(&mut bench), [(4 * 3_600 + 90, Ends, 10)]);
    bench.control("override", r#"{ "speed": 60 }"#, 100_000, true);
    bench.control("release", "", 0, true);
    bench.pass(200 * S);
    assert!(told(&mut bench).is_empty());
}

#[test]
fn after_an_override_an_output_may_wait_for_the_next_claim() {
    for (after, then) in [("target", vec![40.0, 60.0, 40.0, 45.0]), ("wait", vec![40.0, 60.0, 45.0])] {
        for ends_by in ["lease", "release"] {
            let terms =
                format!("expiry = \"1h\"\nfailsafe = {{ speed = 0 }}\nafter_override = \"{after}\"\n");
            let mut bench = bench(&terms);
            bench.claim("a", speed(40.0));
            bench.control("override", r#"{ "speed": 60 }"#, 60_000, true);
            if ends_by == "release" {
                bench.control("release", "", 0, true);
            }
            bench.pass(120 * S);
            bench.claim("a", speed(45.0));
            assert_eq!(bench.speeds(), then, "{after}, {ends_by}");
        }
    }
    // Nobody claims anything for as long as a claim would have lived.
    let mut bench = bench("expiry = \"1h\"\nfailsafe = { speed = 0 }\nafter_override = \"wait\"\n");
    bench.control("override", r#"{ "speed": 60 }"#, 60_000, true);
    bench.pass(3_600 * S);
    assert_eq!(bench.speeds(), [60.0]);
    bench.pass(61 * S);
    assert_eq!(bench.speeds(), [60.0, 0.0]);
    let mut bench =
        super::tests::bench("expiry = \"never\"\nfailsafe = { speed = 0 }\nafter_override = \"wait\"\n");
    bench.control("override", r#"{ "speed": 60 }"#, 60_000, true);
    bench.pass(24 * 3_600 * S);
    assert_eq!(bench.speeds(), [60.0]);
}

#[test]
fn what_was_retained_is_older_than_anything_may_be() {
    let retained = |at: i64, level: f64, kept: bool| {
        let flag = Arc::new(arrow::array::BooleanArray::from(vec![kept])) as arrow::array::ArrayRef;
        let fields = tank_columns().fields().iter().cloned().collect::<Vec<_>>();
        let own = Arc::new(arrow::datatypes::Field::new("kept", arrow::datatypes::DataType::Boolean, true));
        let schema = Arc::new(arrow::datatypes::Schema::new([fields, vec![own]].concat()));
        let columns = [tank(at, Some(level), None).columns().to_vec(), vec![flag]].concat();
        RecordBatch::try_new(schema, columns).unwrap()
    };
    for (more, is_refused) in [("max_input_age = \"5s\"\n", true), ("", false)] {
        let mut bench = bench(&format!("expiry = \"1h\"\nfailsafe = {{ speed = 0 }}\n{more}"));
        bench.contracts.ages =
            Arc::new(Ages { kept: [("tank".into(), "kept".into())].into(), ..Ages::default() });
        for (seq, kept) in [(10, true), (20, false)] {
            let batch = retained(bench.now, 3.0, kept);
            bench.contracts.rows(&"tank".into(), &Rows { batch, seqs: tidegate_core::Seqs::One { seq } });
            bench.settle();
            bench.seq = seq;
            bench.claim("a", speed(f64::from(u32::try_from(seq).unwrap())));
        }
        let expected = if is_refused { vec![20.0] } else { vec![10.0, 20.0] };
        assert_eq!(bench.speeds(), expected, "{more}");
    }
}
