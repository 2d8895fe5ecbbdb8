//! The soak, in short: `cargo run --release -p tidegate-tests --bin tidegate-soak` runs it for as long as you
//! like.

use std::time::Duration;

use tidegate_tests::soak::{Plan, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_under_load_with_new_rules_and_outages_loses_and_doubles_nothing_and_stays_as_large_as_it_is() {
    let plan = Plan {
        duration: Duration::from_secs(15),
        rate: 500,
        new_rule_every: Duration::from_secs(1),
        outage_every: Duration::from_secs(3),
        // A debug build, and the second tenth of so short a time is still its beginning.
        growth_mib: 60,
    };
    let report = soak(plan).await;
    assert!(report.is_good(), "{report}");
}
