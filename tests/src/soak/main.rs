//! `tidegate-soak`: a box under load for as long as you like, with new rules and outages, and an account of
//! every message.
#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidegate_tests::box_under_test;
use tidegate_tests::soak::{Plan, soak};

/// Runs a box between two brokers, and says whether anything was lost or doubled, or its memory has grown.
#[derive(Debug, Parser)]
#[command(name = "tidegate-soak", version)]
struct Arguments {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Rows a second
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Seconds between two new rules
    #[arg(long, value_name = "N", default_value_t = 3)]
    new_rule_every: u64,
    /// Seconds between two outages; the plant's broker and the cloud's take turns
    #[arg(long, value_name = "N", default_value_t = 20)]
    outage_every: u64,
    /// How much the box's memory may grow from the second tenth of the time to the last
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    growth: u64,
    /// Run this binary, instead of building one
    #[arg(long, value_name = "PATH")]
    tidegate: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(binary) = arguments.tidegate {
        box_under_test::test_binary(binary);
    }
    let plan = Plan {
        duration: Duration::from_secs(60 * arguments.minutes),
        rate: arguments.rate,
        new_rule_every: Duration::from_secs(arguments.new_rule_every),
        outage_every: Duration::from_secs(arguments.outage_every),
        growth_mib: arguments.growth,
    };
    let report = soak(plan).await;
    println!("{report}");
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
