//! Seeds that every change has to survive. A long run:
//! `cargo run --release -p tidegate-sim -- --seeds 100000 --from 0`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_sim::{Outcome, run};

/// About a processor second each, without optimisation.
const SEEDS: u64 = 40;

/// Seeds beyond those that went wrong once. What they show changes with the simulation; they cost little.
const ONCE_WRONG: [u64; 6] = [102_119, 103_818, 200_209, 201_374, 202_535, 305_453];

/// What comes of `seeds`, by as many threads as there are processors.
fn outcomes(seeds: u64) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(0);
    let play = || {
        let mut played = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return played;
            }
            played.push((seed, run(seed, false)));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..std::thread::available_parallelism().unwrap().get()).map(|_| scope.spawn(play)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn whatever_happens_rows_arrive_once_windows_count_right_and_outputs_keep_their_contracts() {
    let outcomes = outcomes(SEEDS);
    let wrong: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| !outcome.wrong.is_empty())
        .map(|(seed, outcome)| {
            let wrong = outcome.wrong.join("\n  ");
            format!(
                "seed {seed} goes wrong; to see it again: cargo run -p tidegate-sim -- --trace --seed \
                {seed}\n  {wrong}"
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The seeds did something.
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    assert!(sum(|outcome| outcome.messages) > 20 * SEEDS && sum(|outcome| outcome.power_cuts) > SEEDS);
    assert!(sum(|outcome| outcome.writes) > 20 * SEEDS);
}

#[test]
fn what_went_wrong_once_does_not_again() {
    for seed in ONCE_WRONG {
        assert_eq!(run(seed, false).wrong, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..6 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
