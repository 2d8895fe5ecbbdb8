//! Key sets take each other's place by TUF's rules, and by nothing else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod site;

use serde_json::{Value, json};
use site::{key_set, public, signed, signed_set, with};
use tidegate_trust::Code;
use tidegate_trust::envelope::Kind;
use tidegate_trust::key_set::KeySet;

fn first() -> KeySet {
    KeySet::first(signed_set(&key_set(), &["root-a", "root-b"]).as_bytes()).unwrap().0
}

fn version(number: u64) -> Value {
    with(key_set(), "version", json!(number))
}

fn next(set: &Value, roots: &[&str]) -> Result<KeySet, Code> {
    first().next(signed_set(set, roots).as_bytes()).map_err(|refusal| refusal.code)
}

/// Roots b, c and d, of which two sign.
fn with_new_roots(number: u64) -> Value {
    let roots = ["root-b", "root-d", "root-e"].map(|id| json!({"id": id, "ed25519": public(id)}));
    with(version(number), "roots", json!({"keys": roots, "threshold": 2}))
}

#[test]
fn the_first_set_is_signed_by_its_own_roots_and_known_by_its_fingerprint() {
    let envelope = signed_set(&key_set(), &["root-c", "root-a"]);
    let (set, fingerprint) = KeySet::first(envelope.as_bytes()).unwrap();
    assert_eq!((set.version, set.keys.len()), (1, 6));
    // As `base64 -d | sha256sum` prints it of the payload, in groups of four.
    let digest = tidegate_trust::Digest::sha256(key_set().to_string().as_bytes());
    let shown = fingerprint.to_string();
    assert_eq!(shown.replace(' ', ""), digest.hex());
    assert_eq!(shown.split(' ').map(str::len).collect::<Vec<_>>(), [4; 16]);
    let code = |roots: &[&str]| KeySet::first(signed_set(&key_set(), roots).as_bytes()).unwrap_err().code;
    assert_eq!(code(&["root-a"]), Code::Forbidden);
    assert_eq!(code(&["root-a", "root-a"]), Code::Forbidden, "one twice is one");
    assert_eq!(code(&["root-a", "dora"]), Code::UnknownKey, "not one of the roots");
    assert_eq!(code(&[]), Code::Unsigned);
    let as_command = signed(Kind::Command, &key_set(), &["root-a", "root-b"]);
    assert_eq!(KeySet::first(as_command.as_bytes()).unwrap_err().code, Code::Invalid);
}

#[test]
fn the_next_set_is_the_next_one() {
    assert_eq!(next(&version(2), &["root-a", "root-b"]).unwrap().version, 2);
    for number in [0, 1, 3, u64::MAX] {
        assert_eq!(next(&version(number), &["root-a", "root-b"]), Err(Code::Precondition), "{number}");
    }
    let earlier = with(version(2), "issued", json!("2026-10-31T23:59:59Z"));
    assert_eq!(next(&earlier, &["root-a", "root-b"]), Err(Code::Invalid));
}

#[test]
fn enough_of_the_old_and_of_the_new_roots_sign() {
    let set = with_new_roots(2);
    assert!(next(&set, &["root-a", "root-b", "root-d"]).is_ok(), "b counts for both");
    assert!(next(&set, &["root-a", "root-c", "root-d", "root-e"]).is_ok());
    assert_eq!(next(&set, &["root-b", "root-d"]), Err(Code::Forbidden), "one old root");
    assert_eq!(next(&set, &["root-a", "root-b"]), Err(Code::Forbidden), "one new root");
    assert_eq!(next(&set, &["root-a", "root-c"]), Err(Code::Forbidden), "no new root");
    assert_eq!(next(&set, &["root-d", "root-e"]), Err(Code::UnknownKey), "whoever is new says so himself");
    assert_eq!(next(&set, &["root-a", "root-b", "root-d", "mallory"]), Err(Code::UnknownKey));
    assert_eq!(next(&version(2), &["root-a"]), Err(Code::Forbidden), "one stolen key");
    let third = first().next(signed_set(&set, &["root-a", "root-b", "root-d"]).as_bytes()).unwrap();
    let back = signed_set(&version(3), &["root-a", "root-c"]);
    assert_eq!(third.next(back.as_bytes()).unwrap_err().code, Code::UnknownKey, "old roots are no roots");
}

#[test]
fn a_change_of_any_bit_of_the_signed_bytes_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let envelope: Value = serde_json::from_str(&signed_set(&version(2), &["root-a", "root-b"])).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let first = first();
    // Every bit of some bytes, and one bit of each: there are many, and each is tried with all roots.
    for bit in (0..payload.len() * 8).filter(|bit| bit / 8 < 32 || bit % 8 == bit / 8 % 8) {
        let mut changed = payload.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let message = with(envelope.clone(), "payload", json!(STANDARD.encode(changed))).to_string();
        assert_eq!(first.next(message.as_bytes()).unwrap_err().code, Code::BadSignature, "bit {bit}");
    }
}

#[test]
fn a_set_that_cannot_be_right_is_refused_and_told_why() {
    let scope = json!({"boxes": ["*"]});
    let key = |id: &str, of: &str| json!({"id": id, "ed25519": public(of), "role": "viewer", "scope": scope});
    let keys = |keys: Vec<Value>| with(key_set(), "keys", json!(keys));
    let mut no_threshold = key_set();
    no_threshold["roots"]["threshold"] = json!(0);
    let mut high_threshold = key_set();
    high_threshold["roots"]["threshold"] = json!(4);
    let mut same_root = key_set();
    same_root["roots"]["keys"][2]["ed25519"] = json!(public("root-a"));
    let mut weak = key_set();
    weak["keys"][0]["ed25519"] = json!("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let mut no_boxes = key_set();
    no_boxes["keys"][0]["scope"]["boxes"] = json!([]);
    let mut role = key_set();
    role["keys"][0]["role"] = json!("admin");
    let mut more = key_set();
    more["keys"][0]["scope"]["box"] = json!(["*"]);
    let mut lease = key_set();
    lease["keys"][1]["scope"]["max_lease"] = json!("an hour");
    let many = (0..33).map(|n| key(&format!("key-{n}"), &format!("key-{n}"))).collect();
    for (set, why) in [
        (no_threshold, "threshold is 0"),
        (high_threshold, "threshold is 4"),
        (same_root, "two roots have the same key"),
        (weak, "no public key"),
        (no_boxes, "has no boxes"),
        (role, "unknown variant `admin`"),
        (more, "unknown field `box`"),
        (lease, "is not a duration"),
        (keys(many), "it has 33 keys, and 32 are allowed"),
        (keys(vec![key("vera", "vera"), key("vera", "otto")]), "two keys are called \"vera\""),
        (keys(vec![key("root-a", "vera")]), "two keys are called \"root-a\""),
        (keys(vec![key("vera", "root-a")]), "is a root, too"),
        (keys(vec![key("", "vera")]), "is no name"),
        (keys(vec![key("a\nb", "vera")]), "is no name"),
    ] {
        let envelope = signed_set(&set, &["root-a", "root-b"]);
        let refusal = KeySet::first(envelope.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::Invalid, "{refusal}");
        assert!(refusal.reason.contains(why), "{why}: {refusal}");
        let refusal = first().next(envelope.as_bytes()).unwrap_err();
        assert!(refusal.reason.contains(why), "{why}: {refusal}");
    }
}

#[test]
fn what_is_dangerous_and_allowed_is_said() {
    assert_eq!(first().warnings(), Vec::<String>::new());
    let mut set = key_set();
    set["roots"]["threshold"] = json!(1);
    set["keys"][2]["ed25519"] = json!(public("otto"));
    set["keys"].as_array_mut().unwrap().pop();
    let (set, _) = KeySet::first(signed_set(&set, &["root-a"]).as_bytes()).unwrap();
    let warnings = set.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(warnings[0].contains("dora and otto are one key"), "{warnings:#?}");
    assert!(warnings[1].contains("threshold"), "{warnings:#?}");
    assert!(warnings[2].contains("security"), "{warnings:#?}");
}

#[test]
fn a_set_is_written_as_it_is_read() {
    let set = first();
    assert_eq!(serde_json::from_slice::<KeySet>(&set.to_bytes().unwrap()).unwrap(), set);
    assert_eq!(serde_json::to_value(&set).unwrap(), key_set());
}
