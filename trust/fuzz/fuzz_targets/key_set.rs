//! Any envelope as a key set, and any text behind a good signature of the root.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_trust::envelope::{Kind, seal};
use tidegate_trust::key::SecretKey;
use tidegate_trust::key_set::KeySet;

static ROOT: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_random(&mut [1; 32]));

static FIRST: LazyLock<KeySet> = LazyLock::new(|| {
    let first = serde_json::json!({
        "version": 1, "issued": "2026-11-01T00:00:00Z",
        "roots": {"keys": [{"id": "root", "ed25519": ROOT.public()}], "threshold": 1}, "keys": [],
    });
    let sealed = seal(Kind::KeySet, first.to_string().as_bytes(), &[("root", &ROOT)]);
    KeySet::first(sealed.as_bytes()).unwrap().0
});

fuzz_target!(|bytes: &[u8]| {
    assert!(FIRST.next(bytes).is_err(), "nobody has signed it");
    let _ = KeySet::first(bytes);
    if let Ok(next) = FIRST.next(seal(Kind::KeySet, bytes, &[("root", &ROOT)]).as_bytes()) {
        assert_eq!(next.version, 2);
        let _ = next.warnings();
        assert_eq!(serde_json::from_slice::<KeySet>(&next.to_bytes().unwrap()).unwrap(), next);
    }
});
