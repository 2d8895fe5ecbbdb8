//! `tidegate replay`: what would the rules have done?

use super::args::ReplayArgs;
use super::{Failure, load_config};
use crate::replay::{self, ReplayError, Request};

/// Replays the recordings that the command line names.
///
/// # Errors
/// When configuration, rules or recordings are wrong, or the results cannot be written.
pub fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let mut config = load_config(args.config.config)?;
    if let Some(dir) = args.rules {
        config.rules.dir = dir;
    }
    let inputs: Vec<_> = args.inputs.into_iter().map(|recording| (recording.stream, recording.file)).collect();
    match replay::replay(&Request { config: &config, inputs: &inputs, output: &args.output }) {
        Ok(()) => Ok(()),
        Err(ReplayError::Refused(wrong)) => Err(Failure::Refused(wrong)),
        // `| head` has seen enough.
        Err(ReplayError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.into()),
    }
}
