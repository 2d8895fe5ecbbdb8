//! What a person says of an output is checked before the box hears it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_core::clock::SimulatedClock;

use super::command::Right;
use super::managed_box::{Handles, ManagedBox};
use super::protocol::Code;
use super::tests::{ask, refused, result};
use crate::config::{self, Value};
use crate::decision::Origin;
use crate::status::{OutputState, OverrideState, Status};
use crate::system::control::{ControlEvent, ControlEvents, ControlKind};
use crate::time::{Readings, SequenceTime};

const CONFIG: &str = r#"
name = "box-7"
[connections.plc]
kind = "modbus"
host = "plc"
[outputs.pump]
connection = "plc"
unit = 1
fields = { run = { coil = 5 }, speed = { holding = 40, type = "uint16", scale = 0.1 } }
contract = { expiry = "30s", failsafe = "hold" }
[outputs.valve]
connection = "plc"
unit = 1
fields = { open = { coil = 7 } }
contract = { expiry = "30s", failsafe = "hold" }
[outputs.lamp]
connection = "plc"
unit = 1
fields = { lit = { coil = 9 } }
contract = "none"
"#;

/// A box whose pump and valve have contracts, its clock, and what it hears.
fn governed(dir: &Path) -> (ManagedBox, Arc<SimulatedClock>, ControlEvents) {
    let path = dir.join("tidegate.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let mut config = config::load(&path).unwrap();
    let valve = config.outputs.get_mut("valve").and_then(|valve| valve.contract.as_mut()).unwrap();
    valve.key = vec!["line".into(), "side".into()];
    let clock = Arc::new(SimulatedClock::new(1_772_360_043_000_000_000));
    let time = Arc::new(SequenceTime::start(Arc::clone(&clock) as _, 0, &Readings::default()));
    let control = ControlEvents::new(Arc::clone(&clock) as _);
    let handles = Handles { status: Arc::new(Status::default()), control: control.clone(), time };
    (ManagedBox::new(config, &path, handles, None), clock, control)
}

/// What the box has heard.
fn heard(control: &ControlEvents) -> Vec<ControlEvent> {
    let mut control = control.clone();
    std::iter::from_fn(|| control.waiting()).flat_map(|rows| ControlEvent::read(&rows)).collect()
}

fn request(op: &str, args: Json) -> Json {
    json!({ "v": 1, "op": op, "args": args })
}

#[tokio::test]
async fn an_override_becomes_an_event_with_who_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let (managed, _, control) = governed(dir.path());
    let args = json!({
        "output": "pump", "values": { "run": false, "speed": 40 }, "lease": "45min", "reason": " bearing "
    });
    let told = result(ask(&managed, Right::Operate, request("override", args)).await);
    assert_eq!(told, json!({ "output": "pump", "instance": "", "values": { "run": false, "speed": 40.0 } }));
    let release = json!({ "output": "pump" });
    result(ask(&managed, Right::Operate, request("release", release)).await);
    let reset = json!({ "output": "pump", "reason": "looked" });
    result(ask(&managed, Right::Operate, request("reset", reset)).await);
    let said = |event, reason: Option<&str>| ControlEvent {
        event,
        output: Some("pump".into()),
        reason: reason.map(Arc::from),
        who: Some("uid 1000".into()),
        ..ControlEvent::stop()
    };
    let overridden = ControlEvent {
        values: [("run".into(), Value::Bool(false)), ("speed".into(), Value::Float(40.0))].into(),
        lease: Some(Duration::from_mins(45)),
        ..said(ControlKind::Override, Some("bearing"))
    };
    let expected = [overridden, said(ControlKind::Release, None), said(ControlKind::Reset, Some("looked"))];
    assert_eq!(heard(&control), expected);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let (managed, _, control) = governed(dir.path());
    let over = |output: &str, values: Json, lease: &str, reason: &str| {
        request("override", json!({ "output": output, "values": values, "lease": lease, "reason": reason }))
    };
    let run = || json!({ "run": false });
    for (request, code, expected) in [
        (over("pmup", run(), "1h", "x"), Code::NotFound, "there is no output `pmup`; did you mean `pump`?"),
        (
            over("lamp", json!({ "lit": true }), "1h", "x"),
            Code::Unable,
            "output `lamp` has no contract, and obeys rules only; write [outputs.lamp.contract], or",
        ),
        (
            over("pump", json!({ "rnu": false }), "1h", "x"),
            Code::Invalid,
            "no column `rnu`; did you mean `run`?",
        ),
        (
            over("pump", json!({ "lit": false }), "1h", "x"),
            Code::Invalid,
            "no column `lit`; it has: run, speed",
        ),
        (
            over("pump", json!({ "run": 3 }), "1h", "x"),
            Code::Invalid,
            "takes bool, and 3 is none; write it as `run=true`",
        ),
        (
            over("pump", json!({ "speed": "fast" }), "1h", "x"),
            Code::Invalid,
            "takes float64, and \"fast\" is none",
        ),
        (
            over("pump", json!({}), "1h", "x"),
            Code::Invalid,
            "it is not said where the output goes; say a value",
        ),
        (
            over("pump", run(), "9h", "x"),
            Code::Invalid,
            "may be overridden for 8h at most; say `--lease 8h` or less",
        ),
        (over("pump", run(), "0s", "x"), Code::Invalid, "may be overridden for 8h at most"),
        (over("pump", run(), "1h", "  "), Code::Invalid, "it is not said why; say `--reason"),
        (
            request("release", json!({ "output": "pump", "instance": "line=7" })),
            Code::Invalid,
            "output `pump` moves one thing, and has no instance line=7; leave `--instance` away",
        ),
    ] {
        let (found, text) = refused(ask(&managed, Right::Operate, request).await);
        assert_eq!(found, code, "{text}");
        assert!(text.contains(expected), "{text}\n{expected}");
    }
    for op in ["override", "release", "reset"] {
        let args = json!({ "output": "pump", "values": run(), "lease": "1h", "reason": "x" });
        let (code, _) = refused(ask(&managed, Right::Read, request(op, args)).await);
        assert!(matches!(code, Code::Forbidden | Code::Invalid), "{op}");
    }
    assert!(heard(&control).is_empty());
    // Nobody takes what is said.
    let release = || request("release", json!({ "output": "pump" }));
    let mut code = None;
    for _ in 0..100 {
        let outcome = ask(&managed, Right::Operate, release()).await;
        if !matches!(outcome, super::protocol::Outcome::Successful { .. }) {
            code = Some(refused(outcome).0);
            break;
        }
    }
    assert_eq!(code, Some(Code::Busy));
    managed.stops();
    assert_eq!(refused(ask(&managed, Right::Operate, release()).await).1, "the box stops; ");
}

#[tokio::test]
async fn an_instance_is_named_by_all_columns_of_its_key_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let (managed, _, control) = governed(dir.path());
    let valve = managed.status.outputs.of("valve");
    valve.states.note(&"line=7,side=left".into(), OutputState::default());
    let release = |instance: &str| request("release", json!({ "output": "valve", "instance": instance }));
    for (instance, expected) in [
        ("", "it is not said which; say `--instance line=7,side=left`"),
        ("line", "`line` names no instance; say"),
        ("lien=7,side=left", "`lien` does not tell apart what `valve` moves; did you mean `line`?"),
        ("line=7", "does not name each column of the key"),
        ("line=7,line=7", "does not name each column of the key"),
        (
            "line=7,side=lfet",
            "nothing was claimed of `valve` with line=7,side=lfet since it is there; did you mean",
        ),
    ] {
        let (_, text) = refused(ask(&managed, Right::Operate, release(instance)).await);
        assert!(text.contains(expected), "{text}\n{expected}");
    }
    result(ask(&managed, Right::Operate, release("side=left,line=7")).await);
    assert_eq!(
        heard(&control).iter().map(|event| &*event.instance).collect::<Vec<_>>(),
        ["line=7,side=left"]
    );
    let (_, text) = refused(
        ask(
            &managed,
            Right::Operate,
            request(
                "override",
                json!({
                    "output": "valve", "instance": "line=7,side=left", "values": { "line": 8 }, "lease": "1h",
                    "reason": "x"
                }),
            ),
        )
        .await,
    );
    assert!(text.contains("`line` says which one is meant, not where it goes"), "{text}");
}

#[tokio::test]
async fn outputs_say_what_they_do_since_when_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let (managed, clock, _) = governed(dir.path());
    let now = managed.time.now();
    let state = OutputState {
        values: [("run".into(), Value::Bool(false))].into(),
        confirmed: true,
        by: Some(Origin::Failsafe { because: "no rule claims it".into() }),
        since_ns: now,
        sentence: "off: no rule claims it".into(),
        brief: "run=false  failsafe: no rule claims it".into(),
        interlocks: vec!["tank.level > 10: tank.level was 8.2".into()],
        overridden: Some(OverrideState {
            who: "uid 1000".into(),
            reason: "test".into(),
            values: [("run".into(), Value::Bool(true))].into(),
            until_ns: now + 3_600_000_000_000,
        }),
    };
    managed.status.outputs.of("pump").states.note(&"".into(), state);
    clock.pass(Duration::from_secs(60));
    let all = result(ask(&managed, Right::Read, request("outputs", json!({}))).await);
    let names: Vec<&Json> = all.as_array().unwrap().iter().map(|output| &output["name"]).collect();
    assert_eq!(names, ["lamp", "pump", "valve"]);
    assert_eq!((&all[0]["contract"], &all[2]["instances"]), (&json!(false), &json!([])));
    let one = result(ask(&managed, Right::Read, request("outputs", json!({ "name": "pump" }))).await);
    let pump = &one[0]["instances"][0];
    assert_eq!(
        (&pump["values"], &pump["for_s"], &pump["by"]["kind"], &pump["confirmed"]),
        (&json!({ "run": false }), &json!(60), &json!("failsafe"), &json!(true))
    );
    assert_eq!((&pump["override"]["left_s"], &pump["override"]["who"]), (&json!(3_540), &json!("uid 1000")));
    let (code, text) =
        refused(ask(&managed, Right::Read, request("outputs", json!({ "name": "pmup" }))).await);
    assert_eq!((code, text.as_str()), (Code::NotFound, "there is no output `pmup`; did you mean `pump`?"));
}
