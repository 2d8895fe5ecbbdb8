//! Nothing is lost and nothing is doubled, however often the box is killed: every row and every window comes
//! under one id.
//!
//! A plant publishes without a pause while the box is killed (`kill -9`), killed again while it still starts,
//! stopped in order, and given new rules, at random. `TIDEGATE_SEED` repeats the choices of a run, though not
//! the moments at which the system carries them out; `TIDEGATE_CRASH_ROUNDS` says how often the box is
//! started.

use std::time::{Duration, SystemTime};

use tidegate_tests::box_under_test::RunningBox;
use tidegate_tests::dice::Dice;
use tidegate_tests::plant::{Pace, RULES};
use tidegate_tests::trial::{Outcome, Terms, Trial};

/// Starts of a usual run.
const ROUNDS: u32 = 40;
/// Rows under way: more than a round takes, so that the box never runs idle, and few enough to be dealt with
/// in a moment.
const PACE: Pace = Pace { ahead: 1_000, rate: None };
/// Rows that arrive in a round, at most.
const MOST_ROWS: u64 = 250;
/// Rows of a long round, so that the rules' state is also stored while the box runs, and not only when it
/// stops.
const MANY_ROWS: i64 = 5_000;
const USUAL: &str = "";
/// What a power cut would take, but not a kill.
const SPARING: &str = "durability = \"normal\"\ncommit_every = \"20ms\"";
/// The rules' state is stored as often as can be, and what is not needed of the journal goes at once.
const OFTEN: &str = "snapshot_every = \"1s\"\njournal_size = \"0B\"";

/// What is chosen at random, and what came of it.
struct Chance {
    seed: u64,
    dice: Dice,
    kills: u32,
    kills_in_the_start: u32,
    stops: u32,
    new_rules: u32,
}

impl Chance {
    fn new() -> Self {
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = given("TIDEGATE_SEED").unwrap_or_else(clock);
        say(&format!("TIDEGATE_SEED={seed}"));
        Self { seed, dice: Dice::new(seed), kills: 0, kills_in_the_start: 0, stops: 0, new_rules: 0 }
    }

    fn terms(&mut self) -> Terms {
        let buffer = [USUAL, OFTEN, SPARING][self.dice.below(3) as usize];
        let mut either = |one, other| if self.dice.chance(1, 2) { one } else { other };
        let terms = Terms {
            version: either("3.1.1", "5"),
            in_flight: either("20", "1000"),
            workers: either("1", "2"),
            buffer,
            lateness: "0s",
        };
        say(&format!("{terms:?}"));
        terms
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.dice.chance(1, count)
    }

    fn rows(&mut self) -> i64 {
        1 + i64::try_from(self.dice.below(MOST_ROWS)).unwrap()
    }

    fn renew_a_rule(&mut self, trial: &mut Trial) {
        let rule = usize::try_from(self.dice.below(RULES.len() as u64)).unwrap();
        trial.rules.renew(&trial.site, RULES[rule]);
        self.new_rules += 1;
    }

    fn report(&self, outcome: &Outcome) -> String {
        let Self { seed, kills, kills_in_the_start, stops, new_rules, .. } = self;
        let complete = if outcome.complete { "" } else { "; something that had to come did not" };
        format!(
            "TIDEGATE_SEED={seed}: {kills} kills, {kills_in_the_start} more in the start, {stops} stops, \
            {new_rules} new rules{complete}\n{}",
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

/// Waits until the box has computed for so long. It spreads kills over a start, and is no wait for anything:
/// a box that computes less is as good a victim.
async fn computed(the_box: &RunningBox, for_so_long: Duration) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    let computing = async {
        while the_box.processor_time() < for_so_long {
            look.tick().await;
        }
    };
    let _ = tokio::time::timeout(for_so_long * 10, computing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_is_killed_again_and_again_delivers_every_row_and_every_window_under_one_id() {
    let rounds = given("TIDEGATE_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut chance = Chance::new();
    let mut trial = Trial::new(chance.terms()).await;
    // The first start is left alone, and shows how much there is to compute in one.
    let mut the_box = trial.start(PACE).await;
    let start = the_box.processor_time();
    trial.arrive(1).await;
    for _ in 0..rounds {
        assert_eq!(the_box.error(), None, "TIDEGATE_SEED={}", chance.seed);
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
            computed(&the_box, start * u32::try_from(chance.dice.below(100)).unwrap() / 100).await;
            the_box.kill().await;
            trial.enter_rest();
            chance.kills_in_the_start += 1;
        }
        if chance.one_in(5) {
            chance.renew_a_rule(&mut trial);
        }
        the_box = trial.site.run();
        let rows = if chance.one_in(20) { MANY_ROWS } else { chance.rows() };
        trial.arrive(trial.account.arrived() + rows).await;
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
    assert!(
        outcome.balance.is_even(),
        "the account does not balance after another start\n{}",
        chance.report(&outcome)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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
