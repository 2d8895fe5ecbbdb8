//! Log lines: on standard error, as text or JSON.

use std::io::stderr;
use std::sync::Arc;

use tidegate_core::diagnostic::nearest;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::args::{LogArgs, LogFormat, LogLevel};
use super::{Failure, progress, render};
use crate::management::managed_box::LogFilter;

/// Directives when neither `--log-level` nor `-v` is given.
const VARIABLE: &str = "TIDEGATE_LOG";

/// Starts logging; call it once. What is logged can be changed by what is returned.
///
/// # Errors
/// When `TIDEGATE_LOG` cannot be understood, or logging was started before.
pub fn start(args: &LogArgs) -> Result<Arc<LogFilter>, Failure> {
    let directives = directives(args, std::env::var(VARIABLE).ok());
    let (filter, handle) = changeable(&directives).map_err(|error| {
        anyhow::anyhow!(
            "cannot understand {VARIABLE}=\"{directives}\" ({error}): write a level, such as \"debug\""
        )
    })?;
    // A closed standard error must not end the box, so a failed log line is not reported to it.
    let lines = fmt::layer().with_writer(progress::stderr).log_internal_errors(false);
    let lines = match args.format {
        LogFormat::Text => lines.with_ansi(render::colours(&stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| Failure::Failed(anyhow::anyhow!("cannot start logging: {error}")))?;
    without_expressions();
    Ok(handle)
}

/// A function that panics on a row costs that row, which is counted and said with the reason: the trace of
/// each would only fill the log.
fn without_expressions() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tidegate_rules::is_evaluating() {
            hook(panic);
        }
    }));
}

/// A filter by these directives, and what changes it.
///
/// # Errors
/// When they cannot be understood.
pub fn changeable(directives: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Arc<LogFilter>), String> {
    let parse = |directives: &str| {
        levels_only(directives)?;
        EnvFilter::try_new(directives).map_err(|error| error.to_string())
    };
    let (filter, handle) = reload::Layer::new(parse(directives)?);
    let set = move |directives: &str| handle.reload(parse(directives)?).map_err(|error| error.to_string());
    Ok((filter, LogFilter::new(directives, set)))
}

/// The library takes a misspelt level for the name of a part, and logs nothing else any more.
fn levels_only(directives: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let words = directives.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains('='));
    match words.into_iter().find(|word| !is_level(word)) {
        None => Ok(()),
        Some(word) => {
            let near =
                nearest(word, LEVELS).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            Err(format!("there is no level {word}{near}"))
        }
    }
}

fn directives(args: &LogArgs, variable: Option<String>) -> String {
    let level = match args.verbose {
        0 => args.level,
        1 => Some(LogLevel::Debug),
        _ => Some(LogLevel::Trace),
    };
    match (level, variable) {
        (Some(level), _) => level.as_str().into(),
        (None, Some(text)) if !text.trim().is_empty() => text,
        (None, _) => LogLevel::Info.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_part() {
        assert_eq!(levels_only("debgu"), Err("there is no level debgu; did you mean debug?".to_owned()));
        for good in ["INFO", "info,tidegate::buffer=debug", "off", "tidegate=trace, warn", ""] {
            assert_eq!(levels_only(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn the_command_line_outranks_the_environment() {
        let args = |level, verbose| LogArgs { format: LogFormat::Text, level, verbose };
        assert_eq!(directives(&args(None, 0), None), "info");
        assert_eq!(directives(&args(None, 0), Some(String::new())), "info");
        assert_eq!(directives(&args(None, 0), Some("warn".into())), "warn");
        assert_eq!(directives(&args(Some(LogLevel::Error), 0), Some("warn".into())), "error");
        assert_eq!(directives(&args(None, 2), Some("warn".into())), "trace");
    }
}
