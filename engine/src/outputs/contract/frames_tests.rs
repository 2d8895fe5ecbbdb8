//! What goes out together, and under which number.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::tests::*;
use super::*;
use crate::config::Value;
use crate::decision::Verdict;

#[test]
fn numbers_go_on_behind_what_is_on_disk_also_when_what_was_kept_is_lost() {
    let mut bench = bench(PLAIN);
    let newest = r#"{ "pump": 100, "another": 500 }"#;
    bench.control("start", newest, 0, true);
    bench.claim("a", run(true));
    let [sent, ..] = &bench.decisions[..] else { panic!("{:?}", bench.decisions) };
    assert_eq!((sent.number, &sent.verdict), (101, &Verdict::Sent { write: 101 }));
    // Nothing was lost: it knows of more than the disk.
    bench.control("start", newest, 0, true);
    bench.claim("a", run(false));
    let numbers: Vec<u64> = bench.decisions.iter().map(|decision| decision.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn columns_of_one_frame_go_out_together() {
    let terms = "expiry = \"1h\"\nfailsafe = { run = false, speed = 0 }\n\
        interlock = { when = \"tank.level > 10\", trip = { run = false }, max_age = \"never\" }\n";
    let mut bench = bench(terms);
    bench.contracts.outputs.get_mut("pump").unwrap().whole = ["run", "speed"].map(Arc::from).into();
    bench.tank(Some(20.0), None);
    bench.claim("a", row(Some(true), Some(40.0)));
    bench.claim("a", row(Some(true), Some(50.0)));
    bench.claim("a", row(Some(false), Some(50.0)));
    bench.claim("a", row(Some(true), Some(60.0)));
    bench.tank(Some(5.0), None);
    let mut made = bench.contracts.stop(bench.at());
    bench.carry_out(&mut made);
    let frames: Vec<(bool, f64)> = bench
        .written
        .iter()
        .map(|(_, _, values, _)| (values["run"] == Value::Bool(true), values["speed"].number().unwrap()))
        .collect();
    let on_and_off = [(true, 40.0), (true, 50.0), (false, 50.0), (true, 60.0), (false, 60.0), (false, 0.0)];
    assert_eq!(frames, on_and_off);
}
