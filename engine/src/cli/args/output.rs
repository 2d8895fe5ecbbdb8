//! `tidegate output`

use std::sync::Arc;

use clap::{Args, Subcommand};
use tidegate_core::Span;

use super::ConfigArg;
use crate::config::Value;

/// `tidegate output`
#[derive(Debug, Subcommand)]
pub enum OutputCommand {
    /// Show what all outputs do, since when, and why
    List(OutputListArgs),
    /// Show what an output does: values, interlocks that have tripped, and an override with its end
    Show(OutputShowArgs),
    /// Have an output do something for a while, whatever rules claim; interlocks are stronger, and range,
    /// slew and minimum times hold
    #[command(after_help = "Examples:
  tidegate output override cooling_pump run=false --lease 45min --reason \"bearing is changed\"
  tidegate output override valve open=true --instance line=7 --lease 10min --reason test

It ends with its lease, with `tidegate output release`, and when the machine was off for nobody knows how \
        long.")]
    Override(OutputOverrideArgs),
    /// End an override
    Release(OutputSayArgs),
    /// End trips that are latched, where their interlocks are true again
    Reset(OutputSayArgs),
}

/// `tidegate output list`
#[derive(Debug, Args)]
pub struct OutputListArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print it as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate output show`
#[derive(Debug, Args)]
pub struct OutputShowArgs {
    /// The name of an output
    pub name: String,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print it as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Which output is meant.
#[derive(Debug, Args)]
pub struct OutputTarget {
    /// The name of an output
    pub name: String,
    /// Which of those that the output moves, such as line=7
    #[arg(long, alias = "key", value_name = "COLUMN=VALUE")]
    pub instance: Option<String>,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `tidegate output override`
#[derive(Debug, Args)]
pub struct OutputOverrideArgs {
    /// which
    #[command(flatten)]
    pub target: OutputTarget,
    /// Where it is to stay, a value a column: run=false speed=40
    #[arg(value_name = "COLUMN=VALUE", required = true, value_parser = parse_value)]
    pub values: Vec<(Arc<str>, Value)>,
    /// For how long, such as 45min; the contract says how long it may be (`max_lease`)
    #[arg(long, value_name = "TIME")]
    pub lease: Span,
    /// Why: it stands beside the override for all who look
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `tidegate output release` and `reset`
#[derive(Debug, Args)]
pub struct OutputSayArgs {
    /// which
    #[command(flatten)]
    pub target: OutputTarget,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `run=false`: a column and its value. What is neither a truth nor a number is text; quotes make it one.
fn parse_value(text: &str) -> Result<(Arc<str>, Value), String> {
    let Some((column, value)) = text.split_once('=').filter(|(column, _)| !column.trim().is_empty()) else {
        return Err("write COLUMN=VALUE, such as `run=false` or `speed=40`".into());
    };
    let value = value.trim();
    let number = || value.parse::<f64>().ok().filter(|number| number.is_finite());
    let value = match (value, value.parse::<i64>()) {
        ("true", _) => Value::Bool(true),
        ("false", _) => Value::Bool(false),
        (_, Ok(whole)) => Value::Int(whole),
        (text, _) => match (number(), text.strip_prefix('"').and_then(|text| text.strip_suffix('"'))) {
            (Some(number), _) => Value::Float(number),
            (None, quoted) => Value::Text(quoted.unwrap_or(text).into()),
        },
    };
    Ok((column.trim().into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_people_do() {
        for (text, column, value) in [
            ("run=false", "run", Value::Bool(false)),
            ("speed=40", "speed", Value::Int(40)),
            ("speed = 4.5e1", "speed", Value::Float(45.0)),
            ("mode=auto", "mode", Value::Text("auto".into())),
            ("mode=\"7\"", "mode", Value::Text("7".into())),
            ("mode=a=b", "mode", Value::Text("a=b".into())),
            ("mode=nan", "mode", Value::Text("nan".into())),
            ("mode=", "mode", Value::Text("".into())),
        ] {
            assert_eq!(parse_value(text), Ok((column.into(), value)), "{text}");
        }
        assert!(parse_value("run").is_err() && parse_value("=1").is_err());
    }
}
