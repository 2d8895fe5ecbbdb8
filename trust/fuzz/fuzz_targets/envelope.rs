//! Any message on a topic for commands: no panic, and nothing is admitted that nobody signed.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate_trust::WallTime;
use tidegate_trust::command::{Identity, Topic};
use tidegate_trust::envelope::{Kind, seal};
use tidegate_trust::freshness::{Clock, Freshness, NoClock, Nonces};
use tidegate_trust::gate::{Gate, Message, Trust, Unsigned};
use tidegate_trust::key::SecretKey;
use tidegate_trust::key_set::KeySet;

static KEY_SET: LazyLock<KeySet> = LazyLock::new(|| {
    let key = |byte: u8| SecretKey::from_random(&mut [byte; 32]);
    let set = serde_json::json!({
        "version": 1, "issued": "2026-11-01T00:00:00Z",
        "roots": {"keys": [{"id": "root", "ed25519": key(1).public()}], "threshold": 1},
        "keys": [{"id": "dora", "ed25519": key(2).public(), "role": "deployer", "scope": {"boxes": ["*"]}}],
    });
    let sealed = seal(Kind::KeySet, set.to_string().as_bytes(), &[("root", &key(1))]);
    KeySet::first(sealed.as_bytes()).unwrap().0
});

fuzz_target!(|bytes: &[u8]| {
    let now: WallTime = "2026-11-29T20:30:00Z".parse().unwrap();
    let topic = Topic::parse("tidegate/v1", "tidegate/v1/press-12/cmd/rules.deploy/deploy-0001").unwrap();
    let (me, freshness) = (Identity { name: "press-12".into(), groups: vec![] }, Freshness::new(now));
    let nonces = Nonces::new([0; 16], Duration::ZERO);
    for unsigned in [Unsigned::Refuse, Unsigned::Queries] {
        let trust = Trust { keys: Some(KEY_SET.clone()), unsigned };
        let gate = Gate {
            me: &me,
            trust: &trust,
            freshness: &freshness,
            nonces: &nonces,
            uptime: Duration::ZERO,
            clock: Clock::Synchronised(now),
            no_clock: NoClock::Hold,
        };
        let message = Message { topic: &topic, bytes, remembered: None };
        assert!(gate.admit(&message).is_err(), "nobody has signed it");
    }
});
