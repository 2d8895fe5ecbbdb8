//! The binary `tidegate`: reads the command line, starts logging, does what was asked, and says how it ended.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tidegate::cli::args::{Cli, Command};
use tidegate::cli::ask;
use tidegate::cli::backtest::backtest;
use tidegate::cli::buffer::buffer;
use tidegate::cli::commission::commission;
use tidegate::cli::replay::replay;
use tidegate::cli::run::{demo, run};
use tidegate::cli::why::why;
use tidegate::cli::{Failure, check, completions, explain, finish, logging, schema};
use tidegate::management::managed_box::LogFilter;

fn main() -> ExitCode {
    let cli = Cli::parse(); // ends here with exit code 2 when the command line is wrong
    let logging = match &cli.command {
        Command::Demo(_) => Ok(None), // its messages belong into its picture
        _ => logging::start(&cli.log).map(Some),
    };
    finish(logging.and_then(|log| execute(cli.command, log)))
}

fn execute(command: Command, log: Option<Arc<LogFilter>>) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run(args, log),
        Command::Check(args) => check::check(args),
        Command::Explain(args) => explain::explain(args),
        Command::Demo(args) => demo(args),
        Command::Replay(args) => replay(args),
        Command::Backtest(args) => backtest(args),
        Command::Status(args) => ask::status::status(args),
        Command::Top(args) => ask::top::top(args),
        Command::Tail(args) => ask::tail::tail(args),
        Command::Output { command } => ask::output::output(command),
        Command::Reload(args) => ask::reload(args),
        Command::Log(args) => ask::log(args),
        Command::Why(args) => why(args),
        Command::Buffer { command } => buffer(command),
        #[cfg(feature = "wasm")]
        Command::Plugin { command } => tidegate::cli::plugin::plugin(command),
        Command::Commission(command) => commission(command),
        Command::Schema => schema(),
        Command::Completions { shell } => completions(shell),
    }
}
