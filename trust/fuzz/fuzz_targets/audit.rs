//! Any file as an exported audit, with its first line as the checkpoint: no panic, and a line is read as one
//! thing only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_trust::audit::{Stored, Verifier};
use tidegate_trust::key::SecretKey;

fuzz_target!(|bytes: &[u8]| {
    let mut verifier = Verifier::new("press-12", SecretKey::from_random(&mut [3; 32]).public());
    let mut lines = bytes.split(|byte| *byte == b'\n');
    assert!(verifier.witness(lines.next().unwrap_or_default()).is_err(), "nobody has signed it");
    for line in lines {
        let Ok(stored) = Stored::from_line(line) else { continue };
        assert_eq!(stored.to_line().strip_suffix(b"\n"), Some(line));
        if verifier.record(&stored).is_err() {
            return;
        }
    }
    let _ = verifier.finish();
});
