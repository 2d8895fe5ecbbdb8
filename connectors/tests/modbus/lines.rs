//! Polls, and what becomes of them when devices and lines fail.

use serde_json::{Value, json};
use tidegate_connectors::Writes;
use tidegate_connectors::modbus::commission::Session;
use tidegate_connectors::{DeliveryError, LineNews};

use super::script::{Nature, Script, Seen};
use crate::rig::{Setup, batch};

/// Registers that have their own numbers, and one bit.
fn tank() -> Value {
    json!({ "fields": {
        "level": { "holding": 7, "type": "uint16", "scale": 0.1 },
        "inflow": { "input": 9, "type": "int16" },
        "valve": { "coil": 3 },
        "alarm": { "discrete": 4 },
    } })
}

#[tokio::test]
async fn what_a_device_has_becomes_rows() {
    let device = Script::start(Nature::default()).await;
    let mut rig = Setup::tcp(device.port()).stream("tank", tank()).run();
    assert!(matches!(rig.news().await, LineNews::Begins));
    let row = rig.row().await;
    assert_eq!(row, json!({ "level": 0.7, "inflow": 9, "valve": true, "alarm": false }));
    assert!(rig.status.is_connected());
    rig.end().await;
}

#[tokio::test]
async fn units_are_told_apart_and_a_dead_one_costs_only_itself() {
    let device = Script::start(Nature { silent: vec![2], ..Nature::default() }).await;
    let stream = json!({
        "units": { "press_1": 1, "press_2": 2, "press_3": 3 }, "quality": true, "timeout": "50ms",
        "fields": { "n": { "holding": 7, "type": "uint16" } },
    });
    let setup =
        Setup::tcp(device.port()).set("park", json!({ "after": 2, "for": "1h" })).set("retries", json!(0));
    let mut rig = setup.stream("press", stream).run();
    let parked =
        rig.row_where(|row| row["fault"].as_str().is_some_and(|fault| fault.contains("left alone"))).await;
    assert_eq!(
        (&parked["device"], &parked["n"], &parked["quality"]),
        (&json!("press_2"), &Value::Null, &json!("bad"))
    );
    assert_eq!(rig.status.parked().len(), 1);
    let timeouts = rig.status.timeouts.get();
    let mut rows = [0; 3];
    while rows.iter().any(|rows| *rows < 10) {
        let row = rig.row().await;
        let device = row["device"].as_str().unwrap();
        let good = device != "press_2";
        assert_eq!(row["n"], if good { json!(7) } else { Value::Null });
        assert_eq!(row["quality"], if good { "good" } else { "bad" }, "{row:?}");
        rows[device.strip_prefix("press_").unwrap().parse::<usize>().unwrap() - 1] += 1;
    }
    assert_eq!(rig.status.timeouts.get(), timeouts, "it is left alone");
    rig.end().await;
}

#[tokio::test]
async fn a_unit_that_comes_back_is_taken_up_again() {
    let device = Script::start(Nature { silent: vec![2], ..Nature::default() }).await;
    let stream = json!({
        "units": { "a": 1, "b": 2 }, "timeout": "50ms", "fields": { "n": { "holding": 7, "type": "uint16" } },
    });
    let setup = Setup::tcp(device.port()).set("park", json!({ "after": 1, "for": "100ms" }));
    let mut rig = setup.stream("s", stream).run();
    rig.row_where(|row| row["device"] == "a").await;
    device.nature.lock().unwrap().silent.clear();
    rig.row_where(|row| row["device"] == "b").await;
    assert_eq!(rig.status.parked().len(), 0);
    rig.end().await;
}

#[tokio::test]
async fn one_register_that_does_not_exist_costs_no_other_value() {
    let device = Script::start(Nature { missing: vec![5], ..Nature::default() }).await;
    let fields: Value = (0..10)
        .map(|n| (format!("r{n}"), json!({ "holding": n, "type": "uint16" })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut rig = Setup::tcp(device.port()).stream("s", json!({ "fields": fields, "quality": true })).run();
    let first = rig.row().await;
    assert_eq!(first["quality"], "bad");
    let fault = first["fault"].as_str().unwrap();
    assert!(fault.contains("holding registers 0 to 9") && fault.contains("illegal data address"), "{fault}");
    let row = rig.row().await;
    assert_eq!(row["quality"], "uncertain");
    assert!(row["fault"].as_str().unwrap().starts_with("holding register 5: "), "{row:?}");
    for n in 0..10 {
        assert_eq!(row[&format!("r{n}")], if n == 5 { Value::Null } else { json!(n) });
    }
    rig.end().await;
}

#[tokio::test]
async fn a_line_that_goes_and_comes_is_told_and_no_old_value_is_repeated() {
    let device = Script::start(Nature::default()).await;
    let stream = json!({ "quality": true, "fields": { "n": { "holding": 7, "type": "uint16" } } });
    let mut rig = Setup::tcp(device.port()).stream("s", stream).run();
    assert!(matches!(rig.news().await, LineNews::Begins));
    assert_eq!(rig.row().await["n"], 7);
    rig.question.send_replace(5);
    assert_eq!(rig.news().await, LineNews::Heard { asked: 5 });
    let port = device.stop().await;
    assert!(matches!(rig.news().await, LineNews::Ends { .. }));
    let refused =
        |fault: &Value| fault.as_str().is_some_and(|fault| fault.contains("does not take connections"));
    let down = rig.row_where(|row| refused(&row["fault"])).await;
    assert_eq!((&down["n"], &down["quality"]), (&Value::Null, &json!("bad")));
    assert!(!rig.status.is_connected());
    let nature = Nature { registers: [(3, [(7, 8)].into())].into(), ..Nature::default() };
    let _device = Script::come_back(port, nature).await;
    assert_eq!(rig.row_where(|row| !row["n"].is_null()).await["n"], 8);
    assert_eq!(rig.status.reconnects.get(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_device_that_closes_idle_connections_loses_no_poll() {
    let device = Script::start(Nature { hangs_up: true, ..Nature::default() }).await;
    let stream = json!({ "quality": true, "fields": { "n": { "holding": 7, "type": "uint16" } } });
    let mut rig = Setup::tcp(device.port())
        .stream("s", stream)
        .output("o", json!({ "fields": { "run": { "coil": 1 } } }))
        .run();
    for _ in 0..5 {
        assert_eq!(rig.row().await["quality"], "good");
        assert_eq!(rig.write("o", &json!({ "run": true })).await, Ok(()));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_connection_is_closed_between_polls_where_that_is_wanted() {
    let mut device = Script::start(Nature::default()).await;
    let mut rig = Setup::tcp(device.port())
        .set("close_after_poll", json!(true))
        .stream("s", json!({ "fields": { "n": { "holding": 7, "type": "uint16" } } }))
        .run();
    for _ in 0..3 {
        assert_eq!(device.seen().await, Seen::Connected);
        assert!(matches!(device.seen().await, Seen::Request(..)));
        assert_eq!(device.seen().await, Seen::Closed);
    }
    assert_eq!(rig.row().await["n"], 7);
    assert_eq!(rig.status.reconnects.get(), 0);
    rig.end().await;
}

#[tokio::test]
async fn a_write_goes_out_before_the_next_request_of_a_poll() {
    let mut device = Script::start(Nature::default()).await;
    let hold = device.hold().await;
    let fields: Value = (0..50)
        .map(|n| (format!("r{n}"), json!({ "holding": 2 * n, "type": "uint16" })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut rig = Setup::tcp(device.port())
        .stream("s", json!({ "fields": fields }))
        .output("o", json!({ "fields": { "run": { "coil": 5 } } }))
        .run();
    assert_eq!(device.request().await.1, [3, 0, 0, 0, 1]);
    let mut sink = rig.sinks.remove("o").unwrap();
    let row = batch(&json!({ "run": true }));
    let writing = tokio::spawn(async move { sink.deliver(Writes { rows: &row, causes: &[], now: 0 }).await });
    // It is the runtime's only thread, so that the writer has its turn.
    tokio::task::yield_now().await;
    drop(hold);
    assert_eq!(device.request().await.1, [5, 0, 5, 0xff, 0]);
    assert_eq!(device.request().await.1, [3, 0, 2, 0, 1], "and the poll goes on");
    assert_eq!(writing.await.unwrap().written, 1);
    rig.end().await;
}

#[tokio::test]
async fn writes_fail_at_once_while_the_line_is_down_and_nothing_is_kept() {
    let device = Script::start(Nature::default()).await;
    let port = device.stop().await;
    let mut rig = Setup::tcp(port).output("o", json!({ "fields": { "run": { "coil": 5 } } })).run();
    for _ in 0..3 {
        match rig.write("o", &json!({ "run": true })).await {
            Err(DeliveryError::Transient(why)) => assert!(why.contains("does not take connections"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let mut device = Script::come_back(port, Nature::default()).await;
    while rig.write("o", &json!({ "run": false })).await.is_err() {}
    assert_eq!(device.write().await, [5, 0, 5, 0, 0], "nothing from before");
    rig.end().await;
}

#[tokio::test]
async fn a_poll_that_takes_longer_than_its_interval_is_counted() {
    let device = Script::start(Nature { silent: vec![2], ..Nature::default() }).await;
    let slow =
        json!({ "unit": 2, "timeout": "200ms", "fields": { "n": { "holding": 7, "type": "uint16" } } });
    let mut rig = Setup::tcp(device.port()).stream("quick", tank()).stream("slow", slow).run();
    rig.row_where(|row| row.get("level").is_some()).await;
    while rig.status.count("overruns") == 0 {
        rig.row().await;
    }
    rig.end().await;
}

#[tokio::test]
async fn a_line_on_which_something_is_always_due_ends_when_it_is_told_to() {
    let device = Script::start(Nature::default()).await;
    let units: serde_json::Map<_, _> = (1..=200).map(|unit| (format!("u{unit}"), json!(unit))).collect();
    let fields = json!({ "n": { "holding": 7, "type": "uint16" } });
    let stream = json!({ "units": units, "every": "1ms", "fields": fields });
    let mut rig = Setup::tcp(device.port()).stream("s", stream).run();
    while rig.status.count("overruns") < 200 {
        rig.row().await;
    }
    rig.end().await;
}

#[tokio::test]
async fn a_box_that_stops_does_not_wait_for_a_device_that_is_given_long_to_answer() {
    let mut device = Script::start(Nature { silent: vec![1], ..Nature::default() }).await;
    let stream = json!({ "timeout": "10min", "fields": { "n": { "holding": 7, "type": "uint16" } } });
    let rig = Setup::tcp(device.port()).stream("s", stream).run();
    device.request().await;
    rig.end().await;
}

#[tokio::test]
async fn a_unit_that_answers_wrongly_costs_only_itself() {
    let device = Script::start(Nature { garbled: vec![2], ..Nature::default() }).await;
    let stream = json!({
        "units": { "a": 1, "b": 2, "c": 3 }, "quality": true,
        "fields": { "n": { "holding": 7, "type": "uint16" } },
    });
    let mut rig = Setup::tcp(device.port()).stream("s", stream).run();
    rig.row_where(|row| row["fault"].as_str().is_some_and(|fault| fault.contains("left alone"))).await;
    assert_eq!(rig.status.parked(), ["unit 2"]);
    let reconnects = rig.status.reconnects.get();
    let mut good = 0;
    while good < 20 {
        let row = rig.row().await;
        let is_good = row["device"] != "b";
        assert_eq!(row["quality"], if is_good { "good" } else { "bad" }, "{row:?}");
        good += usize::from(is_good);
    }
    assert_eq!(rig.status.reconnects.get(), reconnects, "nobody is asked who breaks the line");
    rig.end().await;
}

#[tokio::test]
async fn a_write_tries_a_unit_that_is_left_alone_now_and_then_and_takes_it_up_again() {
    let device = Script::start(Nature { silent: vec![2], ..Nature::default() }).await;
    let fields = json!({ "n": { "holding": 7, "type": "uint16" } });
    let stream = json!({ "units": { "a": 1, "b": 2 }, "timeout": "50ms", "fields": fields });
    let output = json!({ "unit": 2, "timeout": "500ms", "fields": { "run": { "coil": 1 } } });
    let setup = Setup::tcp(device.port()).set("park", json!({ "after": 1, "for": "1h" }));
    let mut rig = setup.stream("s", stream).output("o", output).run();
    while rig.status.parked().is_empty() {
        rig.row().await;
    }
    for words in ["no answer within", "unit 2 does not answer, and is left alone"] {
        match rig.write("o", &json!({ "run": true })).await {
            Err(DeliveryError::Transient(why) | DeliveryError::Unknown(why)) => {
                assert!(why.contains(words), "{why}")
            }
            other => panic!("{other:?}"),
        }
    }
    device.nature.lock().unwrap().silent.clear();
    while rig.write("o", &json!({ "run": true })).await.is_err() {}
    assert!(rig.status.parked().is_empty());
    rig.row_where(|row| row["device"] == "b").await;
    rig.end().await;
}

#[tokio::test]
async fn rows_wait_for_a_busy_engine_and_writes_do_not() {
    let device = Script::start(Nature::default()).await;
    let mut rig = Setup::tcp(device.port())
        .inlet(1)
        .stream("tank", tank())
        .output("o", json!({ "fields": { "run": { "coil": 5 } } }))
        .run();
    while rig.status.rows.get() < 5 {
        assert_eq!(rig.write("o", &json!({ "run": true })).await, Ok(()));
    }
    for _ in 0..5 {
        assert_eq!(rig.row().await["inflow"], 9);
    }
    assert_eq!(rig.status.dropped.get(), 0);
    rig.end().await;
}

#[tokio::test]
async fn what_is_wrong_in_itself_is_not_opened() {
    let status = std::sync::Arc::default();
    let words = |setup: Setup| setup.open(&status).err().expect("it is refused").to_string();
    let field = json!({ "n": { "holding": 7, "type": "uint16" } });
    let both = words(Setup::tcp(1).set("serial", json!({ "device": "/dev/ttyS0" })));
    assert!(both.contains("`host` and `serial`"), "{both}");
    let serial = || Setup::modbus(json!({ "serial": { "device": "/dev/ttyS0" } }));
    let broadcast = words(serial().stream("s", json!({ "unit": 0, "fields": field })));
    assert!(broadcast.contains("stream s") && broadcast.contains("none of them answers"), "{broadcast}");
    let input =
        words(Setup::tcp(1).output("o", json!({ "fields": { "n": { "input": 7, "type": "uint16" } } })));
    assert!(input.contains("output o") && input.contains("input register 7) can be read only"), "{input}");
}

#[tokio::test]
async fn units_that_answer_are_found_by_hand() {
    let nature = Nature { silent: vec![2, 4], lacks: vec![43], missing: vec![0], ..Nature::default() };
    let device = Script::start(nature).await;
    let config = json!({ "host": "127.0.0.1", "port": device.port(), "timeout": "50ms" });
    let mut session = Session::open(&serde_json::from_value(config).unwrap()).await.unwrap();
    let found = session.scan(1..=4, |_| {}).await.unwrap();
    assert_eq!(found.iter().map(|found| found.unit).collect::<Vec<_>>(), [1, 3]);
    assert!(found[0].answer.contains("illegal data address") && found[0].identification.is_empty());
}
