//! The checks of management that need no line: what is admitted is done once, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_connectors::remote::{Message, Publication, Reply};
use tidegate_core::Ack;
use tidegate_core::clock::SimulatedClock;
use tidegate_trust::command::Identity;
use tidegate_trust::freshness::NoClock;
use tidegate_trust::gate::{Trust, Unsigned};
use tidegate_trust::{Code, WallTime};

use super::desk::{Deed, Desk, Failure, Job, Settings};
use super::ledger::Ledger;
use crate::disk::SystemDisk;
use crate::time::{Readings, SequenceTime};

/// 2026-11-29T20:30:00Z
const NOW_NS: i64 = 1_795_984_200_000_000_000;

struct Box_ {
    dir: TempDir,
    clock: Arc<SimulatedClock>,
    trust: Trust,
}

impl Box_ {
    /// One that does what anybody says.
    fn open_to_all() -> Self {
        let trust = Trust { keys: None, unsigned: Unsigned::Allow };
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(SimulatedClock::new(NOW_NS)), trust }
    }

    fn start(&self) -> (Desk, Vec<Deed>) {
        let me = Identity { name: "press-12".into(), groups: vec!["presses".into()] };
        let settings = Settings { me, prefix: "tidegate/v1".into(), no_clock: NoClock::Accept };
        let ledger = Ledger::open(&SystemDisk, self.dir.path()).unwrap();
        let time = SequenceTime::start(Arc::clone(&self.clock) as _, 0, &Readings::default());
        let clocks = (Arc::clone(&self.clock) as _, Arc::new(time));
        let build = WallTime::from_micros(NOW_NS / 1_000 - 1);
        Desk::open(settings, self.trust.clone(), ledger, build, [7; 16], clocks).unwrap()
    }

    /// All that is begun when those that were there have been collected.
    fn proceed(&self, desk: &mut Desk) -> Vec<Deed> {
        self.clock.pass(Duration::from_secs(6));
        let (deeds, _) = desk.proceed().unwrap();
        deeds
    }
}

fn message(topic: &str, payload: impl Into<Vec<u8>>) -> Message {
    let payload = Ok(payload.into().into());
    Message {
        topic: format!("tidegate/v1/press-12/{topic}"),
        payload,
        kept: false,
        reply: None,
        ack: Ack::none(),
    }
}

fn disable(id: &str, ctr: u64, name: &str) -> Message {
    let command = json!({
        "box": "press-12", "op": "rules.disable", "id": id, "ctr": ctr, "args": { "name": name },
    });
    message(&format!("cmd/rules.disable/{id}"), command.to_string())
}

/// The topics and states that are said.
fn said(deeds: &[Deed]) -> Vec<(String, String)> {
    let publications = deeds.iter().filter_map(|deed| match deed {
        Deed::Say(publication) => Some(publication),
        Deed::Begin(_) | Deed::Answer(_) => None,
    });
    publications.map(|Publication { topic, payload, .. }| (topic.clone(), state(payload))).collect()
}

fn state(payload: &[u8]) -> String {
    let report: Value = serde_json::from_slice(payload).unwrap();
    let of = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    [of("status"), of("step"), of("code")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn states(deeds: &[Deed]) -> Vec<String> {
    said(deeds).into_iter().map(|(_, state)| state).collect()
}

fn begun(deeds: &[Deed]) -> Vec<&Job> {
    let jobs = deeds.iter().filter_map(|deed| match deed {
        Deed::Begin(job) => Some(job),
        Deed::Say(_) | Deed::Answer(_) => None,
    });
    jobs.collect()
}

#[test]
fn a_command_is_begun_once_and_its_end_is_said_as_often_as_it_comes() {
    let of = Box_::open_to_all();
    let (mut desk, left) = of.start();
    assert!(left.is_empty());
    let command = disable("01JD3Z0001", 1, "cooling");
    let deeds = desk.message(&command).unwrap();
    let topic = "tidegate/v1/press-12/res/rules.disable/01JD3Z0001".to_owned();
    assert_eq!(said(&deeds), [(topic, "init".to_owned())]);
    let deeds = of.proceed(&mut desk);
    assert_eq!(states(&deeds), ["executing applying"]);
    let [job] = begun(&deeds)[..] else { panic!("{deeds:?}") };
    assert_eq!(job.args, json!({ "name": "cooling" }));
    assert!(of.proceed(&mut desk).is_empty());
    let deeds = desk.ended(&job.id, Ok(json!({ "rule": "cooling" }))).unwrap();
    assert_eq!(states(&deeds), ["successful ok"]);
    // Retained, by a bridge, from another broker, after a restart.
    for restart in [false, true] {
        if restart {
            desk = of.start().0;
        }
        assert_eq!(states(&desk.message(&command).unwrap()), ["successful ok"]);
        assert!(of.proceed(&mut desk).is_empty());
    }
    assert_eq!(states(&desk.listens().unwrap()), ["successful ok"]);
    let other = disable("01JD3Z0001", 2, "heating");
    let deeds = desk.message(&other).unwrap();
    assert_eq!(states(&deeds), ["failed id_reused"]);
    // It does not take the place of what is known.
    assert!(deeds.iter().all(|deed| matches!(deed, Deed::Say(Publication { keep: false, .. }))));
}

#[test]
fn a_command_ends_once_wherever_the_process_ends() {
    for step in 0..4 {
        let of = Box_::open_to_all();
        let (mut desk, _) = of.start();
        let command = disable("01JD3Z0001", 1, "cooling");
        let mut id = None;
        if step > 0 {
            drop(desk.message(&command).unwrap());
        }
        if step > 1 {
            let deeds = of.proceed(&mut desk);
            id = begun(&deeds).first().map(|job| job.id.clone());
        }
        if let Some(id) = id.filter(|_| step > 2) {
            drop(desk.ended(&id, Ok(Value::Null)).unwrap());
        }
        drop(desk);
        let (mut desk, left) = of.start();
        // The broker has it still, if it was not acknowledged; where it was, it may have it all the same.
        let mut deeds = left;
        deeds.extend(desk.message(&command).unwrap());
        deeds.extend(of.proceed(&mut desk));
        let jobs: Vec<Job> = begun(&deeds).into_iter().cloned().collect();
        assert_eq!(jobs.len(), usize::from(step < 2), "{step}: {deeds:?}");
        for job in jobs {
            deeds.extend(desk.ended(&job.id, Ok(Value::Null)).unwrap());
        }
        let end = if step == 2 { "failed interrupted" } else { "successful ok" };
        assert_eq!(states(&deeds).last().map(String::as_str), Some(end), "{step}");
    }
}

/// Check 5: whatever happens to the box in between.
#[test]
fn what_is_to_be_done_at_once_is_not_done_by_a_box_that_was_off_meanwhile() {
    for has_begun in [false, true] {
        let of = Box_::open_to_all();
        let (mut desk, _) = of.start();
        let args = json!({ "output": "valve", "values": { "open": true }, "lease": "45min", "reason": "x" });
        let command = json!({
            "box": "press-12", "op": "output.override", "id": "01JD3Z0001", "ctr": 1, "args": args,
            "nonce": desk.nonces().current(),
        });
        let command = message("cmd/output.override/01JD3Z0001", command.to_string());
        assert_eq!(states(&desk.message(&command).unwrap()), ["init"]);
        if has_begun {
            assert_eq!(begun(&of.proceed(&mut desk)).len(), 1);
        }
        drop(desk);
        of.clock.reboot(NOW_NS + 3 * 86_400_000_000_000);
        let (mut desk, left) = of.start();
        assert_eq!(states(&left), ["failed interrupted"]);
        assert!(begun(&of.proceed(&mut desk)).is_empty());
        assert_eq!(states(&desk.message(&command).unwrap()), ["failed interrupted"]);
    }
}

#[test]
fn what_is_to_be_done_at_once_does_not_wait_for_long() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    for (id, ctr) in [("01JD3Z0001", 1), ("01JD3Z0002", 2)] {
        let args = json!({ "output": "valve" });
        let nonce = desk.nonces().current().to_owned();
        let command = json!({ "box": "press-12", "op": "output.release", "id": id, "ctr": ctr, "nonce": nonce, "args": args });
        drop(desk.message(&message(&format!("cmd/output.release/{id}"), command.to_string())).unwrap());
    }
    let deeds = of.proceed(&mut desk);
    assert_eq!(begun(&deeds).len(), 1);
    of.clock.pass(Duration::from_mins(2));
    drop(desk.ended(&begun(&deeds)[0].id, Ok(Value::Null)).unwrap());
    assert_eq!(states(&of.proceed(&mut desk)), ["failed not_fresh"]);
}

/// Nobody fills the disk by being refused.
#[test]
fn refusals_of_nobody_knows_whom_are_counted() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    for _ in 0..1_000 {
        assert_eq!(
            states(&desk.message(&message("cmd/rules.deploy/01JD3Z0009", "{")).unwrap()),
            ["failed invalid"]
        );
    }
    of.clock.pass(Duration::from_mins(11));
    drop(desk.message(&message("cmd/rules.deploy/01JD3Z0009", "{")).unwrap());
    let ledger = Ledger::open(&SystemDisk, of.dir.path()).unwrap();
    let records = ledger.records(1, 10_000).unwrap();
    assert_eq!(records.len(), 7);
    let gap = String::from_utf8_lossy(&records[5].bytes).into_owned();
    assert!(gap.contains("\"missing\":995"), "{gap}");
}

#[test]
fn what_nobody_clears_blocks_nobody() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    for n in 1..=200_u64 {
        drop(desk.message(&disable(&format!("01JD3Z{n:04}"), n, "cooling")).unwrap());
    }
    let mut done = 0;
    loop {
        let deeds = of.proceed(&mut desk);
        let [job] = begun(&deeds)[..] else { break };
        drop(desk.ended(&job.id, Ok(Value::Null)).unwrap());
        done += 1;
    }
    assert_eq!(done, 200);
    drop(desk.message(&disable("01JD3Z9999", 999, "cooling")).unwrap());
    assert_eq!(begun(&of.proceed(&mut desk)).len(), 1);
}

#[test]
fn commands_about_one_thing_go_by_their_counters_and_about_others_side_by_side() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    for (id, ctr, name) in [("01JD3Z0003", 3, "a"), ("01JD3Z0001", 1, "a"), ("01JD3Z0002", 2, "b")] {
        drop(desk.message(&disable(id, ctr, name)).unwrap());
    }
    let deeds = of.proceed(&mut desk);
    let ids: Vec<_> = begun(&deeds).iter().map(|job| job.id.to_string()).collect();
    assert_eq!(ids, ["01JD3Z0001", "01JD3Z0002"]);
    drop(desk.ended(&begun(&deeds)[0].id, Ok(Value::Null)).unwrap());
    let deeds = of.proceed(&mut desk);
    let [newest] = begun(&deeds)[..] else { panic!("{deeds:?}") };
    assert_eq!(newest.id.as_str(), "01JD3Z0003");
    drop(desk.ended(&newest.id, Ok(Value::Null)).unwrap());
    // It was on the way for longer than one that was given later.
    drop(desk.message(&disable("01JD3Z0004", 2, "a")).unwrap());
    assert_eq!(states(&of.proceed(&mut desk)), ["failed superseded"]);
    // One that failed has changed nothing.
    drop(desk.message(&disable("01JD3Z0005", 5, "a")).unwrap());
    let deeds = of.proceed(&mut desk);
    let failure = Failure::new(Code::Busy, "the disk is full");
    assert_eq!(states(&desk.ended(&begun(&deeds)[0].id, Err(failure)).unwrap()), ["failed busy"]);
    drop(desk.message(&disable("01JD3Z0006", 4, "a")).unwrap());
    assert_eq!(begun(&of.proceed(&mut desk)).len(), 1);
}

#[test]
fn what_is_no_command_is_refused_in_words() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    let mut large = message("cmd/rules.deploy/01JD3Z0001", "");
    large.payload = Err(5 << 20);
    let cases = [
        (large, "failed invalid"),
        (message("cmd/rules.deploy/01JD3Z0001", "{"), "failed invalid"),
        (disable("01JD3Z0001", 1, "x"), "init"),
    ];
    for (message, expected) in &cases {
        assert_eq!(states(&desk.message(message).unwrap()), [*expected]);
    }
    let other_box = Message {
        topic: "tidegate/v1/press-13/cmd/rules.disable/01JD3Z0002".into(),
        ..disable("01JD3Z0002", 2, "x")
    };
    assert_eq!(states(&desk.message(&other_box).unwrap()), ["failed wrong_box"]);
    // Whoever tidies up takes nothing back.
    assert!(desk.message(&message("cmd/rules.disable/01JD3Z0001", "")).unwrap().is_empty());
    assert_eq!(begun(&of.proceed(&mut desk)).len(), 1);
    // Levels of nobody's topic are not published to.
    assert!(desk.message(&message("cmd/rules.disable", "{}")).unwrap().is_empty());
}

#[test]
fn answers_go_where_answers_belong() {
    let of = Box_::open_to_all();
    let (mut desk, _) = of.start();
    let ask = json!({ "box": "press-12", "op": "status", "id": "01JD3Z0001", "args": {} }).to_string();
    for (topic, is_answered) in [
        ("tidegate/v1/press-12/ans/me", true),
        ("tidegate/v1/press-13/cmd/rules.disable/01JD3Z0001", false),
        ("tidegate/v1/press-12/cmd/rules.disable/01JD3Z0001", false),
        ("tidegate/v1/press-12/ans/+", false),
    ] {
        let reply = Some(Reply { topic: topic.into(), correlation: Some("7".into()) });
        let deeds = desk.message(&Message { reply, ..message("ask/status", ask.clone()) }).unwrap();
        assert_eq!(deeds.len(), usize::from(is_answered), "{topic}");
    }
}

#[test]
fn the_audit_has_all_of_it_and_holds() {
    let of = Box_::open_to_all();
    for round in 0..3_u64 {
        let (mut desk, _) = of.start();
        drop(desk.message(&disable(&format!("01JD3Z000{round}"), round + 1, "cooling")).unwrap());
        drop(desk.message(&message("cmd/rules.deploy/01JD3Z0009", "{")).unwrap());
        drop(of.proceed(&mut desk));
    }
    let ledger = Ledger::open(&SystemDisk, of.dir.path()).unwrap();
    let records = ledger.records(1, 1_000).unwrap();
    let key = tidegate_trust::key::SecretKey::from_random(&mut [9; 32]).public();
    let verified = tidegate_trust::audit::verify("press-12", key, [], None, records.clone()).unwrap();
    assert_eq!((verified.first, verified.last), (1, records.len() as u64));
    // Each round: came, began, and of those before: interrupted.
    let texts: Vec<_> =
        records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()).collect();
    assert_eq!(texts.iter().filter(|text| text.contains("interrupted")).count(), 2, "{texts:#?}");
    assert_eq!(texts.iter().filter(|text| text.contains("invalid")).count(), 3);
}
