//! `override`: an output does what a person wants, for a while.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_core::diagnostic::nearest;
use tidegate_core::{FieldType, Span};

use super::outputs::Meant;
use super::{Caller, Listener, ManagementCommand, Right};
use crate::config::{Value, Values};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::{Code, Refusal};
use crate::system::control::{ControlEvent, ControlKind};

/// Has an output stay at these values, whatever rules claim. Interlocks are stronger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// the output
    pub output: String,
    /// which of what it moves, such as `line=7`; absent where there is one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// what it is told, by column
    pub values: Values,
    /// for how long
    pub lease: Span,
    /// why, for whoever asks later
    pub reason: String,
}

/// What a box was told of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// the output
    pub output: String,
    /// which of what it moves; empty where there is one
    pub instance: String,
    /// of an override
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub values: Values,
}

impl ManagementCommand for Override {
    const OP: &'static str = "override";
    const NEEDS: Right = Right::Operate;
    type Answer = Told;
    type Part = ();

    async fn run(self, managed: &ManagedBox, caller: &Caller, _: &mut dyn Listener) -> Result<Told, Refusal> {
        let meant = Meant::find(managed, &self.output, self.instance.as_deref())?;
        let invalid = |reason: String| Refusal::new(Code::Invalid, reason);
        let most = meant.contract.max_lease;
        if self.lease.0.is_zero() || self.lease.0 > most {
            let reason = format!("`{}` may be overridden for {} at most", self.output, Span(most));
            return Err(invalid(reason)
                .help(format!("say `--lease {}` or less, and do it again before it ends", Span(most))));
        }
        if self.reason.trim().is_empty() {
            let help = "say `--reason \"..\"`: it stands beside the override for all who look";
            return Err(invalid("it is not said why".into()).help(help));
        }
        let columns = meant.output.config.columns();
        let values = values(&self.output, &meant.contract.key, columns.as_deref(), self.values)?;
        let event = ControlEvent {
            values: values.clone(),
            lease: Some(self.lease.0),
            reason: Some(self.reason.trim().into()),
            ..by_a_person(ControlKind::Override, &meant, caller)
        };
        say(managed, caller, event)?;
        Ok(Told { values, ..Told::about(&meant) })
    }
}

impl Told {
    pub(super) fn about(meant: &Meant<'_>) -> Self {
        let (output, instance) = (meant.name.to_string(), meant.instance.to_string());
        Self { output, instance, values: Values::new() }
    }
}

/// What a person says of an output.
pub(super) fn by_a_person(event: ControlKind, meant: &Meant<'_>, caller: &Caller) -> ControlEvent {
    ControlEvent {
        event,
        output: Some(Arc::clone(&meant.name)),
        instance: Arc::clone(&meant.instance),
        values: Values::new(),
        lease: None,
        reason: None,
        who: Some(caller.name.as_str().into()),
        off_known: None,
    }
}

/// Hands `event` to the box, and logs it.
pub(super) fn say(managed: &ManagedBox, caller: &Caller, event: ControlEvent) -> Result<(), Refusal> {
    let (what, output) = (event.event.word(), event.output.clone().unwrap_or_default());
    let (instance, reason) = (Arc::clone(&event.instance), event.reason.clone().unwrap_or_default());
    managed.control.say(event).map_err(|error| {
        let refusal = Refusal::new(Code::Busy, error.to_string());
        refusal.help("see whether the box is held up (`tidegate status`), and try again")
    })?;
    tracing::info!(asked_by = caller.name, what, %output, %instance, %reason, "a person speaks to an output");
    Ok(())
}

/// The values in the types of the output's columns.
fn values(
    output: &str,
    key: &[Arc<str>],
    columns: Option<&[(String, FieldType)]>,
    said: Values,
) -> Result<Values, Refusal> {
    let invalid = |reason: String| Refusal::new(Code::Invalid, reason);
    let known = || columns.into_iter().flatten().filter(|(name, _)| !key.iter().any(|key| **key == **name));
    let all = || known().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if said.is_empty() {
        let example = known().next().map_or("run", |(name, _)| name);
        return Err(invalid("it is not said where the output goes".into())
            .help(format!("say a value for a column, such as `{example}=..`")));
    }
    let mut values = Values::new();
    for (column, value) in said {
        if key.contains(&column) {
            let reason = format!("`{column}` says which one is meant, not where it goes");
            return Err(invalid(reason).help(format!("say `--instance {column}=..`")));
        }
        let typed = match columns {
            None => value,
            Some(columns) => {
                let Some((_, kind)) = columns.iter().find(|(name, _)| **name == *column) else {
                    let refusal = invalid(format!("output `{output}` has no column `{column}`"));
                    return Err(match nearest(&column, known().map(|(name, _)| name.as_str())) {
                        Some(near) => refusal.help(format!("did you mean `{near}`?")),
                        None => refusal.help(format!("it has: {}", all())),
                    });
                };
                in_column(&value, *kind).ok_or_else(|| {
                    let reason = format!("column `{column}` of `{output}` takes {kind}, and {value} is none");
                    invalid(reason).help(format!("write it as `{column}={}`", example(*kind)))
                })?
            }
        };
        values.insert(column, typed);
    }
    Ok(values)
}

/// The value in a column of this type. What stands for a number or a truth may be meant as text.
fn in_column(value: &Value, kind: FieldType) -> Option<Value> {
    match (kind, value) {
        (FieldType::Utf8, Value::Bool(_) | Value::Int(_) | Value::Float(_)) => {
            Some(Value::Text(value.to_string().into()))
        }
        _ => value.of_type(kind),
    }
}

fn example(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Bool => "true",
        FieldType::Int64 => "3",
        FieldType::Float64 => "1.5",
        _ => "text",
    }
}
