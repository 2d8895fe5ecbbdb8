//! Log lines: on standard error, as text or JSON.

use std::io::stderr;

use tracing_subscriber::EnvFilter;

use super::args::{LogArgs, LogFormat, LogLevel};
use super::{Failure, render};

/// Directives when neither `--log-level` nor `-v` is given.
const VARIABLE: &str = "TIDEGATE_LOG";

/// Starts logging; call it once.
///
/// # Errors
/// When `TIDEGATE_LOG` cannot be understood, or logging was started before.
pub fn start(args: &LogArgs) -> Result<(), Failure> {
    let directives = directives(args, std::env::var(VARIABLE).ok());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| anyhow::anyhow!("cannot understand {VARIABLE}=\"{directives}\" ({error}): write a level, such as \"debug\""))?;
    // A closed standard error must not end the box, so a failed log line is not reported to it.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    let started = match args.format {
        LogFormat::Text => builder.with_ansi(render::colours(&stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::Failed(anyhow::anyhow!("cannot start logging: {error}")))
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
    fn the_command_line_outranks_the_environment() {
        let args = |level, verbose| LogArgs { format: LogFormat::Text, level, verbose };
        assert_eq!(directives(&args(None, 0), None), "info");
        assert_eq!(directives(&args(None, 0), Some(String::new())), "info");
        assert_eq!(directives(&args(None, 0), Some("warn".into())), "warn");
        assert_eq!(directives(&args(Some(LogLevel::Error), 0), Some("warn".into())), "error");
        assert_eq!(directives(&args(None, 2), Some("warn".into())), "trace");
    }
}
