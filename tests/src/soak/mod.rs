//! A box that runs for long, under load, with new rules every few seconds and brokers that go away in turn;
//! and an account of it all.

use std::fmt;
use std::time::{Duration, Instant};

use crate::box_under_test::RunningBox;
use crate::plant::{Pace, RULES};
use crate::trial::{Outcome, Terms, Trial};

/// Rows that may be under way, in seconds of the rate: an outage of the cloud is shorter.
const AHEAD_S: i64 = 20;
const MIB: u64 = 1 << 10;

/// What is asked of the box.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// how long the plant publishes
    pub duration: Duration,
    /// rows a second
    pub rate: u32,
    /// pause between two new rules
    pub new_rule_every: Duration,
    /// pause between two outages; the plant's broker and the cloud's take turns
    pub outage_every: Duration,
    /// How much more memory the box may have in the last tenth than in the second, MiB. In the first it still
    /// fills its queues and caches.
    pub growth_mib: u64,
}

/// What happened.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    lasted: Duration,
    outcome: Outcome,
    /// what the box said of lost data, or that needs a person
    error: Option<String>,
    new_rules: u32,
    plant_outages: u32,
    cloud_outages: u32,
    /// medians of the second and of the last tenth, and the greatest, KiB
    memory: [u64; 3],
}

/// Soaks a box.
///
/// # Panics
/// When something that must happen does not.
pub async fn soak(plan: Plan) -> Report {
    // Rows that the plant publishes again come later than others that were published after them: what is
    // under way at once is far less than ten seconds of event time.
    let mut trial =
        Trial::new(Terms { version: "5", in_flight: "1000", workers: "2", buffer: "", lateness: "10s" })
            .await;
    let begin = Instant::now();
    let mut the_box =
        trial.start(Pace { ahead: AHEAD_S * i64::from(plan.rate), rate: Some(plan.rate) }).await;
    let (mut new_rules, mut outages) = (0_u32, 0_u32);
    let mut memory = Vec::new();
    while begin.elapsed() < plan.duration {
        // What comes is entered all the time; once a second we look what else is to be done.
        let _ = tokio::time::timeout(Duration::from_secs(1), trial.enter_until(|_| false)).await;
        memory.push(the_box.resident_kib());
        if begin.elapsed() >= plan.new_rule_every * (new_rules + 1) {
            trial.rules.renew(&trial.site, RULES[new_rules as usize % RULES.len()]);
            new_rules += 1;
        }
        if begin.elapsed() >= plan.outage_every * (outages + 1) {
            outage(&mut trial, &mut the_box, outages.is_multiple_of(2)).await;
            outages += 1;
        }
    }
    trial.newest_rules().await;
    let error = the_box.error();
    let outcome = trial.finish(the_box).await;
    let tenth = memory.len().div_ceil(10);
    let [second, last] =
        [tenth..2 * tenth, memory.len() - tenth..memory.len()].map(|range| median(&memory[range]));
    Report {
        plan,
        lasted: begin.elapsed(),
        outcome,
        error,
        new_rules: new_rules + 1,
        plant_outages: outages.div_ceil(2),
        cloud_outages: outages / 2,
        memory: [second, last, memory.iter().copied().max().unwrap_or_default()],
    }
}

/// A broker ends in order, so that it keeps what it has confirmed, and comes back when the box has seen that
/// it is away.
async fn outage(trial: &mut Trial, the_box: &mut RunningBox, of_the_plant: bool) {
    let (broker, name) =
        if of_the_plant { (&mut trial.plant_broker, "plant") } else { (&mut trial.cloud_broker, "cloud") };
    let before = the_box.log().count();
    broker.stop().await;
    the_box.log().wait_after(before, &format!("{{connection={name}}}")).await;
    let before = the_box.log().count();
    broker.restart().await;
    the_box.log().wait_after(before, "connected again").await;
}

fn median(samples: &[u64]) -> u64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

impl Report {
    /// Whether the account balances, memory has not grown, and the box has logged no error.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.outcome.complete
            && self.outcome.balance.is_even()
            && self.error.is_none()
            && self.growth_kib() <= self.plan.growth_mib * MIB
    }

    fn growth_kib(&self) -> u64 {
        let [early, late, _] = self.memory;
        late.saturating_sub(early)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plan,
            lasted,
            outcome,
            error,
            new_rules,
            plant_outages,
            cloud_outages,
            memory: [early, late, most],
        } = self;
        let published = &outcome.published;
        let mib = |kib: &u64| *kib as f64 / MIB as f64;
        writeln!(f, "| what | |\n| --- | --- |")?;
        writeln!(f, "| lasted | {} s |", lasted.as_secs())?;
        writeln!(f, "| rows published | {} |", published.rows)?;
        writeln!(
            f,
            "| rows a second | {:.0}, of {} |",
            published.rows as f64 / plan.duration.as_secs_f64(),
            plan.rate
        )?;
        writeln!(f, "| published again, because a confirmation was lost | {} |", published.again)?;
        writeln!(f, "| messages that the cloud got, each once | {} |", outcome.balance.messages())?;
        writeln!(f, "| and again under the same id | {} |", outcome.balance.repeats())?;
        writeln!(f, "| new rules | {new_rules} |")?;
        writeln!(f, "| outages of the plant's broker, of the cloud's | {plant_outages}, {cloud_outages} |")?;
        let (early, late, most) = (mib(early), mib(late), mib(most));
        writeln!(
            f,
            "| memory in the second tenth, in the last, at most | {early:.1} MiB, {late:.1} MiB, {most:.1} \
            MiB |"
        )?;
        let grown = if self.growth_kib() <= plan.growth_mib * MIB { "no more than" } else { "MORE THAN" };
        writeln!(f, "| memory has grown | {grown} {} MiB |", plan.growth_mib)?;
        writeln!(f, "| errors in the log | {} |", error.as_deref().unwrap_or("none"))?;
        let even =
            if outcome.complete && outcome.balance.is_even() { "balances" } else { "DOES NOT BALANCE" };
        writeln!(f, "| the account | {even} |\n\n{}", outcome.balance)
    }
}
