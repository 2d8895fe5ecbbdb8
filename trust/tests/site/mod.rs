//! A site with one box, `press-12`, people with keys, and what the box remembers of them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_trust::command::{Identity, Topic};
use tidegate_trust::envelope::{Kind, seal};
use tidegate_trust::freshness::{Clock, Freshness, NoClock, Nonces};
use tidegate_trust::gate::{Admission, Admitted, Gate, Message, Trust, Unsigned};
use tidegate_trust::key::SecretKey;
use tidegate_trust::key_set::KeySet;
use tidegate_trust::{Digest, Refusal, WallTime};

pub const PREFIX: &str = "tidegate/v1";
pub const BUILT: &str = "2026-10-01T00:00:00Z";
pub const SET_ISSUED: &str = "2026-11-01T00:00:00Z";
pub const NOW: &str = "2026-11-29T20:30:00Z";

pub fn at(text: &str) -> WallTime {
    text.parse().unwrap()
}

pub fn micros(text: &str) -> u64 {
    u64::try_from(at(text).micros()).unwrap()
}

/// The key of the person of that name. Names are made keys of so that tests need no dice.
pub fn key(name: &str) -> SecretKey {
    SecretKey::from_random(&mut Digest::sha256(name.as_bytes()).0)
}

pub fn public(name: &str) -> String {
    key(name).public().to_string()
}

fn person(id: &str, role: &str, scope: Value) -> Value {
    json!({"id": id, "ed25519": public(id), "role": role, "scope": scope})
}

/// The key set of the site, version 1.
pub fn key_set() -> Value {
    let all = json!({"boxes": ["*"]});
    let scope_of_otto = json!({"boxes": ["press-*"], "outputs": ["valve*"], "max_lease": "1h"});
    let roots = ["root-a", "root-b", "root-c"].map(|id| json!({"id": id, "ed25519": public(id)}));
    json!({
        "version": 1,
        "issued": SET_ISSUED,
        "roots": {"keys": roots, "threshold": 2},
        "keys": [
            person("vera", "viewer", all.clone()),
            person("otto", "operator", scope_of_otto),
            person("dora", "deployer", json!({"boxes": ["press-*"], "rules": ["cool*"]})),
            person("emil", "engineer", all.clone()),
            person("sara", "security", all.clone()),
            person("sven", "security", all),
        ],
    })
}

pub fn signed_set(set: &Value, roots: &[&str]) -> String {
    signed(Kind::KeySet, set, roots)
}

pub fn signed(kind: Kind, payload: &Value, people: &[&str]) -> String {
    let keys: Vec<(&str, SecretKey)> = people.iter().map(|name| (*name, key(name))).collect();
    let keys: Vec<(&str, &SecretKey)> = keys.iter().map(|(name, key)| (*name, key)).collect();
    seal(kind, payload.to_string().as_bytes(), &keys)
}

pub struct Site {
    pub me: Identity,
    pub trust: Trust,
    pub freshness: Freshness,
    pub nonces: Nonces,
    pub uptime: Duration,
    pub clock: Clock,
    pub no_clock: NoClock,
}

impl Default for Site {
    fn default() -> Self {
        let (set, _) = KeySet::first(signed_set(&key_set(), &["root-a", "root-b"]).as_bytes()).unwrap();
        let mut freshness = Freshness::new(at(BUILT));
        freshness.adopt(&set);
        Self {
            me: Identity { name: "press-12".into(), groups: vec!["presses".into()] },
            trust: Trust { keys: Some(set), unsigned: Unsigned::Refuse },
            freshness,
            nonces: Nonces::new([7; 16], Duration::ZERO),
            uptime: Duration::from_secs(60),
            clock: Clock::Synchronised(at(NOW)),
            no_clock: NoClock::Hold,
        }
    }
}

impl Site {
    pub fn gate(&self) -> Gate<'_> {
        let Self { me, trust, freshness, nonces, uptime, clock, no_clock } = self;
        Gate { me, trust, freshness, nonces, uptime: *uptime, clock: *clock, no_clock: *no_clock }
    }

    pub fn admit_at(&self, topic: &str, bytes: &[u8]) -> Result<Admission, Refusal> {
        let topic = Topic::parse(PREFIX, topic).unwrap();
        self.gate().admit(&Message { topic: &topic, bytes, remembered: None })
    }

    /// Hands `command`, signed by `people`, to the box on the topic that it names.
    pub fn send(&self, command: &Value, people: &[&str]) -> Result<Admitted, Refusal> {
        let message = signed(Kind::Command, command, people);
        match self.admit_at(&topic_of(command), message.as_bytes())? {
            Admission::New(admitted) => Ok(*admitted),
            Admission::Again => unreachable!("nothing is remembered"),
        }
    }

    /// The same, and the box remembers it.
    pub fn accept(&mut self, command: &Value, people: &[&str]) -> Result<Admitted, Refusal> {
        let admitted = self.send(command, people)?;
        let signers: Vec<_> = admitted.signers.iter().map(|signer| signer.key).collect();
        self.freshness.record(&admitted.command, signers);
        Ok(admitted)
    }
}

pub fn topic_of(command: &Value) -> String {
    let text = |key: &str| command[key].as_str().unwrap();
    let is_query = tidegate_trust::Op::try_from(text("op").to_owned()).is_ok_and(|op| op.is_query());
    match is_query {
        true => format!("{PREFIX}/{}/ask/{}", text("box"), text("op")),
        false => format!("{PREFIX}/{}/cmd/{}/{}", text("box"), text("op"), text("id")),
    }
}

/// A deployment that waits with the broker for a week.
pub fn deploy(number: u64) -> Value {
    json!({
        "box": "press-12", "op": "rules.deploy", "id": format!("deploy-{number:04}"),
        "ctr": micros(NOW) + number, "issued": NOW, "not_after": "2026-12-06T20:30:00Z",
        "args": {"name": "cooling", "language": "sql", "text": "--! mode = \"shadow\"", "if_hash": null},
    })
}

/// An override that proves to be new.
pub fn override_valve(number: u64, nonce: &str) -> Value {
    json!({
        "box": "press-12", "op": "output.override", "id": format!("override-{number:04}"),
        "ctr": micros(NOW) + number, "nonce": nonce,
        "args": {
            "output": "valve", "key": {"line": "7"}, "value": {"open": false},
            "lease": "45m", "reason": "seal change",
        },
    })
}

/// A change of the command.
pub fn with(mut command: Value, key: &str, value: Value) -> Value {
    command[key] = value;
    command
}
