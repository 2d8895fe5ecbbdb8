//! What is fuzzed, with random bytes: so that it can be at any time, and on any machine. Longer:
//! `PROPTEST_CASES=100000 cargo test -p tidegate-rules --test rules fuzz`; with a fuzzer, see rules/fuzz.

use proptest::prelude::*;

#[path = "../../fuzz/inputs/condition.rs"]
mod condition;
#[cfg(feature = "wasm-compile")]
#[path = "../../fuzz/inputs/plugin.rs"]
mod plugin;
#[path = "../../fuzz/inputs/rule.rs"]
mod rule;
#[cfg(feature = "rhai")]
#[path = "../../fuzz/inputs/script.rs"]
mod script;

/// As bytes of a corpus: most inputs are short.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// `share`: of the cases that others have.
fn some(share: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: config.cases / share, ..config }
}

proptest! {
    #![proptest_config(some(1))]

    #[test]
    fn any_bytes_are_a_condition_or_an_error(data in bytes(24)) {
        condition::take(&data);
    }

    #[test]
    fn any_bytes_are_a_rule_or_an_error(data in bytes(24)) {
        rule::take(&data);
    }
}

#[cfg(feature = "rhai")]
proptest! {
    #![proptest_config(some(1))]

    #[test]
    fn any_bytes_are_a_script_or_an_error(data in bytes(24)) {
        script::take(&data);
    }
}

#[cfg(feature = "wasm-compile")]
proptest! {
    // One that is good is compiled.
    #![proptest_config(some(8))]

    #[test]
    fn any_bytes_are_a_plugin_or_an_error(data in bytes(25)) {
        plugin::take(&data);
    }
}
