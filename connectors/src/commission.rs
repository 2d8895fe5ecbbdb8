//! Lines that are used by hand, without a box: what a person asks who stands before the cabinet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidegate_core::diagnostic::did_you_mean;

use crate::{ConnectionConfig, OutputConfig, StreamConfig, can, modbus, serial};

/// What can be done, for each kind of connection that can be used so.
#[derive(Debug, Clone, Subcommand)]
pub enum LineCommand {
    /// Look for Modbus devices, read their registers, write to them; needs no running box
    #[command(subcommand)]
    Modbus(modbus::commission::ModbusCommand),
    /// Show what is on a CAN bus, send frames, replay recordings; needs no running box
    #[command(subcommand)]
    Can(can::commission::CanCommand),
    /// List serial ports, show what comes from one; needs no running box
    #[command(subcommand)]
    Serial(serial::commission::SerialCommand),
}

/// The line that a command uses.
#[derive(Debug, Clone, Args)]
pub struct LineArgs {
    /// The name of a connection in the configuration; or the line itself, as in the examples
    #[arg(value_name = "LINE")]
    pub name: String,
    /// The configuration file; when absent, tidegate.toml in this directory, else
    /// /etc/tidegate/tidegate.toml
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

impl LineArgs {
    /// The connection of the configuration that the line is; `None`: it is written out as a URL or a path.
    #[must_use]
    pub fn connection(&self) -> Option<&str> {
        (!self.name.contains("://") && !self.name.starts_with('/')).then_some(self.name.as_str())
    }
}

/// What the configuration names.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// The connections.
    pub connections: BTreeMap<&'a str, &'a ConnectionConfig>,
    /// The streams that connections feed.
    pub streams: BTreeMap<&'a str, &'a StreamConfig>,
    /// The outputs.
    pub outputs: BTreeMap<&'a str, &'a OutputConfig>,
}

/// What a command says while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum CommandOutput<'a> {
    /// How it goes on, for a person.
    Progress(&'a str),
    /// A line of what was asked for.
    Line(&'a str),
}

/// Takes what a command says; false: nobody listens any more.
pub type Print<'a> = &'a mut (dyn FnMut(CommandOutput<'_>) -> bool + Send);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Heads of the columns.
    pub heads: Vec<&'static str>,
    /// As a person reads it.
    pub rows: Vec<Vec<String>>,
    /// As a program does.
    pub json: serde_json::Value,
    /// Whether something was not answered.
    pub failed: bool,
}

impl<'a> Known<'a> {
    /// The connection `name`, of the kind that `of` takes out. `kind`: what users call that kind; `written`:
    /// how such a line is written out.
    pub(crate) fn connection<T>(
        &self,
        name: &str,
        kind: &str,
        of: impl Fn(&'a ConnectionConfig) -> Option<&'a T>,
        written: &str,
    ) -> Result<&'a T, String> {
        if let Some(found) = self.connections.get(name).and_then(|connection| of(connection)) {
            return Ok(found);
        }
        let all = self.connections.iter().filter(|(_, connection)| of(connection).is_some());
        let names: Vec<&str> = all.map(|(name, _)| *name).collect();
        let help = did_you_mean(name, &names).map(|help| format!("{help}, or ")).unwrap_or_default();
        Err(format!("the configuration has no {kind} connection `{name}`; {help}{written}"))
    }
}

impl LineCommand {
    /// Whether it names a connection of the configuration.
    #[must_use]
    pub fn needs_configuration(&self) -> bool {
        match self {
            Self::Modbus(command) => command.needs_configuration(),
            Self::Can(command) => command.needs_configuration(),
            Self::Serial(command) => command.needs_configuration(),
        }
    }

    /// The file that was named.
    #[must_use]
    pub fn configuration(&self) -> Option<PathBuf> {
        self.line()?.config.clone()
    }

    fn line(&self) -> Option<&LineArgs> {
        match self {
            Self::Modbus(command) => Some(command.line()),
            Self::Can(command) => Some(command.line()),
            Self::Serial(command) => command.line(),
        }
    }

    /// Whether the outcome is printed as JSON.
    #[must_use]
    pub fn is_for_programs(&self) -> bool {
        match self {
            Self::Modbus(command) => command.line().json,
            Self::Can(command) => command.line().json,
            Self::Serial(command) => command.is_for_programs(),
        }
    }

    /// Does it. One that goes on until it is interrupted tells of all there is, and has an empty outcome.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn run(self, known: &Known<'_>, print: Print<'_>) -> Result<Outcome, String> {
        match self {
            Self::Modbus(command) => command.run(known, print).await,
            Self::Can(command) => command.run(known, print).await,
            Self::Serial(command) => command.run(known, print).await,
        }
    }
}
