//! Commands that use a line by hand, without a box.

use std::io::Write as _;

use tidegate_connectors::commission::{CommandOutput, Known, LineCommand};

use super::render::printable;
use super::{Failure, load_config, print, table};
use crate::config::{Config, Stream};

/// Does it, and prints what came of it.
///
/// # Errors
/// When the line cannot be opened, or something was not answered.
pub fn commission(command: LineCommand) -> Result<(), Failure> {
    let config = match command.needs_configuration() {
        true => Some(load_config(command.configuration())?),
        false => None,
    };
    let known = config.as_ref().map(known).unwrap_or_default();
    let is_for_programs = command.is_for_programs();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut show = |output: CommandOutput<'_>| match output {
        CommandOutput::Progress(line) => writeln!(std::io::stderr().lock(), "{}", printable(line)).is_ok(),
        CommandOutput::Line(line) => writeln!(std::io::stdout().lock(), "{}", printable(line)).is_ok(),
    };
    let outcome = runtime.block_on(command.run(&known, &mut show)).map_err(anyhow::Error::msg)?;
    if outcome.heads.is_empty() && !outcome.failed {
        return Ok(());
    }
    if is_for_programs {
        print(&format!("{:#}\n", outcome.json))?;
    } else {
        let mut text = String::new();
        table::wide(&mut text, &outcome.heads, &vec![false; outcome.heads.len()], outcome.rows);
        print(&text)?;
    }
    if outcome.failed {
        return Err(Failure::Failed(anyhow::anyhow!("not all was answered")));
    }
    Ok(())
}

fn known(config: &Config) -> Known<'_> {
    Known {
        connections: config.connections.iter().map(|(name, of)| (name.as_str(), of)).collect(),
        streams: config
            .streams
            .iter()
            .filter_map(|(name, stream)| match stream {
                Stream::Input(stream) => Some((name.as_str(), stream)),
                Stream::Derived { .. } => None,
            })
            .collect(),
        outputs: config.outputs.iter().map(|(name, output)| (name.as_str(), &output.config)).collect(),
    }
}
