//! Commands are understood, allowed and answered the same, wherever they come from.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::command::{Caller, Listener, Right, answer};
use super::managed_box::{Handles, LogFilter, ManagedBox};
use super::protocol::{Code, Outcome, Refusal, Reply, Request};
use crate::config;
use crate::status::Status;

pub(super) const CONFIG: &str = r#"
name = "box-7"
[connections.plant]
kind = "mqtt"
host = "plant"
[streams.tank]
connection = "plant"
topic = "tank"
fields = { x = "float64" }
[outputs.pump]
connection = "plant"
topic = "pump"
"#;

/// A box that has only just been started from a file in `dir`.
pub(super) fn managed(dir: &Path, log: Option<Arc<LogFilter>>) -> Arc<ManagedBox> {
    let path = dir.join("tidegate.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let handles = Handles::unattached(Arc::new(Status::default()));
    Arc::new(ManagedBox::new(config::load(&path).unwrap(), &path, handles, log))
}

#[derive(Default)]
struct Heard(Vec<Value>);

impl Listener for Heard {
    fn tell(&mut self, part: String) -> BoxFuture<'_, bool> {
        self.0.push(serde_json::from_str(&part).unwrap());
        Box::pin(std::future::ready(true))
    }

    fn gone(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

pub(super) async fn ask(managed: &ManagedBox, right: Right, request: Value) -> Outcome {
    let request: Request = serde_json::from_value(request).unwrap();
    let caller = Caller { name: "uid 1000".to_owned(), right };
    let Reply { v: 1, outcome, .. } = answer(managed, &caller, request, &mut Heard::default()).await else {
        panic!("another version")
    };
    outcome
}

pub(super) fn refused(outcome: Outcome) -> (Code, String) {
    match outcome {
        Outcome::Failed(Refusal { code, reason, help }) => {
            (code, format!("{reason}; {}", help.unwrap_or_default()))
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn result(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Successful { result } => result,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_with_what_can_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let managed = managed(dir.path(), None);
    for (request, expected) in [
        (
            json!({"v": 1, "op": "stauts"}),
            "there is no command `stauts`; a box can be asked: status, tail, reload, log, outputs, override, release, reset",
        ),
        (json!({"v": 2, "op": "status"}), "this box speaks version 1 of the protocol, not 2"),
        (json!({"v": 1, "op": "status", "args": {"loud": true}}), "unknown field `loud`"),
        (json!({"v": 1, "op": "tail"}), "missing field `name`"),
        (json!({"v": 1, "op": "log", "args": {"level": "info", "for": "10"}}), "\"10\" is not a duration"),
    ] {
        let (code, text) = refused(ask(&managed, Right::Operate, request).await);
        assert_eq!(code, Code::Invalid);
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogFilter::new("info", |_| panic!("it was changed"));
    let managed = managed(dir.path(), Some(log));
    for op in ["log", "reload"] {
        let (code, text) = refused(ask(&managed, Right::Read, json!({"v": 1, "op": op})).await);
        assert_eq!((code, text), (Code::Forbidden, format!("uid 1000 may look, but not `{op}`; ")));
    }
    assert_eq!(
        result(ask(&managed, Right::Read, json!({"v": 1, "op": "status"})).await)["box"]["name"],
        json!("box-7")
    );
}

#[tokio::test]
async fn reload_names_what_differs_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let managed = managed(dir.path(), None);
    let path = dir.path().join("tidegate.toml");
    let reload = async || result(ask(&managed, Right::Operate, json!({"v": 1, "op": "reload"})).await);
    let same = reload().await;
    assert_eq!((&same["changed"], &same["wrong"]), (&json!([]), &json!([])));
    std::fs::write(&path, CONFIG.replace("\"tank\"", "\"tanks\"")).unwrap();
    assert_eq!(reload().await["changed"], json!(["streams.tank"]));
    std::fs::write(&path, CONFIG.replace("host =", "hots =")).unwrap();
    let wrong = reload().await;
    assert_eq!((&wrong["changed"], &wrong["wrong"][1]["line"]), (&json!([]), &json!(5)), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn a_log_level_lasts_as_long_as_it_was_asked_for() {
    let levels = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = LogFilter::new("info", {
        let levels = Arc::clone(&levels);
        move |level| {
            levels.lock().unwrap().push(level.to_owned());
            if level == "loud" { Err("there is no level loud".to_owned()) } else { Ok(()) }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let managed = managed(dir.path(), Some(log));
    let set =
        async |args: Value| ask(&managed, Right::Operate, json!({"v": 1, "op": "log", "args": args})).await;
    let (code, text) = refused(set(json!({"level": "loud"})).await);
    assert!(code == Code::Invalid && text.contains("there is no level loud"), "{text}");
    assert_eq!(
        result(set(json!({"level": "debug", "for": "10min"})).await),
        json!({"level": "debug", "started_with": "info"})
    );
    // Another change, and the first is not taken back.
    set(json!({"level": "trace"})).await;
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    assert_eq!(*levels.lock().unwrap(), ["loud", "debug", "trace"]);
    set(json!({"level": "debug", "for": "10min"})).await;
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    set(json!({})).await;
    assert_eq!(levels.lock().unwrap()[3..], ["debug", "info", "info"]);
}

#[tokio::test]
async fn rows_are_told_as_they_pass_with_their_numbers() {
    use arrow::array::{Float64Array, RecordBatch};
    use tidegate_core::{Rows, Seqs};

    let dir = tempfile::tempdir().unwrap();
    let managed = managed(dir.path(), None);
    let (code, text) =
        refused(ask(&managed, Right::Read, json!({"v": 1, "op": "tail", "args": {"name": "tnak"}})).await);
    assert_eq!(
        (code, text.as_str()),
        (Code::NotFound, "there is no stream, rule or output `tnak`; did you mean `tank`?")
    );

    let stream = managed.status.streams.of("tank");
    let request: Request =
        serde_json::from_value(json!({"v": 1, "op": "tail", "args": {"name": "tank", "count": 2}})).unwrap();
    let caller = Caller { name: "uid 1000".to_owned(), right: Right::Read };
    let mut heard = Heard::default();
    let mut asked = Box::pin(answer(&managed, &caller, request, &mut heard));
    assert!(futures::poll!(&mut asked).is_pending());
    let x = Float64Array::from(vec![1.5, 2.5, 3.5]);
    let batch = RecordBatch::try_from_iter([("x", Arc::new(x) as _)]).unwrap();
    stream.note(&Rows { batch, seqs: Seqs::Run { first: 7 } }, 1_772_366_400_000_000_000);
    let tailed = result(asked.as_mut().await.outcome);
    drop(asked);
    assert_eq!(tailed, json!({"rows": 2, "missed": 0}));
    let row = |seq: u64, x: f64| json!({"time": "2026-03-01T12:00:00.000Z", "seq": seq, "row": {"x": x}, "missed": 0});
    assert_eq!(heard.0, [row(7, 1.5), row(8, 2.5)]);
}
