//! Rules that are scripts in Rhai.
//!
//! * [`options`]: what `//!` lines say beside the options of all rules.
//! * [`engine`]: what of Rhai rules may use, and how much; [`compare`]: comparisons; [`stack`]: room for it.
//! * [`script`]: the file, parsed: constants and the functions that are called; [`check`]: what is wrong with
//!   it, as far as that can be seen without running it.
//! * [`row`]: rows as scripts see them; [`value`]: values in words.
//! * [`call`]: what a script does while it is called; [`write`]: the rows that it writes.
//! * [`library`]: the functions that it can call; [`meter`]: what those that come with Rhai cost.
//! * [`state`]: what it keeps, and [`encoding`], how that lies at rest.
//! * [`run`]: the rule.
//! * [`error`]: what Rhai says, in the words of those who write rules; [`text`]: where it cannot say.

mod call;
mod check;
mod compare;
mod encoding;
mod engine;
mod error;
mod library;
mod meter;
mod options;
mod row;
mod run;
mod script;
mod stack;
mod state;
mod text;
mod value;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::Dynamic;
use tidegate_core::Diagnostic;
use tidegate_core::diagnostic::did_you_mean;

use crate::options::OptionLines;
use crate::rule::Flow;
use crate::target::Target;
use crate::{Catalog, CompileError, Compiled, Source};
use call::Calls;
use engine::{Brake, ColumnPlaces};
use options::RhaiOptions;
use run::{Input, Parts, RhaiRule};
use script::Script;
use write::Outlets;

/// Compiles the script `file` against `catalog`.
///
/// # Errors
/// See [`crate::compile`].
pub(crate) fn compile(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, CompileError> {
    let text = source.text(file).map_err(|wrong| CompileError::Wrong(vec![wrong]))?;
    let lines = OptionLines::find::<RhaiOptions>(file, text);
    let (options, own) = lines.read().map_err(CompileError::Wrong)?;
    let mut wrong = check::options(file, text);
    if !wrong.is_empty() {
        // What is missing may stand there.
        return Err(CompileError::Wrong(wrong));
    }
    let inputs = inputs(&own, &lines, catalog, &mut wrong);
    let targets = targets(&own, &lines, catalog, &mut wrong);
    if !wrong.is_empty() {
        return Err(CompileError::Wrong(wrong));
    }
    let inputs = inputs.map_err(CompileError::Waiting)?;
    let parsed = stack::deep(|| parse(file, text, source, inputs, &targets, catalog));
    let (parts, of_text) = parsed.map_err(CompileError::Wrong)?;
    let mut warnings = options.warnings(&lines);
    warnings.extend(of_text);
    Ok(Compiled { options, rule: Box::new(RhaiRule::new(parts)), warnings })
}

/// With what the rule is made of comes what probably is not meant as it is written.
fn parse(
    file: &str,
    text: &str,
    source: &Source,
    inputs: Vec<Input>,
    targets: &[Target],
    catalog: &Catalog,
) -> Result<(Parts, Vec<Diagnostic>), Vec<Diagnostic>> {
    let columns = columns(&inputs);
    let streams: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
    let (calls, brake) = (Calls::new(Outlets::new(targets, catalog)), Brake::default());
    let (script, written) = Script::parse(file, text, &columns, &streams, &calls, &brake)?;
    let checked = check::script(file, &script, &written, &inputs, &calls)?;
    let flow =
        |input: &Input, target: &Target| Flow { input: Arc::clone(&input.name), target: target.clone() };
    let flows =
        inputs.iter().flat_map(|input| targets.iter().map(move |target| flow(input, target))).collect();
    let (file, version) = (file.to_owned(), Arc::clone(source.sha256()));
    let parts = Parts { file, version, flows, inputs, script, is_deep: checked.is_deep, calls, brake };
    Ok((parts, checked.warnings))
}

/// The streams that it reads; otherwise those whose columns are not known yet.
fn inputs(
    own: &RhaiOptions,
    lines: &OptionLines<'_>,
    catalog: &Catalog,
    wrong: &mut Vec<Diagnostic>,
) -> Result<Vec<Input>, Vec<String>> {
    let (mut inputs, mut waiting): (Vec<Input>, Vec<String>) = (Vec::new(), Vec::new());
    if own.reads.is_empty() {
        let help = "write `//! reads = [\"tank\"]` at the top of the file";
        wrong.push(lines.error("reads", "the script reads no stream", help));
    }
    for name in &own.reads {
        let found =
            catalog.inputs.get(name).cloned().or_else(|| Some(catalog.derived.get(name).cloned()?.into()));
        match found {
            _ if inputs.iter().any(|input| &*input.name == name) || waiting.contains(name) => {
                wrong.push(lines.error(
                    "reads",
                    format!("`{name}` stands here twice"),
                    "leave one of them out",
                ));
            }
            Some(Some(schema)) => {
                inputs.push(Input { name: name.as_str().into(), label: Dynamic::from(name.clone()), schema })
            }
            Some(None) => waiting.push(name.clone()),
            None if catalog.tables.contains_key(name) => {
                let help = "a rule in SQL can join it, and write what comes of that to a derived stream";
                let what = format!("`{name}` is a reference table, which scripts do not read");
                wrong.push(lines.error("reads", what, help));
            }
            None => {
                let known: Vec<&str> =
                    catalog.inputs.keys().chain(catalog.derived.keys()).map(String::as_str).collect();
                let help = did_you_mean(name, &known).unwrap_or_default();
                wrong.push(lines.error("reads", format!("there is no stream `{name}`"), &help));
            }
        }
    }
    if waiting.is_empty() { Ok(inputs) } else { Err(waiting) }
}

/// Where it may write.
fn targets(
    own: &RhaiOptions,
    lines: &OptionLines<'_>,
    catalog: &Catalog,
    wrong: &mut Vec<Diagnostic>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    if own.writes.is_empty() {
        let help = "write `//! writes = [\"cooling_pump\"]` at the top of the file";
        wrong.push(lines.error("writes", "the script may write nowhere, so it could do nothing", help));
    }
    for name in &own.writes {
        match Target::find(name, catalog) {
            Ok(target) if targets.contains(&target) => {
                wrong.push(lines.error(
                    "writes",
                    format!("`{name}` stands here twice"),
                    "leave one of them out",
                ));
            }
            Ok(target) => targets.push(target),
            Err(crate::Unfit::Name { what, help }) => wrong.push(lines.error("writes", what, &help)),
            Err(unfit) => wrong.push(lines.error("writes", unfit.to_string(), "")),
        }
    }
    targets
}

/// The columns of all streams, and where each is in each of them.
fn columns(inputs: &[Input]) -> Vec<ColumnPlaces> {
    let mut columns: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
    for (at, Input { schema, .. }) in inputs.iter().enumerate() {
        for (column, field) in schema.fields().iter().enumerate() {
            let places = columns.entry(field.name()).or_insert_with(|| vec![None; inputs.len()]);
            if let Some(place) = places.get_mut(at) {
                *place = Some(column);
            }
        }
    }
    columns.into_iter().map(|(name, places)| (name.to_owned(), places)).collect()
}
