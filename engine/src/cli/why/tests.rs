//! What `tidegate why` prints.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::found::Found;
use super::*;
use crate::buffer::inspect::Answer;
use crate::config::{Value, Values};
use crate::decision::{Claimed, Clause, Decision, Input, Origin, Outcome, Overridden, Step, Verdict};
use crate::time::{Reading, Readings};

const S: i64 = 1_000_000_000;
/// 2026-03-01T10:14:03.120Z
const AT: i64 = 1_772_360_043 * S + 120_000_000;
const VERSION: &str = "6f1ed002ab5595859014ebf0951522d9f1a2b1e4c8f7e3d2b5a697887766554a";

/// Twelve minutes later, of a box whose clock a time service had set.
fn times() -> Times {
    let reading = Reading {
        now_ns: AT - 7_200 * S,
        boot: "b".into(),
        monotonic_ns: 0,
        wall_ns: AT - 7_200 * S,
        synchronised: true,
    };
    let now = Timestamp::from_nanosecond(i128::from(AT + 720 * S)).unwrap();
    Times::new(Readings(vec![reading]), now, TimeZone::UTC)
}

fn columns<const N: usize>(columns: [(&str, Value); N]) -> Values {
    columns.map(|(name, value)| (Arc::from(name), value)).into()
}

fn rule() -> Origin {
    Origin::Rule { rule: "cooling".into(), version: VERSION.into(), seq: 42_949_670, ordinal: 0 }
}

/// The rule wants the pump on, and the tank is too empty.
fn tripped() -> Decision {
    let (running, off) = (Value::Bool(true), Value::Bool(false));
    Decision {
        output: "cooling_pump".into(),
        instance: "".into(),
        number: 1_234,
        times: 1,
        seq: 42_949_673,
        at_ns: AT,
        wall_ns: AT,
        verdict: Verdict::Sent { write: 77 },
        by: Origin::Interlock { name: "tank.level > 10".into(), because: "tank.level was 8.2".into() },
        inputs: vec![Input {
            stream: "tank".into(),
            seq: 42_949_673,
            row: r#"{"ts":"2026-03-01T10:14:03.100Z","level":8.2}"#.into(),
        }],
        claims: vec![Claimed {
            rule: "cooling".into(),
            version: VERSION.into(),
            rank: 8,
            since_ns: AT - 712 * S,
            until_ns: Some(AT + 30 * S),
            values: columns([("run", running.clone())]),
        }],
        overridden: None,
        steps: vec![Step {
            column: "run".into(),
            clause: Clause::Interlock,
            before: running.clone(),
            after: Some(off.clone()),
            because: "tank.level was 8.2".into(),
        }],
        values: columns([("run", off)]),
        before: columns([("run", running)]),
    }
}

fn answer(outcome: Outcome, reason: Option<&str>, values: Values) -> Answer {
    let decision = Decision {
        number: 1_235,
        seq: 42_949_674,
        at_ns: AT + 60_000_000,
        wall_ns: AT + 60_000_000,
        verdict: Verdict::Answered { write: 77, outcome, reason: reason.map(str::to_owned) },
        inputs: Vec::new(),
        claims: Vec::new(),
        steps: Vec::new(),
        before: Values::new(),
        values,
        ..tripped()
    };
    Answer { outcome, decision }
}

fn found(sent: Decision, answers: Vec<Answer>) -> Found {
    let since_ns = sent.at_ns;
    Found { sent, since_ns, is_newest: true, is_of_instance: false, answers, held: None, refused: None }
}

fn acknowledged() -> Vec<Answer> {
    vec![answer(Outcome::Acknowledged, None, Values::new())]
}

#[test]
fn first_a_sentence_and_then_what_led_to_it() {
    let expected = "\
cooling_pump is off since 10:14:03 (12 min): interlock `tank.level > 10`: tank.level was 8.2

  decision  1234 at 10:14:03.120, of entry 42949673
  row       tank 42949673 {\"ts\":\"2026-03-01T10:14:03.100Z\",\"level\":8.2}
  claim     cooling (6f1ed002), rank 8: run = true, since 10:02:11, until 10:14:33
  step      interlock: run true -> false (tank.level was 8.2)
  before    run = true
  sent      run = false as write 77
  answer    acknowledged at 10:14:03.180
";
    assert_eq!(text::found(&found(tripped(), acknowledged()), &times()), expected);
}

#[test]
fn a_rules_will_is_told_with_its_version_and_row_and_what_waits_and_was_refused_since() {
    let sent = Decision {
        by: rule(),
        values: columns([("speed", Value::Float(40.0))]),
        before: columns([("run", Value::Bool(true)), ("speed", Value::Float(37.5))]),
        steps: vec![
            Step {
                column: "speed".into(),
                clause: Clause::Range,
                before: Value::Float(120.0),
                after: Some(Value::Float(100.0)),
                because: "100 is the most".into(),
            },
            Step {
                column: "speed".into(),
                clause: Clause::Slew,
                before: Value::Float(100.0),
                after: Some(Value::Float(40.0)),
                because: "by 2.5 each 500 ms".into(),
            },
        ],
        ..tripped()
    };
    let later = |seconds: i64, number: u64| Decision {
        number,
        at_ns: AT + seconds * S,
        wall_ns: AT + seconds * S,
        inputs: Vec::new(),
        claims: Vec::new(),
        ..sent.clone()
    };
    let held = Decision {
        verdict: Verdict::Held { until_ns: Some(AT + 660 * S) },
        values: Values::new(),
        steps: vec![Step {
            column: "run".into(),
            clause: Clause::MinOn,
            before: Value::Bool(false),
            after: None,
            because: "it went on at 10:14:03".into(),
        }],
        ..later(600, 1_240)
    };
    let refused = Decision {
        times: 120,
        verdict: Verdict::Refused { reason: "tank is 7.2 s old, 5 s are allowed".into() },
        ..later(610, 1_241)
    };
    let found = Found {
        since_ns: AT - 5 * S,
        held: Some(held),
        refused: Some(refused),
        ..found(sent, vec![answer(Outcome::Read, None, columns([("speed", Value::Float(40.0))]))])
    };
    let expected = "\
cooling_pump is on (speed = 40) since 10:13:58 (12 min): rule cooling claims it
run = false waits since 10:24:03, until 10:25:03: min_on (it went on at 10:14:03)

  decision  1234 at 10:14:03.120, of entry 42949673
  rule      cooling, version 6f1ed002, row 42949670.0
  row       tank 42949673 {\"ts\":\"2026-03-01T10:14:03.100Z\",\"level\":8.2}
  claim     cooling (6f1ed002), rank 8: run = true, since 10:02:11, until 10:14:33
  step      range: speed 120 -> 100 (100 is the most)
  step      slew: speed 100 -> 40 (by 2.5 each 500 ms)
  before    run = true, speed = 37.5
  sent      speed = 40 as write 77
  answer    read speed = 40 at 10:14:03.180
  refused   a row of rule cooling is no claim: tank is 7.2 s old, 5 s are allowed, 120 times since then, last at \
10:24:13
";
    assert_eq!(text::found(&found, &times()), expected);
}

#[test]
fn the_sentence_does_not_say_more_than_is_known() {
    let said = |answers: Vec<Answer>| text::sentence(&found(tripped(), answers), &times());
    let one = |outcome, reason| vec![answer(outcome, reason, Values::new())];
    for (answers, expected) in [
        (vec![], "and has not answered yet: "),
        (
            one(Outcome::Refused, Some("illegal data address")),
            "and the device refused (illegal data address): ",
        ),
        (one(Outcome::Failed, Some("the line is down")), "and it was not sent (the line is down): "),
        (one(Outcome::Unknown, None), "and nobody knows whether it is: "),
        (one(Outcome::Superseded, None), "and a newer write took its place: "),
        (
            [one(Outcome::Acknowledged, None), one(Outcome::Mismatch, Some("run is true"))].concat(),
            "and the device shows something else (run is true): ",
        ),
    ] {
        let begins =
            format!("cooling_pump was to be off at 10:14:03 (12 min ago), {expected}interlock `tank");
        assert!(said(answers.clone()).starts_with(&begins), "{}", said(answers));
    }
}

#[test]
fn whose_will_it_is_is_said_in_words() {
    let said = |by: Origin| {
        let sentence = text::sentence(&found(Decision { by, ..tripped() }, acknowledged()), &times());
        sentence.split_once("(12 min): ").map(|(_, cause)| cause.to_owned()).unwrap()
    };
    let person = Origin::Override { who: "uid 1000".into(), reason: "bearing is changed".into() };
    assert_eq!(said(person), "override by uid 1000: bearing is changed");
    assert_eq!(said(Origin::Pair { output: "reverse".into() }), "reverse goes on, and both may never be");
    assert_eq!(
        said(Origin::Failsafe { because: "rule cooling is gone".into() }),
        "failsafe: rule cooling is gone"
    );
    let several = columns([("level", Value::Int(3)), ("mode", Value::Text("auto".into()))]);
    let sent = Decision { values: several, before: Values::new(), instance: "line=7".into(), ..tripped() };
    let text = text::found(&found(sent, acknowledged()), &times());
    assert!(
        text.starts_with("cooling_pump (line=7) is at level = 3, mode = \"auto\" since 10:14:03"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\nthe newest of all instances; of one: tidegate why cooling_pump --instance line=7\n"
        )
    );
}

#[test]
fn an_override_is_told_with_its_end() {
    let overridden = Overridden {
        who: "uid 1000".into(),
        reason: "bearing is changed".into(),
        since_ns: AT,
        until_ns: AT + 2_700 * S,
        values: columns([("run", Value::Bool(false))]),
    };
    let by = Origin::Override { who: "uid 1000".into(), reason: "bearing is changed".into() };
    let sent = Decision { by, overridden: Some(overridden), steps: Vec::new(), ..tripped() };
    let text = text::found(&found(sent, acknowledged()), &times());
    let line = "  override  uid 1000 (bearing is changed): run = false, since 10:14:03, until 10:59:03\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_did_not_happen_is_told_newest_first_with_how_often() {
    let refused = Decision {
        times: 120,
        by: rule(),
        verdict: Verdict::Refused { reason: "tank is 7.2 s old, 5 s are allowed".into() },
        claims: Vec::new(),
        steps: Vec::new(),
        ..tripped()
    };
    let held = Decision {
        at_ns: AT - 90_000 * S,
        wall_ns: AT - 90_000 * S,
        by: rule(),
        verdict: Verdict::Held { until_ns: None },
        inputs: Vec::new(),
        claims: Vec::new(),
        values: Values::new(),
        steps: vec![Step {
            column: "run".into(),
            clause: Clause::Line,
            before: Value::Bool(true),
            after: None,
            because: "`plc` is down".into(),
        }],
        ..tripped()
    };
    let mut withheld = Withheld { output: "cooling_pump".into(), decisions: vec![refused, held], more: true };
    let expected = "\
what did not happen to cooling_pump, newest first

10:14:03 (12 min ago): a row of rule cooling is no claim: tank is 7.2 s old, 5 s are allowed, 120 times
  rule      cooling, version 6f1ed002, row 42949670.0
  row       tank 42949673 {\"ts\":\"2026-03-01T10:14:03.100Z\",\"level\":8.2}

2026-02-28 09:14:03 (25 h ago): run = true waits since 2026-02-28 09:14:03: line (`plc` is down)
  rule      cooling, version 6f1ed002, row 42949670.0
  step      line: run true -> not sent (`plc` is down)

there are older ones: --limit N
";
    assert_eq!(text::withheld(&withheld, &times()), expected);
    withheld.decisions.clear();
    assert_eq!(
        text::withheld(&withheld, &times()),
        "nothing was refused or held back of cooling_pump, as far as decisions go back\n"
    );
}

#[test]
fn programs_get_all_of_it() {
    let json: serde_json::Value =
        serde_json::from_str(&found(tripped(), acknowledged()).json(&times()).unwrap()).unwrap();
    let at = |path: &str| json.pointer(path).cloned().unwrap();
    assert_eq!(at("/sentence").as_str().unwrap().split(':').next(), Some("cooling_pump is off since 10"));
    assert_eq!(at("/told"), serde_json::json!({ "run": false }));
    assert_eq!(at("/since"), "2026-03-01T10:14:03.12Z");
    assert_eq!(at("/sent/at"), "2026-03-01T10:14:03.12Z");
    assert_eq!(at("/sent/by/name"), "tank.level > 10");
    assert_eq!(at("/answers/0/verdict/outcome"), "acknowledged");
    assert_eq!((at("/held"), at("/refused")), (serde_json::Value::Null, serde_json::Value::Null));
}

#[test]
fn an_output_of_which_nothing_is_known_is_told_apart_from_one_that_is_not_there() {
    let outputs = || ["valve".to_owned(), "cooling_pump".to_owned()].into();
    let unknown = |output: &str| Undecided::Unknown { outputs: outputs() }.error(output).to_string();
    assert_eq!(unknown("coling_pump"), "there is no output `coling_pump`; did you mean `cooling_pump`?");
    assert_eq!(unknown("lamp"), "there is no output `lamp`; there are: cooling_pump, valve");
    let said = |undecided: Undecided| undecided.error("valve").to_string();
    assert!(said(Undecided::Ungoverned).contains("[outputs.valve.contract]"));
    assert!(said(Undecided::Unclaimed { no_box: None }).contains("the box runs, but no rule has claimed"));
    let no_box = Some(AskError::Left("data/box.sock".into()));
    assert!(
        said(Undecided::Unclaimed { no_box })
            .contains("it has a contract, but no box runs here: data/box.sock")
    );
    assert!(said(Undecided::Unkept { layout: 5 }).contains("layout 5, which keeps no decisions"));
}

mod in_a_buffer {
    use crate::buffer::{Buffer, Uplinks};
    use crate::config;
    use crate::disk::SystemDisk;
    use tidegate_core::clock::SystemClock;

    use super::*;

    /// A file in which these decisions are.
    async fn kept(decisions: Vec<Decision>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let settings = config::Buffer::at(dir.path().join("box.db"));
        let uplinks = Uplinks::from_config(&std::collections::BTreeMap::new());
        let opened =
            Buffer::open(&settings, uplinks, Arc::new(SystemClock), Arc::new(SystemDisk), Arc::default());
        let (buffer, writer) = opened.unwrap();
        let writer = tokio::spawn(writer);
        buffer.decisions(decisions);
        buffer.close().await;
        writer.await.unwrap();
        dir
    }

    fn about<'a>(inspector: &'a Inspector, output: &'a str) -> About<'a> {
        About { inspector, output, instance: None, rule: None, until_ns: None }
    }

    fn later(seconds: i64, number: u64) -> Decision {
        Decision { number, at_ns: AT + seconds * S, wall_ns: AT + seconds * S, ..tripped() }
    }

    #[tokio::test]
    async fn the_newest_write_counts_with_its_answers_and_since_when_its_value_holds() {
        let on = Decision {
            by: rule(),
            verdict: Verdict::Sent { write: 76 },
            values: columns([("run", Value::Bool(true))]),
            before: columns([("run", Value::Bool(false))]),
            ..later(-600, 1)
        };
        let refresh = Decision {
            verdict: Verdict::Sent { write: 78 },
            before: columns([("run", Value::Bool(false))]),
            ..later(60, 5)
        };
        let of_78 = Decision {
            verdict: Verdict::Answered { write: 78, outcome: Outcome::Acknowledged, reason: None },
            ..later(61, 6)
        };
        let early = Decision { verdict: Verdict::Held { until_ns: None }, ..later(1, 3) };
        let late = Decision { verdict: Verdict::Held { until_ns: None }, ..later(70, 7) };
        let first_answer =
            Decision { number: 4, ..answer(Outcome::Acknowledged, None, Values::new()).decision };
        let off = Decision { number: 2, ..tripped() };
        let all = vec![on.clone(), off.clone(), early, first_answer, refresh.clone(), of_78, late.clone()];
        let dir = kept(all).await;
        let inspector = Inspector::open(&dir.path().join("box.db")).unwrap();
        let now = Found::look(&about(&inspector, "cooling_pump")).unwrap().unwrap();
        assert_eq!((&now.sent, now.since_ns, now.is_newest), (&refresh, off.at_ns, true));
        assert_eq!(now.answers.iter().map(|answer| answer.decision.number).collect::<Vec<_>>(), [6]);
        assert_eq!((now.held.as_ref(), now.refused.as_ref()), (Some(&late), None));

        let then = About { until_ns: Some(AT - 1), ..about(&inspector, "cooling_pump") };
        let then = Found::look(&then).unwrap().unwrap();
        assert_eq!((&then.sent, then.is_newest), (&on, false));
        assert!(text::sentence(&then, &times()).starts_with("cooling_pump was to be on at 10:04:03"));

        let before = About { until_ns: Some(AT - 601 * S), ..about(&inspector, "cooling_pump") };
        assert!(Found::look(&before).unwrap().is_none());
        assert!(
            nothing_of(&before)
                .to_string()
                .contains("nothing that was sent to `cooling_pump` is kept for --at")
        );

        let of_rule = |rule: &str| About { rule: Some(rule.into()), ..about(&inspector, "cooling_pump") };
        let found = Found::look(&of_rule("cooling")).unwrap().unwrap();
        assert_eq!(found.sent, refresh, "it claims something then");
        assert!(Found::look(&of_rule("drain")).unwrap().is_none());

        let withheld = Withheld::look(&about(&inspector, "cooling_pump"), 1).unwrap();
        assert_eq!((withheld.decisions, withheld.more), (vec![late], true));
    }
}
