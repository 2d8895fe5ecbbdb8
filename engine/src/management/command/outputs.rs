//! `outputs`: what each output does, since when, and why.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::diagnostic::nearest;

use super::{Caller, Listener, ManagementCommand, Right};
use crate::config::{Contract, Output, Values};
use crate::decision::Origin;
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::{Code, Refusal};
use crate::management::report::ago;
use crate::status::OutputState;

/// Asks what outputs do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// one of them; absent: all
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What an output does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputDoes {
    /// its name
    pub name: String,
    /// whether it has a contract; without one nothing else is known
    pub contract: bool,
    /// what it moves, by the names of instances
    pub instances: Vec<InstanceDoes>,
}

/// What one of those does that an output moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceDoes {
    /// such as `line=7`; empty where there is one
    pub instance: String,
    /// what was sent
    pub values: Values,
    /// whether the device is known to have it
    pub confirmed: bool,
    /// whose will it is; null: nothing was sent since the start
    pub by: Option<Origin>,
    /// since when
    pub since: String,
    /// for how long
    pub for_s: u64,
    /// all that in words
    pub sentence: String,
    /// interlocks that have tripped, and why
    pub interlocks: Vec<String>,
    /// what a person wants
    #[serde(rename = "override")]
    pub overridden: Option<OverrideHolds>,
}

/// What a person wants, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideHolds {
    /// who
    pub who: String,
    /// why
    pub reason: String,
    /// what
    pub values: Values,
    /// for how much longer
    pub left_s: u64,
}

impl ManagementCommand for Outputs {
    const OP: &'static str = "outputs";
    const NEEDS: Right = Right::Read;
    type Answer = Vec<OutputDoes>;
    type Part = ();

    async fn run(
        self,
        managed: &ManagedBox,
        _: &Caller,
        _: &mut dyn Listener,
    ) -> Result<Vec<OutputDoes>, Refusal> {
        if let Some(name) = &self.name {
            return Ok(vec![does(managed, name, output(managed, name)?)]);
        }
        Ok(managed.config.outputs.iter().map(|(name, output)| does(managed, name, output)).collect())
    }
}

fn does(managed: &ManagedBox, name: &str, output: &Output) -> OutputDoes {
    let states = managed.status.outputs.get(name).map_or_else(Vec::new, |status| status.states.all());
    let now = managed.time.now();
    let instances = states.into_iter().map(|(instance, state)| instance_does(&instance, state, now));
    OutputDoes { name: name.to_owned(), contract: output.contract.is_some(), instances: instances.collect() }
}

fn instance_does(instance: &str, state: OutputState, now: i64) -> InstanceDoes {
    let between =
        |from: i64, to: i64| Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(0));
    let age = between(state.since_ns, now);
    InstanceDoes {
        instance: instance.to_owned(),
        values: state.values,
        confirmed: state.confirmed,
        by: state.by,
        since: ago(age),
        for_s: age.as_secs(),
        sentence: state.sentence,
        interlocks: state.interlocks,
        overridden: state.overridden.map(|overridden| OverrideHolds {
            who: overridden.who.to_string(),
            reason: overridden.reason.to_string(),
            left_s: between(now, overridden.until_ns).as_secs(),
            values: overridden.values,
        }),
    }
}

/// The output of this name.
fn output<'a>(managed: &'a ManagedBox, name: &str) -> Result<&'a Output, Refusal> {
    let outputs = &managed.config.outputs;
    outputs.get(name).ok_or_else(|| {
        let refusal = Refusal::new(Code::NotFound, format!("there is no output `{name}`"));
        match nearest(name, outputs.keys().map(String::as_str)) {
            Some(near) => refusal.help(format!("did you mean `{near}`?")),
            None => refusal.help("`tidegate output list` lists them"),
        }
    })
}

/// An output that a person says something of, and which of what it moves.
pub(super) struct Meant<'a> {
    pub(super) name: Arc<str>,
    pub(super) output: &'a Output,
    pub(super) contract: &'a Contract,
    pub(super) instance: Arc<str>,
}

impl<'a> Meant<'a> {
    /// The output of this name, and the instance that is written as `line=7,side=left`.
    ///
    /// # Errors
    /// When it is not there, has no contract, or it is not clear which instance is meant.
    pub(super) fn find(managed: &'a ManagedBox, name: &str, instance: Option<&str>) -> Result<Self, Refusal> {
        if managed.is_stopping() {
            return Err(Refusal::new(Code::Unable, "the box stops"));
        }
        let output = output(managed, name)?;
        let Some(contract) = &output.contract else {
            let reason = format!("output `{name}` has no contract, and obeys rules only");
            let help = format!("write [outputs.{name}.contract], or stop the rules that write to it");
            return Err(Refusal::new(Code::Unable, reason).help(help));
        };
        let known = managed.status.outputs.get(name).map_or_else(Vec::new, |status| status.states.all());
        let known: Vec<&str> = known.iter().map(|(instance, _)| &**instance).collect();
        let instance = named(name, &contract.key, instance, &known)?;
        if !contract.key.is_empty() && !known.contains(&&*instance) {
            let reason = format!("nothing was claimed of `{name}` with {instance} since it is there");
            let refusal = Refusal::new(Code::NotFound, reason);
            return Err(match nearest(&instance, known.iter().copied()) {
                Some(near) => refusal.help(format!("did you mean {near}?")),
                None => refusal.help(format!("`tidegate output show {name}` lists what it moves")),
            });
        }
        Ok(Self { name: name.into(), output, contract, instance })
    }
}

/// The instance as contracts name it: all columns of the key, in their order.
fn named(output: &str, key: &[Arc<str>], said: Option<&str>, known: &[&str]) -> Result<Arc<str>, Refusal> {
    let invalid = |reason: String| Refusal::new(Code::Invalid, reason);
    let all = key.iter().map(|column| format!("{column}=..")).collect::<Vec<_>>().join(",");
    let example = known.first().map_or(all, |known| (*known).to_owned());
    let Some(said) = said.filter(|said| !said.is_empty()) else {
        if key.is_empty() {
            return Ok("".into());
        }
        let reason = format!("output `{output}` moves several things, and it is not said which");
        return Err(invalid(reason).help(format!("say `--instance {example}`")));
    };
    if key.is_empty() {
        let reason = format!("output `{output}` moves one thing, and has no instance {said}");
        return Err(invalid(reason).help("leave `--instance` away"));
    }
    let mut parts: Vec<(&str, &str)> = Vec::new();
    for part in said.split(',') {
        let Some((column, value)) = part.split_once('=') else {
            return Err(
                invalid(format!("`{part}` names no instance")).help(format!("say `--instance {example}`"))
            );
        };
        if !key.iter().any(|known| **known == *column) {
            let refusal = invalid(format!("`{column}` does not tell apart what `{output}` moves"));
            return Err(match nearest(column, key.iter().map(|column| &**column)) {
                Some(near) => refusal.help(format!("did you mean `{near}`?")),
                None => refusal.help(format!("say `--instance {example}`")),
            });
        }
        parts.push((column, value));
    }
    parts.sort_unstable();
    let columns: std::collections::BTreeSet<&str> = parts.iter().map(|(column, _)| *column).collect();
    if columns.len() != parts.len() || columns.len() != key.len() {
        let reason = format!("{said} does not name each column of the key of `{output}` once");
        return Err(invalid(reason).help(format!("say `--instance {example}`")));
    }
    Ok(parts.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(",").into())
}
