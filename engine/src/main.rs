//! The binary `tidegate`: reads the command line, starts logging, does what was asked, and says how it ended.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::args::{Cli, Command};
use tidegate::cli::buffer::buffer;
use tidegate::cli::replay::replay;
use tidegate::cli::run::{demo, run};
use tidegate::cli::{Failure, check, completions, explain, finish, logging, schema};

fn main() -> ExitCode {
    let cli = Cli::parse(); // ends here with exit code 2 when the command line is wrong
    let logging = match &cli.command {
        Command::Demo(_) => Ok(()), // its messages belong into its picture
        _ => logging::start(&cli.log),
    };
    finish(logging.and_then(|()| execute(cli.command)))
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run(args),
        Command::Check(args) => check::check(args),
        Command::Explain(args) => explain::explain(args),
        Command::Demo(args) => demo(args),
        Command::Replay(args) => replay(args),
        Command::Buffer { command } => buffer(command),
        Command::Schema => schema(),
        Command::Completions { shell } => completions(shell),
    }
}
