//! Plays seeds, and says which of them go wrong.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Plays a whole box on simulated time, disk and network. A seed decides every delay, fault and crash.
#[derive(Parser)]
struct Args {
    /// Plays this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// Shows what happens, and what the box logs (RUST_LOG says how much)
    #[arg(long)]
    trace: bool,
    /// How many seeds are played
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let (first, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let (mut failed, mut messages, mut power_cuts, mut writes) = (0, 0, 0, 0);
    let mut out = std::io::stdout().lock();
    for seed in first..first.saturating_add(count) {
        let outcome = tidegate_sim::run(seed, args.trace);
        messages += outcome.messages;
        power_cuts += outcome.power_cuts;
        writes += outcome.writes;
        if !outcome.wrong.is_empty() {
            failed += 1;
            let command = "cargo run -p tidegate-sim -- --trace --seed";
            let _ = writeln!(
                out,
                "seed {seed} goes wrong; to see it again: {command} {seed}\n  {}",
                outcome.wrong.join("\n  ")
            );
        }
        if args.seed.is_some() {
            let _ = writeln!(out, "hash {:016x}", outcome.hash);
        }
    }
    let _ = writeln!(
        out,
        "{count} seeds, {messages} messages, {writes} writes, {power_cuts} power cuts: {failed} went wrong"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
