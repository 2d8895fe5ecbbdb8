//! The binary `tidegate`: reads the command line, starts logging, does what was asked, and says how it ended.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use tidegate::cli::args::{Cli, Command};
use tidegate::cli::{Failure, check, completions, finish, load_config, logging, schema};

fn main() -> ExitCode {
    let cli = Cli::parse(); // ends here with exit code 2 when the command line is wrong
    finish(logging::start(&cli.log).and_then(|()| execute(cli.command)))
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => load_config(args.config.config).and(not_built("run")),
        Command::Check(args) => check::check(args),
        Command::Demo(_) => not_built("demo"),
        Command::Replay(args) => load_config(args.config.config).and(not_built("replay")),
        Command::Schema => schema(),
        Command::Completions { shell } => completions(shell),
    }
}

fn not_built(command: &str) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow!("`tidegate {command}` is not part of this build")))
}
