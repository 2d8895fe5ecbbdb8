//! `tidegate replay`: what would the rules have done?

use std::io::IsTerminal;
use std::path::Path;

use super::args::ReplayArgs;
use super::progress::ProgressLine;
use super::{Failure, load_config, somebody_waits};
use crate::replay::{self, Input, Journal, ReplayError, Request};

/// Replays the recordings that the command line names.
///
/// # Errors
/// When configuration, rules or recordings are wrong, or the results cannot be written.
pub fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let mut config = load_config(args.config.config)?;
    if let Some(dir) = args.rules {
        config.rules.dir = dir;
    }
    let (since, until) = (args.since, args.until);
    let journal = args.buffer.map(|buffer| Input::Journal(Journal { buffer, since, until }));
    let inputs: Vec<Input> = args.inputs.into_iter().chain(args.raw).chain(journal).collect();
    // On a terminal that shows the results, they are progress enough.
    let watched = somebody_waits() && (args.output != Path::new("-") || !std::io::stdout().is_terminal());
    let line = watched.then(|| ProgressLine::new("replay"));
    let progress = |progress| {
        if let Some(line) = &line {
            line.show(progress);
        }
    };
    match replay::replay(&Request {
        config: &config,
        inputs: &inputs,
        output: &args.output,
        decisions: args.decisions.as_deref(),
        progress: &progress,
    }) {
        Ok(()) => Ok(()),
        Err(ReplayError::Refused(wrong)) => Err(Failure::Refused(wrong)),
        // `| head` has seen enough.
        Err(ReplayError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.into()),
    }
}
