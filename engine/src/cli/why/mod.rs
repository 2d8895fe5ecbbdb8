//! `tidegate why`: what an output does, and what led to it.
//!
//! [`mod@found`] gathers what is kept in the buffer, and [`text`] says it.

mod found;
mod text;

#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use tidegate_core::diagnostic::nearest;

use super::args::{BufferFileArgs, WhyArgs};
use super::moment::Times;
use super::{Failure, load_config, print};
use crate::buffer::inspect::Inspector;
use found::{About, Found, Withheld};

/// Says why an output does what it does, or, with `--not`, why it did not do something.
///
/// # Errors
/// When there is no such output, the buffer cannot be read, or nothing was decided yet.
pub fn why(args: WhyArgs) -> Result<(), Failure> {
    let WhyArgs { output, file, at, instance, not, rule, limit, json } = args;
    let (path, mut outputs) = match file {
        BufferFileArgs { buffer: Some(path), config } if config.config.is_none() => (path, Vec::new()),
        BufferFileArgs { buffer, config } => {
            let config = load_config(config.config)?;
            (buffer.unwrap_or(config.buffer.path), config.outputs.into_keys().collect())
        }
    };
    let inspector = Inspector::open(&path)?;
    let is_configured = outputs.contains(&output);
    let decided = inspector.decided_outputs()?;
    if !decided.contains(&output) {
        outputs.extend(decided);
        return Err(Failure::Failed(nothing(&output, is_configured, &outputs, inspector.layout())));
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

/// Nothing is known of an output.
fn nothing(output: &str, is_configured: bool, outputs: &[String], layout: i64) -> anyhow::Error {
    if layout < 6 {
        return anyhow::anyhow!(
            "the buffer has layout {layout}, which keeps no decisions; the next start of a newer tidegate \
            begins with it"
        );
    }
    if is_configured {
        return anyhow::anyhow!(
            "nothing was decided about `{output}` yet: decisions are kept of outputs that have a contract \
            ([outputs.{output}.contract]), from the first row on that a rule writes to them"
        );
    }
    let help = match nearest(output, outputs.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if outputs.is_empty() => "nothing was decided about any output yet".to_owned(),
        None => format!("there are: {}", outputs.join(", ")),
    };
    anyhow::anyhow!("there is no output `{output}`; {help}")
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
