//! The command line: what can be said, and how results and errors are shown.
//!
//! Results go to standard output, logs and progress to standard error. A reader that closes the pipe early is
//! not an error.

pub mod args;
pub mod ask;
pub mod backtest;
pub mod buffer;
pub mod check;
pub mod commission;
pub mod explain;
pub mod logging;
mod moment;
#[cfg(feature = "wasm")]
pub mod plugin;
mod progress;
mod render;
pub mod replay;
mod rule_file;
pub mod run;
mod table;
pub mod why;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use tidegate_core::Diagnostic;

use crate::config::{self, Config};
use args::Cli;

/// Where the configuration is looked for when `--config` is absent, in this order.
pub const DEFAULT_CONFIGS: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Configuration or rules are wrong, and nothing was started. Exit code 3.
    Refused(Vec<Diagnostic>),
    /// The same, and the errors have been shown. Exit code 3.
    RefusedAndShown,
    /// The box runs, and something needs a person; what it is has been shown. Exit code 4.
    NeedsAPerson,
    /// Something failed while it ran. Exit code 1.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Tells the user how a command ended, on standard error, and the caller's shell by the exit code.
#[must_use]
pub fn finish(outcome: Result<(), Failure>) -> ExitCode {
    let (code, text) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::RefusedAndShown) => return ExitCode::from(3),
        Err(Failure::NeedsAPerson) => return ExitCode::from(4),
        Err(Failure::Refused(diagnostics)) => {
            (3, render::text(&diagnostics, render::colours(&std::io::stderr())))
        }
        Err(Failure::Failed(error)) => (1, format!("tidegate: {error:#}\n")),
    };
    // When standard error is closed, the exit code has to say it all.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// The file that `--config` names, or else the first of [`DEFAULT_CONFIGS`] that exists.
///
/// # Errors
/// When neither is there.
pub fn find_config(named: Option<PathBuf>) -> Result<PathBuf, Diagnostic> {
    let mut defaults = DEFAULT_CONFIGS.iter().map(PathBuf::from);
    named.or_else(|| defaults.find(|path| path.exists())).ok_or_else(|| {
        let [here, system] = DEFAULT_CONFIGS;
        Diagnostic::new(here, format!("there is no {here} in this directory, and no {system}"))
            .help("name the configuration file with `--config FILE`, or try `tidegate demo` first".to_owned())
    })
}

/// Finds and loads the configuration.
///
/// # Errors
/// [`Failure::Refused`] with everything that is wrong with it.
pub fn load_config(named: Option<PathBuf>) -> Result<Config, Failure> {
    let path = find_config(named).map_err(|diagnostic| Failure::Refused(vec![diagnostic]))?;
    config::load(&path).map_err(Failure::Refused)
}

/// Whether a person waits at standard error, so that progress and status make sense.
#[must_use]
pub fn somebody_waits() -> bool {
    std::io::stderr().is_terminal()
}

/// `tidegate schema`: prints the JSON Schema of the configuration file.
///
/// # Errors
/// When standard output cannot be written.
pub fn schema() -> Result<(), Failure> {
    print(&format!("{:#}\n", config::json_schema()))
}

/// `tidegate completions`: prints the script that makes `shell` complete the command line.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()), // `| head` has seen enough
        other => Ok(other?),
    }
}
