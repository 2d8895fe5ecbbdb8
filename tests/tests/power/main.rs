//! The power is cut while the box works, again and again: what it has acknowledged arrives at the cloud.
//!
//! The box runs in a virtual machine, its data on ext4 on a [`Disk`] whose write cache a cut loses. Numbers
//! are published to the plant's broker with QoS 1; the box echoes each to an output and sends it to the
//! cloud. Mostly the cloud is away, so that the disk alone has what the box acknowledged. The moment of a cut
//! is a random write of the disk, at work or while the box starts. After each cut the file system and the
//! buffer are looked at from outside, with e2fsck and with SQLite. Each time the machine believes in another
//! year. In the end every number that was published has to be at the cloud: the broker gives those again that
//! the box has not acknowledged. No row's id may have stood for two numbers.
//!
//! [`full_disk`] has the disk refuse writes for a while instead.
//!
//! `TIDEGATE_POWER_CUTS` is how many cuts there are; `TIDEGATE_POWER_SEED` repeats what was drawn, though not
//! the machine's pace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "all of this is test code"
)]

mod clock;
mod full_disk;
mod inspection;
mod trial;

use std::time::SystemTime;

use tidegate_tests::disk::Disk;
use trial::Trial;

/// Few enough for each change; the long run that CONTRIBUTING.md names has each kind of moment come up.
const CUTS: u64 = 6;
/// With so many, one at least has to put something at stake.
const CUTS_THAT_SHOW_IT: u64 = 20;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_power_cut_arrives_at_the_cloud() {
    let cuts = setting("TIDEGATE_POWER_CUTS").unwrap_or(CUTS);
    let clock = || u64::from(SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let seed = setting("TIDEGATE_POWER_SEED").unwrap_or_else(clock);
    eprintln!("{cuts} power cuts, TIDEGATE_POWER_SEED={seed}");
    let mut trial = Trial::start(Disk::new, seed).await;
    let mut only_on_disk = 0;
    for cut in 1..=cuts {
        let (at_stake, loss) = trial.run_until_a_cut().await;
        eprintln!(
            "cut {cut}: {at_stake} acknowledged numbers only on the disk; of writes not flushed: {loss:?}"
        );
        only_on_disk += at_stake;
        trial.inspect_disk();
    }
    let account = trial.finish().await;
    eprintln!("{account}");
    let first = |count: usize| &account.missing[..count.min(account.missing.len())];
    assert!(account.missing.is_empty(), "acknowledged and lost, seed {seed}: {:?}, ..", first(20));
    assert!(account.twice.is_empty(), "ids of two rows, seed {seed}: {:?}", account.twice);
    assert!(cuts < CUTS_THAT_SHOW_IT || only_on_disk > 0, "no cut put anything at stake");
}

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_about_flushes_is_found_out() {
    let mut trial = Trial::start(Disk::lying, 3).await;
    let (at_stake, _) = trial.run_until_a_cut_without_the_cloud().await;
    assert!(at_stake > 0);
    let account = trial.finish().await;
    assert!(!account.missing.is_empty(), "this test would not see a loss: {account}");
}
