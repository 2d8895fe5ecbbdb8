//! What can be said of plugins.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, parse_recording};
use crate::replay::Input;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Start a project: a plugin in Rust that works, with its test
    #[command(after_help = "Example:
  tidegate plugin new overheat && cd overheat && tidegate plugin test")]
    New(NewArgs),
    /// Build the plugin of a project
    #[command(after_help = "Examples:
  tidegate plugin build
  tidegate plugin build --into /etc/tidegate/rules

Plugins in Rust need a compiler for them, once: rustup target add wasm32-unknown-unknown")]
    Build(BuildArgs),
    /// Run a plugin on recorded rows: once as a replay would, and again with other batches and new instances
    #[command(after_help = "Examples:
  tidegate plugin test
  tidegate plugin test overheat.wasm --config tidegate.toml --input tank=yesterday.jsonl

A project is built before. Its recordings are test/STREAM.jsonl (or .csv), the box that it is on is
test/tidegate.toml, and what has to come out is test/expected.jsonl, if that is there.")]
    Test(TestArgs),
    /// Show what is in a plugin
    #[command(after_help = "Example:
  tidegate plugin inspect overheat.wasm")]
    Inspect(InspectArgs),
    /// Sign a plugin and its manifest, in minisign's format
    #[command(after_help = "Example:
  minisign -G
  tidegate plugin sign overheat.wasm --key ~/.minisign/minisign.key

Boxes trust the public keys in their configuration: `trusted_keys` of [rules].")]
    Sign(SignArgs),
}

/// `tidegate plugin new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// What the plugin is called
    pub name: String,
    /// Where the project goes; when absent, into a new directory with the plugin's name
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tidegate plugin build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The project's directory
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// A rules directory that the plugin is put into
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
}

/// `tidegate plugin test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// A project's directory, or a plugin
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// The configuration whose streams and outputs there are
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Recorded rows and the stream that they are of; may be given several times
    #[arg(long = "input", short, value_name = "STREAM=FILE", value_parser = parse_recording)]
    pub inputs: Vec<Input>,
    /// What has to come out
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
    /// Write what comes out as what has to come out
    #[arg(long)]
    pub accept: bool,
    /// Where batches are cut: another number, other cuts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// `tidegate plugin inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// NAME.wasm
    pub plugin: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `tidegate plugin sign`
#[derive(Debug, Args)]
pub struct SignArgs {
    /// NAME.wasm
    pub plugin: PathBuf,
    /// The secret key, as minisign keeps it
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[test]
    fn the_plugin_may_stand_behind_its_recordings() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            test: TestArgs,
        }
        let line =
            ["test", "--config", "box.toml", "--input", "a=a.csv", "--input", "b=b.csv", "kalman.wasm"];
        let test = Line::try_parse_from(line).unwrap().test;
        assert_eq!((test.plugin, test.inputs.len()), (PathBuf::from("kalman.wasm"), 2));
    }
}
