//! What others made by the documents is read, and made in the same way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod site;

use serde_json::Value;
use site::{NOW, Site, at, key};
use tidegate_trust::audit::{Chain, Event, Record, Stored, Who, verify};
use tidegate_trust::envelope::{Envelope, Kind, seal};
use tidegate_trust::gate::Admission;
use tidegate_trust::key::{PublicKey, SecretKey};
use tidegate_trust::key_set::KeySet;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn keys_are_the_same() {
    for (name, vector) in vectors()["keys"].as_object().unwrap() {
        let secret = SecretKey::from_pem(text(&vector["pem"])).unwrap();
        assert_eq!(secret.public(), key(name).public(), "both are made of the name");
        assert_eq!(secret.public().to_string(), text(&vector["public"]));
        assert_eq!(secret.to_pem().unwrap().as_str(), text(&vector["pem"]));
    }
}

#[test]
fn a_command_is_admitted() {
    let vectors = vectors();
    let (set, fingerprint) = KeySet::first(text(&vectors["key_set"]).as_bytes()).unwrap();
    assert_eq!(fingerprint.to_string().replace(' ', ""), text(&vectors["key_set_sha256"]));
    let mut site = Site::default();
    site.trust.keys = Some(set);
    let topic = "tidegate/v1/press-12/cmd/rules.deploy/01JD3Z7Q4W8XKC9V2M5N6P0R1T";
    let Admission::New(admitted) = site.admit_at(topic, text(&vectors["command"]).as_bytes()).unwrap() else {
        unreachable!("nothing is remembered")
    };
    assert_eq!(admitted.digest.hex(), text(&vectors["command_sha256"]));
    assert_eq!(admitted.signers[0].id, "dora");
    assert_eq!(admitted.command.args["text"], "--! description = \"K\u{fc}hlung\"");
}

#[test]
fn signatures_are_the_same() {
    let vectors = vectors();
    for (name, kind, people) in [
        ("command", Kind::Command, vec!["dora"]),
        ("key_set", Kind::KeySet, vec!["root-a", "root-b"]),
        ("checkpoint", Kind::Checkpoint, vec!["press-12"]),
    ] {
        let theirs = text(&vectors[name]);
        let keys: Vec<(&str, SecretKey)> = people.into_iter().map(|name| (name, key(name))).collect();
        let public: Vec<(&str, PublicKey)> = keys.iter().map(|(name, key)| (*name, key.public())).collect();
        let opened = Envelope::read(kind, theirs.as_bytes()).unwrap().open(&public).unwrap();
        let named: Vec<(&str, &SecretKey)> = keys.iter().map(|(name, key)| (*name, key)).collect();
        let ours: Value = serde_json::from_str(&seal(kind, &opened.payload, &named)).unwrap();
        assert_eq!(ours, serde_json::from_str::<Value>(theirs).unwrap(), "{name}");
    }
}

#[test]
fn an_audit_is_the_same() {
    let vectors = vectors();
    let mut chain = Chain::default();
    let mut lines = Vec::new();
    for (seq, what) in [(1, Event::Start { version: "0.1.0".into() }), (2, Event::Stop)] {
        let record = Record {
            time: seq * 1_000_000_000,
            wall: at(NOW),
            synchronised: true,
            boot: "3f0c2a2e".into(),
            who: Who::TheBox,
            what,
            digest: None,
            code: None,
            result: None,
        };
        let line = chain.append(&record).unwrap().to_line();
        lines.push(String::from_utf8(line).unwrap().trim_end().to_owned());
    }
    let theirs: Vec<&str> = vectors["audit"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(lines, theirs);
    let records = theirs.iter().map(|line| Stored::from_line(line.as_bytes()).unwrap());
    let public = text(&vectors["keys"]["press-12"]["public"]).parse().unwrap();
    let verified =
        verify("press-12", public, [], Some(text(&vectors["checkpoint"]).as_bytes()), records).unwrap();
    assert_eq!((verified.last, verified.witnessed), (2, Some(2)));
}
