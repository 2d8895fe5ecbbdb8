//! Whatever happens, promises are kept, and it does not matter how what came was cut.

use proptest::prelude::*;

use super::*;

/// What may happen to an output.
#[derive(Debug, Clone)]
enum Happens {
    Claim(bool, Option<bool>, Option<f64>),
    Tank(f64, Option<bool>),
    Pass(i64),
    Override(f64),
    Release,
    Line(bool),
    Start(bool),
    Device(Device),
    Gone(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    let rule = any::<bool>();
    prop_oneof![
        6 => (rule, prop::option::of(any::<bool>()), prop::option::of(-50_f64..200.0))
            .prop_map(|(rule, run, speed)| Happens::Claim(rule, run, speed)),
        4 => (0_f64..30.0, prop::option::weighted(0.9, prop::bool::weighted(0.2)))
            .prop_map(|(level, guard)| Happens::Tank(level, guard)),
        6 => (1_i64..20_000).prop_map(|ms| Happens::Pass(ms * MS)),
        1 => (0_f64..150.0).prop_map(Happens::Override),
        1 => Just(Happens::Release),
        1 => any::<bool>().prop_map(Happens::Line),
        1 => any::<bool>().prop_map(Happens::Start),
        1 => prop_oneof![Just(Device::Obeys), Just(Device::Refuses), Just(Device::Silent)].prop_map(Happens::Device),
        1 => any::<bool>().prop_map(Happens::Gone),
    ]
}

const FULL: &str = "expiry = \"30s\"\nfailsafe = { run = false, speed = 0 }\nmax_input_age = \"20s\"\n\
    interlock = { when = \"tank.level > 10 AND NOT tank.guard\", max_age = \"8s\" }\n\
    min_on = \"6s\"\nmin_off = \"12s\"\nrange = { speed = [0, 100] }\nslew = { speed = \"5/s\" }\n\
    deadband = { speed = 0.5 }\nretries = 2\n";

fn happen(bench: &mut Bench, happens: &Happens) {
    match happens {
        Happens::Claim(rule, run, speed) => bench.claim(if *rule { "a" } else { "b" }, row(*run, *speed)),
        Happens::Tank(level, guard) => bench.tank(Some(*level), *guard),
        Happens::Pass(ns) => bench.pass(*ns),
        Happens::Override(speed) => {
            bench.control("override", &format!("{{\"speed\": {speed}}}"), 20_000, false)
        }
        Happens::Release => bench.control("release", "", 0, false),
        Happens::Line(is_up) => bench.line(*is_up),
        Happens::Start(known) => bench.control("start", "", 0, *known),
        Happens::Device(device) => bench.device = *device,
        Happens::Gone(rule) => {
            let name = if *rule { "a" } else { "b" };
            bench.contracts.rule_is_gone(&name.into(), "was removed");
            bench.rule(name, if *rule { 8 } else { 4 }, &["tank"]);
            bench.pass(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, what goes out keeps the promises. The checks know the contract and what went out,
    /// and nothing of how it is made.
    #[test]
    fn what_is_written_keeps_what_is_promised(steps in prop::collection::vec(happens(), 1..80)) {
        let mut bench = bench(FULL);
        let (mut free_until, mut seen) = (i64::MIN, 0);
        let mut turned: Option<(i64, bool)> = None;
        let mut last_speed: Option<(i64, f64)> = None;
        for step in &steps {
            let before = bench.now;
            happen(&mut bench, step);
            if let Happens::Tank(level, guard) = step {
                free_until = if *level > 10.0 && *guard == Some(false) { bench.now + 8 * S } else { i64::MIN };
            }
            for (now, _, values, by) in &bench.written[seen..] {
                let is_trip = matches!(by, Origin::Interlock { .. });
                if let Some(run) = values.get("run") {
                    let on = *run == Value::Bool(true);
                    prop_assert!(!on || *now < free_until, "on while it is not free: {now} {free_until}");
                    if let Some((at, was)) = turned.filter(|(_, was)| *was != on) {
                        let least = if was { 6 } else { 12 };
                        prop_assert!(is_trip || now - at >= least * S, "turned to {on} after {} ms", (now - at) / MS);
                    }
                    turned = match (bench.device, turned) {
                        // It may or may not have been turned: then nothing is known of the time.
                        (Device::Obeys, None) => Some((0, on)),
                        (Device::Obeys, Some((_, was))) if was != on => Some((*now, on)),
                        (Device::Obeys, same) => same,
                        (_, Some((_, was))) if was != on => None,
                        (_, same) => same,
                    };
                }
                if let Some(speed) = values.get("speed").and_then(Value::number) {
                    prop_assert!((0.0..=100.0).contains(&speed));
                    if let Some((at, was)) = last_speed.filter(|_| !is_trip) {
                        #[allow(clippy::cast_precision_loss)]
                        let most = 5.0 * ((now - at) as f64 / 1e9).max(0.5);
                        prop_assert!((speed - was).abs() <= most + 1e-9, "from {was} to {speed} in {} ms", (now - at) / MS);
                    }
                    // A write that did not go through leaves the device where it was.
                    last_speed = (bench.device == Device::Obeys).then_some((*now, speed));
                }
            }
            prop_assert!(bench.written[seen..].len() < 400, "{before}");
            seen = bench.written.len();
            if let Happens::Start(_) = step {
                free_until = i64::MIN;
            }
        }
    }

    /// One entry of many rows, and many of one row, which come at the same time, lead to the same.
    #[test]
    fn it_does_not_matter_where_batches_were_cut(
        rows in prop::collection::vec((any::<bool>(), any::<bool>(), 0_f64..30.0, prop::option::of(any::<bool>()), prop::option::of(0_f64..120.0)), 1..30),
        cuts in prop::collection::vec(any::<bool>(), 30),
    ) {
        let made = |cuts: &[bool]| {
            let mut bench = bench(FULL);
            bench.tank(Some(20.0), Some(false));
            bench.device = Device::Obeys;
            let mut decisions = Vec::new();
            let mut orders = Vec::new();
            for ((is_tank, rule, level, run, speed), cut) in rows.iter().zip(cuts) {
                bench.seq += 1;
                let seqs = Seqs::One { seq: bench.seq };
                if *is_tank {
                    let batch = tank(bench.now, Some(*level), Some(run.unwrap_or(false)));
                    bench.contracts.rows(&"tank".into(), &Rows { batch, seqs });
                } else {
                    let rule = if *rule { "a" } else { "b" };
                    let batch = row(*run, *speed);
                    bench.contracts.claims(&"pump".into(), &rule.into(), Rows { batch, seqs }, vec![0]);
                }
                if *cut {
                    let made = bench.contracts.settle(bench.at());
                    decisions.extend(made.decisions);
                    orders.extend(made.orders);
                }
            }
            let made = bench.contracts.settle(bench.at());
            decisions.extend(made.decisions);
            orders.extend(made.orders);
            (orders, decisions)
        };
        let whole = made(&[false; 30]);
        let cut = made(&cuts);
        prop_assert_eq!(whole.0, cut.0);
        prop_assert_eq!(whole.1, cut.1);
    }
}
