//! `tidegate why`: what an output does, and what led to it.
//!
//! [`mod@found`] gathers what is kept in the buffer, and [`text`] says it.

mod found;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use tidegate_core::diagnostic::nearest;

use super::args::{BufferFileArgs, WhyArgs};
use super::moment::Times;
use super::{Failure, load_config, print};
use crate::buffer::inspect::Inspector;
use crate::config::Output;
use crate::management::client::{AskError, Client};
use found::{About, Found, Withheld};

/// Says why an output does what it does, or, with `--not`, why it did not do something.
///
/// # Errors
/// When there is no such output, the buffer cannot be read, or nothing was decided yet.
pub fn why(args: WhyArgs) -> Result<(), Failure> {
    let WhyArgs { output, file, at, instance, not, rule, limit, json } = args;
    let (path, config) = match file {
        BufferFileArgs { buffer: Some(path), config } if config.config.is_none() => (path, None),
        BufferFileArgs { buffer, config } => {
            let config = load_config(config.config)?;
            (buffer.unwrap_or_else(|| config.buffer.path.clone()), Some(config))
        }
    };
    let inspector = Inspector::open(&path)?;
    let decided = inspector.decided_outputs()?;
    if !decided.contains(&output) {
        let layout = inspector.layout();
        let undecided = match config.as_ref().and_then(|config| config.outputs.get(&output)) {
            _ if layout < 6 => Undecided::Unkept { layout },
            Some(Output { contract: None, .. }) => Undecided::Ungoverned,
            Some(_) => Undecided::Unclaimed {
                no_box: config.as_ref().and_then(|config| Client::connect(&config.data_dir).err()),
            },
            None => {
                let configured = config.iter().flat_map(|config| config.outputs.keys().cloned());
                Undecided::Unknown { outputs: configured.chain(decided).collect() }
            }
        };
        return Err(Failure::Failed(undecided.error(&output)));
    }
    let times = Times::new(inspector.wall_times()?, jiff::Timestamp::now(), TimeZone::system());
    let about = About { inspector: &inspector, output: &output, instance, rule, until_ns: at };
    let said = if not {
        let withheld = Withheld::look(&about, limit)?;
        if json { withheld.json(&times)? } else { text::withheld(&withheld, &times) }
    } else {
        match Found::look(&about)? {
            Some(found) if json => found.json(&times)?,
            Some(found) => text::found(&found, &times),
            None => return Err(Failure::Failed(nothing_of(&about))),
        }
    };
    print(&said)
}

/// Why nothing was decided about an output.
enum Undecided {
    /// Decisions are not kept here.
    Unkept { layout: i64 },
    /// It has no contract.
    Ungoverned,
    /// It has one, and no rule has claimed anything; `no_box`: none runs that could.
    Unclaimed { no_box: Option<AskError> },
    /// There is none of this name; there are these.
    Unknown { outputs: BTreeSet<String> },
}

impl Undecided {
    fn error(self, output: &str) -> anyhow::Error {
        match self {
            Self::Unkept { layout } => anyhow::anyhow!(
                "the buffer has layout {layout}, which keeps no decisions; the next start of a newer \
                tidegate begins with it"
            ),
            Self::Ungoverned => anyhow::anyhow!(
                "`{output}` has no contract: what rules write goes out as it is, and nothing is decided \
                about it; with [outputs.{output}.contract] there is (`tidegate tail {output}` shows what is \
                written)"
            ),
            Self::Unclaimed { no_box: None } => anyhow::anyhow!(
                "nothing was decided about `{output}` yet: it has a contract, and the box runs, but no rule \
                has claimed anything of it; `tidegate status` says which rules run, and whether rows come"
            ),
            Self::Unclaimed { no_box: Some(error) } => {
                anyhow::anyhow!("nothing was decided about `{output}` yet: it has a contract, but {error}")
            }
            Self::Unknown { outputs } => {
                let help = match nearest(output, outputs.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if outputs.is_empty() => "nothing was decided about any output yet".to_owned(),
                    None => format!("there are: {}", Vec::from_iter(outputs.iter().cloned()).join(", ")),
                };
                anyhow::anyhow!("there is no output `{output}`; {help}")
            }
        }
    }
}

/// Nothing is known of what was asked of an output that is known.
fn nothing_of(about: &About<'_>) -> anyhow::Error {
    let mut asked = Vec::new();
    asked.extend(about.instance.as_ref().map(|instance| format!("--instance {instance}")));
    asked.extend(about.rule.as_ref().map(|rule| format!("--rule {rule}")));
    asked.extend(about.until_ns.map(|_| "--at".to_owned()));
    let output = about.output;
    if asked.is_empty() {
        return anyhow::anyhow!(
            "nothing was sent to `{output}` yet, as far as decisions go back; `tidegate why {output} --not` \
            says what was refused or held back"
        );
    }
    anyhow::anyhow!(
        "nothing that was sent to `{output}` is kept for {}; `tidegate buffer stats` says how far decisions \
        go back",
        asked.join(" and ")
    )
}
