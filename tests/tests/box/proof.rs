//! Nothing is lost and nothing is doubled, however often the box is killed: every row and every window comes under one id.
//!
//! A plant publishes without a pause while the box is killed (`kill -9`), killed again while it still starts, stopped in order, and
//! given new rules, at random. `TIDEGATE_SEED` repeats the choices of a run, though not the moments at which the system carries them
//! out; `TIDEGATE_CRASH_ROUNDS` says how often the box is started.

use std::time::Duration;

use tidegate_tests::box_under_test::RunningBox;
use tidegate_tests::plant::{Pace, RULES};
use tidegate_tests::trial::{Outcome, Terms, Trial};

/// Starts of a usual run.
const ROUNDS: u32 = 200;
/// Rows under way: more than a round takes, so that the box never runs idle, and few enough to be dealt with in a moment.
const PACE: Pace = Pace { ahead: 1_000, rate: None };
/// Rows that arrive in a round, at most.
const MOST_ROWS: i64 = 250;

/// What is chosen at random, and what came of it.
struct Chance {
    seed: u64,
    random: fastrand::Rng,
    kills: u32,
    kills_in_the_start: u32,
    stops: u32,
    new_rules: u32,
}

impl Chance {
    fn new() -> Self {
        let seed = given("TIDEGATE_SEED").unwrap_or_else(|| fastrand::u64(..));
        say(&format!("TIDEGATE_SEED={seed}"));
        Self { seed, random: fastrand::Rng::with_seed(seed), kills: 0, kills_in_the_start: 0, stops: 0, new_rules: 0 }
    }

    fn terms(&mut self) -> Terms {
        let terms = Terms {
            version: self.random.choice(["3.1.1", "5"]).unwrap(),
            in_flight: self.random.choice([20, 1_000]).unwrap(),
            workers: self.random.u8(1..=2),
            lateness: "0s",
        };
        say(&format!("{terms:?}"));
        terms
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.u32(..count) == 0
    }

    fn rows(&mut self) -> i64 {
        self.random.i64(1..=MOST_ROWS)
    }

    fn renew_a_rule(&mut self, trial: &mut Trial) {
        trial.rules.renew(&trial.site, self.random.choice(RULES).unwrap());
        self.new_rules += 1;
    }

    fn report(&self, outcome: &Outcome) -> String {
        let Self { seed, kills, kills_in_the_start, stops, new_rules, .. } = self;
        let complete = if outcome.complete { "" } else { "; something that had to come did not" };
        format!(
            "TIDEGATE_SEED={seed}: {kills} kills, {kills_in_the_start} more in the start, {stops} stops, {new_rules} new rules{complete}\n{}",
            outcome.balance
        )
    }
}

#[allow(clippy::print_stderr, reason = "shown by the test harness beside what went wrong")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// A number that the environment may give.
fn given<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not such a number: {text}")))
}

/// Waits until the box has computed for so long. It spreads kills over a start, and is no wait for anything: a box that computes less is
/// as good a victim.
async fn computed(the_box: &RunningBox, for_so_long: Duration) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    let computing = async {
        while the_box.processor_time() < for_so_long {
            look.tick().await;
        }
    };
    let _ = tokio::time::timeout(for_so_long * 10, computing).await;
}

#[tokio::test]
async fn a_box_that_is_killed_again_and_again_delivers_every_row_and_every_window_under_one_id() {
    let rounds = given("TIDEGATE_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut chance = Chance::new();
    let mut trial = Trial::new(chance.terms()).await;
    // The first start is left alone, and shows how much there is to compute in one.
    let mut the_box = trial.start(PACE).await;
    let start = the_box.processor_time();
    trial.arrive(1).await;
    for _ in 0..rounds {
        if chance.one_in(5) {
            trial.stop(the_box).await;
            chance.stops += 1;
        } else {
            the_box.kill().await;
            chance.kills += 1;
        }
        trial.enter_rest();
        while chance.one_in(4) {
            the_box = trial.site.run();
            computed(&the_box, start.mul_f64(chance.random.f64())).await;
            the_box.kill().await;
            trial.enter_rest();
            chance.kills_in_the_start += 1;
        }
        if chance.one_in(5) {
            chance.renew_a_rule(&mut trial);
        }
        the_box = trial.site.run();
        trial.arrive(trial.account.arrived() + chance.rows()).await;
        if chance.one_in(4) {
            chance.renew_a_rule(&mut trial);
            trial.arrive(trial.account.arrived() + chance.rows()).await;
        }
    }
    trial.newest_rules().await;
    let mut outcome = trial.finish(the_box).await;
    let report = chance.report(&outcome);
    say(&report);
    assert_eq!(outcome.published.again, 0, "the plant's broker was never away");
    assert!(outcome.complete && outcome.balance.is_even(), "the account does not balance: see above");
    outcome.balance = trial.start_for_nothing(&mut outcome.published).await;
    assert!(outcome.balance.is_even(), "the account does not balance after another start\n{}", chance.report(&outcome));
}

#[tokio::test]
async fn new_rules_lose_and_double_no_row_and_no_window() {
    let mut chance = Chance::new();
    let mut trial = Trial::new(chance.terms()).await;
    let the_box = trial.start(PACE).await;
    for _ in 0..30 {
        trial.arrive(trial.account.arrived() + chance.rows()).await;
        chance.renew_a_rule(&mut trial);
    }
    trial.newest_rules().await;
    let outcome = trial.finish(the_box).await;
    let report = chance.report(&outcome);
    assert!(outcome.complete && outcome.balance.is_even(), "the account does not balance\n{report}");
}
