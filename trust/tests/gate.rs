//! What a box does, and what it refuses, of all that can come on a topic for commands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod site;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use site::{NOW, Site, at, deploy, key_set, micros, override_valve, public, signed, topic_of, with};
use tidegate_trust::command::Topic;
use tidegate_trust::envelope::Kind;
use tidegate_trust::freshness::{Clock, Freshness, LONGEST_HOLD, NoClock, Nonces, WINDOW};
use tidegate_trust::gate::{Admission, Message, Start, Unsigned};
use tidegate_trust::{Code, Digest, Op};

fn changed_bits(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len() * 8).map(move |bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, changed)
    })
}

#[test]
fn a_change_of_any_bit_of_the_payload_is_a_bad_signature() {
    let site = Site::default();
    let envelope: Value = serde_json::from_str(&signed(Kind::Command, &deploy(1), &["dora"])).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    for (byte, changed) in changed_bits(&payload) {
        let message = with(envelope.clone(), "payload", json!(STANDARD.encode(&changed))).to_string();
        let refusal = site.admit_at(&topic_of(&deploy(1)), message.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::BadSignature, "byte {byte}: {refusal}");
        assert_eq!(refusal.signers, Vec::<String>::new());
    }
}

#[test]
fn a_change_of_any_bit_of_the_envelope_is_refused_or_changes_nothing_that_is_believed() {
    let site = Site::default();
    let message = signed(Kind::Command, &deploy(1), &["dora"]);
    let good = site.admit_at(&topic_of(&deploy(1)), message.as_bytes()).unwrap();
    let name = message.find("dora").unwrap();
    let mut renamed = 0;
    for (byte, changed) in changed_bits(message.as_bytes()) {
        match site.admit_at(&topic_of(&deploy(1)), &changed) {
            Err(refusal) => assert!(
                matches!(refusal.code, Code::BadSignature | Code::Invalid) && refusal.signers.is_empty(),
                "byte {byte}: {refusal}"
            ),
            // DSSE: the key's name is not authenticated, and no decision may depend on it.
            Ok(admission) => {
                assert!((name..name + 4).contains(&byte), "byte {byte} may not change");
                assert_eq!(admission, good);
                renamed += 1;
            }
        }
    }
    assert!(renamed > 0, "the name is a hint");
}

#[test]
fn nothing_is_parsed_that_nobody_signed() {
    let site = Site::default();
    let topic = topic_of(&deploy(1));
    // What cannot be parsed is only found to be so behind a good signature.
    let no_command = json!("no command");
    let by_stranger = signed(Kind::Command, &no_command, &["mallory"]);
    assert_eq!(site.admit_at(&topic, by_stranger.as_bytes()).unwrap_err().code, Code::UnknownKey);
    let as_dora = by_stranger.replace("mallory", "dora");
    assert_eq!(site.admit_at(&topic, as_dora.as_bytes()).unwrap_err().code, Code::BadSignature);
    let refusal =
        site.admit_at(&topic, signed(Kind::Command, &no_command, &["dora"]).as_bytes()).unwrap_err();
    assert_eq!((refusal.code, refusal.signers), (Code::Invalid, vec!["dora".to_owned()]));
}

#[test]
fn one_good_signature_does_not_carry_a_bad_one() {
    let site = Site::default();
    let message = signed(Kind::Command, &deploy(1), &["dora", "mallory"]);
    let refusal = site.admit_at(&topic_of(&deploy(1)), message.as_bytes()).unwrap_err();
    assert_eq!(refusal.code, Code::UnknownKey, "{refusal}");
    assert!(refusal.to_string().contains("vera, otto, dora"), "names the keys that are known: {refusal}");
}

#[test]
fn a_signature_for_something_else_is_none_for_a_command() {
    let site = Site::default();
    for kind in [Kind::KeySet, Kind::Checkpoint, Kind::Report] {
        let message = signed(kind, &deploy(1), &["dora"]);
        let refusal = site.admit_at(&topic_of(&deploy(1)), message.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::Invalid, "{refusal}");
        // Nor if somebody writes the right type on it.
        let disguised = message.replace(kind.payload_type(), Kind::Command.payload_type());
        let refusal = site.admit_at(&topic_of(&deploy(1)), disguised.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::BadSignature, "{refusal}");
    }
}

#[test]
fn what_is_too_large_or_twisted_is_refused_before_anything_else() {
    let site = Site::default();
    let topic = topic_of(&deploy(1));
    let code = |bytes: &[u8]| site.admit_at(&topic, bytes).unwrap_err().code;
    assert_eq!(code(&vec![b' '; 5 << 20]), Code::Invalid);
    assert_eq!(code(b""), Code::Invalid);
    assert_eq!(code(b"[[[[[[[[[[[[[[[[[[[[[[[["), Code::Invalid);
    let message = signed(Kind::Command, &deploy(1), &["dora"]);
    let twice = message.replacen('{', r#"{"payload":"e30=","#, 1);
    assert_eq!(code(twice.as_bytes()), Code::Invalid);
    let more = message.replacen('{', r#"{"comment":"","#, 1);
    assert_eq!(code(more.as_bytes()), Code::Invalid);
    let large = with(deploy(1), "args", json!({"name": "cooling", "text": "x".repeat(40_000)}));
    assert_eq!(site.send(&large, &["dora"]).unwrap_err().code, Code::Invalid);
    let three = signed(Kind::Command, &deploy(1), &["dora", "otto", "vera"]);
    assert_eq!(code(three.as_bytes()), Code::Invalid);
    let none = signed(Kind::Command, &deploy(1), &[]);
    assert_eq!(code(none.as_bytes()), Code::Unsigned);
}

#[test]
fn both_alphabets_of_base64_are_read_and_no_mixture() {
    let site = Site::default();
    let command = with(deploy(1), "args", json!({"name": "cooling", "text": "????????>>>>>>>>"}));
    let envelope: Value = serde_json::from_str(&signed(Kind::Command, &command, &["dora"])).unwrap();
    let send = |change: &dyn Fn(&str) -> String| {
        let mut envelope = envelope.clone();
        for place in ["/payload", "/signatures/0/sig"] {
            let text = envelope.pointer_mut(place).unwrap();
            *text = json!(change(text.as_str().unwrap()));
        }
        site.admit_at(&topic_of(&command), envelope.to_string().as_bytes()).map_err(|refusal| refusal.code)
    };
    let payload = envelope["payload"].as_str().unwrap();
    assert!(payload.contains('+') && payload.contains('/'), "the test has both: {payload}");
    assert!(send(&|text| text.replace('+', "-").replace('/', "_")).is_ok());
    assert!(send(&|text| text.replace('+', "-").replace('/', "_").replace('=', "")).is_ok());
    assert_eq!(send(&|text| text.replace('+', "-")), Err(Code::Invalid));
    assert_eq!(send(&|text| format!(" {text}")), Err(Code::Invalid));
}

#[test]
fn a_command_for_one_box_is_none_for_another_and_none_for_another_operation_or_id() {
    let site = Site::default();
    let message = signed(Kind::Command, &deploy(1), &["dora"]);
    let code = |topic: &str| site.admit_at(topic, message.as_bytes()).unwrap_err().code;
    assert_eq!(code("tidegate/v1/@presses/cmd/rules.deploy/deploy-0001"), Code::WrongBox);
    assert_eq!(code("tidegate/v1/press-13/cmd/rules.deploy/deploy-0001"), Code::WrongBox);
    assert_eq!(code("tidegate/v1/press-12/cmd/rules.remove/deploy-0001"), Code::Invalid);
    assert_eq!(code("tidegate/v1/press-12/cmd/rules.deploy/deploy-0002"), Code::Invalid);
    assert_eq!(code("tidegate/v1/press-12/ask/rules.deploy"), Code::Invalid);
    let mut other = Site::default();
    other.me.name = "press-13".into();
    assert_eq!(other.send(&deploy(1), &["dora"]).unwrap_err().code, Code::WrongBox);
    assert_eq!(
        other
            .admit_at("tidegate/v1/press-13/cmd/rules.deploy/deploy-0001", message.as_bytes())
            .unwrap_err()
            .code,
        Code::WrongBox
    );
}

#[test]
fn one_signature_serves_a_group_and_only_boxes_in_it_and_in_the_scope() {
    let mut site = Site::default();
    let command = with(deploy(1), "box", json!("@presses"));
    assert!(site.send(&command, &["dora"]).is_ok());
    assert_eq!(
        site.send(&with(deploy(1), "box", json!("@pumps")), &["dora"]).unwrap_err().code,
        Code::WrongBox
    );
    site.me.name = "pump-3".into();
    let refusal = site.send(&command, &["dora"]).unwrap_err();
    assert_eq!(refusal.code, Code::Forbidden, "the group has a box that is not in the scope");
    assert!(refusal.reason.contains("\"pump-3\", but for: press-*"), "{refusal}");
}

#[test]
fn a_repeat_is_answered_and_an_id_that_was_taken_is_refused() {
    let mut site = Site::default();
    let command = deploy(1);
    let admitted = site.accept(&command, &["dora"]).unwrap();
    let topic = Topic::parse(site::PREFIX, &topic_of(&command)).unwrap();
    let send = |command: &Value, remembered| {
        let message = signed(Kind::Command, command, &["dora"]);
        site.gate().admit(&Message { topic: &topic, bytes: message.as_bytes(), remembered })
    };
    assert_eq!(send(&command, Some(admitted.digest)).unwrap(), Admission::Again);
    let other = with(command.clone(), "ctr", json!(micros(NOW) + 99));
    let refusal = send(&other, Some(admitted.digest)).unwrap_err();
    assert_eq!(refusal.code, Code::IdReused);
    assert_eq!(refusal.signers, ["dora"]);
    // A stranger is told nothing of either.
    let message = signed(Kind::Command, &command, &["mallory"]);
    let forged = Message { topic: &topic, bytes: message.as_bytes(), remembered: Some(admitted.digest) };
    assert_eq!(site.gate().admit(&forged).unwrap_err().code, Code::UnknownKey);
}

#[test]
fn a_replay_is_refused_after_a_month_after_a_restart_and_after_256_others() {
    let mut site = Site::default();
    let command = deploy(1);
    site.accept(&command, &["dora"]).unwrap();
    // The id was forgotten after 30 days; the command is made such that it would still be good.
    let long = with(deploy(2), "not_after", json!("2027-11-01T00:00:00Z"));
    site.accept(&long, &["dora"]).unwrap();
    site.clock = Clock::Synchronised(at("2026-12-30T20:30:01Z"));
    assert_eq!(site.send(&long, &["dora"]).unwrap_err().code, Code::Replayed);
    let stored = serde_json::to_string(&site.freshness).unwrap();
    site.freshness = serde_json::from_str(&stored).unwrap();
    assert_eq!(site.send(&long, &["dora"]).unwrap_err().code, Code::Replayed, "after a restart");
    for number in 3..3 + WINDOW as u64 {
        let next = with(deploy(number), "not_after", json!("2027-11-01T00:00:00Z"));
        site.accept(&next, &["dora"]).unwrap();
    }
    let refusal = site.send(&long, &["dora"]).unwrap_err();
    assert_eq!(refusal.code, Code::Replayed);
    assert!(refusal.reason.contains("older than all that are remembered"), "{refusal}");
}

#[test]
fn a_live_operation_is_refused_by_a_box_with_last_weeks_disk() {
    let mut site = Site::default();
    let last_week = site.freshness.clone();
    let command = override_valve(1, site.nonces.current());
    site.accept(&command, &["otto"]).unwrap();
    site.freshness = last_week;
    site.nonces = Nonces::new([8; 16], Duration::ZERO);
    assert_eq!(site.send(&command, &["otto"]).unwrap_err().code, Code::NotFresh);
}

#[test]
fn an_override_that_the_broker_kept_for_an_hour_is_not_fresh() {
    let mut site = Site::default();
    let command = override_valve(1, site.nonces.current());
    for random in 10..16 {
        site.uptime = site.nonces.due();
        site.nonces.renew([random; 16], site.uptime);
    }
    assert_eq!(site.uptime, Duration::from_secs(3_600));
    let refusal = site.send(&command, &["otto"]).unwrap_err();
    assert_eq!(refusal.code, Code::NotFresh);
    assert!(refusal.to_string().contains("cap"), "says where the nonce is: {refusal}");
    let mut without = override_valve(1, "");
    without.as_object_mut().unwrap().remove("nonce");
    assert_eq!(site.send(&without, &["otto"]).unwrap_err().code, Code::NotFresh);
}

#[test]
fn a_deploy_that_was_held_back_beyond_its_time_has_expired() {
    let mut site = Site { clock: Clock::Synchronised(at("2026-12-06T20:30:01Z")), ..Site::default() };
    let refusal = site.send(&deploy(1), &["dora"]).unwrap_err();
    assert_eq!(refusal.code, Code::Expired);
    assert!(refusal.reason.contains("the clock shows 2026-12-06T20:30:01Z"), "{refusal}");
    // Without a clock, it is certain once something that was made later has been seen.
    site.clock = Clock::Unsynchronised;
    assert!(site.send(&deploy(1), &["dora"]).is_ok());
    site.freshness.observe(Clock::Synchronised(at("2026-12-07T00:00:00Z")));
    assert_eq!(site.send(&deploy(1), &["dora"]).unwrap_err().code, Code::Expired);
}

#[test]
fn a_box_that_believes_it_is_1970_does_what_it_is_told_to_do_without_a_clock() {
    let mut site = Site { clock: Clock::Unsynchronised, ..Site::default() };
    let minutes = |n: u64| Duration::from_secs(60 * n);
    // A fresh deploy follows no_clock.
    site.no_clock = NoClock::Accept;
    assert!(!site.send(&deploy(1), &["dora"]).unwrap().is_held);
    site.no_clock = NoClock::Refuse;
    assert_eq!(site.send(&deploy(1), &["dora"]).unwrap_err().code, Code::NotFresh);
    site.no_clock = NoClock::Hold;
    let admitted = site.accept(&deploy(1), &["dora"]).unwrap();
    assert!(admitted.is_held);
    assert_eq!(site.gate().may_start(&admitted, minutes(1)), Ok(Start::Wait(minutes(14))));
    assert_eq!(site.gate().may_start(&admitted, LONGEST_HOLD), Ok(Start::Now), "a rule is taken then");
    // All else is refused then.
    let apply = json!({
        "box": "press-12", "op": "config.apply", "id": "apply-01", "ctr": micros(NOW) + 50,
        "issued": NOW, "not_after": "2026-12-06T20:30:00Z", "args": {"text": ""},
    });
    let change = site.accept(&apply, &["emil"]).unwrap();
    assert!(matches!(site.gate().may_start(&change, minutes(14)), Ok(Start::Wait(_))));
    assert_eq!(site.gate().may_start(&change, minutes(15)).unwrap_err().code, Code::NotFresh);
    // A replayed one is refused.
    assert_eq!(site.send(&deploy(1), &["dora"]).unwrap_err().code, Code::Replayed);
    // An override with the nonce works, and so does a deploy.
    assert!(!site.send(&override_valve(2, site.nonces.current()), &["otto"]).unwrap().is_held);
    let proven = with(deploy(3), "nonce", json!(site.nonces.current()));
    assert!(!site.send(&proven, &["dora"]).unwrap().is_held);
    // When the time comes, what was held begins, or is too old.
    let gate = Site { clock: Clock::Synchronised(at("2026-11-30T00:00:00Z")), ..site };
    assert_eq!(gate.gate().may_start(&change, minutes(1)), Ok(Start::Now));
    let late = Site { clock: Clock::Synchronised(at("2026-12-07T00:00:00Z")), ..gate };
    assert_eq!(late.gate().may_start(&change, minutes(1)).unwrap_err().code, Code::Expired);
}

#[test]
fn a_counter_from_the_future_does_not_make_all_later_ones_old() {
    let mut site = Site::default();
    let ahead = |text: &str| with(deploy(1), "ctr", json!(micros(text)));
    assert!(site.send(&ahead("2026-11-30T20:30:00Z"), &["dora"]).is_ok(), "24 h");
    assert_eq!(site.send(&ahead("2026-11-30T20:30:01Z"), &["dora"]).unwrap_err().code, Code::NotFresh);
    assert_eq!(
        site.send(&with(deploy(1), "ctr", json!(u64::MAX)), &["dora"]).unwrap_err().code,
        Code::NotFresh
    );
    let issued = with(
        with(deploy(1), "issued", json!("2026-12-01T00:00:00Z")),
        "not_after",
        json!("2026-12-02T00:00:00Z"),
    );
    assert_eq!(site.send(&issued, &["dora"]).unwrap_err().code, Code::NotFresh, "it would raise the floor");
    // Without a clock: 400 days after the floor, which the key set's date is.
    site.clock = Clock::Unsynchronised;
    assert!(site.send(&ahead("2027-12-06T00:00:00Z"), &["dora"]).is_ok());
    assert_eq!(site.send(&ahead("2027-12-06T00:00:01Z"), &["dora"]).unwrap_err().code, Code::NotFresh);
}

#[test]
fn a_command_raises_the_floor_and_a_refused_one_does_not() {
    let mut site = Site { clock: Clock::Unsynchronised, ..Site::default() };
    let before = site.freshness.clone();
    assert!(site.accept(&deploy(1), &["otto"]).is_err());
    assert_eq!(site.freshness, before);
    site.accept(&deploy(1), &["dora"]).unwrap();
    assert_eq!(site.freshness.floor.at, at(NOW));
    assert!(site.freshness.floor.from.contains("deploy-0001"), "{}", site.freshness.floor.from);
}

#[test]
fn a_signed_command_says_when_it_was_made_and_until_when_it_is_good() {
    let site = Site::default();
    for field in ["ctr", "issued", "not_after"] {
        let mut command = deploy(1);
        command.as_object_mut().unwrap().remove(field);
        let refusal = site.send(&command, &["dora"]).unwrap_err();
        assert_eq!(refusal.code, Code::Invalid, "{field}");
        assert!(refusal.reason.contains(field), "{refusal}");
    }
    let backwards = with(deploy(1), "not_after", json!("2026-11-29T20:29:59Z"));
    let earlier = Site { clock: Clock::Synchronised(at("2026-11-29T20:00:00Z")), ..Site::default() };
    assert_eq!(earlier.send(&backwards, &["dora"]).unwrap_err().code, Code::Invalid);
    let for_ever = with(deploy(1), "not_after", json!("9999-01-01T00:00:00Z"));
    assert_eq!(site.send(&for_ever, &["dora"]).unwrap_err().code, Code::Invalid);
}

/// Who may do what, from MANAGEMENT.md: viewer (status, why, tail, no configuration), operator (override with
/// lease, enable/disable, shadow, reset of trips, restart), deployer (rules and plugins, rollback), engineer
/// (configuration, contracts), security (trust, audit).
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "otto",
        &[
            "output.override",
            "output.release",
            "output.reset",
            "output.test",
            "restart",
            "rules.enable",
            "rules.disable",
            "rules.shadow",
        ],
    ),
    ("dora", &["rules.deploy", "rules.remove", "rules.rollback"]),
    ("emil", &["config.apply", "config.confirm", "config.get", "support.bundle"]),
    ("sara", &["config.get", "support.bundle"]),
    ("vera", &[]),
];

#[test]
fn each_role_does_its_own_and_nothing_else() {
    let site = Site::default();
    for op in Op::ALL.iter().filter(|op| !matches!(op, Op::TrustUpdate | Op::Cancel)) {
        let command = json!({
            "box": "press-12", "op": op, "id": "command-01", "ctr": micros(NOW), "issued": NOW,
            "not_after": "2026-12-06T20:30:00Z", "nonce": site.nonces.current(),
            "args": {"name": "cooling", "output": "valve", "lease": "45m"},
        });
        for (person, own) in ALLOWED {
            let is_open = op.is_query() && !matches!(op, Op::ConfigGet | Op::SupportBundle);
            let expected = is_open || own.contains(&op.name());
            match site.send(&command, &[person]) {
                Ok(_) => assert!(expected, "{person} {op}"),
                Err(refusal) => {
                    assert!(!expected, "{person} {op}: {refusal}");
                    assert_eq!(refusal.code, Code::Forbidden, "{person} {op}: {refusal}");
                    assert_eq!(refusal.signers, [*person], "it is known who tried");
                }
            }
        }
    }
}

#[test]
fn an_operator_does_not_deploy_nor_a_deployer_override_nor_either_change_trust_or_weaken_a_contract() {
    let site = Site::default();
    let code = |command: &Value, people: &[&str]| site.send(command, people).unwrap_err().code;
    assert_eq!(code(&deploy(1), &["otto"]), Code::Forbidden);
    assert_eq!(code(&override_valve(1, site.nonces.current()), &["dora"]), Code::Forbidden);
    let update = json!({
        "box": "press-12", "op": "trust.update", "id": "update-01", "ctr": micros(NOW), "issued": NOW,
        "not_after": "2026-12-06T20:30:00Z", "args": {},
    });
    assert_eq!(code(&update, &["otto", "dora"]), Code::Forbidden);
    assert_eq!(code(&update, &["sara"]), Code::Forbidden, "one is not enough");
    assert_eq!(code(&update, &["sara", "sara"]), Code::Forbidden, "nor is one twice");
    assert_eq!(code(&update, &["sara", "emil"]), Code::Forbidden, "nor one who may not");
    assert_eq!(site.send(&update, &["sara", "sven"]).unwrap().signers.len(), 2);
    let apply = with(with(update, "op", json!("config.apply")), "id", json!("apply-01"));
    assert_eq!(code(&apply, &["otto"]), Code::Forbidden);
    // What a change does to contracts shows when it is looked at.
    let admitted = site.send(&apply, &["emil"]).unwrap();
    let refusal = site.gate().require_two(&admitted, "the range of `valve` is widened, which").unwrap_err();
    assert_eq!((refusal.code, refusal.signers), (Code::Forbidden, vec!["emil".to_owned()]));
}

#[test]
fn a_scope_ends_where_it_says() {
    let site = Site::default();
    let nonce = site.nonces.current();
    let refusal = |command: &Value, people: &[&str]| site.send(command, people).unwrap_err();
    let other_rule = with(deploy(1), "args", json!({"name": "heating"}));
    assert!(refusal(&other_rule, &["dora"]).reason.contains("\"heating\", but for: cool*"));
    let nameless = with(deploy(1), "args", json!({"name": ["cooling"]}));
    assert_eq!(refusal(&nameless, &["dora"]).code, Code::Invalid);
    let mut override_pump = override_valve(1, nonce);
    override_pump["args"]["output"] = json!("pump");
    assert_eq!(refusal(&override_pump, &["otto"]).code, Code::Forbidden);
    for (lease, code) in [("61m", Code::Forbidden), ("2h", Code::Forbidden), ("long", Code::Invalid)] {
        let mut command = override_valve(1, nonce);
        command["args"]["lease"] = json!(lease);
        assert_eq!(refusal(&command, &["otto"]).code, code, "{lease}");
    }
    let mut for_ever = override_valve(1, nonce);
    for_ever["args"].as_object_mut().unwrap().remove("lease");
    assert_eq!(refusal(&for_ever, &["otto"]).code, Code::Invalid);
    let mut an_hour = override_valve(1, nonce);
    an_hour["args"]["lease"] = json!("60min");
    assert!(site.send(&an_hour, &["otto"]).is_ok());
}

#[test]
fn a_key_ends_when_it_is_said_to_and_a_revoked_keys_queued_command_does_not_begin() {
    let mut site = Site::default();
    let admitted = site.accept(&deploy(1), &["dora"]).unwrap();
    assert_eq!(site.gate().may_start(&admitted, Duration::ZERO), Ok(Start::Now));
    let set = site.trust.keys.as_mut().unwrap();
    let dora = set.keys.iter().position(|key| key.id == "dora").unwrap();
    set.keys[dora].not_after = Some(at("2026-11-29T20:29:59Z"));
    assert_eq!(site.gate().may_start(&admitted, Duration::ZERO).unwrap_err().code, Code::Forbidden);
    assert_eq!(site.send(&deploy(2), &["dora"]).unwrap_err().code, Code::Forbidden);
    let set = site.trust.keys.as_mut().unwrap();
    set.keys.remove(dora);
    let refusal = site.gate().may_start(&admitted, Duration::ZERO).unwrap_err();
    assert_eq!((refusal.code, refusal.signers), (Code::UnknownKey, vec!["dora".to_owned()]));
    assert_eq!(site.send(&deploy(2), &["dora"]).unwrap_err().code, Code::UnknownKey);
    // Another key under her name is not hers.
    let mut renamed = key_set();
    for key in renamed["keys"].as_array_mut().unwrap() {
        if key["id"] == "dora" {
            key["ed25519"] = json!(public("mallory"));
        }
    }
    site.trust.keys = Some(serde_json::from_value(renamed).unwrap());
    assert_eq!(site.gate().may_start(&admitted, Duration::ZERO).unwrap_err().code, Code::UnknownKey);
}

#[test]
fn a_key_that_comes_back_does_not_bring_its_old_commands() {
    let mut site = Site::default();
    let set = site.trust.keys.clone().unwrap();
    site.accept(&deploy(5), &["dora"]).unwrap();
    let mut without = set.clone();
    without.keys.retain(|key| key.id != "dora");
    site.freshness.adopt(&without);
    site.freshness.adopt(&set);
    for number in [1, 5] {
        assert_eq!(site.send(&deploy(number), &["dora"]).unwrap_err().code, Code::Replayed, "{number}");
    }
    assert!(site.send(&deploy(6), &["dora"]).is_ok());
}

#[test]
fn commands_of_a_key_may_overtake_each_other_and_keys_do_not_disturb_each_other() {
    let mut site = Site::default();
    for number in [5, 1, 3, 2, 4] {
        site.accept(&deploy(number), &["dora"]).unwrap();
    }
    let disable = |number: u64| {
        let command = with(deploy(number), "op", json!("rules.disable"));
        with(command, "id", json!(format!("disable-{number}")))
    };
    assert!(site.accept(&disable(1), &["otto"]).is_ok());
    assert_eq!(site.send(&disable(1), &["otto"]).unwrap_err().code, Code::Replayed);
}

#[test]
fn a_box_without_a_key_set_answers_questions_only_unless_its_own_file_says_otherwise() {
    let mut site = Site::default();
    site.trust.keys = None;
    site.trust.unsigned = Unsigned::Queries;
    let ask = |op: &str| json!({"box": "press-12", "op": op, "id": "question-1"}).to_string();
    let asked = |site: &Site, op: &str| {
        site.admit_at(&format!("tidegate/v1/press-12/ask/{op}"), ask(op).as_bytes())
            .map_err(|refusal| refusal.code)
    };
    assert!(asked(&site, "status").is_ok());
    assert_eq!(asked(&site, "config.get"), Err(Code::Unsigned), "no configuration");
    let plain = json!({
        "box": "press-12", "op": "rules.disable", "id": "by-hand-1", "args": {"name": "cooling"},
    });
    let by_hand = |site: &Site, command: &Value| {
        let admission = site.admit_at(&topic_of(command), command.to_string().as_bytes());
        admission.map_err(|refusal| refusal.code)
    };
    assert_eq!(by_hand(&site, &plain), Err(Code::Unsigned));
    let sealed = signed(Kind::Command, &deploy(1), &["dora"]);
    let refusal = site.admit_at(&topic_of(&deploy(1)), sealed.as_bytes()).unwrap_err();
    assert_eq!(refusal.code, Code::Unsigned, "a signature that nobody can check is none");
    assert!(refusal.to_string().contains("tidegate trust init"), "{refusal}");
    site.trust.unsigned = Unsigned::Allow;
    assert!(by_hand(&site, &plain).is_ok());
    assert!(site.admit_at(&topic_of(&deploy(1)), sealed.as_bytes()).is_ok());
    let mut live = override_valve(1, "");
    assert_eq!(by_hand(&site, &live), Err(Code::NotFresh), "what is kept can come back, signed or not");
    live["nonce"] = json!(site.nonces.current());
    assert!(by_hand(&site, &live).is_ok());
    site.trust.unsigned = Unsigned::Refuse;
    assert_eq!(asked(&site, "status"), Err(Code::Unsigned));
}

#[test]
fn with_a_key_set_what_is_not_signed_is_refused() {
    let site = Site::default();
    let refusal = site.admit_at(&topic_of(&deploy(1)), deploy(1).to_string().as_bytes()).unwrap_err();
    assert_eq!(refusal.code, Code::Unsigned);
    assert_eq!(refusal.digest, Some(Digest::sha256(deploy(1).to_string().as_bytes())));
}

#[test]
fn what_is_remembered_survives_its_own_form() {
    let mut site = Site::default();
    site.accept(&deploy(1), &["dora"]).unwrap();
    let stored = serde_json::to_string(&site.freshness).unwrap();
    assert_eq!(serde_json::from_str::<Freshness>(&stored).unwrap(), site.freshness);
}
